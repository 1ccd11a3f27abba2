package l2tpeth

import (
	"errors"
	"slices"
	"testing"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// A process that comes after another one, with the same socket, changes nothing in the kernel.
func TestTakesOver(t *testing.T) {
	for _, e := range []l2tpv3.Encapsulation{l2tpv3.UDP, l2tpv3.IP} {
		t.Run(e.String(), func(t *testing.T) {
			k, first := newFake(t)
			tunnel, s := gold, session1
			tunnel.Encapsulation, s.DSCP, s.Priority = e, 46, 0x70640010
			set(t, first, lan, tunnel, s)
			k.changed()
			d := k.datapath()
			set(t, d, lan, tunnel, s)
			if err := d.Prune(); err != nil {
				t.Fatal(err)
			}
			if got := k.changed(); len(got) > 0 {
				t.Errorf("requests: %q", got)
			}
			// From then on it is its own.
			s.Transmit, s.DSCP = false, 0
			set(t, d, s)
			wantChanges(t, k, "mark 7 with DSCP 0, IPv6 false", "give 7 priority 0x70640010", "set pw-lan down")
			if err := d.RemoveTunnel(tunnel.Name); err != nil {
				t.Fatal(err)
			}
			wantChanges(t, k, "delete session", "delete tunnel")
		})
	}
}

// What differs from what is wanted is made anew, and only that.
func TestTakesOverWhatIsTheSame(t *testing.T) {
	all := []string{"create tunnel", "delete session", "delete tunnel", "create tunnel", "create session"}
	one := []string{"create session", "delete session", "create session"}
	for _, c := range []struct {
		name   string
		change func(*pseudowire.Tunnel, *pseudowire.Session)
		want   []string
	}{
		{"another socket", func(t *pseudowire.Tunnel, _ *pseudowire.Session) { t.Socket = 8 }, all},
		{"another peer", func(t *pseudowire.Tunnel, _ *pseudowire.Session) { t.RemoteID = 23 }, all},
		{"another encapsulation", func(t *pseudowire.Tunnel, _ *pseudowire.Session) { t.Encapsulation = l2tpv3.IP }, all},
		{"another cookie to expect", func(_ *pseudowire.Tunnel, s *pseudowire.Session) { s.LocalCookie = []byte{1, 2, 3, 4} }, one},
		{"another cookie to send", func(_ *pseudowire.Tunnel, s *pseudowire.Session) { s.RemoteCookie = nil }, one},
		{"another session of the peer", func(_ *pseudowire.Tunnel, s *pseudowire.Session) { s.RemoteID++ }, one},
	} {
		t.Run(c.name, func(t *testing.T) {
			k, first := newFake(t)
			set(t, first, lan, gold, session1)
			k.changed()
			tunnel, s := gold, session1
			c.change(&tunnel, &s)
			set(t, k.datapath(), lan, tunnel, s)
			got := k.changed()
			if len(got) < len(c.want) || !slices.Equal(got[:len(c.want)], c.want) || !slices.Contains(got, "set pw-lan up") {
				t.Errorf("requests: %q", got)
			}
		})
	}
}

// A session that is kept for its device is made deaf, and a process that comes later finds it by
// the device, whatever session it is.
func TestDeaf(t *testing.T) {
	k, first := newFake(t)
	s := session1
	s.ReceiveSublayer, s.TransmitSublayer = l2tpv3.SublayerNone, l2tpv3.SublayerNone
	s.ReceiveSequencing, s.TransmitSequencing = l2tpv3.SequencingNone, l2tpv3.SequencingNone
	set(t, first, lan, gold, s)
	k.changed()
	s.Deaf = true
	set(t, first, s)
	wantChanges(t, k, "modify session")
	if !k.sessions[0].sequencing.receive {
		t.Error("packets without numbers are taken")
	}
	d := k.datapath()
	set(t, d, lan, gold)
	found, ok, err := d.SessionBehind(lan.Name)
	if err != nil || !ok || !found.Deaf || found.LocalID != s.LocalID || found.RemoteID != s.RemoteID || found.Tunnel != gold.Name || !found.Transmit {
		t.Fatalf("found %+v, %v, %v", found, ok, err)
	}
	set(t, d, found)
	if err := d.Prune(); err != nil {
		t.Fatal(err)
	}
	if got := k.changed(); len(got) > 0 {
		t.Errorf("requests: %q", got)
	}
	s.Deaf = false
	set(t, d, s)
	wantChanges(t, k, "modify session")
	if k.sessions[0].sequencing.receive {
		t.Error("it is deaf still")
	}
	s.Deaf, s.ReceiveSublayer, s.TransmitSublayer = true, l2tpv3.SublayerDefault, l2tpv3.SublayerDefault
	if err := d.SetSession(s); !errors.As(err, new(*UnsupportedError)) {
		t.Errorf("with a sublayer: %v", err)
	}
}

// A device that is to stay down until programs are there does so when its session is made, by whatever, and until it is set
// once more; one that an earlier process had brought up goes on.
func TestStaysDown(t *testing.T) {
	k, first := newFake(t)
	late := lan
	late.StayDown = true
	up := func(want bool) {
		t.Helper()
		if k.links[0].up != want {
			t.Errorf("the device is up: %v", k.links[0].up)
		}
	}
	set(t, first, late, gold, session1)
	up(false)
	set(t, first, session1)
	up(true)
	k.sessions, k.links = nil, nil // somebody has deleted it
	if err := first.Refresh(); err != nil {
		t.Fatal(err)
	}
	up(false)
	set(t, first, session1)
	next := k.datapath()
	set(t, next, late, gold, session1)
	up(true)
}
