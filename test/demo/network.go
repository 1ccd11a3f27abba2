package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/test/site"
)

// demo is all that the demo makes.
type demo struct {
	options options
	lab     *netlab.Lab
	// dir holds the daemons' run and state directories: nobody else's are in the way.
	dir   string
	sites []*site.Site
	lans  []*lan
}

// lan is a network that a pseudowire joins: a host at each site.
type lan struct {
	// name is the pseudowire's, tunnel the one that carries it.
	name, tunnel string
	// port is the interface of the sites; vlan the tag there, 0 for none.
	port  string
	vlan  [2]uint16
	addr  [2]netip.Addr
	hosts [2]*netlab.Link
}

func newDemo(o options) (*demo, error) {
	for _, path := range []string{filepath.Join(o.bin, "pwd"), filepath.Join(o.bin, "pwctl"), o.topology} {
		if _, err := os.Stat(path); err != nil {
			return nil, fmt.Errorf("%w (run `make demo` at the top of the source tree)", err)
		}
	}
	d := &demo{
		options: o,
		lans: []*lan{
			{name: "tenant-a", tunnel: "gold", port: "eth1", vlan: [2]uint16{100, 200},
				addr: [2]netip.Addr{netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("198.51.100.2")}},
			{name: "tenant-b", tunnel: "silver", port: "eth2",
				addr: [2]netip.Addr{netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("203.0.113.2")}},
		},
	}
	log := func(string) {}
	if o.verbose {
		log = func(line string) { fmt.Println("  # " + line) }
	}
	var err error
	if d.lab, err = netlab.Open(netlab.Options{Log: log}); err != nil {
		return nil, err
	}
	if d.dir, err = os.MkdirTemp("", "pwd-demo-"); err != nil {
		return nil, errors.Join(err, d.lab.Close())
	}
	return d, nil
}

// build makes the namespaces and the links between them.
func (d *demo) build(context.Context) error {
	for _, name := range []string{"dc1", "dc2"} {
		d.sites = append(d.sites, &site.Site{
			Name: name, NS: d.lab.Namespace(name), Bin: d.options.bin, Dir: filepath.Join(d.dir, name),
			Topology: d.options.topology, Links: []string{"eth0", "eth1", "eth2"},
		})
	}
	a, b := d.lab.Veth(d.sites[0].NS, "eth0", d.sites[1].NS, "eth0")
	a.Addr("192.0.2.1/24").Up()
	b.Addr("192.0.2.2/24").Up()
	for _, l := range d.lans {
		for i, s := range d.sites {
			host := d.lab.Namespace(s.Name + strings.TrimPrefix(l.name, "tenant"))
			port, nic := d.lab.Veth(s.NS, l.port, host, "eth0")
			port.Silent().Up()
			nic.Silent().Addr(l.addr[i].String() + "/24")
			if l.vlan[i] != 0 {
				nic.Tagged(l.vlan[i])
			}
			l.hosts[i] = nic.Up()
		}
	}
	if err := d.lab.Err(); err != nil {
		return err
	}
	say("dc1 is 192.0.2.1 and dc2 is 192.0.2.2, in network namespaces of this machine; the underlay")
	say("between them carries IP packets of up to 1500 octets.")
	for _, l := range d.lans {
		say("%s: host %v behind %s of dc1%s, host %v behind %s of dc2%s.", l.name, l.addr[0], l.port, tagged(l.vlan[0]), l.addr[1], l.port, tagged(l.vlan[1]))
	}
	return nil
}

func tagged(vlan uint16) string {
	if vlan == 0 {
		return ", untagged"
	}
	return fmt.Sprintf(" on VLAN %d", vlan)
}

// close removes everything, whatever state it is in.
func (d *demo) close() error {
	for _, s := range d.sites {
		s.Close()
	}
	return errors.Join(d.lab.Close(), os.RemoveAll(d.dir))
}
