package conformance

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pwd-project/pwd/internal/netlab"
)

// dataWord begins a data message over UDP (RFC 3931, Section 4.1.2.1).
const dataWord = "\x00\x03\x00\x00"

// dataMessage is a header with a session ID and a cookie, and a frame.
func dataMessage(session uint32, cookie, frame []byte) []byte {
	b := binary.BigEndian.AppendUint32([]byte(dataWord), session)
	return append(append(b, cookie...), frame...)
}

// experimental is an EtherType for tests like these (IEEE 802, Clause 9.2.3).
const experimental = "\x88\xb5"

// frame is an Ethernet frame that is known by its label.
func frame(label string) []byte {
	f := []byte("\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x99" + experimental + label)
	return append(f, make([]byte, max(0, 60-len(f)))...)
}

func label(f []byte) string {
	if len(f) < 60 || string(f[12:14]) != experimental {
		return fmt.Sprintf("%x", f)
	}
	return strings.TrimRight(string(f[14:]), "\x00")
}

// again is how often a frame is sent until it arrives. A bridge port takes up to a
// second to forward after its device came up; what the host of the daemon does
// until then is no matter of L2TP.
const again = 25 * time.Millisecond

// host is one on a LAN of the daemon's site. Frames that were not delivered to it
// in the test's interest fail the test when they come.
type host struct {
	d       *dut
	link    *netlab.Link
	capture *netlab.Capture
	frames  [][]byte
	seen    int
}

// host captures all that the host on the circuit receives. Nobody but the test
// sends anything there.
func (d *dut) host(circuit string) *host {
	d.t.Helper()
	h := &host{d: d, link: d.hosts[circuit]}
	var err error
	if h.capture, err = h.link.Capture(netlab.CaptureOptions{}); err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() {
		frames, err := h.capture.Stop()
		if err != nil {
			d.t.Error(err)
		}
		for _, f := range frames {
			if !h.wants(f.Data) {
				d.t.Errorf("the host on %s received what was not for it: %s", circuit, label(f.Data))
			}
		}
	})
	return h
}

func (h *host) wants(f []byte) bool {
	return slices.ContainsFunc(h.frames, func(want []byte) bool { return bytes.Equal(f, want) })
}

// receives sends a frame through the session until it arrives at the host.
func (h *host) receives(s *session, name string) {
	h.d.t.Helper()
	f := frame(name)
	h.arrives(f, func() { s.transmit(f) })
}

// arrives calls send until the frame arrives.
func (h *host) arrives(f []byte, send func()) {
	h.d.t.Helper()
	h.frames = append(h.frames, f)
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		send()
		for end := time.Now().Add(again); time.Now().Before(end); time.Sleep(time.Millisecond) {
			for frames := h.capture.Frames(); h.seen < len(frames); h.seen++ {
				if bytes.Equal(frames[h.seen].Data, f) {
					return
				}
			}
		}
	}
	h.d.t.Fatalf("%q does not arrive at the host", label(f))
}

// send sends a frame to the LAN.
func (h *host) send(f []byte) {
	h.d.t.Helper()
	if err := h.link.Send(f); err != nil {
		h.d.t.Fatal(err)
	}
}

// floods sends a frame to the LAN for longer than a bridge takes to forward. It is
// to come through no session.
func (h *host) floods(name string) {
	h.d.t.Helper()
	for end := time.Now().Add(1500 * time.Millisecond); time.Now().Before(end); time.Sleep(again) {
		h.send(frame(name))
	}
}

// transmit sends a frame through the session, towards the daemon.
func (s *session) transmit(f []byte) {
	s.n.c.t.Helper()
	s.n.socket.send(s.n.port, dataMessage(s.peer, s.peerCookie, f))
}

// receives sends a frame from the host until it comes through the session. Every
// data message of the session has to begin as the client asked (Sections 4.5 and
// 5.4.4).
func (s *session) receives(h *host, name string) {
	s.n.c.t.Helper()
	f := frame(name)
	s.n.c.frames = append(s.n.c.frames, f)
	want := dataMessage(s.local, s.cookie, f)
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		h.send(f)
		for end := time.Now().Add(again); time.Now().Before(end); {
			p := s.n.placed(s.n.c.poll(end, func(p *packet) bool {
				return !p.isControl() && len(p.payload) >= 8 && binary.BigEndian.Uint32(p.payload[4:]) == s.local
			}))
			switch {
			case p == nil:
			case bytes.Equal(p.payload, want):
				return
			case !bytes.HasPrefix(p.payload, want[:len(want)-len(f)]):
				s.n.c.t.Errorf("Section 4.5: a data message begins not with %x: %x", want[:len(want)-len(f)], p.payload)
			}
		}
	}
	s.n.c.t.Fatalf("%q does not come through the session", name)
}
