package suppress

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/pkg/drift"
	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// bare is a datapath whose devices are there already.
type bare struct{ pseudowire.Datapath }

func (bare) Abilities() pseudowire.Abilities           { return pseudowire.Abilities{} }
func (bare) SetPseudowire(pseudowire.Pseudowire) error { return nil }
func (bare) RemovePseudowires(...string) error         { return nil }
func (bare) SetSession(pseudowire.Session) error       { return nil }
func (bare) Close() error                              { return nil }
func (bare) Refresh() error                            { return nil }
func (bare) Repairs() []drift.Repair                   { return nil }
func (bare) Heed(func(string) bool)                    {}

// bench is a network's bridge at a site, and who is behind its ports: hosts of the LAN, and
// two other sites.
//
//	asks ─┐          ┌─ pw-a ─ a
//	      ├─ bridge ─┤
//	lan ──┘          └─ pw-b ─ b
type bench struct {
	t               *testing.T
	ns              *netlab.Namespace
	d               *Datapath
	asks, lan, a, b *netlab.Link
	bridge          *netlab.Link
	devices         map[string]*netlab.Link
}

func newBench(t *testing.T, lifetime time.Duration) *bench {
	t.Helper()
	lab := netlab.New(t)
	b := &bench{t: t, ns: lab.Namespace("site"), devices: map[string]*netlab.Link{}}
	others := lab.Namespace("others")
	b.bridge = b.ns.Bridge("br0").Silent()
	b.ns.Sysctl("net.ipv4.ip_forward", "0")
	for _, x := range []struct {
		port string
		link **netlab.Link
	}{{"asks", &b.asks}, {"lan", &b.lan}, {"pw-a", &b.a}, {"pw-b", &b.b}} {
		port, link := lab.Veth(b.ns, x.port, others, "to-"+x.port)
		port.Silent().Master(b.bridge).Up()
		b.devices[x.port] = port
		*x.link = link.Silent().Up()
	}
	b.must(lab.Err())
	b.do(func() (err error) { b.d, err = Wrap(bare{}, Options{Lifetime: lifetime}); return err })
	t.Cleanup(func() { b.d.Close() })
	b.set("office")
	return b
}

func (b *bench) set(group string) {
	b.t.Helper()
	for _, name := range []string{"a", "b"} {
		b.do(func() error {
			return b.d.SetPseudowire(pseudowire.Pseudowire{Name: name, Device: "pw-" + name, Suppress: group})
		})
	}
}

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) do(f func() error) {
	b.t.Helper()
	b.must(b.ns.Do(f))
}

func (b *bench) within() context.Context {
	ctx, cancel := context.WithTimeout(b.t.Context(), 20*time.Second)
	b.t.Cleanup(cancel)
	return ctx
}

var (
	asker     = []byte{2, 0, 0, 0, 0, 1}
	host      = []byte{2, 0, 0, 0, 0, 2}
	another   = []byte{2, 0, 0, 0, 0, 3}
	broadcast = bytes.Repeat([]byte{0xff}, 6)
	nobody    = make([]byte, 6)

	askerIP = netip.MustParseAddr("192.0.2.1")
	hostIP  = netip.MustParseAddr("192.0.2.2")
	anyIP   = netip.MustParseAddr("0.0.0.0")
)

// arp is a message (RFC 826): an op of 1 asks, of 2 answers.
func arp(to, from []byte, vlan uint16, op byte, sip, tip netip.Addr, tha []byte) []byte {
	f := slices.Concat(to, from, tagOf(vlan), []byte{0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, op}, from, sip.AsSlice(), tha, tip.AsSlice())
	return append(f, make([]byte, 18)...)
}

func tagOf(vlan uint16) []byte {
	if vlan == 0 {
		return nil
	}
	return []byte{0x81, 0x00, byte(vlan >> 8), byte(vlan)}
}

func request(vlan uint16) []byte {
	return arp(broadcast, asker, vlan, 1, askerIP, hostIP, nobody)
}

func reply(vlan uint16, mac []byte) []byte {
	return arp(asker, mac, vlan, 2, hostIP, askerIP, asker)
}

// announcement is a gratuitous ARP request (RFC 5227, Section 3).
func announcement(mac []byte) []byte { return arp(broadcast, mac, 0, 1, hostIP, hostIP, nobody) }

// rarp is what hypervisors send for a virtual machine that has moved.
func rarp(mac []byte) []byte {
	f := slices.Concat(broadcast, mac, []byte{0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3}, mac, make([]byte, 4), mac, make([]byte, 4))
	return append(f, make([]byte, 18)...)
}

// says sends a frame, and waits until a marker after it has come to all others: what it
// taught is known then.
func (b *bench) says(from *netlab.Link, frame []byte) {
	b.t.Helper()
	b.exchange(from, frame)
}

// exchange sends a frame and gives what comes of it, at each of the four ends, in order.
// What comes before a marker that is sent after it is all there is; answers, too: the
// marker is sent once more when it has arrived.
func (b *bench) exchange(from *netlab.Link, frame []byte) map[*netlab.Link][][]byte {
	b.t.Helper()
	captures := map[*netlab.Link]*netlab.Capture{}
	for _, l := range []*netlab.Link{b.asks, b.lan, b.a, b.b} {
		c, err := l.Capture(netlab.CaptureOptions{Keep: func(f *netlab.Frame) bool {
			// Bridges of tests speak IGMP.
			return len(f.Data) > 14 && !bytes.Equal(f.Data[12:14], []byte{0x08, 0x00})
		}})
		b.must(err)
		captures[l] = c
	}
	b.must(from.Send(frame))
	for n := range 3 {
		marker := append(slices.Concat(broadcast, []byte{2, 0, 0, 0, 9, 9, 0x88, 0xb5, byte(n)}), make([]byte, 45)...)
		b.must(from.Send(marker))
		for l, c := range captures {
			if l == from {
				continue
			}
			_, err := c.Wait(b.within(), "the marker", func(all []netlab.Frame) bool {
				return slices.ContainsFunc(all, func(f netlab.Frame) bool { return bytes.Equal(f.Data, marker) })
			})
			b.must(err)
		}
	}
	got := map[*netlab.Link][][]byte{}
	for l, c := range captures {
		frames, err := c.Stop()
		b.must(err)
		for _, f := range frames {
			if !bytes.Equal(f.Data[12:14], []byte{0x88, 0xb5}) {
				got[l] = append(got[l], f.Data)
			}
		}
	}
	return got
}

// expect sends a frame and wants exactly these frames to come.
func (b *bench) expect(what string, from *netlab.Link, frame []byte, want map[*netlab.Link][]byte) {
	b.t.Helper()
	got := b.exchange(from, frame)
	for name, l := range map[string]*netlab.Link{"the asker": b.asks, "the LAN": b.lan, "site a": b.a, "site b": b.b} {
		switch w := want[l]; {
		case w == nil && len(got[l]) == 0:
		case w != nil && len(got[l]) == 1 && bytes.Equal(got[l][0], w):
		default:
			b.t.Errorf("%s: to %s came % x, want % x", what, name, got[l], w)
		}
	}
}

// crosses wants a frame of the asker's to come to everybody, and no answer.
func (b *bench) crosses(what string, frame []byte) {
	b.t.Helper()
	b.expect(what, b.asks, frame, map[*netlab.Link][]byte{b.lan: frame, b.a: frame, b.b: frame})
}

// answered wants the asker's request to come to the LAN and no further, and to be answered.
func (b *bench) answered(what string, mac []byte) {
	b.t.Helper()
	b.expect(what, b.asks, request(0), map[*netlab.Link][]byte{b.lan: request(0), b.asks: reply(0, mac)})
}

// lives wants what is sent to a MAC address to come out at one end alone.
func (b *bench) lives(what string, mac []byte, at *netlab.Link) {
	b.t.Helper()
	f := append(slices.Concat(mac, asker, []byte{0x88, 0xb6}), make([]byte, 46)...)
	b.expect(what, b.asks, f, map[*netlab.Link][]byte{at: f})
}

func (b *bench) suppressed(want uint64) {
	b.t.Helper()
	var all uint64
	for _, name := range []string{"a", "b"} {
		n, is, err := b.d.Suppressed(name)
		if err != nil || !is {
			b.t.Errorf("%s: %v, %v", name, is, err)
		}
		all += n
	}
	if all != want {
		b.t.Errorf("%d requests suppressed, want %d", all, want)
	}
}

// A pseudowire that suppresses nothing costs no request, once it is known that it did not under an earlier
// process either.
func TestNothingIsAskedWithoutSuppression(t *testing.T) {
	b := newBench(t, 0)
	b.set("")
	before := b.d.devices.Asked()
	b.set("")
	b.do(func() error { return b.d.SetSession(pseudowire.Session{Pseudowire: "a", LocalID: 7}) })
	if n := b.d.devices.Asked() - before; n != 0 {
		t.Errorf("%d devices were looked up", n)
	}
}

// Requests for an address that has been told of are answered, from the pseudowire that its
// host is behind, and cross none.
func TestAnswers(t *testing.T) {
	b := newBench(t, time.Hour)
	b.crosses("nothing is known", request(0))
	b.says(b.a, reply(0, host))
	b.answered("a reply has told", host)
	b.lives("the answer came out of the right pseudowire", host, b.a)
	b.suppressed(2) // at one it was answered, at the other withheld
	b.says(b.a, announcement(another))
	b.answered("the address is another host's now", another)
	// The host itself is asked.
	probe := arp(broadcast, asker, 0, 1, anyIP, hostIP, nobody)
	b.crosses("a probe", probe)
	b.expect("a unicast request", b.asks, arp(another, asker, 0, 1, askerIP, hostIP, nobody),
		map[*netlab.Link][]byte{b.a: arp(another, asker, 0, 1, askerIP, hostIP, nobody)})
	b.crosses("somebody else's address", arp(broadcast, asker, 0, 1, askerIP, netip.MustParseAddr("192.0.2.77"), nobody))
	b.crosses("a tag", request(7))
	b.says(b.a, reply(7, host))
	b.expect("a tag", b.asks, request(7), map[*netlab.Link][]byte{b.lan: request(7), b.asks: reply(7, host)})
	b.crosses("another tag", request(8))
	b.answered("no tag", another)
	b.detach("pw-a")
	b.do(b.d.Refresh)
	if r := b.d.Repairs(); len(r) != 1 || r[0].Object != "pseudowire a" || r[0].Err != nil {
		t.Errorf("repairs %v", r)
	}
	b.answered("after the programs were attached again", another)
	b.set("")
	b.crosses("without suppression", request(0))
	if _, is, err := b.d.Suppressed("a"); is || err != nil {
		t.Errorf("%v, %v", is, err)
	}
}

// A host that moves is where it was heard last.
func TestMoves(t *testing.T) {
	for name, say := range map[string][]byte{"by an ARP announcement": announcement(host), "by RARP": rarp(host)} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, time.Hour)
			b.crosses("nothing is known", request(0))
			b.says(b.a, announcement(host))
			b.answered("at a", host)
			b.says(b.b, say)
			b.answered("at b", host)
			b.lives("at b", host, b.b)
			b.says(b.lan, say)
			b.crosses("at this site", request(0))
			b.lives("at this site", host, b.lan)
			b.says(b.a, say)
			if name == "by RARP" {
				// It said whose the address is while it was here: nothing is known of it.
				b.says(b.a, announcement(host))
			}
			b.answered("at a again", host)
			b.lives("at a again", host, b.a)
		})
	}
}

// The bridge tells of a host that has moved without a word; others have the same address.
func TestBridgeTells(t *testing.T) {
	b := newBench(t, time.Hour)
	b.crosses("nothing is known", request(0))
	b.says(b.a, announcement(host))
	var mac [6]byte
	copy(mac[:], host)
	pwA, lan := b.devices["pw-a"].Index, b.devices["lan"].Index
	tell := func(bridge, port int, forgotten bool) {
		t.Helper()
		b.do(func() error { return b.d.Moved(mac, 0, bridge, port, forgotten) })
	}
	tell(b.bridge.Index, pwA, false)
	tell(b.bridge.Index+1000, lan, false)
	tell(b.bridge.Index, lan, true)
	b.answered("it has not moved", host)
	tell(b.bridge.Index, lan, false)
	b.crosses("it has moved", request(0))
	b.says(b.a, announcement(host))
	b.answered("it is back", host)
	tell(b.bridge.Index, pwA, true)
	b.crosses("it was forgotten", request(0))
	b.says(b.a, announcement(host))
	b.do(b.d.ForgetAll)
	b.crosses("all were forgotten", request(0))
	b.says(b.a, announcement(host))
	b.do(func() error { return b.d.RemovePseudowires("a") })
	b.expect("behind a pseudowire that was removed", b.asks, request(0), map[*netlab.Link][]byte{b.lan: request(0), b.a: request(0), b.b: request(0)})
}

// detach takes everything off a device.
func (b *bench) detach(device string) {
	b.t.Helper()
	l, err := b.ns.Netlink().LinkByName(device)
	b.must(err)
	qdiscs, err := b.ns.Netlink().QdiscList(l)
	b.must(err)
	for _, q := range qdiscs {
		if q.Type() == "clsact" {
			b.must(b.ns.Netlink().QdiscDel(q))
		}
	}
}

// What a host has said is not believed for ever.
func TestExpires(t *testing.T) {
	b := newBench(t, 500*time.Millisecond)
	b.says(b.a, announcement(host))
	b.must(netlab.Poll(b.within(), "the address is forgotten", func() error {
		for range 2 { // the first may tell whose the asker's address is
			if got := b.exchange(b.asks, request(0)); len(got[b.a]) == 0 {
				return errors.New("the request does not cross")
			}
		}
		return nil
	}))
}

var (
	asker6 = netip.MustParseAddr("2001:db8::1")
	host6  = netip.MustParseAddr("2001:db8::2")
)

// nd is a neighbour solicitation (135) or advertisement (136) with one option.
func nd(to, from []byte, source, destination netip.Addr, kind, flags byte, target netip.Addr, option byte) []byte {
	body := slices.Concat([]byte{kind, 0, 0, 0, flags, 0, 0, 0}, target.AsSlice(), []byte{option, 1}, from)
	pseudo := slices.Concat(source.AsSlice(), destination.AsSlice(), []byte{0, 0, 0, 32, 0, 0, 0, 58}, body)
	var sum uint32
	for i := 0; i < len(pseudo); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(pseudo[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(body[2:], ^uint16(sum))
	return slices.Concat(to, from, []byte{0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, 58, 255}, source.AsSlice(), destination.AsSlice(), body)
}

// A host that has got another MAC address tells the others by its first request, whatever is known of
// whom it asks for; so does one that has not been heard for long.
func TestTells(t *testing.T) {
	b := newBench(t, time.Hour)
	b.says(b.a, announcement(host))
	b.crosses("the first request", request(0))
	b.answered("the second", host)
	changed := arp(broadcast, another, 0, 1, askerIP, hostIP, nobody)
	b.crosses("with another address", changed)
	b.expect("the second with that", b.asks, changed, map[*netlab.Link][]byte{
		b.lan: changed, b.asks: arp(another, host, 0, 2, hostIP, askerIP, another),
	})
	b.crosses("with the old one again", request(0))
	b.answered("and then", host)
}

// Neighbour solicitations are answered as ARP requests are, with the router flag of the host.
func TestNeighbourDiscovery(t *testing.T) {
	b := newBench(t, time.Hour)
	group, groupMAC := netip.MustParseAddr("ff02::1:ff00:2"), []byte{0x33, 0x33, 0xff, 0, 0, 2}
	everybody, everybodyMAC := netip.MustParseAddr("ff02::1"), []byte{0x33, 0x33, 0, 0, 0, 1}
	solicitation := nd(groupMAC, asker, asker6, group, 135, 0, host6, 1)
	b.crosses("nothing is known", solicitation)
	for _, router := range []byte{0, 0x80} {
		b.says(b.a, nd(asker, host, host6, asker6, 136, router|0x60, host6, 2))
		b.expect("answered", b.asks, solicitation, map[*netlab.Link][]byte{
			b.lan: solicitation, b.asks: nd(asker, host, host6, asker6, 136, router|0x60, host6, 2),
		})
	}
	b.crosses("a probe", nd(groupMAC, asker, netip.IPv6Unspecified(), group, 135, 0, host6, 1))
	unicast := nd(host, asker, asker6, host6, 135, 0, host6, 1)
	b.expect("a unicast solicitation", b.asks, unicast, map[*netlab.Link][]byte{b.a: unicast})
	// It moves, and says so.
	b.says(b.b, nd(everybodyMAC, host, host6, everybody, 136, 0x20, host6, 2))
	b.expect("at b", b.asks, solicitation, map[*netlab.Link][]byte{
		b.lan: solicitation, b.asks: nd(asker, host, host6, asker6, 136, 0x60, host6, 2),
	})
	b.lives("at b", host, b.b)
	b.says(b.lan, nd(everybodyMAC, host, host6, everybody, 136, 0x20, host6, 2))
	b.crosses("at this site", solicitation)
	// One of several that have the address.
	b.says(b.a, nd(asker, host, host6, asker6, 136, 0x40, host6, 2))
	b.crosses("anycast", solicitation)
}
