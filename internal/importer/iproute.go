package importer

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// IPL2TP reads what `ip l2tp show tunnel` and `ip l2tp show session` say, one after the other, as
// text or (with -j) as JSON.
func IPL2TP(text string) (*Definition, error) {
	d := &Definition{From: "what `ip l2tp show tunnel` and `ip l2tp show session` say", Bridges: map[string]string{}}
	var r reading
	var err error
	if strings.HasPrefix(strings.TrimSpace(text), "[") {
		err = r.json(text)
	} else {
		err = r.text(d, text)
	}
	if err != nil {
		return nil, err
	}
	r.join(d)
	if err := d.finish(); err != nil {
		return nil, err
	}
	d.note("%s", sublayerNote)
	return d, nil
}

// reading is what was read: sessions come after all tunnels.
type reading struct {
	tunnels  []*Tunnel
	sessions []readSession
}

type readSession struct {
	Session
	tunnel     uint32
	send, recv bool
}

func (r *reading) join(d *Definition) {
	byID := map[uint32]*Tunnel{}
	for _, t := range r.tunnels {
		if byID[t.ID] == nil {
			byID[t.ID] = t
			d.Tunnels = append(d.Tunnels, t)
		}
	}
	for i := range r.sessions {
		s := &r.sessions[i]
		t := byID[s.tunnel]
		switch {
		case t == nil:
			d.note("session %d is left out: its tunnel %d was not shown", s.ID, s.tunnel)
			continue
		case s.ID == 0 || s.PeerID == 0:
			d.note("a session of tunnel %d is left out: an ID of it is missing", s.tunnel)
			continue
		case s.send != s.recv:
			d.note("session %d numbers packets in one direction only, which is left out", s.ID)
		}
		s.Numbers = s.send && s.recv
		t.Sessions = append(t.Sessions, &s.Session)
	}
}

// The lines of the text form; a line may have several.
var (
	tunnelLine  = regexp.MustCompile(`^Tunnel (\d+), encap (\S+)`)
	fromLine    = regexp.MustCompile(`^From (\S+) to (\S+)`)
	peerLine    = regexp.MustCompile(`^Peer tunnel (\d+)`)
	portsLine   = regexp.MustCompile(`^UDP source / dest ports: (\d+)/(\d+)`)
	sessionLine = regexp.MustCompile(`^Session (\d+) in tunnel (\d+)`)
	peerSession = regexp.MustCompile(`^Peer session (\d+), tunnel (\d+)`)
	nameLine    = regexp.MustCompile(`^interface name: (\S+)`)
	offsetLine  = regexp.MustCompile(`^offset (\d+), peer offset (\d+)`)
	cookieWord  = regexp.MustCompile(`(?:^|\s)cookie ([0-9a-fA-F]+)`)
	peerCookie  = regexp.MustCompile(`(?:^|\s)peer cookie ([0-9a-fA-F]+)`)
	numbersLine = regexp.MustCompile(`^sequence numbering:(.*)`)
)

func (r *reading) text(d *Definition, text string) error {
	lines := bufio.NewScanner(strings.NewReader(text))
	lines.Buffer(nil, 1<<20)
	var t *Tunnel
	var s *readSession
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		find := func(re *regexp.Regexp) []string { return re.FindStringSubmatch(line) }
		if m := find(tunnelLine); m != nil {
			t, s = &Tunnel{ID: number(m[1]), Encapsulation: strings.ToLower(m[2])}, nil
			r.tunnels = append(r.tunnels, t)
		} else if m := find(sessionLine); m != nil {
			r.sessions = append(r.sessions, readSession{Session: Session{ID: number(m[1])}, tunnel: number(m[2])})
			t, s = nil, &r.sessions[len(r.sessions)-1]
		} else if m := find(fromLine); m != nil && t != nil {
			t.Local, t.Peer = addr(m[1]), addr(m[2])
		} else if m := find(peerSession); m != nil && s != nil {
			s.PeerID = number(m[1])
		} else if m := find(peerLine); m != nil && t != nil {
			t.PeerID = number(m[1])
		} else if m := find(portsLine); m != nil && t != nil {
			t.LocalPort, t.PeerPort = port(m[1]), port(m[2])
		} else if m := find(nameLine); m != nil && s != nil {
			s.Interface = m[1]
		} else if m := find(offsetLine); m != nil && s != nil {
			if m[1] != "0" || m[2] != "0" {
				d.note("session %d has an offset, which RFC 3931 does not know: it is left out", s.ID)
			}
		} else if strings.Contains(line, "cookie ") && s != nil {
			if m := find(peerCookie); m != nil {
				s.PeerCookie = m[1]
			}
			if m := cookieWord.FindStringSubmatch(peerCookie.ReplaceAllString(line, " ")); m != nil {
				s.Cookie = m[1]
			}
		} else if m := find(numbersLine); m != nil && s != nil {
			s.send, s.recv = strings.Contains(m[1], "send"), strings.Contains(m[1], "recv")
		} else if line != "" && t == nil && s == nil {
			return fmt.Errorf("line %d is not what `ip l2tp show` says: %q", n, line)
		}
	}
	return lines.Err()
}

// json reads arrays of tunnels and of sessions.
func (r *reading) json(text string) error {
	type object struct {
		TunnelID   uint32 `json:"tunnel_id"`
		Encap      string `json:"encap"`
		Local      string `json:"local"`
		Peer       string `json:"peer"`
		PeerTunnel uint32 `json:"peer_tunnel"`
		LocalPort  uint16 `json:"local_port"`
		PeerPort   uint16 `json:"peer_port"`

		SessionID  uint32 `json:"session_id"`
		PeerID     uint32 `json:"peer_session_id"`
		Interface  string `json:"interface"`
		Cookie     string `json:"cookie"`
		PeerCookie string `json:"peer_cookie"`
		Send       any    `json:"send_seq"`
		Recv       any    `json:"recv_seq"`
	}
	for in := json.NewDecoder(strings.NewReader(text)); ; {
		var all []object
		if err := in.Decode(&all); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("this is not what `ip -j l2tp show` says: %w", err)
		}
		for _, o := range all {
			if o.SessionID == 0 {
				r.tunnels = append(r.tunnels, &Tunnel{
					ID: o.TunnelID, PeerID: o.PeerTunnel, Encapsulation: strings.ToLower(o.Encap), Local: addr(o.Local), Peer: addr(o.Peer),
					LocalPort: o.LocalPort, PeerPort: o.PeerPort,
				})
				continue
			}
			r.sessions = append(r.sessions, readSession{
				Session: Session{Interface: o.Interface, ID: o.SessionID, PeerID: o.PeerID, Cookie: o.Cookie, PeerCookie: o.PeerCookie},
				tunnel:  o.TunnelID, send: set(o.Send), recv: set(o.Recv),
			})
		}
	}
}

// set says that a value is there and not false.
func set(v any) bool {
	switch v := v.(type) {
	case nil:
		return false
	case bool:
		return v
	}
	return true
}

// Links reads what `ip -j link show` says: which bridge an interface is a port of.
func (d *Definition) Links(text string) {
	var all []struct {
		Name   string `json:"ifname"`
		Master string `json:"master"`
	}
	if json.Unmarshal([]byte(text), &all) != nil {
		return
	}
	for _, l := range all {
		if l.Master != "" {
			d.Bridges[l.Name] = l.Master
		}
	}
}

func number(s string) uint32 {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return 0
	}
	return uint32(n)
}

func port(s string) uint16 {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return 0
	}
	return uint16(n)
}

func addr(s string) netip.Addr {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}
	}
	return a.Unmap().WithZone("")
}
