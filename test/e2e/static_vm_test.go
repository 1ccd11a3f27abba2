//go:build vm

package e2e

import (
	"fmt"
	"testing"

	"github.com/pwd-project/pwd/internal/netlab"
)

// The kernel's own static L2TP is the other end, as `ip l2tp` sets it up.
func TestStaticAgainstTheKernel(t *testing.T) {
	for _, datapath := range []string{"ebpf", "kernel"} {
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
