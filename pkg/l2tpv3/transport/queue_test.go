package transport

import (
	"testing"

	"pgregory.net/rapid"
)

// TestQueueOrder: lower classes first, first in first out within a class.
func TestQueueOrder(t *testing.T) {
	q := newQueue()
	for i, c := range []class{strangerData, peerData, strangerControl, peerControl, peerData, peerControl, knownControl} {
		if !q.put(c, Packet{Connection: uint32(c)*10 + uint32(i)}, []byte{byte(i)}) {
			t.Fatalf("put %d refused", i)
		}
	}
	want := []uint32{3, 5, 16, 22, 31, 34, 40}
	for _, w := range want {
		if p, ok := q.get(); !ok || p.Connection != w {
			t.Errorf("got %d %v, want %d", p.Connection, ok, w)
		}
	}
	if p, ok := q.get(); ok {
		t.Errorf("got %v from an empty queue", p)
	}
}

// TestQueueBounds: each class is bounded by packets and by octets, and a full
// one leaves room for the others.
func TestQueueBounds(t *testing.T) {
	for c := range classes {
		for _, size := range []int{2, 1500, 65535} {
			q := newQueue()
			n := 0
			for q.put(c, Packet{}, make([]byte, size)) {
				n++
			}
			if want := min(limits[c].packets, limits[c].octets/size); n != want {
				t.Errorf("class %d took %d packets of %d octets, want %d", c, n, size, want)
			}
			for other := range classes {
				if got := q.put(other, Packet{}, make([]byte, size)); got != (other != c) {
					t.Errorf("class %d full: class %d took a packet: %v", c, other, got)
				}
			}
		}
	}
}

// TestQueueModel compares the queue with plain slices.
func TestQueueModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		q := newQueue()
		var model [classes][]byte
		for range rapid.IntRange(0, 200).Draw(t, "steps") {
			if rapid.Bool().Draw(t, "put") {
				c := class(rapid.IntRange(0, int(classes)-1).Draw(t, "class"))
				b := rapid.Byte().Draw(t, "payload")
				if !q.put(c, Packet{}, []byte{b}) {
					t.Fatalf("refused with %d waiting", len(model[c]))
				}
				model[c] = append(model[c], b)
				continue
			}
			p, ok := q.get()
			var want []byte
			for c := range model {
				if len(model[c]) > 0 {
					want, model[c] = model[c][:1], model[c][1:]
					break
				}
			}
			if ok != (want != nil) || ok && p.Payload[0] != want[0] {
				t.Fatalf("got %v %v, want %v", p.Payload, ok, want)
			}
		}
	})
}

// TestQueueClosed: what was waiting is gone, nothing is taken in any more, and who takes
// finds nothing.
func TestQueueClosed(t *testing.T) {
	q := newQueue()
	for range 3 {
		q.put(peerControl, Packet{}, []byte{1})
	}
	q.close()
	q.close()
	if p, ok := q.get(); ok {
		t.Errorf("got %v from a closed queue", p)
	}
	if q.put(peerControl, Packet{}, []byte{1}) {
		t.Error("a closed queue takes a packet")
	}
	<-q.wake
	if _, open := <-q.wake; open {
		t.Error("who waits is not woken")
	}
}
