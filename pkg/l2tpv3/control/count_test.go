package control

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestDiscards: every message that comes in vain is told with its reason and the
// tunnel that it was for, as far as that can be said, and counted for both.
func TestDiscards(t *testing.T) {
	var told []string
	s, nonce := authenticated(t, "secret=s3cret")
	s.e.cfg.Discarded = func(d Discard) {
		line := strings.TrimSpace(fmt.Sprintf("%s %s from %v", d.Reason, d.Tunnel, d.Datagram.Remote))
		if d.Answer != "" {
			line += ": " + d.Answer
		}
		told = append(told, line)
	}
	good := signed(t, "HELLO ccid=11 ns=2 nr=1", peerNonce, nonce, 0, "s3cret")
	elsewhere := fromPeer
	elsewhere.Remote = addrPort("192.0.2.2:9")
	stranger := fromPeer
	stranger.Remote = addrPort("198.51.100.66:1701")
	const other = "SCCRQ host=else.dc2 router=1 assigned=78 caps=5 tie=1" + peerNonceText
	request := func(words string) []byte { return signed(t, words, nil, nil, 0, "s3cret") }
	for _, d := range []Datagram{
		{fromPeer, []byte("short")},
		{fromPeer, signed(t, "HELLO ccid=12 ns=2 nr=1", peerNonce, nonce, 0, "s3cret")},
		{stranger, request(other)},
		{stranger, good},
		{elsewhere, good},
		{fromPeer, good[:len(good)-1]},
		{fromPeer, signed(t, "HELLO ccid=11 ns=2 nr=1", peerNonce, nonce, 0, "wrong")},
		{fromPeer, signed(t, "HELLO ccid=11 ns=2 nr=9", peerNonce, nonce, 0, "s3cret")},
		{fromPeer, signed(t, "HELLO ccid=11 ns=99 nr=1", peerNonce, nonce, 0, "s3cret")},
		{fromPeer, signed(t, "SCCRQ host=gold.dc2 router=1 assigned=79 caps=5 tie=1"+peerNonceText, nil, nil, 0, "wrong")},
		{fromPeer, signed(t, "SCCRQ host=gold.dc2 router=1 assigned=80 caps=5 tie=2"+strings.Replace(peerNonceText, "30", "31", 1)+" avp=M:0:999:00", nil, nil, 0, "s3cret")},
		{fromPeer, good},
	} {
		s.e.Receive(s.now, d)
	}
	want := []string{
		"malformed  from 192.0.2.2:4321",
		"unknown-connection  from 192.0.2.2:4321",
		"unknown-peer  from 198.51.100.66:1701",
		"wrong-peer gold/dc2 from 198.51.100.66:1701",
		"wrong-port gold/dc2 from 192.0.2.2:9",
		"malformed gold/dc2 from 192.0.2.2:4321",
		"unauthenticated gold/dc2 from 192.0.2.2:4321",
		"wrong-nr gold/dc2 from 192.0.2.2:4321",
		"out-of-window gold/dc2 from 192.0.2.2:4321",
		"unauthenticated gold/dc2 from 192.0.2.2:4321",
		`refused-request gold/dc2 from 192.0.2.2:4321: general error: unknown mandatory AVP ("unknown mandatory AVP: attribute 999")`,
	}
	if diff := cmp.Diff(want, told); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
	all, part := s.e.Counters(), s.e.Connections()[0].Counters
	for name, n := range map[string][2]uint64{
		"received": {14, 11}, "malformed": {2, 1}, "unknown-connection": {1, 0}, "unknown-peer": {1, 0},
		"wrong-peer": {1, 1}, "wrong-port": {1, 1}, "unauthenticated": {2, 2}, "wrong-nr": {1, 1},
		"out-of-window": {1, 1}, "refused-request": {1, 1},
	} {
		if got := [2]uint64{all[name], part[name]}; got != n {
			t.Errorf("%s: %d in all and %d of the tunnel, want %d", name, got[0], got[1], n)
		}
	}
}

// TestDiscardsCostNothing: telling of a flood leaves no garbage behind.
func TestDiscardsCostNothing(t *testing.T) {
	s, _ := authenticated(t, "secret=s3cret")
	told := 0
	forged := Datagram{fromPeer, signed(t, "HELLO ccid=11 ns=2 nr=1", peerNonce, peerNonce, 0, "wrong")}
	s.e.Receive(s.now, forged)
	strange := forged
	strange.Remote = addrPort("198.51.100.66:1701")
	for _, d := range []Datagram{forged, strange} {
		cost := func(f func(Discard)) float64 {
			s.e.cfg.Discarded = f
			return testing.AllocsPerRun(100, func() { s.e.Receive(s.now, d) })
		}
		if silent, loud := cost(nil), cost(func(Discard) { told++ }); loud > silent {
			t.Errorf("from %v: %v allocations each, %v where nobody is told", d.Remote, loud, silent)
		}
	}
	if told < 200 {
		t.Errorf("told of %d", told)
	}
}

// TestReceiveNamesTheTunnel: whoever watches the messages knows whose they are.
func TestReceiveNamesTheTunnel(t *testing.T) {
	n := newNetwork(t, 1)
	n.tunnel("gold")
	n.tunnel("silver")
	n.start()
	if !n.until(10*time.Second, n.up) {
		t.Fatal(n.disagreement())
	}
	h := n.hosts[0]
	for _, c := range h.e.Connections() {
		hello := signed(t, fmt.Sprintf("HELLO ccid=%d ns=%d nr=%d", c.LocalID, c.Nr, c.Ns), nil, nil, 0, "")
		if got := h.e.Receive(n.now, Datagram{c.Path, hello}); got != c.Tunnel.Name {
			t.Errorf("a message of %s is about %q", c.Tunnel.Name, got)
		}
		for o, ok := h.e.Next(); ok; o, ok = h.e.Next() {
			if sent, is := o.(*Transmit); is && sent.Tunnel != c.Tunnel.Name {
				t.Errorf("a message of %s is sent as one of %q", c.Tunnel.Name, sent.Tunnel)
			}
		}
	}
}

// TestCauses: what is decided by is told beside the words.
func TestCauses(t *testing.T) {
	const request = "< SCCRQ host=gold.dc2 router=1 assigned=77 caps=5"
	for _, tt := range []struct {
		act  string
		want Cause
	}{
		{"advance 1s", CauseNone},
		{"advance 71500ms", CauseSilent},
		{"advance 1s\n< StopCCN ccid=11 ns=0 nr=1 assigned=77 result=4", CauseStopped},
		{request + " avp=M:0:999:00", CauseRefused},
		{"advance 1s\n" + request + " tie=0", CauseTie},
		{request, CauseNone},
	} {
		s := &stage{now: epoch}
		s.reset()
		for line := range strings.Lines("random 10\ntunnel gold/dc2\n" + tt.act) {
			if err := s.do(strings.Fields(line)); err != nil {
				t.Fatal(line, err)
			}
		}
		c := s.e.Connections()[0]
		if tt.want == CauseTie {
			tt.want = CauseNone // the peer's attempt goes on at once
			if len(c.History) < 2 || c.History[len(c.History)-2].Reason != "tie breaker lost" {
				t.Errorf("%s: %+v", tt.act, c.History)
			}
		}
		if c.Cause != tt.want {
			t.Errorf("%s: cause %d, want %d (%s)", tt.act, c.Cause, tt.want, c.Reason)
		}
	}
}
