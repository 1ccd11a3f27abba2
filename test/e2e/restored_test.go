package e2e

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/pwd-project/pwd/internal/netlab"
)

// others are a site's interfaces of somebody else's, with all that can be set of them.
func (w *world) others(i int) string {
	w.t.Helper()
	var b strings.Builder
	for _, name := range w.sites[i].Links {
		out, err := w.sites[i].NS.Run(within(w.t, upWithin), "sh", "-c", `
			ip -d link show dev "$0" && ip address show dev "$0" && tc qdisc show dev "$0" && cat /proc/sys/net/ipv6/conf/$0/disable_ipv6`, name)
		if err != nil {
			w.t.Fatalf("%v\n%s", err, out)
		}
		features, err := w.sites[i].NS.Link(name).Features()
		if err != nil {
			w.t.Fatal(err)
		}
		b.WriteString(out + strings.Join(slices.Sorted(maps.Keys(features)), " ") + "\n")
	}
	return strings.ReplaceAll(b.String(), " tentative", "") // an address becomes a sure one by itself
}

// A daemon that is killed, whenever that is, leaves what it has changed of others' interfaces; the
// clean-up puts it back: promiscuity, MTU, offloads, being down, the qdisc that shaping replaced.
func TestKilledThenCleaned(t *testing.T) {
	beside(t)
	for _, d := range datapaths() {
		t.Run(d[0]+"-"+d[1], func(t *testing.T) {
			w := build(t, network{datapaths: d})
			w.write(strings.NewReplacer(
				`}}}`+"\n  dc2", `}}, rate: 500mbit, qdisc: replace}`+"\n  dc2",
				"silver: {sites: [dc1, dc2]}", "silver: {sites: [dc1, dc2], class: all}",
				"tunnels:", "classes: {all: {rate: 100mbit}}\ntunnels:",
			).Replace(w.text("")))
			s := w.sites[0]
			eth1, eth2 := s.NS.Link("eth1"), s.NS.Link("eth2")
			eth1.MTU(1600).Feature("rx-gro", false)
			eth2.MTU(1500).Feature("tx-*-segmentation", false).Down()
			if out, err := s.NS.Run(within(t, upWithin), "sh", "-c", `
				ip link set eth1 promisc on && tc qdisc add dev eth0 root handle 8: pfifo limit 123`); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if err := w.lab.Err(); err != nil {
				t.Fatal(err)
			}
			before := w.others(0)
			cleaned := func(when string) {
				t.Helper()
				s.Daemon.Kill()
				<-s.Daemon.Exited()
				if now := w.others(0); !strings.Contains(now, "qdisc htb") || strings.Count(now, "master") < 2*2 || strings.Contains(now, "state DOWN") {
					t.Errorf("killed %s; it has not changed all:\n%s", when, now)
				}
				if err := s.Cleanup(within(t, upWithin)); err != nil {
					t.Errorf("killed %s: %v", when, err)
				}
				if after := w.others(0); after != before {
					t.Errorf("killed %s; others' interfaces were\n%s\nand are\n%s", when, before, after)
				}
			}
			w.start()
			w.ping(w.a, netlab.PingOptions{})
			w.ping(w.b, netlab.PingOptions{})
			cleaned("when all was up")

			if err := s.Start(); err != nil {
				t.Fatal(err)
			}
			w.awaitUp()
			s.Daemon.Kill()
			if err := s.Start(); err != nil {
				t.Fatal(err)
			}
			w.awaitUp()
			cleaned("after it had taken over from one that was killed")

			// Whatever of the set-up is done when a packet of it leaves.
			for _, packets := range []int{1, 2, 4} {
				c, err := w.underlay[1].Capture(netlab.CaptureOptions{Keep: func(f *netlab.Frame) bool { return isControl(f.Data) }})
				if err != nil {
					t.Fatal(err)
				}
				if err := s.Start(); err != nil {
					t.Fatal(err)
				}
				if _, err := c.WaitCount(within(t, upWithin), packets); err != nil {
					t.Fatal(err)
				}
				cleaned("during the set-up")
			}
		})
	}
}
