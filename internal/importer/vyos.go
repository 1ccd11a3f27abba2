package importer

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// vyosPort is VyOS's for both ends where none is said, vyosMTU that of its interfaces.
const (
	vyosPort = 5000
	vyosMTU  = 1488
)

// VyOS reads a configuration of VyOS: `set` commands, or the form with braces.
func VyOS(text string) (*Definition, error) {
	d := &Definition{From: "a configuration of VyOS", Bridges: map[string]string{}}
	paths, err := vyosPaths(text)
	if err != nil {
		return nil, err
	}
	found := map[string]*vyosInterface{}
	var names []string
	for _, p := range paths {
		switch {
		case len(p) == 3 && p[0] == "system" && p[1] == "host-name":
			d.Host = p[2]
		case len(p) >= 6 && p[0] == "interfaces" && p[1] == "bridge" && p[3] == "member" && p[4] == "interface":
			if strings.HasPrefix(p[5], "l2tpeth") {
				if d.Bridges[p[5]] = p[2]; len(p) > 6 {
					d.note("`%s` of %s in %s is left out: say with `vlan` or `vlans` of the attachment what it carries", strings.Join(p[6:], " "), p[5], p[2])
				}
			}
		case len(p) >= 3 && p[0] == "interfaces" && p[1] == "l2tpv3":
			i := found[p[2]]
			if i == nil {
				i = newVyOSInterface(p[2])
				found[p[2]] = i
				names = append(names, p[2])
			}
			i.take(d, p[3:])
		}
	}
	for _, name := range names {
		found[name].add(d)
	}
	return d, d.finish()
}

// vyosInterface is one l2tpethN.
type vyosInterface struct {
	tunnel  Tunnel
	session Session
	off     bool
}

func newVyOSInterface(name string) *vyosInterface {
	return &vyosInterface{
		tunnel:  Tunnel{Encapsulation: "udp", LocalPort: vyosPort, PeerPort: vyosPort},
		session: Session{Interface: name},
	}
}

// take reads what is below the interface's name.
func (i *vyosInterface) take(d *Definition, p []string) {
	name := i.session.Interface
	switch {
	case len(p) == 0:
		return
	case p[0] == "disable":
		i.off = true
		return
	case p[0] == "description":
		return
	case len(p) == 3 && p[0] == "bridge-group" && p[1] == "bridge": // before VyOS 1.2
		d.Bridges[name] = p[2]
		return
	case len(p) == 1 && p[0] == "bridge-group":
		return
	case len(p) != 2:
		d.note("`%s` of %s is left out", strings.Join(p, " "), name)
		return
	}
	v := p[1]
	switch p[0] {
	case "tunnel-id":
		i.tunnel.ID = number(v)
	case "peer-tunnel-id":
		i.tunnel.PeerID = number(v)
	case "session-id":
		i.session.ID = number(v)
	case "peer-session-id":
		i.session.PeerID = number(v)
	case "source-address", "local-ip":
		i.tunnel.Local = addr(v)
	case "remote", "remote-ip":
		i.tunnel.Peer = addr(v)
	case "source-port":
		i.tunnel.LocalPort = port(v)
	case "destination-port":
		i.tunnel.PeerPort = port(v)
	case "encapsulation":
		i.tunnel.Encapsulation = v
	case "mtu":
		if n, err := strconv.Atoi(v); err == nil && n >= 576 && n <= 9216 {
			i.session.MTU = n
		} else {
			d.note("`mtu %s` of %s is left out: 576 to 9216 are possible", v, name)
		}
	case "address":
		d.note("the address %s of %s is left out: give it to the bridge that the pseudowire is attached to", v, name)
	default:
		d.note("`%s` of %s is left out", strings.Join(p, " "), name)
	}
}

// add adds the interface's session to its tunnel.
func (i *vyosInterface) add(d *Definition) {
	name := i.session.Interface
	switch {
	case i.off:
		d.note("%s is left out: it is disabled", name)
		return
	case i.session.ID == 0 || i.session.PeerID == 0 || i.tunnel.ID == 0 || i.tunnel.PeerID == 0 || !i.tunnel.Local.IsValid() || !i.tunnel.Peer.IsValid():
		d.note("%s is left out: it lacks an ID or an address", name)
		return
	}
	if i.session.MTU == 0 {
		i.session.MTU = vyosMTU
		d.note("the MTU of %s is VyOS's, %d: take it out for frames of 1500 octets once its peer takes those, too", name, vyosMTU)
	}
	for _, t := range d.Tunnels {
		if t.ID == i.tunnel.ID {
			same := i.tunnel
			same.Sessions = t.Sessions
			if t.PeerID != same.PeerID || t.Local != same.Local || t.Peer != same.Peer || t.Encapsulation != same.Encapsulation || t.LocalPort != same.LocalPort || t.PeerPort != same.PeerPort {
				d.note("%s is left out: its tunnel %d is another one than that of %s", name, t.ID, t.Sessions[0].Interface)
				return
			}
			t.Sessions = append(t.Sessions, &i.session)
			return
		}
	}
	t := i.tunnel
	t.Sessions = []*Session{&i.session}
	d.Tunnels = append(d.Tunnels, &t)
}

// vyosPaths are the configuration's words, a path for each leaf, of either form.
func vyosPaths(text string) ([][]string, error) {
	var paths [][]string
	var stack [][]string
	comment := false
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(line)
		if comment || strings.HasPrefix(line, "/*") {
			comment = !strings.HasSuffix(line, "*/")
			continue
		}
		if line == "" || line[0] == '#' || strings.HasPrefix(line, "//") {
			continue
		}
		words, err := vyosWords(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		switch last := words[len(words)-1]; {
		case words[0] == "set" && len(stack) == 0:
			paths = append(paths, words[1:])
		case (words[0] == "delete" || words[0] == "comment") && len(stack) == 0:
		case last == "{":
			stack = append(stack, words[:len(words)-1])
			paths = append(paths, slices.Concat(stack...)) // one without anything in it is there, too
		case words[0] == "}":
			if len(stack) == 0 {
				return nil, fmt.Errorf("line %d: a brace is closed that was not opened", n)
			}
			stack = stack[:len(stack)-1]
		case len(stack) > 0:
			paths = append(paths, append(slices.Concat(stack...), words...))
		default:
			return nil, fmt.Errorf("line %d is no configuration of VyOS: it is neither `set …` nor in braces: %q", n, line)
		}
	}
	if len(stack) > 0 {
		return nil, fmt.Errorf("the brace of %q is not closed", strings.Join(slices.Concat(stack...), " "))
	}
	return paths, nil
}

// vyosWords are the words of a line; quotes hold several together.
func vyosWords(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	quote, in := rune(0), false
	for _, r := range line {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quote, in = r, true
		case r == ' ' || r == '\t':
			if in {
				words = append(words, word.String())
			}
			word.Reset()
			in = false
		default:
			word.WriteRune(r)
			in = true
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("a quote is not closed")
	}
	if in {
		words = append(words, word.String())
	}
	if len(words) == 0 {
		words = []string{""}
	}
	return words, nil
}
