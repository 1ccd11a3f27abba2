package control

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

var updateFlag = flag.Bool("update", false, "rewrite the transcripts in testdata")

// TestTranscripts replays testdata/*.txt: what is done to one Endpoint, and what
// it says. The peer is written out by hand, so that nothing under test helps
// to judge it. Lines:
//
//	# comment
//	tunnel NAME [KEY=VALUE…]      SetTunnel; host=, peer=, router=, remote=, caps=, hello=, window=, secret=, digest=sha1, numbers=cisco, encapsulation=ip
//	session TUNNEL NAME [KEY=…]   SetSession; type=, end=, agi=, cookie=, sublayer=, mtu=, circuit=, sequence
//	remove TUNNEL [NAME] RESULT   RemoveTunnel, RemoveSession
//	< MESSAGE [from=ADDR:PORT]    receive a message, in the text form of describe
//	< HEX                         receive octets
//	advance DURATION              let time pass, with all that happens on the way
//	heard ID                      data has been received
//	refused ID                    the data plane could not install the session
//	random N                      the next random value
//	restart [DURATION]            save, forget everything for as long, restore and set it all again
//	cookie TUNNEL NAME            ChangeCookie
//	errors TUNNEL NAME CRC/ALIGNMENT   CountErrors
//	half-open-close
//	status, counters
//
// What follows, indented, is what comes of it; -update writes it.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no transcripts: ", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			script, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := replay(t, string(script), nil)
			if *updateFlag {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if d := cmp.Diff(strings.Split(string(script), "\n"), strings.Split(got, "\n")); d != "" {
				t.Errorf("%s (-file +now)\n%s", file, d)
			}
		})
	}
}

// stage is one Endpoint, dc1, and everything around it.
type stage struct {
	e        *Endpoint
	now      time.Time
	random   counting
	tunnels  []Tunnel
	sessions []Session
	out      strings.Builder
	// watch, if set, sees what is transmitted; begun counts the resets.
	watch func(*stage, *Transmit)
	begun int
}

// counting gives 1, 2, 3 …: IDs, tie breakers and cookies that a reader can
// follow, and next to no jitter.
type counting uint32

func (c *counting) Read(b []byte) (int, error) {
	*c++
	clear(b)
	var v [4]byte
	binary.BigEndian.PutUint32(v[:], uint32(*c))
	copy(b[max(0, len(b)-4):], v[max(0, 4-len(b)):])
	return len(b), nil
}

func replay(t *testing.T, script string, watch func(*stage, *Transmit)) string {
	s := &stage{now: epoch, watch: watch}
	s.reset()
	for line := range strings.Lines(script) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "    "):
			continue
		case line == "" || strings.HasPrefix(line, "#"):
			fmt.Fprintln(&s.out, line)
			continue
		case line == "reset":
			fmt.Fprintln(&s.out, line)
			*s = stage{now: epoch, out: s.out, watch: watch, begun: s.begun + 1}
			s.reset()
			continue
		}
		fmt.Fprintln(&s.out, line)
		if err := s.do(strings.Fields(line)); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
	}
	return s.out.String()
}

func (s *stage) reset() {
	s.e = New(Config{Random: &s.random, VendorName: "pwd"})
}

func (s *stage) say(format string, args ...any) { fmt.Fprintf(&s.out, "    "+format+"\n", args...) }

func (s *stage) do(words []string) error {
	var err error
	last := words[len(words)-1]
	switch words[0] {
	case "tunnel":
		err = s.tunnel(words[1], words[2:])
	case "session":
		err = s.session(words[1], words[2], words[3:])
	case "remove":
		var n int
		if n, err = strconv.Atoi(last); err != nil {
			return err
		}
		if r := (l2tpv3.ResultCode{Result: uint16(n)}); len(words) == 4 {
			s.e.RemoveSession(s.now, words[1], words[2], r)
			s.sessions = slices.DeleteFunc(s.sessions, func(x Session) bool { return x.Tunnel == words[1] && x.Name == words[2] })
		} else {
			s.e.RemoveTunnel(s.now, words[1], r)
			s.tunnels = slices.DeleteFunc(s.tunnels, func(t Tunnel) bool { return t.Name == words[1] })
			s.sessions = slices.DeleteFunc(s.sessions, func(x Session) bool { return x.Tunnel == words[1] })
		}
	case "<":
		err = s.receive(words[1:])
	case "advance":
		return s.advance(words[1])
	case "heard", "refused", "random":
		var n uint64
		if n, err = strconv.ParseUint(words[1], 0, 32); err != nil {
			return err
		}
		switch words[0] {
		case "heard":
			s.e.Heard(s.now, uint32(n))
		case "refused":
			s.e.InstallFailed(s.now, uint32(n), errors.New("no such device"))
		case "random":
			s.random = counting(n) - 1
		}
	case "restart":
		err = s.restart(words[1:])
	case "cookie":
		if err := s.e.ChangeCookie(s.now, words[1], words[2]); err != nil {
			s.say("error: %v", err)
		}
	case "errors":
		var v l2tpv3.CircuitErrors
		if _, err = fmt.Sscanf(words[3], "%d/%d", &v.CRC, &v.Alignment); err == nil {
			s.e.CountErrors(s.now, words[1], words[2], v)
		}
	case "half-open-close":
		s.e.HalfOpenClose(s.now)
	case "status":
		s.status()
	case "counters":
		for _, name := range counterNames {
			if n := s.e.Counters()[name]; n > 0 {
				s.say("%s %d", name, n)
			}
		}
	default:
		return errors.New("no such command")
	}
	s.drain("")
	return err
}

// options calls set for each KEY=VALUE.
func options(words []string, set func(key, value string) error) error {
	for _, w := range words {
		k, v, _ := strings.Cut(w, "=")
		if err := set(k, v); err != nil {
			return fmt.Errorf("%s: %w", w, err)
		}
	}
	return nil
}

func (s *stage) tunnel(name string, words []string) error {
	short := strings.SplitN(name, "/", 2)
	c := Tunnel{
		Name: name, Local: netip.MustParseAddr("192.0.2.1"), Remote: netip.MustParseAddr("192.0.2.2"), Peer: short[1],
		HostName: short[0] + ".dc1", PeerHostName: short[0] + "." + short[1], RouterID: 100,
		Capabilities: []l2tpv3.PseudowireType{l2tpv3.Ethernet}, ReceiveWindow: 8,
	}
	err := options(words, func(k, v string) (err error) {
		switch k {
		case "host":
			c.HostName = v
		case "peer":
			c.PeerHostName = v
		case "remote":
			c.Remote, err = netip.ParseAddr(v)
			c.Local = netip.Addr{}
		case "hello":
			c.Hello, err = time.ParseDuration(v)
		case "window":
			var n int
			n, err = strconv.Atoi(v)
			c.ReceiveWindow = uint16(n)
		case "caps":
			c.Capabilities = nil
			for word := range strings.SplitSeq(v, ",") {
				n, err := strconv.ParseUint(word, 10, 16)
				if err != nil {
					return err
				}
				c.Capabilities = append(c.Capabilities, l2tpv3.PseudowireType(n))
			}
		case "ecn":
			c.ECN = true
		case "hide":
			c.Hide = true
		case "foreign":
			c.Foreign, c.PeerHostName = true, ""
		case "language":
			c.Language = v
		case "dynamic":
			c.Remote = netip.Addr{}
		case "secret":
			c.Secrets = append(c.Secrets, []byte(v))
		case "digest":
			c.Digest = l2tpv3.HMACSHA1
		case "numbers":
			c.Numbers = l2tpv3.CiscoNumbers
		case "encapsulation":
			c.Encapsulation = l2tpv3.IP
		default:
			err = errors.New("no such option")
		}
		return err
	})
	if err != nil {
		return err
	}
	if i := slices.IndexFunc(s.tunnels, func(t Tunnel) bool { return t.Name == name }); i >= 0 {
		s.tunnels = slices.Delete(s.tunnels, i, i+1)
	}
	s.tunnels = append(s.tunnels, c)
	if err := s.e.SetTunnel(s.now, c); err != nil {
		s.say("error: %v", err)
	}
	return nil
}

func (s *stage) session(tunnel, name string, words []string) error {
	c := Session{Tunnel: tunnel, Name: name, Type: l2tpv3.Ethernet, RemoteEndID: []byte(name), Circuit: l2tpv3.CircuitActive}
	err := options(words, func(k, v string) (err error) {
		n, bad := strconv.Atoi(v)
		switch k {
		case "end":
			c.RemoteEndID = []byte(v)
		case "agi":
			c.AGI = []byte(v)
		case "circuit":
			c.Circuit = circuitOf(v)
		case "sequence":
			c.CanSequence = true
		case "per-direction":
			c.CanSublayer = true
		case "change":
			c.CanChangeCookies = true
		case "succeed":
			c.CanSucceed = true
		case "local-end":
			c.LocalEndID = []byte(v)
		case "sequencing":
			c.CanSequence, c.Sequencing, err = true, l2tpv3.DataSequencing(n), bad
		case "dscp":
			c.DSCP, err = uint8(n), bad
		case "type":
			c.Type, err = l2tpv3.PseudowireType(n), bad
		case "cookie":
			c.CookieLength, err = n, bad
		case "sublayer":
			c.Sublayer, err = l2tpv3.L2SpecificSublayer(n), bad
		case "mtu":
			c.MTU, err = uint16(n), bad
		default:
			err = errors.New("no such option")
		}
		return err
	})
	if err != nil {
		return err
	}
	if i := slices.IndexFunc(s.sessions, func(x Session) bool { return x.Tunnel == tunnel && x.Name == name }); i >= 0 {
		s.sessions = slices.Delete(s.sessions, i, i+1)
	}
	s.sessions = append(s.sessions, c)
	if err := s.e.SetSession(s.now, c); err != nil {
		s.say("error: %v", err)
	}
	return nil
}

func (s *stage) receive(words []string) error {
	d := Datagram{Path: Path{Local: addrPort("192.0.2.1:1701"), Remote: netip.MustParseAddrPort("192.0.2.2:1701")}}
	var rest []string
	for _, w := range words {
		if from, ok := strings.CutPrefix(w, "from="); ok {
			a, err := netip.ParseAddrPort(from)
			if err != nil {
				return err
			}
			d.Remote = a
			continue
		}
		if w == "over=ip" {
			d.Encapsulation = l2tpv3.IP
			d.Local, d.Remote = netip.AddrPortFrom(d.Local.Addr(), 0), netip.AddrPortFrom(d.Remote.Addr(), 0)
			continue
		}
		rest = append(rest, w)
	}
	b, err := hex.DecodeString(rest[0])
	if err != nil || len(rest) > 1 {
		if b, err = buildMessage(rest); err != nil {
			return err
		}
	}
	d.Payload = b
	s.e.Receive(s.now, d)
	return nil
}

func (s *stage) advance(by string) error {
	d, err := time.ParseDuration(by)
	if err != nil {
		return err
	}
	start, end := s.now, s.now.Add(d)
	for {
		at, ok := s.e.Deadline()
		if !ok || at.After(end) {
			break
		}
		if at.After(s.now) {
			s.now = at
		}
		s.e.Advance(s.now)
		s.drain(fmt.Sprintf("+%.2fs ", s.now.Sub(start).Seconds()))
	}
	s.now = end
	return nil
}

func (s *stage) restart(words []string) error {
	state := s.e.Save()
	b, err := json.Marshal(state)
	if err != nil {
		return err
	}
	if len(words) > 0 {
		d, err := time.ParseDuration(words[0])
		if err != nil {
			return err
		}
		s.now = s.now.Add(d)
	}
	s.reset()
	var back State
	if err := json.Unmarshal(b, &back); err != nil {
		return err
	}
	if err := s.e.Restore(s.now, back); err != nil {
		return err
	}
	for _, t := range s.tunnels {
		if err := s.e.SetTunnel(s.now, t); err != nil {
			return err
		}
	}
	for _, x := range s.sessions {
		if err := s.e.SetSession(s.now, x); err != nil {
			return err
		}
	}
	return nil
}

// drain prints the outputs.
func (s *stage) drain(at string) {
	for {
		o, ok := s.e.Next()
		if !ok {
			return
		}
		s.say("%s%s", at, outputText(o))
		if x, ok := o.(*Transmit); ok && s.watch != nil {
			s.watch(s, x)
		}
	}
}

func outputText(o Output) string {
	switch o := o.(type) {
	case *Transmit:
		where := ""
		if o.Connection == 0 {
			where = " (stranger)"
		}
		return fmt.Sprintf("> %s to=%v%s", describe(o.Payload), o.Path.Remote, where)
	case *Connected:
		return fmt.Sprintf("connected %d initiator=%v %v-%v", o.Connection, o.Initiator, o.Path.Local, o.Path.Remote)
	case *Released:
		return fmt.Sprintf("released %d", o.Connection)
	case *InstallSession:
		s := fmt.Sprintf("install %s connection=%d/%d session=%d/%d cookie=%x/%x transmit=%v",
			o.Name, o.Connection, o.RemoteConnection, o.LocalID, o.RemoteID, o.LocalCookie, o.RemoteCookie, o.Transmit)
		if o.ReceiveSublayer != 0 || o.TransmitSublayer != 0 {
			s += fmt.Sprintf(" sublayer=%d/%d", o.ReceiveSublayer, o.TransmitSublayer)
		}
		if o.ReceiveSequencing != 0 || o.TransmitSequencing != 0 {
			s += fmt.Sprintf(" sequencing=%d/%d", o.ReceiveSequencing, o.TransmitSequencing)
		}
		if o.Beside != 0 {
			s += fmt.Sprintf(" beside=%d", o.Beside)
		}
		if o.PreviousCookie != nil {
			s += fmt.Sprintf(" previous=%x", o.PreviousCookie)
		}
		if o.DSCP != 0 {
			s += fmt.Sprintf(" dscp=%d", o.DSCP)
		}
		if o.ECN {
			s += " ecn"
		}
		return s
	case *RemoveSession:
		return fmt.Sprintf("uninstall %s session=%d", o.Name, o.LocalID)
	case *ConnectionChanged:
		return fmt.Sprintf("connection %s %v -> %v: %s", o.Tunnel, o.From, o.To, o.Reason)
	case *SessionChanged:
		return fmt.Sprintf("session %s %s %v -> %v: %s; remote circuit %s", o.Tunnel, o.Name, o.From, o.To, o.Reason, circuitText(o.Remote))
	case *SessionUnknown:
		return fmt.Sprintf("unknown %s %s agi=%q end=%q", o.Tunnel, o.Type, o.AGI, o.End)
	}
	return fmt.Sprintf("%T", o)
}

func (s *stage) status() {
	for _, c := range s.e.Connections() {
		s.say("tunnel %s %v since %v: %s; id %d/%d ns %d nr %d unacknowledged %d queued %d retransmits %d closing %d",
			c.Tunnel.Name, c.State, s.now.Sub(c.Since), c.Reason, c.LocalID, c.RemoteID, c.Ns, c.Nr, c.Unacknowledged, c.Queued, c.Retransmits, c.Closing)
	}
	for _, x := range s.e.Sessions() {
		s.say("session %s %s %v since %v: %s; id %d/%d circuit %s/%s up %v",
			x.Session.Tunnel, x.Session.Name, x.State, s.now.Sub(x.Since), x.Reason, x.LocalID, x.RemoteID, circuitText(x.Local), circuitText(x.Remote), x.Up())
		if none := (l2tpv3.CircuitErrors{}); x.LocalErrors != none || x.RemoteErrors != none {
			s.say("    errors %s, the peer's %s, told %d times", errorsText(x.LocalErrors), errorsText(x.RemoteErrors), x.Errors)
		}
	}
}

func addrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
