package bpf

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"
)

// segment is a frame with a TCP segment that has an MSS option, its checksums right.
func segment(v6 bool, tags []byte, flags byte, mss uint16) []byte {
	tcp := []byte{0x30, 0x39, 0, 80, 1, 2, 3, 4, 0, 0, 0, 0, 6 << 4, flags, 0xff, 0xff, 0, 0, 0, 0, 2, 4, byte(mss >> 8), byte(mss)}
	b := append([]byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2}, tags...)
	var addresses []byte
	if v6 {
		h := make([]byte, 40)
		h[0], h[5], h[6], h[7], h[23], h[39] = 0x60, byte(len(tcp)), 6, 64, 1, 2
		b, addresses = append(append(b, 0x86, 0xdd), h...), h[8:40]
	} else {
		h := []byte{0x45, 0, 0, byte(20 + len(tcp)), 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2}
		binary.NativeEndian.PutUint16(h[10:], folded(sum(h)))
		b, addresses = append(append(b, 0x08, 0), h...), h[12:20]
	}
	pseudo := append(bytes.Clone(addresses), 0, 6, 0, byte(len(tcp)))
	binary.NativeEndian.PutUint16(tcp[16:], folded(sum(pseudo)+sum(tcp)))
	return append(b, tcp...)
}

func folded(s uint32) uint16 {
	s = s&0xffff + s>>16
	return ^uint16(s + s>>16)
}

// The clamp of other datapaths' devices lowers the MSS of a SYN, and its checksum with
// it, and leaves everything else alone.
func TestClamp(t *testing.T) {
	load(t).Close()
	c, err := LoadClamp()
	if err != nil {
		t.Fatalf("%+v", err)
	}
	defer c.Close()
	const syn, synAck, ack = 0x02, 0x12, 0x10
	q, ad := []byte{0x81, 0, 0, 100}, []byte{0x88, 0xa8, 0, 200}
	check := func(name string, in, want []byte) {
		t.Helper()
		action, out, _ := run(t, c.Program, in, 0)
		if action != pass || !bytes.Equal(out, want) {
			t.Errorf("%s: action %d\nin   %x\nout  %x\nwant %x", name, action, in, out, want)
		}
	}
	check("a device that is none of ours", segment(false, nil, syn, 1460), segment(false, nil, syn, 1460))
	room := uint32(1400)
	if err := c.Rooms.Put(device, &room); err != nil {
		t.Fatal(err)
	}
	for _, v6 := range []bool{false, true} {
		limit := uint16(1400 - 20 - 20)
		if v6 {
			limit = 1400 - 40 - 20
		}
		for _, tags := range [][]byte{nil, q, append(bytes.Clone(ad), q...)} {
			name := fmt.Sprintf("IPv6 %v, tags %x", v6, tags)
			limit := limit - uint16(len(tags))
			check(name+", SYN", segment(v6, tags, syn, 1460), segment(v6, tags, syn, limit))
			check(name+", SYN and ACK", segment(v6, tags, synAck, 9000), segment(v6, tags, synAck, limit))
			check(name+", as much as fits", segment(v6, tags, syn, limit), segment(v6, tags, syn, limit))
			check(name+", less", segment(v6, tags, syn, 536), segment(v6, tags, syn, 536))
			check(name+", no SYN", segment(v6, tags, ack, 1460), segment(v6, tags, ack, 1460))
			whole := segment(v6, tags, syn, 1460)
			for cut := len(whole) - 23; cut < len(whole); cut++ {
				check(fmt.Sprintf("%s, cut to %d", name, cut), whole[:cut], whole[:cut])
			}
		}
	}
}
