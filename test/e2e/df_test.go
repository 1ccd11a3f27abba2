package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// Tunnels with `df: true`: hosts learn how long their packets may be, and nothing leaves
// in fragments.
func TestNoFragments(t *testing.T) {
	beside(t)
	for _, ipv6 := range []bool{false, true} {
		t.Run(fmt.Sprintf("IPv6 %v", ipv6), func(t *testing.T) {
			w := build(t, network{ipv6: ipv6})
			w.write(strings.ReplaceAll(w.text(""), "{sites: [dc1, dc2]}", "{sites: [dc1, dc2], df: true}"))
			w.start()
			// IP, UDP, L2TP with a cookie of 8 octets, Ethernet.
			room := 1500 - 20 - 8 - 16 - 14
			if ipv6 {
				room -= 20
			}
			fragments := w.watchFragments(func() {
				for _, l := range []*lan{w.a, w.b} {
					for i, host := range l.hosts {
						err := netlab.Poll(within(t, upWithin), "the host knows how long packets may be", func() error {
							return sendWhole(host.NS, l.addr[1-i], 1472)
						})
						if err != nil {
							t.Fatal(err)
						}
						if got := knownMTU(host.NS, l.addr[1-i]); got != room {
							t.Errorf("%s, host %d: MTU %d, want %d", l.name, i, got, room)
						}
					}
					w.ping(l, netlab.PingOptions{Count: 3, Size: room - 28, DontFragment: true})
					w.transfer(l, 0, 4<<20)
				}
			})
			if fragments != 0 {
				t.Errorf("%d fragments", fragments)
			}
			sessions, err := w.sites[0].Client().Sessions(within(t, upWithin))
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range sessions {
				if s.Drops[pseudowire.DropOversize] == 0 {
					t.Errorf("%s: nothing is counted as oversize: %v", s.Pseudowire, s.Drops)
				}
			}
		})
	}
}

// probe is a connected UDP socket whose datagrams are not fragmented.
func probe(ns *netlab.Namespace, to netip.Addr, f func(fd int) error) error {
	return ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return errors.Join(
			unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO),
			unix.Connect(fd, &unix.SockaddrInet4{Addr: to.As4(), Port: 9}),
			f(fd))
	})
}

// sendWhole sends a datagram and returns nil once the kernel refuses to.
func sendWhole(ns *netlab.Namespace, to netip.Addr, size int) error {
	return probe(ns, to, func(fd int) error {
		_, err := unix.Write(fd, make([]byte, size))
		if err == unix.EMSGSIZE {
			return nil
		}
		return fmt.Errorf("sending %d octets: %v, not %v", size, err, unix.EMSGSIZE)
	})
}

// knownMTU is what the kernel takes for the path's MTU.
func knownMTU(ns *netlab.Namespace, to netip.Addr) (mtu int) {
	err := probe(ns, to, func(fd int) (err error) {
		mtu, err = unix.GetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU)
		return err
	})
	if err != nil {
		return -1
	}
	return mtu
}
