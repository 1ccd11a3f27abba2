package cli

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/pwd-project/pwd/internal/api"
)

// resource is one kind of thing that `get` and `describe` know.
type resource struct {
	// plural is its name; aliases are others.
	plural, singular string
	aliases          []string
	columns          []column
	// list asks the daemon for all of them.
	list func(context.Context, *api.Client) ([]item, error)
	// describe asks for what belongs to one and puts it all on the page.
	describe func(context.Context, *api.Client, item, *page) error
}

// column is one column of a resource's table.
type column struct {
	title string
	// wide columns are shown with -o wide only.
	wide bool
	// moving columns change while nothing happens; -w does not print for them.
	moving bool
	// state is the column that gets a colour.
	state bool
}

// item is one thing: its JSON form, the names that it answers to, the first
// being its own, and one cell per column.
type item struct {
	value any
	names []string
	cells []string
}

// resources are all kinds, in the order of the help.
func resources() []resource {
	return []resource{tunnels(), sessions(), pseudowires(), attachments(), classes(), macs()}
}

func kinds() []string {
	var out []string
	for _, r := range resources() {
		out = append(out, r.plural)
	}
	return out
}

// findResource accepts every name of a kind.
func findResource(name string) (resource, bool) {
	for _, r := range resources() {
		if name == r.plural || name == r.singular || slices.Contains(r.aliases, name) {
			return r, true
		}
	}
	return resource{}, false
}

// find gives the items that answer to one of names, all where there are no
// names, and the names that nothing answers to.
func find(all []item, names []string) (found []item, missing []string) {
	if len(names) == 0 {
		return all, nil
	}
	used := make(map[string]bool, len(names))
	for _, it := range all {
		hit := false
		for _, name := range names {
			if slices.Contains(it.names, name) {
				hit, used[name] = true, true
			}
		}
		if hit {
			found = append(found, it)
		}
	}
	for _, name := range names {
		if !used[name] && !slices.Contains(missing, name) {
			missing = append(missing, name)
		}
	}
	return found, missing
}

// notFoundError says that this site has no such thing, and what it has.
func notFoundError(r resource, missing []string, all []item) error {
	quoted := make([]string, len(missing))
	for i, m := range missing {
		quoted[i] = strconv.Quote(m)
	}
	help := "this site has no " + r.plural
	var have []string
	for _, it := range all {
		if !slices.Contains(have, it.names[0]) {
			have = append(have, it.names[0])
		}
	}
	if len(have) > 10 {
		have = append(have[:10], fmt.Sprintf("and %d more", len(have)-10))
	}
	if len(have) > 0 {
		help = "there are " + strings.Join(have, ", ")
	}
	return &exitError{code: ExitFailed, help: help,
		err: fmt.Errorf("this site has no %s %s", r.singular, strings.Join(quoted, ", "))}
}

// items turns what a client call gives into items.
func items[T any](call func(*api.Client, context.Context) ([]T, error), one func(T) item) func(context.Context, *api.Client) ([]item, error) {
	return func(ctx context.Context, c *api.Client) ([]item, error) {
		list, err := call(c, ctx)
		if err != nil {
			return nil, err
		}
		out := make([]item, len(list))
		for i, v := range list {
			out[i] = one(v)
		}
		return out, nil
	}
}

// tunnelKey names one end of a tunnel among those of several peers.
func tunnelKey(name, peer string) string { return name + "/" + peer }

// network is the network that a pseudowire's name NETWORK/PEER begins with.
func network(name string) string {
	n, _, _ := strings.Cut(name, "/")
	return n
}

func tunnels() resource {
	return resource{
		plural: "tunnels", singular: "tunnel", describe: describeTunnel,
		columns: []column{{title: "NAME"}, {title: "PEER"}, {title: "STATE", state: true}, {title: "SINCE", moving: true},
			{title: "SESSIONS"}, {title: "ENCAPSULATION", wide: true}, {title: "LOCAL", wide: true}, {title: "REMOTE", wide: true},
			{title: "LOCAL-CCID", wide: true}, {title: "REMOTE-CCID", wide: true}, {title: "RETRANSMITS", wide: true},
			{title: "RECEIVED", wide: true}, {title: "TRANSMITTED", wide: true}, {title: "REASON"}},
		list: items((*api.Client).Tunnels, func(t api.Tunnel) item {
			return item{value: t, names: []string{tunnelKey(t.Name, t.Peer), t.Name}, cells: []string{
				t.Name, orNone(t.Peer), orNone(t.State), lasted(t.SinceSeconds),
				strconv.Itoa(t.Sessions), orNone(t.Encapsulation), orNone(t.Local), orNone(t.Remote),
				number(t.LocalControlConnectionID), number(t.RemoteControlConnectionID), strconv.FormatUint(t.Retransmits, 10),
				octets(t.ReceivedOctets), octets(t.TransmittedOctets), orNone(t.Reason)}}
		}),
	}
}

func sessions() resource {
	return resource{
		plural: "sessions", singular: "session", describe: describeSession,
		columns: []column{{title: "PSEUDOWIRE"}, {title: "TUNNEL"}, {title: "PEER"}, {title: "STATE", state: true},
			{title: "SINCE", moving: true}, {title: "LOCAL-ID"}, {title: "REMOTE-ID"}, {title: "COOKIE", wide: true},
			{title: "LOCAL-CIRCUIT", wide: true}, {title: "REMOTE-CIRCUIT", wide: true},
			{title: "RECEIVED", wide: true}, {title: "TRANSMITTED", wide: true}, {title: "DROPS", wide: true}, {title: "REASON"}},
		list: items((*api.Client).Sessions, func(s api.Session) item {
			return item{value: s, names: []string{s.Pseudowire, network(s.Pseudowire), strconv.FormatUint(uint64(s.LocalSessionID), 10)},
				cells: []string{
					s.Pseudowire, orNone(s.Tunnel), orNone(s.Peer), orNone(s.State),
					lasted(s.SinceSeconds), number(s.LocalSessionID), number(s.RemoteSessionID), strconv.Itoa(s.CookieOctets),
					orNone(s.LocalCircuit), orNone(s.RemoteCircuit),
					octets(s.ReceivedOctets), octets(s.TransmittedOctets), drops(s.Drops), orNone(s.Reason)}}
		}),
	}
}

func pseudowires() resource {
	return resource{
		plural: "pseudowires", singular: "pseudowire", aliases: []string{"pw", "pws"}, describe: describePseudowire,
		columns: []column{{title: "NAME"}, {title: "PEER"}, {title: "STATE", state: true}, {title: "SINCE", moving: true},
			{title: "DEVICE"}, {title: "DATAPATH"}, {title: "TUNNEL"}, {title: "TYPE", wide: true}, {title: "MTU", wide: true},
			{title: "ATTACHMENT", wide: true}, {title: "RECEIVED", wide: true}, {title: "TRANSMITTED", wide: true},
			{title: "DROPS", wide: true}, {title: "REASON"}},
		list: items((*api.Client).Pseudowires, func(p api.Pseudowire) item {
			return item{value: p, names: []string{p.Name, network(p.Name)}, cells: []string{
				p.Name, orNone(p.Peer), orNone(p.State), lasted(p.SinceSeconds),
				orNone(p.Device), orNone(p.Datapath), orNone(p.Tunnel), orNone(p.Type), number(uint32(max(p.MTU, 0))),
				orNone(p.Attachment), octets(p.ReceivedOctets), octets(p.TransmittedOctets),
				drops(p.Drops), orNone(p.Reason)}}
		}),
	}
}

// framesOf are an attachment circuit's frames; of one VLAN its number.
func framesOf(c api.Attachment) string {
	if c.Frames == "" && c.VLAN != 0 {
		return number(c.VLAN)
	}
	return strings.TrimPrefix(c.Frames, "vlan ")
}

func attachments() resource {
	return resource{
		plural: "attachments", singular: "attachment", aliases: []string{"ac", "acs"}, describe: describeAttachment,
		columns: []column{{title: "PSEUDOWIRE"}, {title: "STATE", state: true}, {title: "BRIDGE"}, {title: "INTERFACE"},
			{title: "VLAN"}, {title: "DEVICE"}, {title: "REASON"}},
		list: items((*api.Client).Attachments, func(c api.Attachment) item {
			return item{value: c, names: []string{c.Pseudowire, network(c.Pseudowire)}, cells: []string{
				c.Pseudowire, orNone(c.State), orNone(c.Bridge), orNone(c.Interface),
				orNone(framesOf(c)), orNone(c.Device), orNone(c.Reason)}}
		}),
	}
}

func macs() resource {
	return resource{
		plural: "macs", singular: "mac", describe: describeMAC,
		columns: []column{{title: "ADDRESS"}, {title: "BRIDGE"}, {title: "VLAN"}, {title: "PORT"}, {title: "PEER"},
			{title: "PSEUDOWIRE"}, {title: "SINCE", moving: true}, {title: "IDLE", moving: true}},
		list: items((*api.Client).MACs, func(m api.MAC) item {
			return item{value: m, names: []string{m.Address}, cells: []string{
				m.Address, m.Bridge, number(m.VLAN), m.Port, orNone(m.Peer), orNone(m.Pseudowire), lasted(m.SinceSeconds), lasted(m.IdleSeconds)}}
		}),
	}
}

func classes() resource {
	return resource{
		plural: "classes", singular: "class", describe: describeClass,
		columns: []column{{title: "NAME"}, {title: "DSCP"}, {title: "RATE"}, {title: "CEILING"}, {title: "OCTETS"}, {title: "FRAMES"},
			{title: "DROPS"}, {title: "BACKLOG"}, {title: "ACHIEVED", wide: true, moving: true}, {title: "FULL", wide: true, moving: true}, {title: "WAITED", wide: true, moving: true},
			{title: "MARKED", wide: true, moving: true}, {title: "TUNNELS", wide: true}},
		list: items((*api.Client).Classes, func(c api.Class) item {
			dscp := strconv.Itoa(int(c.DSCP))
			if c.DSCPFrom != "" {
				dscp, _, _ = strings.Cut(c.DSCPFrom, " [")
			}
			cells := []string{c.Name, dscp, bitRate(c.Rate), bitRate(c.Ceiling), "-", "-", "-", "-"}
			if c.Rate != 0 || c.Ceiling != 0 || len(c.Tunnels) > 0 {
				for i, n := range []uint64{c.Octets, c.Frames, c.Drops, c.BacklogOctets} {
					cells[4+i] = strconv.FormatUint(n, 10)
				}
			}
			return item{value: c, names: []string{c.Name}, cells: append(cells, wideClass(&c)...)}
		}),
	}
}

// wideClass are the further cells of a class: what it achieved, its drops by reason, what was
// marked, and its tunnels.
func wideClass(c *api.Class) []string {
	if len(c.Tunnels) == 0 {
		return []string{none, none, none, none, none}
	}
	var tunnels []string
	for _, t := range c.Tunnels {
		tunnels = append(tunnels, t.Tunnel+"/"+t.Peer)
	}
	return []string{
		pace(float64(c.Achieved)), strconv.FormatUint(c.DropsByReason["queue-full"], 10), strconv.FormatUint(c.DropsByReason["waited-too-long"], 10),
		strconv.FormatUint(c.Marked, 10), strings.Join(tunnels, " "),
	}
}

// bitRate is a rate as the topology has it.
func bitRate(rate uint64) string {
	if rate == 0 {
		return "-"
	}
	units := []string{"bit", "kbit", "mbit", "gbit", "tbit"}
	for len(units) > 1 && rate%1000 == 0 {
		rate, units = rate/1000, units[1:]
	}
	return strconv.FormatUint(rate, 10) + units[0]
}
