package tcbpf

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// pour sends octets over TCP from one host to another.
func pour(b *testing.B, from, to *space, addr string) {
	b.Helper()
	var listener net.Listener
	to.do(func() {
		var err error
		listener, err = net.Listen("tcp", addr)
		must(b, err)
	})
	defer listener.Close()
	done := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err == nil {
			_, err = io.Copy(io.Discard, struct{ io.Reader }{conn})
			conn.Close()
		}
		done <- err
	}()
	var conn net.Conn
	from.do(func() {
		var err error
		conn, err = net.DialTimeout("tcp", addr, 5*time.Second)
		must(b, err)
	})
	block := make([]byte, 1<<20)
	b.SetBytes(int64(len(block)))
	for b.Loop() {
		if _, err := conn.Write(block); err != nil {
			b.Fatal(err)
		}
	}
	conn.Close()
	must(b, <-done)
}

// withoutOffloads makes the sites' underlay one whose links take packets one by
// one, as real ones do.
func withoutOffloads(b *testing.B, sites ...*site) {
	for _, s := range sites {
		s.do(func() {
			f, err := openFeatures()
			must(b, err)
			defer f.Close()
			wan := index(b, "wan")
			names, err := f.active(wan)
			must(b, err)
			var off []string
			for _, n := range names {
				if strings.HasPrefix(n, "tx-") && (strings.Contains(n, "segmentation") || strings.Contains(n, "gso")) {
					off = append(off, n)
				}
			}
			must(b, f.set(wan, off, false))
		})
	}
}

// upVXLAN brings the sites up with the kernel's VXLAN in the pseudowire's place.
func upVXLAN(b *testing.B) (x, y *site) {
	b.Helper()
	x, y = newSites(b, setting{})
	withoutOffloads(b, x, y)
	for _, s := range []*site{x, y} {
		s.do(func() {
			attrs := netlink.NewLinkAttrs()
			attrs.Name, attrs.MTU = "vxlan0", 1450
			must(b, netlink.LinkAdd(&netlink.Vxlan{
				LinkAttrs: attrs, VxlanId: 7, Port: 4789, Learning: true,
				SrcAddr: s.tunnel.Local.Addr().AsSlice(), Group: s.tunnel.Remote.Addr().AsSlice(),
			}))
			enslave(b, "vxlan0")
		})
		s.host.do(func() {
			l, err := netlink.LinkByName("eth0")
			must(b, err)
			must(b, netlink.LinkSetMTU(l, 1450))
		})
	}
	return x, y
}

// flood sends small frames as fast as it can and reports how many a second come
// out at the far end.
func flood(b *testing.B, from, to *space) {
	b.Helper()
	out := openPort(b, from, "eth0")
	frame := shapes[1].frame(newRand(), 64)
	received := func() (n uint64) {
		to.do(func() {
			l, err := netlink.LinkByName("eth0")
			must(b, err)
			n = l.Attrs().Statistics.RxPackets
		})
		return n
	}
	before, start := received(), time.Now()
	for b.Loop() {
		out.send(frame)
	}
	b.ReportMetric(float64(received()-before)/time.Since(start).Seconds(), "frames/s")
}

// Frames of 64 octets, over the pseudowire and over the kernel's VXLAN.
func BenchmarkSmallFrames(b *testing.B) {
	b.Run("VXLAN", func(b *testing.B) {
		x, y := upVXLAN(b)
		flood(b, x.host, y.host)
	})
	b.Run("crossed", func(b *testing.B) {
		x, y := up(b, setting{cookie: 8, crossed: true})
		flood(b, x.host, y.host)
	})
	b.Run("pseudowire", func(b *testing.B) {
		x, y := up(b, setting{cookie: 8})
		flood(b, x.host, y.host)
	})
}

// One TCP stream between two hosts: over the pseudowire, over the kernel's VXLAN
// in its place, and over the bare underlay.
func BenchmarkTCP(b *testing.B) {
	b.Run("underlay", func(b *testing.B) {
		x, y := newSites(b, setting{})
		withoutOffloads(b, x, y)
		pour(b, x.space, y.space, "192.0.2.2:5001")
	})
	b.Run("VXLAN", func(b *testing.B) {
		x, y := upVXLAN(b)
		pour(b, x.host, y.host, "10.0.0.2:5001")
	})
	b.Run("crossed", func(b *testing.B) {
		x, y := up(b, setting{cookie: 8, crossed: true})
		withoutOffloads(b, x, y)
		pour(b, x.host, y.host, "10.0.0.2:5001")
	})
	b.Run("pseudowire", func(b *testing.B) {
		x, y := up(b, setting{cookie: 8})
		withoutOffloads(b, x, y)
		pour(b, x.host, y.host, "10.0.0.2:5001")
	})
}
