//go:build vm

package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/pwd-project/pwd/internal/netlab"
)

// Sites whose underlay is in a VRF reach each other by its tables, whatever the main one says.
func TestVRF(t *testing.T) {
	for _, c := range []struct {
		datapaths     [2]string
		ipv6          bool
		encapsulation string
	}{
		{[2]string{"ebpf", "ebpf"}, false, "ip"}, {[2]string{"kernel", "kernel"}, false, "udp"}, {[2]string{"ebpf", "kernel"}, true, "udp"},
	} {
		t.Run(fmt.Sprintf("%s, IPv6 %v, %s", strings.Join(c.datapaths[:], "-"), c.ipv6, c.encapsulation), func(t *testing.T) {
			w := build(t, network{datapaths: c.datapaths, ipv6: c.ipv6})
			w.write(strings.ReplaceAll(w.text(""), "sites: [dc1, dc2]}", "sites: [dc1, dc2], encapsulation: "+c.encapsulation+"}"))
			for i, s := range w.sites {
				other := w.address[1-i].String()
				if out, err := s.NS.Run(within(t, upWithin), "sh", "-ec", `
					ip link add red type vrf table 77
					ip link set red up
					ip link set eth0 master red
					ip address replace "$0" dev eth0 $2
					ip link add decoy type dummy
					ip link set decoy up
					ip route add "$1" dev decoy`, w.address[i].String()+map[bool]string{false: "/24", true: "/64"}[c.ipv6], other,
					map[bool]string{true: "nodad"}[c.ipv6]); err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
				s.Links = append(s.Links, "red", "decoy")
			}
			w.start()
			w.ping(w.a, netlab.PingOptions{})
			w.ping(w.b, netlab.PingOptions{Count: 2, Size: 8000})
			w.transfer(w.b, 0, 1<<20)
			s := w.sites[0]
			s.Daemon.Kill()
			if err := s.Start(); err != nil {
				t.Fatal(err)
			}
			w.awaitUp()
			w.ping(w.a, netlab.PingOptions{})
			if warned := w.warnings(s.Client(), ""); warned != "" {
				t.Logf("warned of %s", warned)
			}
		})
	}
}
