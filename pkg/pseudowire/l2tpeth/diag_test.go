package l2tpeth

import (
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// The list of sockets says of one what was set on it, and of no other.
func TestListedDSCP(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		t.Run(host, func(t *testing.T) {
			to, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(host)})
			if err != nil {
				t.Skip(err)
			}
			defer to.Close()
			c, err := net.DialUDP("udp", nil, to.LocalAddr().(*net.UDPAddr))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			f, err := c.File()
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			tunnel := pseudowire.Tunnel{
				Encapsulation: l2tpv3.UDP, Socket: int(f.Fd()), Local: unmapped(c.LocalAddr()), Remote: unmapped(c.RemoteAddr()),
			}
			var k kernelSockets
			if err := k.setDSCP(tunnel.Socket, six(tunnel), 46); err != nil {
				t.Fatal(err)
			}
			listed, err := k.listedDSCP(tunnel)
			if err != nil {
				t.Skip("the kernel does not list UDP sockets (module udp_diag): ", err)
			}
			if listed != 46 {
				t.Errorf("DSCP %d is listed", listed)
			}
			if asked, err := k.dscp(tunnel); err != nil || asked != 46 {
				t.Errorf("DSCP %d, %v", asked, err)
			}
			// Another socket on the descriptor: the cookie tells them apart.
			other, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(other)
			tunnel.Socket = other
			if listed, err := k.listedDSCP(tunnel); err == nil {
				t.Errorf("another socket's DSCP %d is listed", listed)
			}
		})
	}
}

func unmapped(a net.Addr) netip.AddrPort {
	at := a.(*net.UDPAddr).AddrPort()
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
}
