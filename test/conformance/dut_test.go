package conformance

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/test/site"
)

// bin is the folder of the program under test.
var bin = os.Getenv("PWD_BIN")

// atOnce is how many tests run beside each other, unless -parallel says: they wait
// more than they work.
const atOnce = "16"

func TestMain(m *testing.M) {
	os.Exit(func() int {
		flag.Parse()
		parallel := false
		flag.Visit(func(f *flag.Flag) { parallel = parallel || f.Name == "test.parallel" })
		if !parallel {
			flag.Set("test.parallel", atOnce)
		}
		if bin == "" {
			dir, err := os.MkdirTemp("", "pwd-conformance-")
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				return 1
			}
			defer os.RemoveAll(dir)
			build := exec.Command("go", "build", "-o", dir+"/", "../../cmd/pwd")
			build.Env = append(os.Environ(), "CGO_ENABLED=0")
			if out, err := build.CombinedOutput(); err != nil {
				fmt.Fprintf(os.Stderr, "build the daemon: %v\n%s", err, out)
				return 1
			}
			bin = dir
		}
		return m.Run()
	}())
}

// options are what the tests vary; the zero value is one tunnel without
// pseudowires and timers that nothing in a test waits for.
type options struct {
	tunnels     []string // "gold" if empty
	pseudowires []pseudowire
	hello       string // "1m" if empty
	retransmit  string // "4s" if empty
	retransmits int    // 10 if 0
	// secrets are the daemon's for every tunnel, none for no authentication.
	secrets []string
	// overIP has L2TP directly over IP; start sets it for tests below TestOverIP and TestOverIPv6.
	overIP bool
	// at is where both ends are: ipv4, or for tests below TestOverIPv6 ipv6.
	at addresses
}

// pseudowire is one of the topology; its Remote End ID is its name.
type pseudowire struct {
	name   string
	tunnel string // the first if empty
	cookie int    // octets of the daemon's
	// circuit is the daemon's interface, with a host on it unless it is missing.
	circuit string
}

// missing is an interface that is not there.
const missing = "eth9"

// dut is the device under test: a daemon at site dc1, the client at dc2 in place
// of one, and hosts on the LANs of dc1.
//
//	host 1 ── eth1                               client
//	               dc1 (pwd) eth0 ──────── eth0  dc2
//	host 2 ── eth2  192.0.2.1           192.0.2.2
type dut struct {
	t    *testing.T
	site *site.Site
	// underlay is the client's end of it.
	underlay *netlab.Link
	// circuits are dc1's interfaces, hosts the ends of the hosts.
	circuits, hosts map[string]*netlab.Link
	client          *client
	// socket is bound to port 1701.
	socket *socket
	overIP bool
}

// start draws the network and starts the daemon.
func start(t *testing.T, o options) *dut {
	t.Helper()
	o.overIP = o.overIP || strings.HasPrefix(t.Name(), "TestOverIP/") || strings.HasPrefix(t.Name(), "TestOverIPv6/IP/")
	if o.at = ipv4; strings.HasPrefix(t.Name(), "TestOverIPv6/") {
		o.at = ipv6
	}
	dir := t.TempDir() // removed after the lab, with the daemon that writes to it, is closed
	lab := netlab.New(t)
	d := &dut{t: t, circuits: map[string]*netlab.Link{}, hosts: map[string]*netlab.Link{}}
	d.site = &site.Site{Name: "dc1", NS: lab.Namespace("dc1"), Bin: bin, Dir: filepath.Join(dir, "dc1"), Topology: filepath.Join(dir, "topology.yaml")}
	config := filepath.Join(dir, "pwd.yaml")
	d.site.Flags = []string{"--datapath", "ebpf", "--config", config}
	d.write(config, o.config())
	for i, secret := range o.secrets {
		d.write(filepath.Join(dir, fmt.Sprintf("secret%d", i)), secret+"\n")
	}
	d.write(d.site.Topology, o.topology())

	dc1, dc2 := lab.Veth(d.site.NS, "eth0", lab.Namespace("dc2"), "eth0")
	// A veth leaves checksums to hardware that is not there; rule 7 wants to see them.
	dc1.Feature("tx-checksum-*", false)
	dc1.Addr(o.at.dut.String() + o.at.prefix).Up()
	d.underlay = dc2.Addr(o.at.client.String() + o.at.prefix).Up()
	for _, p := range o.pseudowires {
		if p.circuit == missing {
			continue
		}
		circuit, host := lab.Veth(d.site.NS, p.circuit, lab.Namespace("host on "+p.circuit), "eth0")
		d.circuits[p.circuit], d.hosts[p.circuit] = circuit.Silent().Up(), host.Silent().Up()
	}
	d.client = newClient(t, dc2.NS, o.at)
	d.client.overIP, d.overIP = o.overIP, o.overIP
	if len(o.secrets) > 0 {
		d.client.secret = o.secrets[0]
	}
	d.socket = d.client.listen(port)

	t.Cleanup(d.site.Close)
	if err := d.site.Start(); err != nil {
		t.Fatal(err)
	}
	err := d.site.Await(d.within(), "the daemon runs", func(s *api.Status) error {
		if len(s.Tunnels) == 0 {
			return errors.New("it has no tunnels")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *dut) within() context.Context {
	ctx, cancel := context.WithTimeout(d.t.Context(), patience)
	d.t.Cleanup(cancel)
	return ctx
}

func (d *dut) write(path, text string) {
	d.t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		d.t.Fatal(err)
	}
}

func (o options) config() string {
	retransmit, retransmits := "4s", 10
	if o.retransmit != "" {
		retransmit = o.retransmit
	}
	if o.retransmits != 0 {
		retransmits = o.retransmits
	}
	return fmt.Sprintf("apiVersion: pwd/v1\nkind: Config\ntimers: {retransmit: %s, max-retransmits: %d}\n", retransmit, retransmits)
}

func (o options) topology() string {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: pwd/v1\nkind: Topology\nmetadata: {name: conformance}\n")
	fmt.Fprintf(&b, "sites:\n  dc1: {address: %v}\n  dc2: {address: %q}\n", o.at.dut, o.at.client)
	tunnels, hello := o.tunnels, "1m"
	if len(tunnels) == 0 {
		tunnels = []string{"gold"}
	}
	if o.hello != "" {
		hello = o.hello
	}
	fmt.Fprintf(&b, "tunnels:\n")
	secrets := ""
	for i := range o.secrets {
		secrets += fmt.Sprintf(", secret%d", i)
	}
	if secrets != "" {
		secrets = ", secret-file: [" + secrets[2:] + "]"
	}
	if o.overIP {
		secrets += ", encapsulation: ip"
	}
	for _, t := range tunnels {
		fmt.Fprintf(&b, "  %s: {sites: [dc1, dc2], hello: %s%s}\n", t, hello, secrets)
	}
	for i, p := range o.pseudowires {
		if i == 0 {
			fmt.Fprintf(&b, "pseudowires:\n")
		}
		tunnel := tunnels[0]
		if p.tunnel != "" {
			tunnel = p.tunnel
		}
		fmt.Fprintf(&b, "  %s: {tunnel: %s, cookie: %d, attach: {dc1: {interface: %s}, dc2: {interface: eth%d}}}\n", p.name, tunnel, p.cookie, p.circuit, i+1)
	}
	return b.String()
}

// apply has the daemon change to another topology.
func (d *dut) apply(o options) {
	d.t.Helper()
	o.overIP, o.at = d.overIP, d.client.addresses
	_, err := d.site.Client().Apply(d.within(), api.ApplyRequest{Name: "changed", Document: o.topology(), Directory: filepath.Dir(d.site.Topology), Disruptive: true})
	if err != nil {
		d.t.Fatalf("apply: %v", err)
	}
}
