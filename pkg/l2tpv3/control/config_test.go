package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

// TestSetAgain: what is set again as it is changes nothing; a live change leaves
// the connection alone; any other closes it and opens it anew.
func TestSetAgain(t *testing.T) {
	for _, row := range []struct {
		name   string
		change func(*Tunnel)
		same   bool
	}{
		{"nothing", func(t *Tunnel) {}, true},
		{"hello", func(t *Tunnel) { t.Hello = time.Second }, true},
		{"what reasons call the peer", func(t *Tunnel) { t.Peer = "the other site" }, true},
		{"digest", func(t *Tunnel) { t.Digest = l2tpv3.HMACSHA1 }, true},
		{"an address written otherwise", func(t *Tunnel) { t.Remote = netip.MustParseAddr("::ffff:192.0.2.2") }, true},
		{"local address", func(t *Tunnel) { t.Local = netip.MustParseAddr("192.0.2.8") }, false},
		{"remote address", func(t *Tunnel) { t.Remote = netip.MustParseAddr("192.0.2.9") }, false},
		{"encapsulation", func(t *Tunnel) { t.Encapsulation = l2tpv3.IP }, false},
		{"host name", func(t *Tunnel) { t.HostName = "x" }, false},
		{"peer host name", func(t *Tunnel) { t.PeerHostName = "x" }, false},
		{"router ID", func(t *Tunnel) { t.RouterID++ }, false},
		{"capabilities", func(t *Tunnel) { t.Capabilities = append(slices.Clone(t.Capabilities), l2tpv3.EthernetVLAN) }, false},
		{"receive window", func(t *Tunnel) { t.ReceiveWindow++ }, false},
		{"authentication", func(t *Tunnel) { t.Secrets = [][]byte{[]byte("s")} }, false},
	} {
		s := established(t)
		c := s.tunnels[0]
		row.change(&c)
		if err := s.e.SetTunnel(s.now, c); err != nil {
			t.Fatal(err)
		}
		out := s.outputs()
		if same := len(out) == 0; same != row.same {
			t.Errorf("%s: %v", row.name, out)
		}
		if up := s.e.Connections()[0].State == ConnectionEstablished; up != row.same {
			t.Errorf("%s: established %v", row.name, up)
		}
	}
	for _, row := range []struct {
		name   string
		change func(*Session)
		want   []l2tpv3.MessageType
	}{
		{"nothing", func(s *Session) {}, nil},
		{"circuit", func(s *Session) { s.Circuit = 0 }, []l2tpv3.MessageType{l2tpv3.SLI}},
		{"cookie", func(s *Session) { s.CookieLength = 4 }, []l2tpv3.MessageType{l2tpv3.CDN, l2tpv3.ICRQ}},
		{"end ID", func(s *Session) { s.RemoteEndID = []byte{0, 0, 0, 7} }, []l2tpv3.MessageType{l2tpv3.CDN, l2tpv3.ICRQ}},
		{"AGI", func(s *Session) { s.AGI = []byte("x") }, []l2tpv3.MessageType{l2tpv3.CDN, l2tpv3.ICRQ}},
		{"MTU", func(s *Session) { s.MTU = 1400 }, []l2tpv3.MessageType{l2tpv3.CDN, l2tpv3.ICRQ}},
		{"sublayer", func(s *Session) { s.Sublayer = l2tpv3.SublayerDefault }, []l2tpv3.MessageType{l2tpv3.CDN, l2tpv3.ICRQ}},
		{"abilities that nothing was agreed on about", func(s *Session) {
			s.CanSequence, s.CanSublayer, s.CanChangeCookies, s.CanSucceed = !s.CanSequence, !s.CanSublayer, !s.CanChangeCookies, !s.CanSucceed
		}, nil},
		{"abilities and more", func(s *Session) { s.CanSequence, s.MTU = !s.CanSequence, 1400 }, []l2tpv3.MessageType{l2tpv3.CDN, l2tpv3.ICRQ}},
		{"type", func(s *Session) { s.Type = l2tpv3.EthernetVLAN }, []l2tpv3.MessageType{l2tpv3.CDN}}, // the peer has no such
	} {
		s := established(t)
		x := s.sessions[0]
		row.change(&x)
		if err := s.e.SetSession(s.now, x); err != nil {
			t.Fatal(err)
		}
		var got []l2tpv3.MessageType
		for _, o := range s.outputs() {
			if o, ok := o.(*Transmit); ok {
				m, _ := l2tpv3.Parse(o.Payload)
				kind, _ := m.Type()
				got = append(got, kind)
			}
		}
		if !slices.Equal(got, row.want) {
			t.Errorf("session, %s: %v, not %v", row.name, got, row.want)
		}
	}
}

// TestRotateSecrets: another secret is a live change; none, or the first one, is not.
func TestRotateSecrets(t *testing.T) {
	n := newNetwork(t, 1)
	n.tunnel("gold", func(t *Tunnel) { t.Secrets = [][]byte{[]byte("old")} })
	n.session("gold", "tenant-a")
	n.start()
	if !n.until(3*time.Second, n.up) {
		t.Fatal(n.disagreement())
	}
	id := n.hosts[0].e.Connections()[0].LocalID
	set := func(h *host, secrets ...string) {
		h.tunnels[0].Secrets = nil
		for _, s := range secrets {
			h.tunnels[0].Secrets = append(h.tunnels[0].Secrets, []byte(s))
		}
		h.apply()
		h.drain()
		n.run(time.Minute)
		if !n.up() || n.hosts[0].e.Connections()[0].LocalID != id {
			t.Fatalf("%s with %v: %s", h.name, secrets, n.disagreement())
		}
	}
	a, b := n.hosts[0], n.hosts[1]
	set(a, "old", "new")
	set(b, "new", "old")
	set(a, "new")
	a.tunnels[0].Digest = l2tpv3.HMACSHA1 // the other hash algorithm, too, one end after the other
	set(a, "new")
	set(b, "new")
	b.tunnels[0].Digest = l2tpv3.HMACSHA1
	set(b, "new")
	for _, h := range n.hosts {
		if c := h.e.Counters(); c["unauthenticated"] > 0 || c["retransmitted"] > 0 {
			t.Errorf("%s: %v", h.name, c)
		}
	}
	if a.e.Connections()[0].Tunnel.Secrets != nil {
		t.Error("the status shows secrets")
	}
	b1, err := json.Marshal(a.e.Save())
	if err != nil || strings.Contains(string(b1), "bmV3") || strings.Contains(string(b1), `"new"`) {
		t.Error("the state has secrets")
	}
}

// TestLostAbility: a session for which an ability was agreed on begins anew without
// it; one that gains or loses what it does not use lives on, and is saved so.
func TestLostAbility(t *testing.T) {
	for _, row := range []struct {
		name string
		// used is what the session has agreed on.
		used func(s *session)
		lose func(s *Session)
	}{
		{"sequencing", func(s *session) { s.wishes.Sequencing = l2tpv3.SequencingAll }, func(s *Session) { s.CanSequence = false }},
		{"another sublayer in each direction", func(s *session) { s.receive, s.wishes.Sublayer = l2tpv3.SublayerDefault, l2tpv3.SublayerNone }, func(s *Session) { s.CanSublayer = false }},
		{"two sessions", func(s *session) { s.succession.past = &label{LocalID: 7, RemoteID: 8, LocalCookie: make([]byte, 8)} }, func(s *Session) { s.CanSucceed = false }},
		{"two cookies", func(s *session) { s.change.previous = []byte("1234") }, func(s *Session) { s.CanChangeCookies = false }},
	} {
		for _, used := range []bool{false, true} {
			s := established(t)
			cfg := s.sessions[0]
			cfg.CanSequence, cfg.CanSublayer, cfg.CanChangeCookies, cfg.CanSucceed = true, true, true, true
			if err := s.e.SetSession(s.now, cfg); err != nil {
				t.Fatal(err)
			}
			x := s.e.tunnels[cfg.Tunnel].sessions[cfg.Name]
			if x.state != SessionEstablished {
				t.Fatalf("%s: to gain it ended the session: %s", row.name, x.log.reason)
			}
			if used {
				row.used(x)
			}
			row.lose(&cfg)
			if err := s.e.SetSession(s.now, cfg); err != nil {
				t.Fatal(err)
			}
			now := s.e.tunnels[cfg.Tunnel].sessions[cfg.Name]
			if up := now == x && now.state == SessionEstablished; up == used {
				t.Errorf("%s, used %v: lives %v", row.name, used, up)
			}
			if !now.cfg.equal(cfg) {
				t.Errorf("%s, used %v: the configuration is %+v", row.name, used, now.cfg)
			}
			if d := s.e.TakeDirty(); !slices.Contains(d, cfg.Tunnel) {
				t.Errorf("%s, used %v: not to be saved", row.name, used)
			}
		}
	}
}

// TestSecretReachesOneEndFirst: one end has the secret minutes before the other, and
// has gone over to long pauses. When the other gets it, the tunnel is up at once,
// whichever end that is and wherever the one calls from.
func TestSecretReachesOneEndFirst(t *testing.T) {
	for _, row := range []struct {
		name        string
		first, then int // the end that gets it first, and then
		before      string
		dynamic     bool // the end 0 does not know where the end 1 is
	}{
		{"none before, dc1 first", 0, 1, "", false},
		{"none before, dc2 first", 1, 0, "", false},
		{"another before, dc1 first", 0, 1, "old", false},
		{"another before, dc2 first", 1, 0, "old", false},
		{"another before, the dynamic end last", 0, 1, "old", true},
	} {
		runs(t, 10, func(t testing.TB, seed uint64) {
			n := newNetwork(t, seed)
			n.tunnel("gold", func(c *Tunnel) {
				if row.before != "" {
					c.Secrets = [][]byte{[]byte(row.before)}
				}
			})
			if row.dynamic {
				n.hosts[0].tunnels[0].Remote = netip.Addr{}
			}
			n.session("gold", "tenant-a")
			n.start()
			if !n.until(5*time.Second, n.up) {
				t.Fatalf("%s: %s", row.name, n.disagreement())
			}
			give := func(h *host) {
				h.tunnels[0].Secrets = [][]byte{[]byte("new")}
				h.apply()
				h.drain()
			}
			give(n.hosts[row.first])
			if row.before != "" { // by itself that is a live change
				first := n.hosts[row.first]
				first.e.RemoveTunnel(n.now, first.tunnels[0].Name, l2tpv3.ResultCode{Result: l2tpv3.StopCCNGeneral})
				first.apply()
				first.drain()
			}
			n.run(10 * time.Minute)
			if row.before != "" {
				for _, h := range n.hosts {
					if h.e.Connections()[0].State == ConnectionEstablished {
						t.Fatalf("%s: %s is up without the secret", row.name, h.name)
					}
				}
			}
			give(n.hosts[row.then])
			if !n.until(5*time.Second, n.up) {
				t.Fatalf("%s: %s", row.name, n.disagreement())
			}
		})
	}
}

// TestWrongSecret: two ends that do not share a secret hear nothing of each other.
func TestWrongSecret(t *testing.T) {
	for _, peers := range []string{"other", ""} {
		n := newNetwork(t, 1)
		n.tunnel("gold", func(t *Tunnel) { t.Secrets = [][]byte{[]byte("one")} })
		if n.hosts[1].tunnels[0].Secrets = nil; peers != "" {
			n.hosts[1].tunnels[0].Secrets = [][]byte{[]byte(peers)}
		}
		n.start()
		n.run(5 * time.Minute)
		for _, h := range n.hosts {
			if s := h.e.Connections()[0].State; s == ConnectionEstablished {
				t.Errorf("secret %q: %s is %v", peers, h.name, s)
			}
		}
		if c := n.hosts[0].e.Counters(); c["unauthenticated"] == 0 {
			t.Errorf("secret %q: not counted: %v", peers, c)
		}
	}
}

// TestRefusedConfigurations: each with the field that is wrong.
func TestRefusedConfigurations(t *testing.T) {
	var random counting
	e := New(Config{Random: &random})
	good := Tunnel{Name: "t", Remote: netip.MustParseAddr("192.0.2.2"), HostName: "h", Capabilities: []l2tpv3.PseudowireType{5}}
	if err := e.SetTunnel(epoch, good); err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", 1024)
	for field, change := range map[string]func(*Tunnel){
		"Name":          func(t *Tunnel) { t.Name = "" },
		"Remote":        func(t *Tunnel) { t.Local = netip.MustParseAddr("2001:db8::1") },
		"HostName":      func(t *Tunnel) { t.HostName = long },
		"Capabilities":  func(t *Tunnel) { t.Capabilities = nil },
		"Encapsulation": func(t *Tunnel) { t.Encapsulation = 2 },
		"Secrets":       func(t *Tunnel) { t.Secrets = [][]byte{[]byte("s"), {}} },
		"Digest":        func(t *Tunnel) { t.Digest = 2 },
	} {
		c := good
		change(&c)
		var bad *ConfigError
		if err := e.SetTunnel(epoch, c); !errors.As(err, &bad) || bad.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	for field, change := range map[string]func(*Session){
		"Tunnel":       func(s *Session) { s.Tunnel = "other" },
		"Name":         func(s *Session) { s.Name = "" },
		"RemoteEndID":  func(s *Session) { s.RemoteEndID = []byte(long) },
		"AGI":          func(s *Session) { s.AGI = []byte(long) },
		"CookieLength": func(s *Session) { s.CookieLength = 5 },
		"Sublayer":     func(s *Session) { s.Sublayer = l2tpv3.SublayerATM },
	} {
		x := Session{Tunnel: "t", Name: "s"}
		change(&x)
		var bad *ConfigError
		if err := e.SetSession(epoch, x); !errors.As(err, &bad) || bad.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	if err := e.SetSession(epoch, Session{Tunnel: "nowhere", Name: "s"}); !errors.Is(err, ErrUnknownTunnel) {
		t.Error(err)
	}
	if len(e.tunnels) != 1 || len(e.sessions) != 0 {
		t.Error("a refused configuration has changed something")
	}
}

// TestDirtyNamesWhatToSave: what is written tunnel by tunnel as TakeDirty names
// them is the whole state at any time, and gone tunnels are named too.
func TestDirtyNamesWhatToSave(t *testing.T) {
	n := newNetwork(t, 5)
	twoTunnels(n)
	n.start()
	h := n.hosts[0]
	compare := func() {
		t.Helper()
		var whole State
		b, err := json.Marshal(h.e.Save())
		if err != nil || json.Unmarshal(b, &whole) != nil {
			t.Fatal(err)
		}
		if len(whole.Tunnels) != len(h.disk.tunnels) {
			t.Fatalf("%d tunnels on the disk, %d in all", len(h.disk.tunnels), len(whole.Tunnels))
		}
		for _, want := range whole.Tunnels {
			got := h.read(want.Config.Name)
			for _, s := range []*TunnelState{&got, &want} {
				s.Retransmits = 0
				for i := range s.Connections {
					c := &s.Connections[i]
					c.Tries, c.Linger, c.HalfOpen = 0, 0, 0
				}
				for i := range s.Sessions {
					s.Sessions[i].Retry, s.Sessions[i].HalfOpen = 0, 0
				}
			}
			a, _ := json.Marshal(got)
			b, _ := json.Marshal(want)
			if string(a) != string(b) {
				t.Fatalf("%s on the disk is\n%s\nnot\n%s", want.Config.Name, a, b)
			}
		}
	}
	for range 200 {
		n.next(n.now.Add(time.Second))
		compare()
	}
	h.e.RemoveTunnel(n.now, h.tunnels[0].Name, l2tpv3.ResultCode{Result: l2tpv3.StopCCNGeneral})
	h.drain()
	compare()
	n.run(5 * time.Minute)
	compare()
	if len(h.disk.tunnels) != 1 {
		t.Errorf("%d tunnels on the disk after one was removed", len(h.disk.tunnels))
	}
}

// TestRestoreRefuses what cannot be; it never panics.
func TestRestoreRefuses(t *testing.T) {
	s := established(t)
	good, err := json.Marshal(s.e.Save())
	if err != nil {
		t.Fatal(err)
	}
	restore := func(b string) error {
		var state State
		if err := json.Unmarshal([]byte(b), &state); err != nil {
			t.Fatalf("%v\n%s", err, b)
		}
		var random counting
		return New(Config{Random: &random}).Restore(epoch, state)
	}
	if err := restore(string(good)); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ from, to string }{
		{`{"version":1,"tunnels"`, `{"version":2,"tunnels"`},
		{`[{"version":1`, `[{"version":3`},
		{`"localID":11`, `"localID":0`},
		{`"localID":13,"initiator":true,"path"`, `"localID":11,"initiator":true,"path"`},
		{`"role":"","state":3`, `"role":"ended","state":3`},
		{`"role":"","state":3`, `"role":"x","state":3`},
		{`"role":"","state":3`, `"role":"","state":9`},
		{`"role":"","state":3`, `"role":"","state":0`},
		{`"role":"","state":3`, `"role":"","state":1`}, // with an established session
		{`"sent":1`, `"sent":2`},
		{`"sent":1`, `"sent":-1`},
		{`"octets":"yAM`, `"octets":"yAM=","x":"`},
		{`"Remote":"192.0.2.2:1701"`, `"Remote":""`},
		{`"Name":"silver/dc2"`, `"Name":"gold/dc2"`},
		{`"HostName":"gold.dc1"`, `"HostName":""`},
		{`"localID":13,"remoteID":900`, `"localID":0,"remoteID":900`},
		{`"Tunnel":"gold/dc2"`, `"Tunnel":"silver/dc2"`},
		{`"CookieLength":8`, `"CookieLength":7`},
		{`"CookieLength":8`, `"CookieLength":4`},
		{`"state":4,"initiator":true,"localID":13`, `"state":0,"initiator":true,"localID":0`}, // in the data plane
		{`"installed":true`, `"installed":false`},
		{`"remoteID":900`, `"remoteID":0`},
		{`"remoteID":77`, `"remoteID":0`},
		{`"remoteID":900,"localCookie":"`, `"remoteID":900,"remoteCookie":"AAAA","localCookie":"`},
		{`"wishes":{}`, `"wishes":{"sublayer":2}`},
		{`"wishes":{}`, `"wishes":{"sequencing":3}`},
		{`"sent":1`, `"sent":1,"tries":-1`},
		{`"kind":1,`, `"kind":2,`},
		{`"octets":"yAMA`, `"octets":"yAMB`}, // its Length
		{`"Remote":"192.0.2.2:1701"`, `"Remote":"192.0.2.3:1701"`},
		{`"path":{"Encapsulation":0`, `"path":{"Encapsulation":1`},
		{`"Name":"gold/dc2","Encapsulation":0`, `"Name":"gold/dc2","Encapsulation":2`},
		{`"peer":`, `"auth":true,"peer":`},
		{`"state":3,`, `"state":0,"phase":1,"role":"ended",`}, // closing, with nothing to be acknowledged
		{`"config":{"Name":"gold/dc2"`, `"secrets":true,"config":{"Name":"gold/dc2"`},
	} {
		changed := strings.Replace(string(good), row.from, row.to, 1)
		if changed == string(good) {
			t.Errorf("%s is not in the state\n%s", row.from, good)
			continue
		}
		if err := restore(changed); err == nil {
			t.Errorf("%s for %s was accepted", row.to, row.from)
		}
	}
	if err := s.e.Restore(epoch, State{}); !errors.Is(err, ErrNotEmpty) {
		t.Error(err)
	}
	if err := restore(`{"version":2,"tunnels":[{"version":1}]}`); !errors.Is(err, ErrStateVersion) {
		t.Error(err)
	}
}

// TestRestoreBoundsTimers: a state whose timers or counts are out of all proportion
// does not keep anything for longer than it would have been from the beginning.
func TestRestoreBoundsTimers(t *testing.T) {
	for _, end := range [][]string{
		{"remove", "gold/dc2", "6"},                             // closing
		{"<", "StopCCN", "ccid=11", "ns=2", "nr=4", "result=6"}, // lingering
		{"session", "gold/dc2", "tenant-b"},                     // a session half open
	} {
		testRestoreBoundsTimers(t, end)
	}
}

func testRestoreBoundsTimers(t *testing.T, end []string) {
	s := established(t)
	if err := s.do(end); err != nil {
		t.Fatal(err)
	}
	state := s.e.Save()
	for i := range state.Tunnels {
		ts := &state.Tunnels[i]
		ts.Failures = 1 << 40
		ts.History = make([]Transition, 100)
		for j := range ts.Connections {
			c := &ts.Connections[j]
			c.Linger, c.HalfOpen, c.Tries = 1<<60, 1<<60, 1<<40
		}
		for j := range ts.Sessions {
			ts.Sessions[j].Retry, ts.Sessions[j].HalfOpen = 1<<60, 1<<60
		}
	}
	var random counting
	e := New(Config{Random: &random})
	if err := e.Restore(s.now, state); err != nil {
		t.Fatal(err)
	}
	before := maps.Clone(e.connections)
	for end := s.now.Add(3 * time.Minute); ; {
		if d, ok := e.Deadline(); ok && d.After(end.Add(5*time.Minute)) {
			t.Fatalf("a timer in %v", d.Sub(s.now))
		}
		d, ok := e.Deadline()
		if !ok || d.After(end) {
			break
		}
		e.Advance(d)
		for _, ok := e.Next(); ok; _, ok = e.Next() {
		}
	}
	for id, c := range e.connections {
		if before[id] == c {
			t.Errorf("connection %d is still there", id)
		}
	}
	for _, c := range e.Connections() {
		if len(c.History) > history {
			t.Errorf("%s: %d transitions", c.Tunnel.Name, len(c.History))
		}
	}
}

// TestNoSecretYet: between Restore and SetTunnel the secrets are missing. Nothing
// is accepted or opened without them.
func TestNoSecretYet(t *testing.T) {
	n := newNetwork(t, 1)
	n.tunnel("gold", withSecret)
	a := n.hosts[0]
	a.start()
	state := a.e.Save()
	e := New(Config{Random: a.rand})
	if err := e.Restore(n.now, state); err != nil {
		t.Fatal(err)
	}
	m, err := buildMessage([]string{"SCCRQ", "host=gold.dc2", "router=1", "assigned=5", "caps=5"})
	if err != nil {
		t.Fatal(err)
	}
	e.Receive(n.now, Datagram{Path: Path{Local: addrPort("192.0.2.1:1701"), Remote: addrPort("192.0.2.2:1701")}, Payload: m})
	for range 10 {
		d, _ := e.Deadline()
		e.Advance(d)
	}
	if o, ok := e.Next(); ok || len(e.connections) > 0 {
		t.Errorf("without the secret: %s", outputText(o))
	}
}

// FuzzRestore: no state, whatever was done to the file, makes it panic.
func FuzzRestore(f *testing.F) {
	s := established(f)
	good, err := json.Marshal(s.e.Save())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, b []byte) {
		var state State
		if json.Unmarshal(b, &state) != nil {
			return
		}
		s := &stage{now: epoch}
		s.reset()
		if s.e.Restore(s.now, state) != nil {
			return
		}
		for range 5 {
			s.outputs()
			d, ok := s.e.Deadline()
			if !ok {
				return
			}
			s.now = d
			s.e.Advance(d)
		}
	})
}

// TestHelloJitter: HELLOs of connections that share a peer do not come together
// (Section 4.4), nor later than the interval; a lone connection has no jitter.
func TestHelloJitter(t *testing.T) {
	n := newNetwork(t, 1)
	names := []string{"a", "b", "c", "d", "e", "f"}
	for _, name := range names {
		n.tunnel(name)
	}
	n.start()
	n.run(5 * time.Second)
	if !n.up() {
		t.Fatal(n.disagreement())
	}
	after := map[time.Duration]bool{}
	for _, c := range n.hosts[0].e.Connections() {
		d := c.NextHello.Sub(c.Heard)
		if d > 10*time.Second || d < 8*time.Second {
			t.Errorf("%s: HELLO after %v", c.Tunnel.Name, d)
		}
		after[d] = true
	}
	if len(after) != len(names) {
		t.Errorf("%d tunnels with %d intervals", len(names), len(after))
	}
	n = newNetwork(t, 1)
	n.tunnel("alone")
	n.start()
	n.run(5 * time.Second)
	if c := n.hosts[0].e.Connections()[0]; c.NextHello.Sub(c.Heard) != 10*time.Second {
		t.Errorf("HELLO after %v", c.NextHello.Sub(c.Heard))
	}
}

// TestBackOff: attempts that come to nothing, and connections that the peer closes
// as soon as they are there, are further and further apart; after one that lived
// the next comes soon.
func TestBackOff(t *testing.T) {
	s := &stage{now: epoch}
	s.reset()
	if err := s.do([]string{"tunnel", "gold/dc2"}); err != nil {
		t.Fatal(err)
	}
	connect := func() uint32 {
		t.Helper()
		s.now = s.e.Connections()[0].NextAttempt
		s.e.Advance(s.now)
		id := s.e.Connections()[0].LocalID
		if err := s.receive([]string{"SCCRP", fmt.Sprint("ccid=", id), "nr=1", "host=gold.dc2", "router=1", "assigned=77", "caps=5"}); err != nil {
			t.Fatal(err)
		}
		return id
	}
	stop := func(id uint32) time.Duration {
		t.Helper()
		if err := s.receive([]string{"StopCCN", fmt.Sprint("ccid=", id), "ns=1", "nr=2", "result=1"}); err != nil {
			t.Fatal(err)
		}
		return s.e.Connections()[0].NextAttempt.Sub(s.now).Round(100 * time.Millisecond)
	}
	var waits []time.Duration
	for range 8 {
		waits = append(waits, stop(connect()))
	}
	// Three quarters of 1, 2, 4 … 30 s, and here no jitter.
	if got := fmt.Sprint(waits); got != "[800ms 1.5s 3s 6s 12s 22.5s 22.5s 22.5s]" {
		t.Errorf("attempts after %s", got)
	}
	id := connect()
	s.now = s.now.Add(time.Minute)
	if d := stop(id); d > time.Second {
		t.Errorf("after a minute up the next attempt comes in %v", d)
	}
}

// TestSessionBackOff: so it is with sessions, whoever does not want them: the peer
// or our own data plane.
func TestSessionBackOff(t *testing.T) {
	for _, refuse := range []func(s *stage, local uint32){
		func(s *stage, local uint32) { s.e.InstallFailed(s.now, local, errors.New("no such device")) },
		func(s *stage, local uint32) {
			c := s.e.Connections()[0]
			if err := s.receive(strings.Fields(fmt.Sprintf("CDN ccid=11 ns=%d nr=%d result=4 local=900 remote=%d", c.Nr, c.Ns, local))); err != nil {
				t.Fatal(err)
			}
		},
	} {
		s := established(t)
		var waits []time.Duration
		for range 7 {
			refuse(s, s.e.Sessions()[0].LocalID)
			x := s.e.Sessions()[0]
			waits = append(waits, x.NextAttempt.Sub(s.now).Round(100*time.Millisecond))
			// What it was refused by is acknowledged; then it is asked for again, and comes up.
			for range 2 {
				c := s.e.Connections()[0]
				if err := s.receive(strings.Fields(fmt.Sprintf("ACK ccid=11 ns=%d nr=%d", c.Nr, c.Ns))); err != nil {
					t.Fatal(err)
				}
				s.now = x.NextAttempt
				s.e.Advance(s.now)
			}
			c := s.e.Connections()[0]
			if err := s.receive(strings.Fields(fmt.Sprintf("ICRP ccid=11 ns=%d nr=%d local=900 remote=%d circuit=A", c.Nr, c.Ns, s.e.Sessions()[0].LocalID))); err != nil {
				t.Fatal(err)
			}
			if state := s.e.Sessions()[0].State; state != SessionEstablished {
				t.Fatal(state)
			}
		}
		if got := fmt.Sprint(waits); got != "[800ms 1.5s 3s 6s 12s 22.5s 22.5s]" {
			t.Errorf("attempts after %s", got)
		}
		s.now = s.now.Add(time.Minute)
		refuse(s, s.e.Sessions()[0].LocalID)
		if d := s.e.Sessions()[0].NextAttempt.Sub(s.now); d > time.Second {
			t.Errorf("after a minute up the next attempt comes in %v", d)
		}
	}
}

// TestHistory: sixteen transitions, and an attempt that fails like the one before is
// kept once, with how often and since when.
func TestHistory(t *testing.T) {
	var log transitions
	attempt := func(reason string) {
		log.add(epoch, ConnectionIdle, ConnectionWaitReply, "waiting for dc2")
		log.add(epoch, ConnectionWaitReply, ConnectionIdle, reason)
	}
	attempt("no answer")
	epoch := epoch.Add(time.Hour)
	for range 99 {
		log.add(epoch, ConnectionIdle, ConnectionWaitReply, "waiting for dc2")
		log.add(epoch, ConnectionWaitReply, ConnectionIdle, "no answer")
	}
	if len(log.past) > 4 {
		t.Errorf("%d entries for the same again and again", len(log.past))
	}
	times, last := 0, log.past[len(log.past)-1]
	for _, x := range log.past {
		if x.Reason == "no answer" {
			times += max(x.Times, 1)
		}
	}
	if times != 100 || !last.First.Before(epoch) || last.Time != epoch {
		t.Errorf("%d times, the last %+v", times, last)
	}
	attempt("refused")
	attempt("no answer")
	var reasons []string
	for _, x := range log.past {
		reasons = append(reasons, x.Reason)
	}
	if want := "waiting for dc2, refused, waiting for dc2, no answer"; !strings.HasSuffix(strings.Join(reasons, ", "), want) {
		t.Errorf("%q does not end with %q", reasons, want)
	}
	for i := range 30 {
		attempt(strings.Repeat("x", i))
	}
	if len(log.past) != history || log.past[history-1].Reason != strings.Repeat("x", 29) {
		t.Errorf("%d entries, the last %v", len(log.past), log.past[len(log.past)-1])
	}
}

// TestSessionIDTaken: IDs of others in the network namespace are not used.
func TestSessionIDTaken(t *testing.T) {
	var random counting
	e := New(Config{Random: &random, SessionIDTaken: func(id uint32) bool { return id < 1000 }})
	if id := e.newSessionID(); id != 1000 {
		t.Errorf("ID %d", id)
	}
}

// TestPure: the package depends on the standard library and the wire only, and
// has no clock, no goroutines and no randomness of its own.
func TestPure(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{join .Imports "\n"}}`, ".").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for p := range strings.Lines(string(out)) {
		p = strings.TrimSpace(p)
		if first, _, _ := strings.Cut(p, "/"); strings.Contains(first, ".") && p != "github.com/pwd-project/pwd/pkg/l2tpv3" {
			t.Errorf("imports %s", p)
		}
		if slices.Contains([]string{"net", "os", "syscall", "sync", "context", "math/rand", "math/rand/v2", "crypto/rand", "log", "log/slog"}, p) {
			t.Errorf("imports %s: it is not pure any more", p)
		}
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	impure := regexp.MustCompile(`time\.(Now|After|Sleep|NewTimer|NewTicker|Tick|Since|Until)\b|\bgo func|\bselect \{|\bchan `)
	for _, f := range files {
		if strings.HasSuffix(f, "_test.go") {
			continue
		}
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if m := impure.Find(b); m != nil {
			t.Errorf("%s has %s", f, m)
		}
	}
}
