package tcbpf

import (
	"bytes"
	"crypto/rand"
	"net"
	"testing"
	"time"
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
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	for _, n := range []int{1, 100, 1000, 1400} {
		sent := make([]byte, n)
		rand.Read(sent)
		got := make([]byte, 2000)
		if _, err := conn.Write(sent); err != nil {
			t.Fatal(err)
		}
		n, err := conn.Read(got)
		if err != nil {
			t.Fatalf("%d octets: %v; a %+v; b %+v", len(sent), err, a.counters(), b.counters())
		}
		if !bytes.Equal(got[:n], sent) {
			t.Fatalf("%d octets: came back different", len(sent))
		}
	}
}
