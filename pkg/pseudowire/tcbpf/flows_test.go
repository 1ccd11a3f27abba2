package tcbpf

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// transfer sends n octets over TCP from one host to the other and compares their
// digests. Accepting goes on in the host's namespace: the socket is made there.
func transfer(t *testing.T, from, to *space, addr string, n int64) time.Duration {
	t.Helper()
	var listener net.Listener
	to.do(func() {
		var err error
		listener, err = net.Listen("tcp", addr)
		must(t, err)
	})
	defer listener.Close()
	type result struct {
		sum []byte
		err error
	}
	received := make(chan result, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			received <- result{err: err}
			return
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(30 * time.Second))
		h := sha256.New()
		_, err = io.Copy(h, conn)
		received <- result{h.Sum(nil), err}
	}()
	var conn net.Conn
	from.do(func() {
		var err error
		conn, err = net.DialTimeout("tcp", addr, 5*time.Second)
		must(t, err)
	})
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	h := sha256.New()
	start := time.Now()
	if _, err := io.CopyN(io.MultiWriter(conn, h), rand.Reader, n); err != nil {
		t.Fatalf("send: %v", err)
	}
	conn.(*net.TCPConn).CloseWrite()
	r := <-received
	took := time.Since(start)
	if r.err != nil {
		t.Fatalf("receive: %v", r.err)
	}
	if !bytes.Equal(r.sum, h.Sum(nil)) {
		t.Fatal("what arrived is not what was sent")
	}
	return took
}

// TCP between hosts of 1500 octets over underlays that have no room for that:
// every segment fits, none is fragmented.
func TestTCPFitsTheUnderlay(t *testing.T) {
	for _, c := range []struct {
		name string
		set  setting
	}{
		{"IPv4 1500", setting{cookie: 8}},
		{"IPv4 1280", setting{cookie: 8, mtu: 1280}},
		{"IPv6 1500", setting{cookie: 8, v6: true}},
		{"IPv6 1280", setting{cookie: 8, mtu: 1280, v6: true}},
		{"IPv4 1600", setting{cookie: 4, mtu: 1600}},
		{"IPv4 1500, jumbo frames", setting{cookie: 8, lanMTU: 9000}},
		{"protocol 115 over IPv4 1500", setting{cookie: 8, ip: true}},
		{"protocol 115 over IPv6 1280", setting{cookie: 8, mtu: 1280, v6: true, ip: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := up(t, c.set)
			const n = 16 << 20
			for _, v := range []struct{ a, b string }{{"10.0.0.1:5001", "10.0.0.2:5001"}, {"[fd00::1]:5001", "[fd00::2]:5001"}} {
				took := transfer(t, a.host, b.host, v.b, n)
				back := transfer(t, b.host, a.host, v.a, n)
				t.Logf("%s: %d Mbit/s, back %d Mbit/s", v.b, n*8/took.Microseconds(), n*8/back.Microseconds())
			}
			for _, s := range []*site{a, b} {
				got := s.counters()
				if got.Drops["fragmented"] != 0 || got.Drops["error"] != 0 || got.Drops["oversize"] != 0 {
					t.Errorf("%s: %v", s.name, got.Drops)
				}
				if got.TransmittedOctets < n || got.ReceivedOctets < n {
					t.Errorf("%s: %d octets sent, %d received, of more than %d each", s.name, got.TransmittedOctets, got.ReceivedOctets, n)
				}
			}
			x, y := a.counters(), b.counters()
			if x.TransmittedFrames != y.ReceivedFrames || y.TransmittedFrames != x.ReceivedFrames {
				t.Logf("frames: a sent %d, b received %d; b sent %d, a received %d", x.TransmittedFrames, y.ReceivedFrames, y.TransmittedFrames, x.ReceivedFrames)
			}
		})
	}
}

// Datagrams in one write, which the kernel cuts as late as it can (UDP GSO):
// those that fit a packet of the underlay and those that do not.
func TestUDPSegments(t *testing.T) {
	for _, c := range []struct {
		name string
		set  setting
	}{
		{"IPv4", setting{cookie: 8}},
		{"IPv6", setting{cookie: 8, v6: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := up(t, c.set)
			pump(t, a)
			pump(t, b)
			var to net.PacketConn
			b.host.do(func() {
				var err error
				to, err = net.ListenPacket("udp", "10.0.0.2:5002")
				must(t, err)
			})
			defer to.Close()
			fd := udpSocket(t, a.host, netip.MustParseAddrPort("10.0.0.1:5002"), netip.MustParseAddrPort("10.0.0.2:5002"))
			defer unix.Close(fd)
			for _, size := range []int{100, 1000, 1400, 1472} {
				a.host.do(func() { must(t, unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_SEGMENT, size)) })
				sent := make([]byte, 8*size-size/2)
				rand.Read(sent)
				if _, err := unix.Write(fd, sent); err != nil {
					t.Fatal(err)
				}
				got := make(map[string]bool)
				buf := make([]byte, 2000)
				for range 8 {
					to.SetReadDeadline(time.Now().Add(3 * time.Second))
					n, _, err := to.ReadFrom(buf)
					if err != nil {
						t.Fatalf("datagrams of %d octets: %v; a %+v; b %+v", size, err, a.counters(), b.counters())
					}
					got[string(buf[:n])] = true
				}
				for at := 0; at < len(sent); at += size {
					if !got[string(sent[at:min(at+size, len(sent))])] {
						t.Errorf("datagrams of %d octets: the one at %d did not come as it was sent", size, at)
					}
				}
			}
		})
	}
}

// Full datagrams and pings both ways over an underlay that is no larger.
func TestFullDatagrams(t *testing.T) {
	for _, c := range []struct {
		name string
		set  setting
	}{
		{"IPv4", setting{cookie: 8}},
		{"IPv6", setting{cookie: 8, v6: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := up(t, c.set)
			pump(t, a)
			pump(t, b)
			echo(t, b.host, "10.0.0.2:7")
			var conn net.Conn
			a.host.do(func() {
				var err error
				conn, err = net.Dial("udp", "10.0.0.2:7")
				must(t, err)
			})
			defer conn.Close()
			for n := 1380; n <= 1472; n++ {
				roundTrip(t, conn, n)
			}
			roundTrip(t, conn, 20000) // the hosts fragment this one themselves
		})
	}
}

func roundTrip(t *testing.T, conn net.Conn, n int) {
	t.Helper()
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	sent := make([]byte, n)
	rand.Read(sent)
	if _, err := conn.Write(sent); err != nil && !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatal(err)
	}
	got := make([]byte, n+1)
	m, err := conn.Read(got)
	if err != nil {
		t.Fatalf("%d octets: %v", n, err)
	}
	if !bytes.Equal(got[:m], sent) {
		t.Fatalf("%d octets: came back different", n)
	}
}
