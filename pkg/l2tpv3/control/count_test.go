package control

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
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

// TestCauses: what is decided by is told beside the words, here and for those before.
func TestCauses(t *testing.T) {
	const (
		request = "< SCCRQ host=gold.dc2 router=1 assigned=77 caps=5"
		answer  = "advance 1s\n< SCCRP ccid=11 ns=0 nr=1 host=gold.dc2 router=200 assigned=77 caps=5"
		up      = answer + "\n< ACK ccid=11 ns=1 nr=2"
	)
	for _, tt := range []struct {
		act   string
		state ConnectionState
		want  Cause
		event string
	}{
		{"advance 1s", ConnectionWaitReply, Cause{Kind: CauseWaiting, Message: l2tpv3.SCCRQ}, "local open request"},
		{"advance 71500ms", ConnectionIdle, Cause{Kind: CauseSilent, By: Here, Message: l2tpv3.SCCRQ, Sent: 11}, "peer silent"},
		{"advance 1s\n< StopCCN ccid=11 ns=0 nr=1 assigned=77 result=6", ConnectionIdle,
			Cause{Kind: CauseShutdown, By: Peer, Message: l2tpv3.StopCCN, Result: l2tpv3.ResultCode{Result: 6}}, "StopCCN"},
		{"advance 1s\n< StopCCN ccid=11 ns=0 nr=1 assigned=77 result=4", ConnectionIdle,
			Cause{Kind: CauseNotAuthorized, By: Peer, Message: l2tpv3.StopCCN, Result: l2tpv3.ResultCode{Result: 4}}, "StopCCN"},
		{"advance 1s\ntunnel silver/dc3 remote=192.0.2.3\n< SCCRP ccid=11 ns=0 nr=1 host=silver.dc3 router=200 assigned=77 caps=5", ConnectionIdle,
			Cause{Kind: CauseName, By: Here, Message: l2tpv3.SCCRP, Result: l2tpv3.ResultCode{Result: 4, HasError: true, Message: otherNameText}}, "SCCRP, not acceptable"},
		{answer + " nonce=30303030303030303030303030303030", ConnectionIdle,
			Cause{Kind: CauseSecret, By: Here, Message: l2tpv3.SCCRP, Result: noSecret}, "SCCRP, not acceptable"},
		{"advance 1s\n< SCCCN ccid=11 ns=0 nr=1", ConnectionIdle,
			Cause{Kind: CauseProtocol, By: Here, Message: l2tpv3.SCCCN, Result: l2tpv3.ResultCode{Result: 7}}, "SCCCN, acceptable"},
		{request, ConnectionWaitConnect, Cause{Kind: CauseWaiting, Message: l2tpv3.SCCRP}, "SCCRQ, acceptable"},
		{request + "\nadvance 71500ms", ConnectionIdle, Cause{Kind: CauseSilent, By: Here, Message: l2tpv3.SCCRP, Sent: 11}, "peer silent"},
		{answer, ConnectionEstablished, Cause{}, "SCCRP, acceptable"},
		// The first sign, and that it was nothing.
		{up + "\nadvance 20s", ConnectionEstablished, Cause{Kind: CauseSilent, By: Here, Message: l2tpv3.Hello, Sent: 4}, ""},
		{up + "\nadvance 20s\n< ACK ccid=11 ns=1 nr=3", ConnectionEstablished, Cause{}, ""},
		// One that is heard and does not hear us is not answering yet.
		{up + "\nadvance 20s\n< HELLO ccid=11 ns=1 nr=2", ConnectionEstablished, Cause{Kind: CauseSilent, By: Here, Message: l2tpv3.Hello, Sent: 4}, ""},
		{up + "\nadvance 20s\n< HELLO ccid=11 ns=1 nr=2\n< ACK ccid=11 ns=2 nr=3", ConnectionEstablished, Cause{}, ""},
		{up + "\nadvance 20s\nrestart\n< ACK ccid=11 ns=1 nr=3", ConnectionEstablished, Cause{}, ""},
		{up + "\nadvance 81200ms", ConnectionIdle, Cause{Kind: CauseSilent, By: Here, Message: l2tpv3.Hello, Sent: 11}, "peer silent"},
	} {
		s := &stage{now: epoch}
		s.reset()
		for line := range strings.Lines("random 10\ntunnel gold/dc2 hello=10s\n" + tt.act) {
			if err := s.do(strings.Fields(line)); err != nil {
				t.Fatal(line, err)
			}
		}
		c := s.e.Connections()[0]
		if diff := cmp.Diff(tt.want, c.Cause); diff != "" || c.State != tt.state {
			t.Errorf("%s: %v, %s (-want +got):\n%s", tt.act, c.State, c.Reason, diff)
			continue
		}
		last := c.History[len(c.History)-1]
		if last.Cause != c.Cause || last.Reason != c.Reason || last.Event != tt.event {
			t.Errorf("%s: the last transition is %+v", tt.act, last)
		}
	}
}

// TestSessionCauses: the same of sessions.
func TestSessionCauses(t *testing.T) {
	for _, tt := range []struct {
		act   string
		want  Cause
		event string
	}{
		{"", Cause{Kind: CauseWaiting, Message: l2tpv3.ICRQ}, "control-conn-open"},
		{"< CDN ccid=11 ns=NS nr=3 local=900 remote=OURS result=24", Cause{Kind: CauseUnknown, By: Peer, Message: l2tpv3.CDN, Result: l2tpv3.ResultCode{Result: 24}}, "CDN"},
		{"< CDN ccid=11 ns=NS nr=3 local=900 remote=OURS result=23", Cause{Kind: CauseMismatch, By: Peer, Message: l2tpv3.CDN, Result: l2tpv3.ResultCode{Result: 23}}, "CDN"},
		{"< CDN ccid=11 ns=NS nr=3 local=900 remote=OURS result=14", Cause{Kind: CauseType, By: Peer, Message: l2tpv3.CDN, Result: l2tpv3.ResultCode{Result: 14}}, "CDN"},
		{"< ICRP ccid=11 ns=NS nr=3 local=900 remote=OURS circuit=A mtu=1400", Cause{Kind: CauseMismatch, By: Here, Message: l2tpv3.ICRP, Result: l2tpv3.ResultCode{Result: 23}}, "ICRP, not acceptable"},
		{"refused OURS", Cause{Kind: CauseDataPlane, By: Here, Message: l2tpv3.CDN, Result: l2tpv3.ResultCode{Result: 4, HasError: true, Message: "the data plane refused it"}}, "data plane refused"},
		{"< StopCCN ccid=11 ns=NS nr=3 assigned=77 result=6", Cause{Kind: CauseConnection}, "control connection gone"},
		{"< ICRP ccid=11 ns=NS nr=3 local=900 remote=OURS circuit=A", Cause{}, "ICRP, acceptable"},
	} {
		s := established(t)
		if err := s.session("gold/dc2", "tenant-z", []string{"mtu=1500"}); err != nil {
			t.Fatal(err)
		}
		s.outputs()
		find := func() SessionStatus {
			for _, x := range s.e.Sessions() {
				if x.Session.Name == "tenant-z" {
					return x
				}
			}
			t.Fatal("no session")
			return SessionStatus{}
		}
		words := strings.NewReplacer("OURS", fmt.Sprint(find().LocalID), "NS", fmt.Sprint(s.e.Connections()[0].Nr)).Replace(tt.act)
		if words != "" {
			if err := s.do(strings.Fields(words)); err != nil {
				t.Fatal(words, err)
			}
		}
		x := find()
		if diff := cmp.Diff(tt.want, x.Cause); diff != "" {
			t.Errorf("%s: %v, %s (-want +got):\n%s", tt.act, x.State, x.Reason, diff)
			continue
		}
		if last := x.History[len(x.History)-1]; last.Cause != x.Cause || last.Event != tt.event {
			t.Errorf("%s: the last transition is %+v", tt.act, last)
		}
	}
}

// TestCauseNames: every kind has a name of its own, which is read again; one of
// another version is none.
func TestCauseNames(t *testing.T) {
	seen := map[string]bool{}
	for k := range causeKinds {
		text, _ := k.MarshalText()
		var back CauseKind
		if err := back.UnmarshalText(text); err != nil || back != k || seen[string(text)] {
			t.Errorf("%d is %q, read as %d", k, text, back)
		}
		seen[string(text)] = true
	}
	k := CauseSilent
	if err := k.UnmarshalText([]byte("of tomorrow")); err != nil || k != CauseNone || len(causeKindNames) != int(causeKinds) {
		t.Errorf("%v %v", k, err)
	}
}
