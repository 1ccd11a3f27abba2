//go:build vm

package datapath

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// Whoever forges what routers say of the path does not have the kernel's tunnels over IPv4 send fragments: packets
// are as long as the link takes, or as the route allows. Over IPv6 the kernel believes it, down to 1280 octets, even where
// the route's MTU is locked; frames get through all the same.
func TestKernelForgedICMP(t *testing.T) {
	const mtu, size, least = 2000, 1514, 1280
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			x := plain
			x.family, x.underlay = f, mtu
			a, b := twoSites(t, x)
			said, protocol := 600, byte(unix.IPPROTO_ICMP)
			if f.a.Is6() {
				said, protocol = least, unix.IPPROTO_ICMPV6
			}
			route := func(args ...string) {
				t.Helper()
				args = append([]string{"route", "replace", b.addr.String(), "dev", "wan0"}, args...)
				if out, err := a.lcce.Run(t.Context(), "ip", args...); err != nil {
					t.Fatalf("ip %v: %v: %s", args, err, out)
				}
				a.must("refresh", func(dp pseudowire.Datapath) error { return dp.Refresh() })
			}
			// forge has a router say so of a ping and of a packet of the tunnel's.
			forge := func(believed bool) {
				t.Helper()
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				err := netlab.Poll(ctx, "what was forged is heard", func() error {
					err := b.lcce.Do(func() error {
						local, remote := netip.AddrPortFrom(a.addr, 0), netip.AddrPortFrom(b.addr, 0)
						if err := netlab.SendTooBig(b.addr, protocol, local, remote, uint16(said)); err != nil || a.tunnel.Encapsulation == l2tpv3.IP {
							return err
						}
						return netlab.SendTooBig(b.addr, unix.IPPROTO_UDP, a.tunnel.Local, a.tunnel.Remote, uint16(said))
					})
					if err != nil || !believed {
						return err
					}
					out, err := a.lcce.Run(ctx, "ip", "route", "get", b.addr.String())
					if err == nil && !strings.Contains(strings.ReplaceAll(out, "mtu lock", "mtu"), "mtu "+strconv.Itoa(said)) {
						err = fmt.Errorf("%s", out)
					}
					return err
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			for _, e := range []l2tpv3.Encapsulation{l2tpv3.UDP, l2tpv3.IP} {
				x.encapsulation = e
				route()
				a.change(b, x)
				whole := size - 14 + pseudowire.Overhead(&a.tunnel, &a.session)
				expect := func(what string, longest int) {
					t.Helper()
					// Fragments are of whole 8 octets: of what was forged they would be shorter by more.
					if got := longestOf(t, a, b, size); got > longest || got <= longest-8 || longest == whole && got != whole {
						t.Errorf("%s, %s: a frame of %d octets leaves in packets of %d, want %d", e, what, size, got, longest)
					}
				}
				expect("as the link is", whole)
				forge(true)
				if f.a.Is4() {
					expect("forged", whole)
				} else {
					expect("forged", least)
				}
				route("mtu", "1450")
				expect("the route has an MTU", 1450)
				route("mtu", "lock", "1990")
				forge(f.a.Is6())
				if f.a.Is4() {
					expect("the route's MTU is locked", whole)
				} else {
					expect("the route's MTU is locked", least)
				}
			}
		})
	}
}

// longestOf sends a frame and gives the longest packet of the tunnel's that it crosses the underlay in,
// once it has arrived.
func longestOf(t *testing.T, from, to *site, size int) (longest int) {
	t.Helper()
	capture, err := to.wan.Capture(netlab.CaptureOptions{Keep: func(f *netlab.Frame) bool { return len(f.Data) > size/4 }})
	if err != nil {
		t.Fatal(err)
	}
	if err := exchange(t, from.lcce.Link(pwDevice), to.lcce.Link(pwDevice), 0, []int{size}); err != nil {
		t.Errorf("a frame of %d octets: %v", size, err)
	}
	packets, err := capture.Stop()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range packets {
		longest = max(longest, len(f.Data)-14)
	}
	return longest
}
