package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/netlab"
)

// demo is all that the demo makes.
type demo struct {
	options options
	lab     *netlab.Lab
	// dir holds the daemons' run and state directories: nobody else's are in the way.
	dir   string
	sites []*site
	lans  []*lan
}

// site is a namespace with a daemon in it.
type site struct {
	name, address string
	ns            *netlab.Namespace
	daemon        *netlab.Process
	client        *api.Client
	// links are those that were there before the daemon.
	links []string
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
		sites:   []*site{{name: "dc1", address: "192.0.2.1/24"}, {name: "dc2", address: "192.0.2.2/24"}},
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
	for _, s := range d.sites {
		s.ns = d.lab.Namespace(s.name)
	}
	underlay := [2]*netlab.Link{}
	underlay[0], underlay[1] = d.lab.Veth(d.sites[0].ns, "eth0", d.sites[1].ns, "eth0")
	for i, s := range d.sites {
		underlay[i].Addr(s.address).Up()
		s.links = []string{"eth0"}
	}
	for _, l := range d.lans {
		for i, s := range d.sites {
			host := d.lab.Namespace(s.name + strings.TrimPrefix(l.name, "tenant"))
			port, nic := d.lab.Veth(s.ns, l.port, host, "eth0")
			port.Silent().Up()
			nic.Silent().Addr(l.addr[i].String() + "/24")
			if l.vlan[i] != 0 {
				nic.Tagged(l.vlan[i])
			}
			l.hosts[i] = nic.Up()
			s.links = append(s.links, l.port)
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
		if s.client != nil {
			s.client.Close()
		}
	}
	return errors.Join(d.lab.Close(), os.RemoveAll(d.dir))
}

// flags are those that keep this site's daemon apart from every other. The BPF
// file system under /sys is the namespace's own.
func (d *demo) flags(s *site) []string {
	return []string{"--site", s.name, "--run-dir", d.runDir(s), "--state-dir", filepath.Join(d.dir, s.name, "state"), "--bpf-dir", "/sys/fs/bpf/pwd"}
}

func (d *demo) runDir(s *site) string { return filepath.Join(d.dir, s.name, "run") }

func (d *demo) socket(s *site) string { return filepath.Join(d.runDir(s), "pwd.sock") }

// launch starts the site's daemon.
func (d *demo) launch(s *site) (err error) {
	cmd := exec.Command(filepath.Join(d.options.bin, "pwd"), append(d.flags(s), "--topology", d.options.topology)...)
	s.daemon, err = s.ns.Start("pwd at "+s.name, cmd)
	return err
}

// pwctl runs a command of pwctl at a site.
func (d *demo) pwctl(ctx context.Context, s *site, args ...string) (string, error) {
	return s.ns.Run(ctx, filepath.Join(d.options.bin, "pwctl"), append([]string{"--socket", d.socket(s)}, args...)...)
}
