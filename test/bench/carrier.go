package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/test/site"
)

// carrier is one way to carry Ethernet between two sites; or, of the bare underlay, none.
type carrier struct {
	// name is short, about what it is in words.
	name, about string
	// needs is the kind of link that the kernel must have, or "l2tp"; "" is nothing.
	needs string
	// segments says that the underlay takes frames of several segments.
	segments bool
	// apart says that the underlay does not put together what it receives.
	apart bool
	// checksums are finished before packets leave: what uses the kernel's L2TP with UDP
	// checksums cannot cope with a veth that leaves them undone.
	checksums bool
	// lanMTU is the hosts' MTU; 0 is 1500.
	lanMTU int
	build  func(context.Context, *bed) error
}

const (
	bare    = "bare"
	bareTSO = "bare-tso"
	vxlan   = "vxlan"
	l2tpUDP = "l2tp-udp"
	ebpfUDP = "ebpf-udp"
)

// carriers are all there are, in the order of the tables.
var carriers = []carrier{
	{name: bare, about: "bare underlay, segments cut in software", build: bareUnderlay},
	{name: bareTSO, about: "bare underlay that takes frames of several segments (TSO)", segments: true, build: bareUnderlay},
	{name: vxlan, about: "bridge and the kernel's VXLAN", needs: "vxlan", lanMTU: 1450, build: vxlanLink},
	{name: "gretap", about: "bridge and the kernel's GRETAP", needs: "gretap", lanMTU: 1462, build: gretapLink},
	{name: l2tpUDP, about: "bridge and the kernel's l2tp_eth over UDP, made with ip l2tp", needs: "l2tp", lanMTU: 1450, build: staticL2TP("udp")},
	{name: "l2tp-ip", about: "bridge and the kernel's l2tp_eth over IP, made with ip l2tp", needs: "l2tp", lanMTU: 1450, build: staticL2TP("ip")},
	{name: ebpfUDP, about: "pwd, eBPF over UDP, bridged", build: daemons("ebpf", "udp", true)},
	{name: "ebpf-ip", about: "pwd, eBPF over IP, bridged", build: daemons("ebpf", "ip", true)},
	{name: "ebpf-udp-port", about: "pwd, eBPF over UDP, a whole port at either end, cross-connected", build: daemons("ebpf", "udp", false)},
	{name: "ebpf-ip-port", about: "pwd, eBPF over IP, a whole port at either end, cross-connected", build: daemons("ebpf", "ip", false)},
	{name: "kernel-udp", about: "pwd, the kernel's l2tp_eth over UDP, bridged", needs: "l2tp", checksums: true, build: daemons("kernel", "udp", true)},
	{name: "kernel-ip", about: "pwd, the kernel's l2tp_eth over IP, bridged", needs: "l2tp", checksums: true, build: daemons("kernel", "ip", true)},
}

// beside ends the names of carriers that are of another folder's programs.
const beside = "-beside"

// besides are those of the carriers that are ours, with other programs.
func besides(all []carrier) []carrier {
	var others []carrier
	for _, c := range all {
		if ours(c.name) {
			c.name, c.about = c.name+beside, c.about+", other programs"
			others = append(others, c)
		}
	}
	return others
}

// bed is a network of its own for one carrier:
//
//	host 0 ── lan  site 0  wan ──────── wan  site 1  lan ── host 1
//	10.0.0.1          192.0.2.1     192.0.2.2            10.0.0.2
type bed struct {
	carrier carrier
	bin     string // folder of the programs
	dir     string // folder for the daemons' state
	lab     *netlab.Lab
	sites   [2]*netlab.Namespace
	wan     [2]*netlab.Link
	lan     [2]*netlab.Link // the sites' ports
	hosts   [2]*netlab.Link
	daemons []*site.Site
	route   route // of the traffic
}

func underlayAddr(i int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}) }
func hostAddr(i int) netip.Addr     { return netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}) }

// upWithin bounds the time until a carrier carries.
const upWithin = 2 * time.Minute

// newBed builds a carrier's network and waits until it carries.
func newBed(ctx context.Context, c carrier, bin, dir string, log func(string)) (*bed, error) {
	b := &bed{carrier: c, bin: bin, dir: dir}
	var err error
	if b.lab, err = netlab.Open(netlab.Options{Log: log}); err != nil {
		return nil, err
	}
	if err := b.raise(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", c.name, err), b.close())
	}
	return b, nil
}

// raise builds it all and waits until it carries.
func (b *bed) raise(ctx context.Context) error {
	b.draw()
	if err := b.lab.Err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, upWithin)
	defer cancel()
	if err := b.carrier.build(ctx, b); err != nil {
		return err
	}
	if err := b.lab.Err(); err != nil {
		return err
	}
	return netlab.Poll(ctx, "hosts reach each other", func() error {
		r, err := b.route.from.Ping(ctx, b.route.addr, netlab.PingOptions{Timeout: time.Second})
		if err == nil && r.Received == 0 {
			err = errNothing
		}
		return err
	})
}

func (b *bed) close() error {
	for _, d := range b.daemons {
		d.Close()
	}
	return b.lab.Close()
}

// draw makes the namespaces and the links between them.
func (b *bed) draw() {
	for i := range b.sites {
		b.sites[i] = b.lab.Namespace(fmt.Sprintf("site %d (%s)", i, b.carrier.name))
		withoutBridgeFilter(b.sites[i])
	}
	b.wan[0], b.wan[1] = b.lab.Veth(b.sites[0], "wan", b.sites[1], "wan")
	mtu := b.carrier.lanMTU
	if mtu == 0 {
		mtu = 1500
	}
	for i, wan := range b.wan {
		// As a network card does: what arrives one by one is put together.
		wan.Silent().Feature("rx-gro", !b.carrier.apart)
		if !b.carrier.segments {
			wan.Feature("tx-*segmentation", false).Feature("tx-gso-*", false)
		}
		if b.carrier.checksums {
			wan.Feature("tx-checksum-*", false)
		}
		wan.Addr(underlayAddr(i).String() + "/24").Up()
		host := b.lab.Namespace(fmt.Sprintf("host %d (%s)", i, b.carrier.name))
		b.lan[i], b.hosts[i] = b.lab.Veth(b.sites[i], "lan", host, "eth0")
		b.lan[i].Silent().MTU(mtu).Up()
		b.hosts[i].Silent().MTU(mtu).Addr(hostAddr(i).String() + "/24").Up()
	}
	b.route = route{from: b.hosts[0].NS, to: b.hosts[1].NS, addr: hostAddr(1)}
}

// withoutBridgeFilter keeps bridged frames from the host's firewall. Few kernels have it
// built in, and fewer hosts want it; where it is, it costs as much as a tunnel.
func withoutBridgeFilter(ns *netlab.Namespace) {
	for _, table := range []string{"iptables", "ip6tables", "arptables"} {
		name := "net.bridge.bridge-nf-call-" + table
		if _, err := os.Stat("/proc/sys/" + strings.ReplaceAll(name, ".", "/")); err == nil {
			ns.Sysctl(name, "0")
		}
	}
}

// bareUnderlay has the sites themselves speak.
func bareUnderlay(_ context.Context, b *bed) error {
	b.route = route{from: b.sites[0], to: b.sites[1], addr: underlayAddr(1)}
	return nil
}

// bridged adds a link at each site and bridges it with the LAN.
func (b *bed) bridged(link func(i int) netlink.Link) error {
	for i, ns := range b.sites {
		if err := ns.Netlink().LinkAdd(link(i)); err != nil {
			return fmt.Errorf("add a link: %w", err)
		}
		ns.Bridge("br0", b.lan[i], ns.Link("tunnel").Silent().MTU(b.carrier.lanMTU).Up())
	}
	return nil
}

func attrs() netlink.LinkAttrs {
	a := netlink.NewLinkAttrs()
	a.Name = "tunnel"
	return a
}

func vxlanLink(_ context.Context, b *bed) error {
	return b.bridged(func(i int) netlink.Link {
		return &netlink.Vxlan{LinkAttrs: attrs(), VxlanId: 7, Port: 4789, Learning: true, SrcAddr: ip(i), Group: ip(1 - i)}
	})
}

func gretapLink(_ context.Context, b *bed) error {
	return b.bridged(func(i int) netlink.Link {
		return &netlink.Gretap{LinkAttrs: attrs(), Local: ip(i), Remote: ip(1 - i)}
	})
}

func ip(i int) net.IP { return underlayAddr(i).AsSlice() }

// staticL2TP uses the kernel's L2TP as `ip l2tp` makes it: no UDP checksums, cookies of 8 octets.
func staticL2TP(encapsulation string) func(context.Context, *bed) error {
	return func(ctx context.Context, b *bed) error {
		cookies := [2]string{"0102030405060708", "1112131415161718"}
		for i, ns := range b.sites {
			tunnel := []string{"l2tp", "add", "tunnel", "tunnel_id", "1", "peer_tunnel_id", "1", "encap", encapsulation,
				"local", underlayAddr(i).String(), "remote", underlayAddr(1 - i).String()}
			if encapsulation == "udp" {
				tunnel = append(tunnel, "udp_sport", "1701", "udp_dport", "1701")
			}
			for _, args := range [][]string{
				tunnel,
				{"l2tp", "add", "session", "name", "tunnel", "tunnel_id", "1", "session_id", "1", "peer_session_id", "1",
					"cookie", cookies[i], "peer_cookie", cookies[1-i], "l2spec_type", "none"},
			} {
				if _, err := ns.Run(ctx, "ip", args...); err != nil {
					return err
				}
			}
			ns.Bridge("br0", b.lan[i], ns.Link("tunnel").Silent().MTU(b.carrier.lanMTU).Up())
		}
		return nil
	}
}

// daemons runs pwd at both sites.
func daemons(datapath, encapsulation string, bridged bool) func(context.Context, *bed) error {
	return func(ctx context.Context, b *bed) error {
		file := filepath.Join(b.dir, b.carrier.name+".yaml")
		if err := os.WriteFile(file, []byte(topology(encapsulation, bridged)), 0o600); err != nil {
			return err
		}
		for i, name := range []string{"dc1", "dc2"} {
			s := &site.Site{Name: name, NS: b.sites[i], Bin: b.bin, Dir: filepath.Join(b.dir, b.carrier.name, name),
				Topology: file, Flags: []string{"--datapath", datapath}}
			b.daemons = append(b.daemons, s)
			if err := s.Start(); err != nil {
				return err
			}
		}
		for _, s := range b.daemons {
			if err := s.AwaitUp(ctx, 1, 1); err != nil {
				return err
			}
		}
		return nil
	}
}

func topology(encapsulation string, bridged bool) string {
	bridges, attach := "", "{interface: lan}"
	if bridged {
		bridges, attach = ", bridges: {br0: {ports: [lan]}}", "{bridge: br0}"
	}
	return fmt.Sprintf(`apiVersion: pwd/v1
kind: Topology
metadata: {name: bench}
sites:
  dc1: {address: %[1]q%[3]s}
  dc2: {address: %[2]q%[3]s}
tunnels:
  gold: {sites: [dc1, dc2], encapsulation: %[5]s, hello: 60s}
pseudowires:
  lan:
    tunnel: gold
    attach: {dc1: %[4]s, dc2: %[4]s}
`, underlayAddr(0), underlayAddr(1), bridges, attach, encapsulation)
}

// available are the carriers that this kernel has.
func available() ([]carrier, error) {
	lab, err := netlab.Open(netlab.Options{})
	if err != nil {
		return nil, err
	}
	defer lab.Close()
	ns := lab.Namespace("probe")
	if err := lab.Err(); err != nil {
		return nil, err
	}
	probes := map[string]netlink.Link{
		"vxlan":  &netlink.Vxlan{LinkAttrs: attrs(), VxlanId: 7, Port: 4789},
		"gretap": &netlink.Gretap{LinkAttrs: attrs(), Local: ip(0), Remote: ip(1)},
	}
	has := map[string]bool{"": true}
	for kind, link := range probes {
		err := ns.Netlink().LinkAdd(link)
		if has[kind] = err == nil; err == nil {
			err = ns.Netlink().LinkDel(link)
		}
		if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
			return nil, fmt.Errorf("add a %s link: %w", kind, err)
		}
	}
	_, err = netlink.GenlFamilyGet("l2tp")
	has["l2tp"] = err == nil
	return slices.DeleteFunc(slices.Clone(carriers), func(c carrier) bool { return !has[c.needs] }), nil
}
