package tcbpf

import (
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// What others changed is put back by the next look, told, and frames pass again.
func TestDrift(t *testing.T) {
	for name, set := range map[string]setting{"filters": {cookie: 8}, "pinned": {cookie: 8, bpfDir: bpffs(t)}} {
		t.Run(name, func(t *testing.T) {
			a, b := up(t, set)
			portA, portB := openPort(t, a.host, "eth0"), openPort(t, b.host, "eth0")
			dev := a.dp.pseudowires[pseudowireName]
			again := func(want string) {
				t.Helper()
				a.do(func() {
					must(t, a.dp.Refresh())
					must(t, a.dp.SetPseudowire(dev.Pseudowire))
				})
				var found []string
				for _, r := range a.dp.Repairs() {
					if r.Err != nil {
						t.Errorf("%s: %v", r.Found, r.Err)
					}
					found = append(found, r.Found)
				}
				if !slices.Equal(found, []string{want}) && !(want == "" && found == nil) {
					t.Errorf("found %q, want %q", found, want)
				}
				// The kernel notices a carrier up to a second late.
				for end := time.Now().Add(10 * time.Second); !passes(portA, portB) || !passes(portB, portA); {
					if time.Now().After(end) {
						t.Fatalf("%s: no frames pass", want)
					}
				}
			}
			again("")
			outer := dev.pair.outerName
			a.do(func() { must(t, a.dp.detach(dev.pair.outer)) })
			again("the program pwd_encap was detached from " + outer)
			a.do(func() { must(t, a.dp.detach(a.dp.lane.outer)) })
			again("the program pwd_lane was detached from " + laneExit)
			wan := a.link("wan").Attrs().Index
			a.do(func() { must(t, a.dp.detach(wan)) })
			again("the program pwd_decap was detached from wan")
			for thing, link := range map[string]int{"pseudowire " + pseudowireName: dev.pair.outer, "slow lane": a.dp.lane.outer, "interface wan": wan} {
				a.dp.Heed(func(name string) bool { return name == thing })
				a.do(func() {
					must(t, a.dp.detach(link))
					must(t, a.dp.Refresh())
					if there, err := a.dp.attached(link); there || err != nil || len(a.dp.Repairs()) > 0 {
						t.Errorf("%s was held, and is put back: %v, %v", thing, there, err)
					}
				})
				a.dp.Heed(nil)
				a.do(func() {
					must(t, a.dp.Refresh())
					if there, err := a.dp.attached(link); !there || err != nil || len(a.dp.Repairs()) != 1 {
						t.Errorf("%s was held, and is not put back then: %v, %v", thing, there, err)
					}
				})
			}
			inner, entry, exit := a.link(dev.Device), a.link(laneEntry), a.link(outer)
			a.do(func() { must(t, netlink.LinkSetMTU(inner, 1280)) })
			again("the MTU of " + dev.Device + " was changed to 1280")
			a.do(func() { must(t, netlink.LinkDel(entry)) })
			again("its device " + laneEntry + " was removed")
			a.do(func() { must(t, netlink.LinkSetDown(exit)) })
			again(outer + " was taken down")
			a.do(func() {
				must(t, netlink.LinkSetDown(inner))
				must(t, netlink.LinkSetName(inner, "lost"))
				must(t, netlink.LinkSetUp(inner))
			})
			again(dev.Device + " was renamed lost")
			again("")
		})
	}
}
