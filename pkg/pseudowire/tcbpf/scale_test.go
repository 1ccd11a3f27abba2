package tcbpf

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// many is one of many pseudowires over one tunnel.
type many struct {
	pw      pseudowire.Pseudowire
	session pseudowire.Session
}

func newPseudowires(n int) []many {
	all := make([]many, n)
	for i := range all {
		name := fmt.Sprintf("x%d", i)
		all[i] = many{
			pseudowire.Pseudowire{Name: name, Device: "pw-" + name},
			pseudowire.Session{
				Tunnel: tunnelName, Pseudowire: name, LocalID: uint32(1000 + i), RemoteID: uint32(1000 + i), Transmit: true,
				LocalCookie:  binary.BigEndian.AppendUint64(nil, uint64(i)),
				RemoteCookie: binary.BigEndian.AppendUint64(nil, uint64(i)),
			},
		}
	}
	return all
}

// Many pseudowires come, change nothing when set again, and go, one apply each.
func TestManyPseudowires(t *testing.T) {
	const n = 50
	a, _ := newSites(t, setting{cookie: 8})
	before := state(t, a)
	a.open()
	empty := state(t, a)
	all := newPseudowires(n)
	set := func() time.Duration {
		start := time.Now()
		a.do(func() {
			must(t, a.dp.SetTunnel(a.tunnel))
			for _, m := range all {
				must(t, a.dp.SetPseudowire(m.pw))
				must(t, a.dp.SetSession(m.session))
			}
		})
		return time.Since(start)
	}
	made := set()
	there := state(t, a)
	again := set()
	if got := state(t, a); got != there {
		t.Errorf("setting all again changed:\n%s\nto:\n%s", there, got)
	}
	start := time.Now()
	a.do(func() { must(t, a.dp.Refresh()) })
	refresh := time.Since(start)
	start = time.Now()
	a.do(func() {
		for _, m := range all {
			must(t, a.dp.RemoveSession(m.session.LocalID))
			must(t, a.dp.RemovePseudowires(m.pw.Name))
		}
		must(t, a.dp.RemoveTunnel(tunnelName))
	})
	t.Logf("%d pseudowires: made in %v, again in %v, refreshed in %v, removed in %v", n, made, again, refresh, time.Since(start))
	if got := state(t, a); got != empty {
		t.Errorf("after the last went there are:\n%s\nnot:\n%s", got, empty)
	}
	a.do(func() {
		for _, table := range []interface{ Keys() ([]uint32, error) }{a.dp.objs.Pseudowires, a.dp.objs.Sessions, a.dp.objs.Counts} {
			if keys, err := table.Keys(); err != nil || len(keys) != 0 {
				t.Errorf("a map still has %v (%v)", keys, err)
			}
		}
	})
	a.cleanup()
	if got := state(t, a); got != before {
		t.Errorf("after cleanup there are:\n%s\nnot:\n%s", got, before)
	}
}

// Many pseudowires go at once: they and nothing else, whatever is in the group that their
// devices are removed as; that one has gone already changes nothing.
func TestManyPseudowiresGoAtOnce(t *testing.T) {
	const n = removedAtOnce + 20 // in two requests
	a, _ := newSites(t, setting{cookie: 8})
	a.open()
	a.do(func() {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.Group = "theirs", removalGroup
		theirs := netlink.NewVeth(attrs)
		theirs.PeerName = "theirs-too"
		must(t, netlink.LinkAdd(theirs))
		must(t, a.dp.SetTunnel(a.tunnel))
	})
	before := state(t, a)
	names := []string{"unknown"}
	a.do(func() {
		for _, m := range newPseudowires(n) {
			names = append(names, m.pw.Name)
			must(t, a.dp.SetPseudowire(m.pw))
			must(t, a.dp.SetSession(m.session))
		}
		must(t, netlink.LinkDel(linkOf(index(t, "pw-x7"))))
		must(t, a.dp.RemovePseudowires(names...))
	})
	if got := state(t, a); got != before {
		t.Errorf("there are:\n%s\nnot:\n%s", got, before)
	}
}

// What cannot be is refused, and says why.
func TestInvalid(t *testing.T) {
	a, _ := newSites(t, setting{cookie: 8})
	a.open()
	a.do(func() {
		tunnel := a.tunnel
		tunnel.Remote = netip.MustParseAddrPort("127.0.0.2:1701")
		tunnel.Local = netip.MustParseAddrPort("127.0.0.1:1701")
		wantError(t, a.dp.SetTunnel(tunnel), ErrUnderlay)
		tunnel.Local = netip.MustParseAddrPort("[::1]:1701")
		wantError(t, a.dp.SetTunnel(tunnel), ErrInvalid)
		tunnel.Encapsulation = 2
		wantError(t, a.dp.SetTunnel(tunnel), ErrInvalid)
		wantError(t, a.dp.SetSession(a.session), ErrUnknown)
		must(t, a.dp.SetTunnel(a.tunnel))
		wantError(t, a.dp.SetSession(a.session), ErrUnknown)
		pw := a.pw
		pw.Device = "lan"
		wantError(t, a.dp.SetPseudowire(pw), ErrForeignDevice)
		pw.Device = "pw-a-name-too-long"
		wantError(t, a.dp.SetPseudowire(pw), ErrInvalid)
		must(t, a.dp.SetPseudowire(a.pw))
		other := a.pw
		other.Name = "y"
		wantError(t, a.dp.SetPseudowire(other), ErrForeignDevice)
		s := a.session
		s.LocalCookie = []byte{1, 2, 3}
		wantError(t, a.dp.SetSession(s), ErrInvalid)
		s = a.session
		s.RemoteID = 0
		wantError(t, a.dp.SetSession(s), ErrInvalid)
		s = a.session
		s.TransmitSublayer = 2
		wantError(t, a.dp.SetSession(s), ErrInvalid)
		s = a.session
		s.PreviousCookie = []byte{1, 2, 3, 4}
		wantError(t, a.dp.SetSession(s), ErrInvalid)
		s = a.session
		s.DSCP = 64
		wantError(t, a.dp.SetSession(s), ErrInvalid)
		// RFC 3931, Section 5.4.4: no numbers without a sublayer.
		s = a.session
		s.ReceiveSequencing = l2tpv3.SequencingNonIP
		wantError(t, a.dp.SetSession(s), ErrInvalid)
	})
}
