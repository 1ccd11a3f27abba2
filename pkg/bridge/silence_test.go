package bridge_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"testing"
	"time"

	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/pkg/bridge"
)

// TestSilence: nothing that is made here speaks in the LAN or into the
// pseudowire by itself, on hosts and on routers. A bridge that somebody else
// made beside it shows that the kernel had the time to.
func TestSilence(t *testing.T) {
	for _, c := range []struct{ name, forwarding string }{{"host", "0"}, {"router", "1"}} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t, "eth1 down", "eth2 down", "eth9")
			s.ns.Sysctl("net.ipv6.conf.all.forwarding", c.forwarding)
			s.device("a", "b")
			ours := []*netlab.Link{s.lan.Link("lan1"), s.lan.Link("lan2"), s.ns.Link("pwo-a"), s.ns.Link("pwo-b")}
			ports := []net.HardwareAddr{s.ns.Link("eth1").MAC, s.ns.Link("eth2").MAC}
			var captures []*netlab.Capture
			for _, l := range ours {
				// A port's own frames are its owner's: it is the host's interface.
				c, err := l.Silent().Capture(netlab.CaptureOptions{Keep: func(f *netlab.Frame) bool {
					return !bytes.Equal(f.Data[6:12], ports[0]) && !bytes.Equal(f.Data[6:12], ports[1])
				}})
				if err != nil {
					t.Fatal(err)
				}
				captures = append(captures, c)
			}
			loud, err := s.lan.Link("lan9").Capture(netlab.CaptureOptions{})
			if err != nil {
				t.Fatal(err)
			}

			s.bridge(bridge.Bridge{Name: "br-lan", Ports: []string{"eth1"}})
			s.attach(bridge.Attachment{Pseudowire: "a", Device: "pw-a", Bridge: "br-lan"})
			s.attach(bridge.Attachment{Pseudowire: "b", Device: "pw-b", Interface: "eth2"})
			s.do(s.Prune)
			s.ns.Link("eth9").Silent()
			s.ns.Bridge("br-loud", s.ns.Link("eth9"))

			// A host's last word on coming up is a router solicitation, sent once its
			// address is known to be its own (RFC 4862, Section 5.4; RFC 4861, Section
			// 6.3.7). A router reports groups, repeatedly (RFC 3810, Section 6.1).
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			_, err = loud.Wait(ctx, "the other bridge has spoken", func(frames []netlab.Frame) bool {
				solicitations, reports := 0, 0
				for _, f := range frames {
					switch icmpv6(f.Data) {
					case 133:
						solicitations++
					case 143:
						reports++
					}
				}
				return solicitations > 0 || c.forwarding == "1" && reports >= 4
			})
			if err != nil {
				t.Fatal(err)
			}
			for i, c := range captures {
				frames, err := c.Stop()
				if err != nil {
					t.Fatal(err)
				}
				for _, f := range frames {
					t.Errorf("on %s, EtherType %#04x: % x", ours[i].Name, binary.BigEndian.Uint16(f.Data[12:]), f.Data)
				}
			}
		})
	}
}

// icmpv6 is the type of an ICMPv6 message in a frame, behind a hop-by-hop header
// or not; -1 for anything else.
func icmpv6(frame []byte) int {
	if len(frame) < 14+40+8+1 || binary.BigEndian.Uint16(frame[12:]) != 0x86dd {
		return -1
	}
	next, at := frame[14+6], 14+40
	if next == 0 {
		next, at = frame[at], at+8*(1+int(frame[at+1]))
	}
	if next != 58 || at >= len(frame) {
		return -1
	}
	return int(frame[at])
}
