package bpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"github.com/cilium/ebpf"
)

// Maps with less room than they have, so that they are full at once. What the agent writes and
// the error that it gets are in pkg/pseudowire/tcbpf; here is what programs write.

// little gives a map of a specification that many entries.
func little(t *testing.T, load func() (*ebpf.CollectionSpec, error), name string, entries uint32) *ebpf.CollectionSpec {
	t.Helper()
	spec, err := load()
	if err != nil {
		t.Fatal(err)
	}
	spec.Maps[name].MaxEntries = entries
	return spec
}

func loadLittle(t *testing.T, name string, entries uint32) *Objects {
	t.Helper()
	load(t).Close()
	spec := little(t, loadObject, name, entries)
	withoutClamp(spec)
	o, err := loadSpec(spec, "")
	if err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(func() { o.Close() })
	return o
}

// flow is a UDP datagram of one of many flows.
func flow(n int) []byte {
	b := append(bytes.Clone(frame[:12]), 8, 0, 0x45, 0, 0, 46, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2)
	b = binary.BigEndian.AppendUint16(b, uint16(n))
	return append(b, make([]byte, 24)...)
}

// More flows than are remembered go over from one way to another: each frame takes one of the
// two.
func TestMoreFlowsThanRemembered(t *testing.T) {
	const flows = 2000
	o := loadLittle(t, objectMapPauses, 64)
	sessions(t, o)
	steer := Steer{Until: Now() + uint64(time.Minute), Ways: 2, Was: 1}
	for i := range 2 {
		way, _ := SteerWay(device, i)
		tx := transmit(t, false, "0102030405060708")
		steer.Way[i].Key, steer.Way[i].Seed = way, uint64(i+1)
		if err := o.Pseudowires.Put(way, &tx); err != nil {
			t.Fatal(err)
		}
	}
	tx := transmit(t, false, "0102030405060708")
	tx.Flags |= TransmitSteered
	if err := errors.Join(o.Steers.Put(device, &steer), o.Pseudowires.Put(device, &tx)); err != nil {
		t.Fatal(err)
	}
	for n := range 2 * flows {
		if action, _, _ := run(t, o.Encap, flow(n%flows), 0); action != redirect {
			t.Fatalf("action %#x for frame %d", action, n)
		}
	}
	c, err := o.Counts.Sum(session4)
	if err != nil || c.Transmitted.Frames != 2*flows {
		t.Errorf("%d frames were sent of %d (%v)", c.Transmitted.Frames, 2*flows, err)
	}
}

// More pseudowires than are remembered answer that frames are too big: each frame is counted,
// answered or not.
func TestMoreAnswersThanRemembered(t *testing.T) {
	const pseudowires = 200
	o := loadLittle(t, objectMapAnswers, 16)
	sessions(t, o)
	in := flow(0)
	in = append(in, make([]byte, 1400-len(in))...)
	binary.BigEndian.PutUint16(in[16:], uint16(len(in)-14))
	answers := 0
	for i := range uint32(pseudowires) {
		tx := transmit(t, false, "0102030405060708")
		tx.Flags |= TransmitDF
		tx.Mtu, tx.Room, tx.Device = 1280, 1222, device
		if err := o.Pseudowires.Put(100+i, &tx); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			switch action, _, _ := run(t, o.Lane, in, 100+i); action {
			case redirect:
				answers++
			case shot:
			default:
				t.Fatalf("action %#x", action)
			}
		}
	}
	c, err := o.Counts.Sum(session4)
	if err != nil || c.Events[Oversize] != 3*pseudowires || c.Transmitted.Frames != 0 {
		t.Errorf("counted %+v (%v)", c, err)
	}
	if answers == 0 {
		t.Error("none was answered")
	}
}

// arp is a message of a host, its address a number, for another.
func arp(op byte, from, to int) []byte {
	mac := func(n int) []byte { return []byte{2, 1, 0, 0, byte(n >> 8), byte(n)} }
	ip := func(n int) []byte { return []byte{10, 0, byte(n >> 8), byte(n)} }
	b := append(bytes.Repeat([]byte{0xff}, 6), mac(from)...)
	b = append(b, 8, 6, 0, 1, 8, 0, 6, 4, 0, op)
	b = append(append(b, mac(from)...), ip(from)...)
	b = append(append(b, make([]byte, 6)...), ip(to)...)
	return append(b, make([]byte, 60-len(b))...)
}

// Of more hosts than are remembered, requests for some are answered, and those for the others
// cross the pseudowire: none is dropped.
func TestMoreNeighboursThanRemembered(t *testing.T) {
	const hosts, asks = 1000, 5000
	for _, name := range []string{suppressMapNeighbours, suppressMapStations} {
		t.Run(name, func(t *testing.T) {
			load(t).Close()
			s, err := loadSuppressionSpec(little(t, loadSuppress, name, 64), time.Minute)
			if err != nil {
				t.Fatalf("%+v", err)
			}
			defer s.Close()
			if err := s.Counts.Put(device, &Suppressions{}); err != nil {
				t.Fatal(err)
			}
			for n := range hosts {
				if action, _, _ := run(t, s.Out, arp(2, n, asks), 0); action != pass {
					t.Fatalf("action %#x for what comes out of the pseudowire", action)
				}
			}
			answered := uint64(0)
			for n := range hosts {
				switch action, _, _ := run(t, s.Into, arp(1, asks, n), 0); action {
				case pass:
				case redirect:
					answered++
				default:
					t.Fatalf("action %#x for a request", action)
				}
			}
			c, err := s.Counts.Get(device)
			if err != nil || c.Answered != answered || c.Withheld != 0 {
				t.Errorf("counted %+v (%v), %d were answered", c, err, answered)
			}
			if answered == 0 || answered > 64 {
				t.Errorf("%d of %d requests were answered, 64 are remembered at most", answered, hosts)
			}
		})
	}
}

// Where a map of the native service processing is full, one more device is an error, and those
// that there are keep what they have.
func TestServicesFull(t *testing.T) {
	load(t).Close()
	for _, name := range []string{nspMapServices, nspMapRefused, nspMapDue, nspMapStations} {
		t.Run(name, func(t *testing.T) {
			n, err := loadNSPSpec(little(t, loadNsp, name, 14), "")
			if err != nil {
				t.Fatalf("%+v", err)
			}
			defer n.Close()
			all := Service{Interval: [3]uint64{1, 1, 1}, Police: 1}
			first := uint32(1)
			next := first
			for ; err == nil; next++ {
				err = n.Put(next, &all)
			}
			if !errors.Is(err, ErrFull) {
				t.Fatal(err)
			}
			if err := n.Delete(next - 1); err != nil {
				t.Fatal(err)
			}
			if err := n.Put(next-1, &all); !errors.Is(err, ErrFull) {
				t.Errorf("once more: %v", err)
			}
			if s, err := n.Services.Get(first); err != nil || s != all {
				t.Errorf("the first device has %+v (%v)", s, err)
			}
			if err := errors.Join(n.Delete(first), n.Delete(next-1), n.Put(next-1, &all)); err != nil {
				t.Errorf("with room again: %v", err)
			}
		})
	}
}
