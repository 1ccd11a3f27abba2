//go:build vm

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pwd-project/pwd/internal/netlab"
)

// The kernel's own static L2TP is the other end, as `ip l2tp` sets it up.
func TestStaticAgainstTheKernel(t *testing.T) {
	for _, datapath := range eachOnOneKernel([]string{"kernel", "ebpf"}) {
		for _, encapsulation := range []string{"udp", "ip"} {
			t.Run(datapath+" over "+encapsulation, func(t *testing.T) {
				w := build(t, network{datapaths: [2]string{datapath, "kernel"}})
				w.kernelEnd(encapsulation)
				w.write(w.staticText(encapsulation, `: "0123456789abcdef"`, true))
				s := w.sites[0]
				if err := s.Start(); err != nil {
					t.Fatal(err)
				}
				if err := s.AwaitUp(within(t, upWithin), 1, 1); err != nil {
					t.Fatal(err)
				}
				w.echoes(t, w.b)
				w.ping(w.b, netlab.PingOptions{Size: 1400})
			})
		}
	}
}

// What `ip l2tp` has set up is imported, and the daemon takes its place.
func TestImport(t *testing.T) {
	onOneKernel(t, "6.12")
	w := build(t, network{datapaths: [2]string{"ebpf", "kernel"}})
	w.kernelEnd("udp")
	s := w.sites[0]
	ip := func(commands ...string) {
		t.Helper()
		for _, command := range commands {
			if out, err := s.NS.Run(t.Context(), "ip", words(command)...); err != nil {
				t.Fatalf("ip %s: %v\n%s", command, err, out)
			}
		}
	}
	ip(fmt.Sprintf("l2tp add tunnel tunnel_id 10 peer_tunnel_id 20 encap udp local %s remote %s udp_sport 5000 udp_dport 6000", w.address[0], w.address[1]),
		"l2tp add session name l2tpeth0 tunnel_id 10 session_id 100 peer_session_id 200 cookie a1a2a3a4 peer_cookie 0123456789abcdef l2spec_type none",
		"link add br-old type bridge", "link set eth2 master br-old", "link set l2tpeth0 master br-old", "link set l2tpeth0 up", "link set br-old up")
	w.echoes(t, w.b)
	text, err := s.NS.Run(t.Context(), "sh", "-c", "ip l2tp show tunnel; ip l2tp show session")
	if err != nil {
		t.Fatal(err)
	}
	show := filepath.Join(filepath.Dir(w.topology), "show.txt")
	if err := os.WriteFile(show, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Topology = filepath.Join(filepath.Dir(w.topology), "imported.yaml")
	if out, err := s.Pwctl(t.Context(), "import", "ip-l2tp", "--site", "dc1", "--sublayer", "none", "-w", s.Topology); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	live, err := os.ReadFile(s.Topology)
	if err != nil || !strings.Contains(string(live), "br-old: {external: true}") {
		t.Errorf("of this host: %v\n%s", err, live)
	}
	fromText, err := s.Pwctl(t.Context(), "import", "ip-l2tp", "--site", "dc1", "--sublayer", "none", show)
	if _, wires, ok := strings.Cut(fromText, "\ntunnels:"); err != nil || !ok || !strings.Contains(string(live), strings.ReplaceAll(wires, "br-100}", "br-old}")) {
		t.Errorf("of %s: %v\n%s\nand of this host\n%s", text, err, fromText, live)
	}
	ip("l2tp del session tunnel_id 10 session_id 100", "l2tp del tunnel tunnel_id 10")
	s.Links = append(s.Links, "br-old")
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	if err := s.AwaitUp(within(t, upWithin), 1, 1); err != nil {
		t.Fatal(err)
	}
	w.echoes(t, w.b)
}

// kernelEnd sets dc2's end up without a daemon.
func (w *world) kernelEnd(encapsulation string) {
	w.t.Helper()
	ports := " udp_sport 6000 udp_dport 5000"
	if encapsulation == "ip" {
		ports = ""
	}
	for _, command := range []string{
		fmt.Sprintf("l2tp add tunnel tunnel_id 20 peer_tunnel_id 10 encap %s local %s remote %s%s", encapsulation, w.address[1], w.address[0], ports),
		"l2tp add session name l2tpeth0 tunnel_id 20 session_id 200 peer_session_id 100 cookie 0123456789abcdef peer_cookie a1a2a3a4 l2spec_type none",
		"link add br-x type bridge",
		"link set eth2 master br-x",
		"link set l2tpeth0 master br-x",
		"link set l2tpeth0 up",
		"link set br-x up",
	} {
		if out, err := w.sites[1].NS.Run(w.t.Context(), "ip", words(command)...); err != nil {
			w.t.Fatalf("ip %s: %v\n%s", command, err, out)
		}
	}
}
