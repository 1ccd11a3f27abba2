package bridge_test

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"

	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/pkg/bridge"
)

// site is a namespace with interfaces towards a LAN and devices of pseudowires,
// and a Manager in it.
type site struct {
	t   *testing.T
	lab *netlab.Lab
	ns  *netlab.Namespace
	lan *netlab.Namespace
	*bridge.Manager
}

// newSite makes a site with interfaces; the LAN's end of eth1 is lan1, by the last digit. An interface
// written "eth1 down" is down at first, its LAN's end never.
func newSite(t *testing.T, interfaces ...string) *site {
	t.Helper()
	lab := netlab.New(t)
	s := &site{t: t, lab: lab, ns: lab.Namespace("site"), lan: lab.Namespace("lan")}
	for _, i := range interfaces {
		name, down := strings.CutSuffix(i, " down")
		port, far := lab.Veth(s.ns, name, s.lan, "lan"+name[len(name)-1:])
		far.Silent().Up()
		if !down {
			port.Up()
		}
	}
	s.open()
	return s
}

// open starts with a new Manager, as after a restart.
func (s *site) open() {
	s.t.Helper()
	if s.Manager != nil {
		s.Close()
	}
	s.do(func() (err error) { s.Manager, err = bridge.Open(bridge.Options{}); return err })
	s.t.Cleanup(func() { s.Close() })
}

// in runs f on a thread in the site's namespace.
func (s *site) in(f func() error) error { return s.ns.Do(f) }

// do is in, and errors end the test.
func (s *site) do(f func() error) {
	s.t.Helper()
	if err := s.in(f); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) bridge(b bridge.Bridge) {
	s.t.Helper()
	s.do(func() error { return s.SetBridge(b) })
}

func (s *site) attach(a bridge.Attachment) {
	s.t.Helper()
	s.do(func() error { return s.SetAttachment(a) })
}

// device makes what a datapath would: a netdev pw-NAME that is down, with the
// alias of one of ours, and its outer end, which is up. render leaves that alias out.
func (s *site) device(names ...string) {
	s.t.Helper()
	for _, name := range names {
		inner, outer := s.lab.Veth(s.ns, "pw-"+name, s.ns, "pwo-"+name)
		outer.Silent().Up()
		link, err := s.ns.Netlink().LinkByIndex(inner.Index)
		if err == nil {
			err = s.ns.Netlink().LinkSetAlias(link, "pwd:pseudowire:"+name)
		}
		if err != nil {
			s.t.Fatal(err)
		}
	}
}

// expect compares the namespace's links with text, see render.
func (s *site) expect(when, want string) {
	s.t.Helper()
	got, err := render(s.ns)
	if err != nil {
		s.t.Fatal(err)
	}
	want = strings.TrimPrefix(strings.ReplaceAll(want, "\n\t\t", "\n"), "\n")
	want = strings.TrimRight(want, "\t\n") + "\n"
	if got != want {
		s.t.Errorf("%s:\n--- got\n%s--- want\n%s", when, got, want)
	}
}

// render writes a namespace's links as text: bridges with their ports below them, then
// the rest; outer ends of pseudowires are left out. It reads them by other means than
// the package does. Interface numbers in aliases become names.
//
//	br-lan up "pwd:bridge:br-lan uses=eth1"
//	  eth1 up
//	  pw-a up no-learning vlans 100
//	eth2 down
func render(ns *netlab.Namespace) (string, error) {
	links, err := ns.Netlink().LinkList()
	if err != nil {
		return "", err
	}
	vlans, err := ns.Netlink().BridgeVlanList()
	if err != nil {
		return "", err
	}
	r := renderer{ns: ns, names: map[int]string{}, vlans: vlans, filters: map[int]bool{}}
	slices.SortFunc(links, func(a, b netlink.Link) int { return cmp.Compare(a.Attrs().Name, b.Attrs().Name) })
	for _, l := range links {
		r.names[l.Attrs().Index] = l.Attrs().Name
		if b, ok := l.(*netlink.Bridge); ok && b.VlanFiltering != nil {
			r.filters[b.Index] = *b.VlanFiltering
		}
	}
	var s strings.Builder
	for _, l := range links {
		if l.Type() == "bridge" {
			s.WriteString(r.line("", l))
			for _, p := range links {
				if p.Attrs().MasterIndex == l.Attrs().Index {
					s.WriteString(r.line("  ", p))
				}
			}
		}
	}
	for _, l := range links {
		name := l.Attrs().Name
		if l.Type() != "bridge" && l.Attrs().MasterIndex == 0 && name != "lo" && !strings.HasPrefix(name, "pwo-") {
			s.WriteString(r.line("", l))
		}
	}
	return s.String(), r.err
}

type renderer struct {
	ns      *netlab.Namespace
	names   map[int]string
	vlans   map[int32][]*nl.BridgeVlanInfo
	filters map[int]bool
	err     error
}

func (r *renderer) line(indent string, l netlink.Link) string {
	a := l.Attrs()
	s := indent + a.Name
	if a.RawFlags&1 != 0 {
		s += " up"
	} else {
		s += " down"
	}
	if v, ok := l.(*netlink.Vlan); ok {
		s += fmt.Sprintf(" vlan %d of %s", v.VlanId, r.names[v.ParentIndex])
	}
	if b, ok := l.(*netlink.Bridge); ok {
		if r.filters[a.Index] {
			s += " filtering" + r.table(a.Index)
		}
		if b.MulticastSnooping != nil && *b.MulticastSnooping {
			s += " snooping"
		}
	}
	if a.MasterIndex != 0 {
		s += r.port(l)
	}
	if a.Group != 0 {
		s += fmt.Sprintf(" group %d", a.Group)
	}
	if a.Alias != "" && !strings.HasPrefix(a.Alias, "pwd:pseudowire:") {
		s += " " + strconv.Quote(r.withNames(a.Alias))
	}
	return s + "\n"
}

// port is what a port has that is not the kernel's default.
func (r *renderer) port(l netlink.Link) (s string) {
	p, err := r.ns.Netlink().LinkGetProtinfo(l)
	r.err = errors.Join(r.err, err)
	if !p.Learning {
		s += " no-learning"
	}
	mask, err := os.ReadFile(r.ns.Root() + "/sys/class/net/" + l.Attrs().Name + "/brport/group_fwd_mask")
	r.err = errors.Join(r.err, err)
	if m := strings.TrimSpace(string(mask)); m != "0x0" {
		s += " forward=" + m
	}
	if r.filters[l.Attrs().MasterIndex] {
		s += r.table(l.Attrs().Index)
	}
	return s
}

// table is a port's VLANs: 1* is the one of untagged frames, 1u one sent untagged only.
func (r *renderer) table(index int) string {
	var list []string
	for _, v := range r.vlans[int32(index)] {
		n := strconv.Itoa(int(v.Vid))
		switch {
		case v.PortVID() && v.EngressUntag():
			n += "*"
		case v.EngressUntag():
			n += "u"
		case v.PortVID():
			n += "p"
		}
		list = append(list, n)
	}
	if len(list) == 0 {
		return " no vlans"
	}
	return " vlans " + strings.Join(list, ",")
}

// withNames turns "uses=3,4d0" into "uses=eth1,eth2-down".
func (r *renderer) withNames(alias string) string {
	before, list, ok := strings.Cut(alias, " uses=")
	if !ok {
		return alias
	}
	var uses []string
	for u := range strings.SplitSeq(list, ",") {
		number, _, down := strings.Cut(u, "d")
		index, err := strconv.Atoi(number)
		r.err = errors.Join(r.err, err)
		name := r.names[index]
		if down {
			name += "-down"
		}
		uses = append(uses, name)
	}
	return before + " uses=" + strings.Join(uses, ",")
}
