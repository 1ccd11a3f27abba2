// Package interop tests the daemon against peers of other makes.
package interop

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/test/site"
)

// bin is the folder of the programs under test.
var bin = os.Getenv("PWD_BIN")

func TestMain(m *testing.M) {
	os.Exit(func() int {
		if bin == "" {
			dir, err := os.MkdirTemp("", "pwd-interop-")
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				return 1
			}
			defer os.RemoveAll(dir)
			build := exec.Command("go", "build", "-o", dir+"/", "../../cmd/pwd", "../../cmd/pwctl")
			build.Env = append(os.Environ(), "CGO_ENABLED=0")
			if out, err := build.CombinedOutput(); err != nil {
				fmt.Fprintf(os.Stderr, "build the programs: %v\n%s", err, out)
				return 1
			}
			bin = dir
		}
		return m.Run()
	}())
}

// within is a limit that a busy machine does not reach.
func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

const softEtherConfig = `apiVersion: pwd/v1
kind: Config
timers: {retransmit: 500ms, max-retransmits: 3}
`

// softEtherTopology has one pseudowire of each type that SoftEther carries, as far as the names go.
func softEtherTopology(pseudowires ...string) string {
	text := `apiVersion: pwd/v1
kind: Topology
metadata: {name: softether}
sites:
  dc1: {address: 192.0.2.1}
  softether: {address: 192.0.2.9, managed: false}
`
	if len(pseudowires) > 0 {
		text += "tunnels:\n  to-softether: {sites: [dc1, softether], hello: 1s}\npseudowires:\n"
	}
	for _, name := range pseudowires {
		text += fmt.Sprintf("  %s: {tunnel: to-softether, attach: {softether: {}, dc1: {interface: %s}}}\n", name, name)
	}
	return strings.Replace(text, "{interface: vlan}}", "{interface: vlan, vlan: 20}}, type: ethernet-vlan", 1)
}

// world is our daemon on one side of a wire and SoftEther on the other.
//
//	host ── port                                 softether
//	              dc1 (pwd)  eth0 ────── eth0  (vpnserver)
//	host ── vlan  192.0.2.1            192.0.2.9
type world struct {
	t    *testing.T
	dc1  *site.Site
	peer *softEther
	wire *netlab.Capture
}

func TestSoftEther(t *testing.T) {
	w := newWorld(t)
	w.peer.start()
	if err := w.dc1.Start(); err != nil {
		t.Fatal(err)
	}
	w.awaitUp(2)
	first := w.tunnel()

	// HELLO over several intervals, in both directions: SoftEther asks every 8.8 s.
	w.await("HELLO answered", func(seen []message) bool {
		return answered(seen, true, l2tpv3.Hello) >= 3 && answered(seen, false, l2tpv3.Hello) >= 1
	})
	w.awaitUp(2)
	w.wants(first)

	// A session goes and comes without the other or their connection taking notice.
	w.apply("port")
	w.awaitUp(1)
	w.await("CDN acknowledged", func(seen []message) bool { return answered(seen, true, l2tpv3.CDN) >= 1 })
	w.apply("port", "vlan")
	w.awaitUp(2)
	w.wants(first)

	// It falls silent, which HELLO finds out.
	w.peer.answer("no")
	w.awaitDown()
	w.peer.stop()

	// It comes back as a stranger.
	w.peer.start()
	w.awaitUp(2)
	w.apply()

	// Nothing more is wanted of it. It answers with a CDN and a StopCCN of its own, the one
	// with a garbled session ID and the other with a malformed result.
	w.await("StopCCN acknowledged", func(seen []message) bool {
		return answered(seen, true, l2tpv3.StopCCN) >= 1 && answered(seen, false, l2tpv3.StopCCN) >= 1
	})
	if err := w.dc1.Stop(within(t)); err != nil {
		t.Error(err)
	}
	if err := w.dc1.Cleanup(within(t)); err != nil {
		t.Error(err)
	}
	if _, err := w.wire.Stop(); err != nil {
		t.Error(err)
	}
	if err := w.dc1.Left(); err != nil {
		t.Errorf("left behind: %v", err)
	}
}

func newWorld(t *testing.T) *world {
	t.Helper()
	dir := t.TempDir() // removed after the lab, with the daemon that writes to it, is closed
	lab := netlab.New(t)
	config := filepath.Join(dir, "pwd.yaml")
	w := &world{t: t, peer: newSoftEther(t, lab.Namespace("softether"))}
	w.dc1 = &site.Site{
		Name: "dc1", NS: lab.Namespace("dc1"), Bin: bin, Dir: filepath.Join(dir, "dc1"), Topology: filepath.Join(dir, "topology.yaml"),
		Flags: []string{"--datapath", "ebpf", "--config", config}, Links: []string{"eth0", "port", "vlan"},
	}
	for path, text := range map[string]string{config: softEtherConfig, w.dc1.Topology: softEtherTopology("port", "vlan")} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ours, theirs := lab.Veth(w.dc1.NS, "eth0", w.peer.ns, "eth0")
	ours.Addr("192.0.2.1/24").Up()
	theirs.Addr("192.0.2.9/24").Up()
	hosts := lab.Namespace("hosts")
	for _, name := range []string{"port", "vlan"} {
		circuit, host := lab.Veth(w.dc1.NS, name, hosts, name)
		circuit.Silent().Up()
		host.Silent().Up()
	}
	var err error
	if w.wire, err = ours.Capture(netlab.CaptureOptions{Outgoing: true, Keep: isControl}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.dc1.Close)
	return w
}

// awaitUp waits until the tunnel and so many pseudowires are up.
func (w *world) awaitUp(pseudowires int) {
	w.t.Helper()
	if err := w.dc1.AwaitUp(within(w.t), 1, pseudowires); err != nil {
		w.t.Fatal(err)
	}
}

// awaitDown waits until the tunnel and its pseudowires are known to be dead.
func (w *world) awaitDown() {
	w.t.Helper()
	err := w.dc1.Await(within(w.t), "all is down", func(s *api.Status) error {
		for _, x := range s.Tunnels {
			if x.State == "established" {
				return fmt.Errorf("tunnel %s is %s", x.Name, x.State)
			}
		}
		for _, x := range s.Pseudowires {
			if x.State != "down" {
				return fmt.Errorf("pseudowire %s is %s", x.Name, x.State)
			}
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// tunnel is the only one.
func (w *world) tunnel() api.Tunnel {
	w.t.Helper()
	all, err := w.dc1.Client().Tunnels(within(w.t))
	if err != nil || len(all) != 1 {
		w.t.Fatalf("%d tunnels, %v", len(all), err)
	}
	return all[0]
}

// wants it to be the connection that it was.
func (w *world) wants(before api.Tunnel) {
	w.t.Helper()
	if now := w.tunnel(); now.LocalControlConnectionID != before.LocalControlConnectionID {
		w.t.Errorf("the control connection was made anew: %d is now %d", before.LocalControlConnectionID, now.LocalControlConnectionID)
	}
}

// apply changes the topology to have these pseudowires, or not even a tunnel.
func (w *world) apply(pseudowires ...string) {
	w.t.Helper()
	_, err := w.dc1.Client().Apply(within(w.t), api.ApplyRequest{
		Name: "changed", Document: softEtherTopology(pseudowires...), Directory: filepath.Dir(w.dc1.Topology), Disruptive: true,
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// message is a control message on the wire.
type message struct {
	ours bool // sent by dc1
	*l2tpv3.Message
}

// await waits for something to have been on the wire.
func (w *world) await(what string, enough func(seen []message) bool) {
	w.t.Helper()
	_, err := w.wire.Wait(within(w.t), what, func(frames []netlab.Frame) bool {
		var seen []message
		for _, f := range frames {
			m, err := l2tpv3.Parse(f.Data[l2tp:])
			if err != nil {
				w.t.Errorf("a message that cannot be read: %v", err)
				return true
			}
			seen = append(seen, message{f.Outgoing, m})
		}
		if nr := neverSent(seen); nr != nil {
			w.t.Errorf("it acknowledges what was never sent: %v", nr)
			return true
		}
		return enough(seen)
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// answered counts the messages of a type, of ours or of theirs, that the other end has acknowledged.
func answered(seen []message, ours bool, t l2tpv3.MessageType) (n int) {
	for i, m := range seen {
		if kind, _ := m.Type(); m.ours != ours || kind != t {
			continue
		}
		if slices.ContainsFunc(seen[i:], func(a message) bool { return a.ours != ours && a.Nr == m.Ns+1 }) {
			n++
		}
	}
	return n
}

// neverSent is the first message of theirs that acknowledges what had not been sent, as if an acknowledgment
// of ours had a number of its own (RFC 3931, Section 4.2: it has none).
func neverSent(seen []message) *l2tpv3.Message {
	next := uint16(0)
	for _, m := range seen {
		t, _ := m.Type()
		switch {
		case m.ours && t == l2tpv3.SCCRQ:
			next = 1 // another connection, or the same once more
		case m.ours && !m.IsZLB() && t != l2tpv3.ACK:
			next = max(next, m.Ns+1)
		case !m.ours && m.Nr > next:
			return m.Message
		}
	}
	return nil
}

// l2tp is where L2TP begins in a frame of UDP over IPv4.
const l2tp = 14 + 20 + 8

// isControl says whether a frame is an L2TPv3 control message over UDP and IPv4 (RFC 3931, Section 4.1.2.1).
func isControl(f *netlab.Frame) bool {
	const ip, port = 14, 1701
	if len(f.Data) < l2tp+12 || binary.BigEndian.Uint16(f.Data[12:]) != 0x0800 || f.Data[ip] != 0x45 || f.Data[ip+9] != 17 {
		return false
	}
	from, to := binary.BigEndian.Uint16(f.Data[ip+20:]), binary.BigEndian.Uint16(f.Data[ip+22:])
	return (from == port || to == port) && f.Data[l2tp]&0x80 != 0
}
