package bridge_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/pkg/bridge"
)

// tag is an 802.1Q tag.
func tag(pcp, vid uint16) []byte {
	return binary.BigEndian.AppendUint16([]byte{0x81, 0}, pcp<<13|vid)
}

var (
	toAll   = []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	someone = []byte{2, 0, 0, 0, 0, 9}
)

// frame is one to everybody, with these tags and a payload to know it by.
func frame(text string, tags ...[]byte) []byte { return frameTo(toAll, someone, text, tags...) }

func frameTo(to, from []byte, text string, tags ...[]byte) []byte {
	f := append(bytes.Clone(to), from...)
	for _, t := range tags {
		f = append(f, t...)
	}
	f = append(f, 0x88, 0xb5) // local experimental
	return append(f, append([]byte(text), make([]byte, 60-len(text))...)...)
}

// capture keeps the frames of the tests that come to a link.
func (s *site) capture(l *netlab.Link) *netlab.Capture {
	s.t.Helper()
	c, err := l.Capture(netlab.CaptureOptions{Keep: func(f *netlab.Frame) bool {
		return bytes.Contains(f.Data, []byte{0x88, 0xb5})
	}})
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

// texts are the payloads' beginnings of frames up to the one that says "end".
func texts(t *testing.T, c *netlab.Capture) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	text := func(f netlab.Frame) string {
		_, payload, _ := bytes.Cut(f.Data, []byte{0x88, 0xb5})
		return string(bytes.TrimRight(payload, "\x00"))
	}
	frames, err := c.Wait(ctx, "the last frame", func(fs []netlab.Frame) bool {
		return slices.ContainsFunc(fs, func(f netlab.Frame) bool { return text(f) == "end" })
	})
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, f := range frames {
		if x := text(f); x != "end" {
			list = append(list, x)
		}
	}
	return list
}

// TestTransparent: the bridge of an interface passes what an ordinary bridge keeps to
// itself (spanning tree, LACP, LLDP, 802.1X, …; only MAC pause stays on its
// link), and tags of every kind, both ways.
func TestTransparent(t *testing.T) {
	s := newSite(t, "eth2")
	s.device("a")
	s.attach(bridge.Attachment{Pseudowire: "a", Device: "pw-a", Interface: "eth2"})
	ends := []*netlab.Link{s.lan.Link("lan2"), s.ns.Link("pwo-a")}
	s.ns.Link("eth2").Operational()
	s.ns.Link("pw-a").Operational()
	for i, from := range ends {
		to := ends[1-i]
		c := s.capture(to)
		var want []string
		for last := range byte(16) {
			text := fmt.Sprintf("01-80-C2-00-00-%02X", last)
			if err := from.Send(frameTo([]byte{1, 0x80, 0xc2, 0, 0, last}, someone, text)); err != nil {
				t.Fatal(err)
			}
			if last != 1 {
				want = append(want, text)
			}
		}
		for _, tags := range [][][]byte{{tag(7, 4094)}, {tag(0, 0)}, {tag(1, 10), tag(2, 20)}, {{0x88, 0xa8, 0, 5}, tag(3, 30)}} {
			text := fmt.Sprintf("tags % x", tags)
			if err := from.Send(frame(text, tags...)); err != nil {
				t.Fatal(err)
			}
			want = append(want, text)
		}
		if err := from.Send(frame("end")); err != nil {
			t.Fatal(err)
		}
		if got := texts(t, c); !slices.Equal(got, want) {
			t.Errorf("%s to %s:\ngot  %q\nwant %q", from.Name, to.Name, got, want)
		}
	}
}

// TestSameAddressInTwoVLANs: a bridge that cannot tell VLANs apart carries two of
// them, and a router has one address in both, here behind the one pseudowire and there
// behind the other. Frames for it reach both; which datapath drops them is not
// the bridge's to guess.
func TestSameAddressInTwoVLANs(t *testing.T) {
	s := newSite(t, "eth1")
	s.device("a", "b")
	s.bridge(bridge.Bridge{Name: "br-lan", Ports: []string{"eth1"}, VLANAware: bridge.Off})
	s.attach(bridge.Attachment{Pseudowire: "a", Device: "pw-a", Bridge: "br-lan", VLAN: 100, Tagged: true})
	// A learning bridge knows the router behind pw-a by now.
	router := []byte{0, 0, 0x5e, 0, 1, 1}
	lan, a, b := s.lan.Link("lan1"), s.ns.Link("pwo-a"), s.ns.Link("pwo-b")
	for _, name := range []string{"eth1", "pw-a"} {
		s.ns.Link(name).Operational()
	}
	atLAN := s.capture(lan)
	if err := a.Send(frameTo(toAll, router, "end", tag(0, 100))); err != nil {
		t.Fatal(err)
	}
	texts(t, atLAN)
	s.attach(bridge.Attachment{Pseudowire: "b", Device: "pw-b", Bridge: "br-lan", VLAN: 200, Tagged: true})
	s.ns.Link("pw-b").Operational()

	atA, atB := s.capture(a), s.capture(b)
	for _, f := range [][]byte{
		frameTo(router, someone, "from LAN, VLAN 200", tag(0, 200)),
		frameTo(router, someone, "from LAN, VLAN 100", tag(0, 100)),
		frame("end"),
	} {
		if err := lan.Send(f); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"from LAN, VLAN 200", "from LAN, VLAN 100"}
	for name, c := range map[string]*netlab.Capture{"a": atA, "b": atB} {
		if got := texts(t, c); !slices.Equal(got, want) {
			t.Errorf("pseudowire %s got %q, want %q", name, got, want)
		}
	}
}

// TestPutBack: what the kernel and we change on somebody else's interface is as
// before once the interface is out.
func TestPutBack(t *testing.T) {
	s := newSite(t, "eth1 down", "eth2")
	s.device("a")
	s.ns.Link("eth1").MTU(9000)
	s.ns.Sysctl("net.ipv6.conf.eth1.addr_gen_mode", "3")
	look := func() string {
		var text strings.Builder
		for _, name := range []string{"eth1", "eth2"} {
			a, err := s.ns.Link(name).Attrs()
			if err != nil {
				t.Fatal(err)
			}
			mode, err := s.ns.Run(t.Context(), "cat", "/proc/sys/net/ipv6/conf/"+name+"/addr_gen_mode")
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&text, "%s promiscuous %d, mtu %d, address generation %s", name, a.Promisc, a.MTU, mode)
		}
		return text.String()
	}
	before := look()
	s.bridge(bridge.Bridge{Name: "br-lan", Ports: []string{"eth1", "eth2"}})
	s.attach(bridge.Attachment{Pseudowire: "a", Device: "pw-a", Bridge: "br-lan"})
	if during := look(); !strings.Contains(during, "eth1 promiscuous 1, mtu 9000, address generation 1") ||
		!strings.Contains(during, "eth2 promiscuous 1, mtu 1500, address generation 0") {
		t.Errorf("in the bridge:\n%s", during)
	}
	s.open()
	s.do(s.Cleanup)
	if after := look(); after != before {
		t.Errorf("before:\n%safter:\n%s", before, after)
	}
}
