package transport_test

import (
	"net"
	"net/netip"
	"testing"

	"github.com/pwd-project/pwd/pkg/l2tpv3/control"
	"github.com/pwd-project/pwd/pkg/l2tpv3/transport"
)

// BenchmarkReceive is one datagram of 1450 octets from socket to owner, over loopback.
func BenchmarkReceive(b *testing.B) {
	local := netip.MustParseAddrPort("127.17.1.1:1701")
	x, err := transport.Open(transport.Options{Listen: overUDP(local.Addr())})
	if err != nil {
		b.Fatal(err)
	}
	defer x.Close()
	c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(local))
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	peer := c.LocalAddr().(*net.UDPAddr).AddrPort()
	if err := x.Connect(control.Connected{Connection: 1, Path: control.Path{Local: local, Remote: peer}}); err != nil {
		b.Fatal(err)
	}
	payload := make([]byte, 1450)
	b.SetBytes(int64(len(payload)))
	b.ReportAllocs()
	const window = 64
	sent := 0
	for b.Loop() {
		for ; sent < window; sent++ {
			if _, err := c.Write(payload); err != nil {
				b.Fatal(err)
			}
		}
		receive(b, x)
		sent--
	}
}
