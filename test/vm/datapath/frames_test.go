//go:build vm

package datapath

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pwd-project/pwd/internal/netlab"
)

// Kinds of frames: each size is sent to each kind of destination, tagged and not.
var (
	destinations = []struct {
		name string
		mac  net.HardwareAddr
	}{
		{"unicast", net.HardwareAddr{0x02, 0, 0, 0, 0, 0x0b}},
		{"broadcast", net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}},
		{"multicast", net.HardwareAddr{0x01, 0x00, 0x5e, 0x00, 0x01, 0x17}},
	}
	source = net.HardwareAddr{0x02, 0x00, 0x00, 0x5e, 0xed, 0x01}
	// A tag with every field in use: priority 5, drop eligible, VLAN 1234.
	tag = []byte{0x81, 0x00, 0xb4, 0xd2}
	// What the frame says that it carries: a datapath may treat IP apart.
	etherTypes = []uint16{0x0800, 0x86dd, 0x88b5}
)

// noise is where frames have their octets from.
var noise = func() []byte {
	b := make([]byte, 1<<16)
	rand.NewChaCha8([32]byte{}).Read(b)
	return b
}()

// frame of size octets, the tag not counted, which ends in its number.
func frame(number uint32, size, destination int, tagged bool, etherType uint16) []byte {
	f := slices.Concat(destinations[destination].mac, source)
	if tagged {
		f = append(f, tag...)
		size += len(tag)
	}
	f = binary.BigEndian.AppendUint16(f, etherType)
	start := len(f)
	offset := int(number) * 7919 % (len(noise) - size)
	f = append(f, noise[offset:offset+size-start]...)
	// Headers that a host or a bridge on the way takes for sound.
	payload := f[start:]
	switch etherType {
	case 0x0800:
		copy(payload, []byte{0x45, 0, byte(len(payload) >> 8), byte(len(payload)), 0, 0, 0, 0, 64, 253, 0, 0, 203, 0, 113, 1, 203, 0, 113, 2})
		binary.BigEndian.PutUint16(payload[10:], checksum(payload[:20]))
	case 0x86dd:
		n := len(payload) - 40
		copy(payload, []byte{0x60, 0, 0, 0, byte(n >> 8), byte(n), 59, 64})
	}
	binary.BigEndian.PutUint32(f[len(f)-4:], number)
	return f
}

func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// collector compares what arrives with what was sent.
type collector struct {
	mu      sync.Mutex
	missing map[uint32][]byte
	wrong   []string
	changed chan struct{}
}

// take is called with every frame that the host receives, in order.
func (c *collector) take(f *netlab.Frame) bool {
	if len(f.Data) < 18 || !bytes.Equal(f.Data[6:12], source) {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	number := binary.BigEndian.Uint32(f.Data[len(f.Data)-4:])
	sent, ok := c.missing[number]
	switch {
	case !ok:
		c.wrong = append(c.wrong, fmt.Sprintf("a frame of %d octets that is not expected: % x …", len(f.Data), f.Data[:18]))
	case !bytes.Equal(sent, f.Data):
		c.wrong = append(c.wrong, fmt.Sprintf("frame %d differs:\nsent     % x\nreceived % x", number, sent, f.Data))
	}
	delete(c.missing, number)
	select {
	case c.changed <- struct{}{}:
	default:
	}
	return false
}

// sweep sends frames of those sizes from one host, each tagged and not, and
// requires that the other receives exactly them, each once, bit for bit. With
// all it sends each to every kind of destination, else to one after the other.
func sweep(t *testing.T, from, to *site, sizes []int, all bool) {
	t.Helper()
	c := &collector{missing: map[uint32][]byte{}, changed: make(chan struct{}, 1)}
	capture, err := to.lan.Capture(netlab.CaptureOptions{Keep: c.take})
	if err != nil {
		t.Fatal(err)
	}
	// Fewer than any queue on the way holds.
	const batchFrames, batchOctets = 48, 48 << 10
	var frames [][]byte
	octets, sent, number := 0, 0, uint32(0)
	flush := func() {
		c.mu.Lock()
		for _, f := range frames {
			c.missing[binary.BigEndian.Uint32(f[len(f)-4:])] = f
		}
		c.mu.Unlock()
		if err := from.lan.Send(frames...); err != nil {
			t.Fatal(err)
		}
		sent += len(frames)
		frames, octets = frames[:0], 0
		c.wait(t)
	}
	for _, size := range sizes {
		for d := range destinations {
			if !all && d != size%len(destinations) {
				continue
			}
			for _, tagged := range []bool{false, true} {
				number++
				frames = append(frames, frame(number, size, d, tagged, etherTypes[(size+int(number))%len(etherTypes)]))
				if octets += size; len(frames) >= batchFrames || octets >= batchOctets {
					flush()
				}
			}
		}
	}
	flush()
	if _, err := capture.Stop(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d frames of %d to %d octets from %s to %s", sent, sizes[0], sizes[len(sizes)-1], from.lcce.Name, to.lcce.Name)
}

func (c *collector) wait(t *testing.T) {
	t.Helper()
	limit := time.NewTimer(10 * time.Second)
	defer limit.Stop()
	for {
		c.mu.Lock()
		left, wrong := len(c.missing), c.wrong
		c.mu.Unlock()
		switch {
		case len(wrong) > 0:
			t.Fatalf("%d frames are wrong; the first: %s", len(wrong), wrong[0])
		case left == 0:
			return
		}
		select {
		case <-c.changed:
		case <-limit.C:
			c.mu.Lock()
			defer c.mu.Unlock()
			var sizes []int
			for _, f := range c.missing {
				sizes = append(sizes, len(f))
			}
			slices.Sort(sizes)
			t.Fatalf("%d frames did not arrive, of %d octets", left, sizes)
		}
	}
}

// sizesFrom lists frame sizes; the last is always among them.
func sizesFrom(first, last, step int) []int {
	var s []int
	for n := first; n < last; n += step {
		s = append(s, n)
	}
	return append(s, last)
}

// underlayWatch looks at every packet that a site's underlay device receives.
type underlayWatch struct {
	capture *netlab.Capture

	mu                 sync.Mutex
	packets, fragments int
	tagged             []string
}

func watchUnderlay(t *testing.T, s *site) *underlayWatch {
	t.Helper()
	w := &underlayWatch{}
	var err error
	if w.capture, err = s.wan.Capture(netlab.CaptureOptions{Keep: w.take}); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *underlayWatch) take(f *netlab.Frame) bool {
	if len(f.Data) < 54 {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.packets++
	switch etherType := binary.BigEndian.Uint16(f.Data[12:]); {
	case f.TagInMetadata || etherType == 0x8100 || etherType == 0x88a8:
		w.tagged = append(w.tagged, fmt.Sprintf("% x …", f.Data[:54]))
	case etherType == 0x0800 && binary.BigEndian.Uint16(f.Data[20:])&0x3fff != 0, // more fragments, or an offset
		etherType == 0x86dd && f.Data[20] == 44: // the Fragment header
		w.fragments++
	}
	return false
}

// stop checks that no packet carried a tag outside its payload, and returns how
// many packets there were, and how many of them were fragments.
func (w *underlayWatch) stop(t *testing.T) (packets, fragments int) {
	t.Helper()
	if _, err := w.capture.Stop(); err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.tagged) > 0 {
		t.Errorf("%d packets on the underlay carry a VLAN tag; the first: %s", len(w.tagged), w.tagged[0])
	}
	return w.packets, w.fragments
}

// ping requires that every echo of that size is answered, whole.
func ping(t *testing.T, from, to *site, size int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	r, err := from.host.Ping(ctx, to.lan4(), netlab.PingOptions{Count: 3, Size: size, Timeout: 3 * time.Second})
	if err != nil || r.Lost() != 0 {
		t.Fatalf("ping of %d octets from %s to %s: %+v, %v", size, from.lcce.Name, to.lcce.Name, r, err)
	}
}

// transfer requires that random data arrives with the same SHA-256.
func transfer(t *testing.T, from, to *site, size int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	r, err := from.host.Transfer(ctx, to.host, to.lan4(), size)
	if err != nil {
		t.Fatal(err)
	}
	if !r.Same() {
		t.Fatalf("sent %d octets with SHA-256 %x, received %d with %x", r.Sent, r.SentSum, r.Received, r.ReceivedSum)
	}
	t.Logf("%d MiB from %s to %s at %.0f Mbit/s, SHA-256 %x", size>>20, from.lcce.Name, to.lcce.Name, r.Rate()/1e6, r.SentSum[:4])
}
