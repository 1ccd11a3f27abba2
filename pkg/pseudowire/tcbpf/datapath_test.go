package tcbpf

import (
	"net"
	"testing"
)

// A datagram there and back again, which takes ARP both ways before.
func TestPing(t *testing.T) {
	a, b := up(t, setting{cookie: 8})
	echo(t, b.host, "10.0.0.2:7")
	var conn net.Conn
	a.host.do(func() {
		var err error
		conn, err = net.Dial("udp", "10.0.0.2:7")
		must(t, err)
	})
	defer conn.Close()
	for _, n := range []int{1, 100, 1000, 1400} {
		roundTrip(t, conn, n)
	}
}
