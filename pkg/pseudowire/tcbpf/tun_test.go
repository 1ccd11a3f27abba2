package tcbpf

import (
	"bytes"
	"net"
	"os"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// wireTun joins two namespaces by tun devices, each named wan, whose packets a goroutine
// passes on. They are of a type of links (ARPHRD_…), 0 is tun's own.
func wireTun(t testing.TB, a, b *space, mtu, arphrd int) {
	t.Helper()
	ends := [2]*os.File{openTun(t, a, mtu, arphrd), openTun(t, b, mtu, arphrd)}
	for i := range ends {
		from, to := ends[i], ends[1-i]
		done := make(chan struct{})
		go func() {
			defer close(done)
			packet := make([]byte, 65536)
			for {
				n, err := from.Read(packet)
				if err != nil {
					return
				}
				if _, err := to.Write(packet[:n]); err != nil {
					return
				}
			}
		}()
		t.Cleanup(func() { from.Close(); <-done })
	}
}

func openTun(t testing.TB, s *space, mtu, arphrd int) (f *os.File) {
	t.Helper()
	s.do(func() {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		must(t, err)
		request, err := unix.NewIfreq("wan")
		must(t, err)
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		must(t, unix.IoctlIfreq(fd, unix.TUNSETIFF, request))
		if arphrd != 0 {
			must(t, unix.IoctlSetInt(fd, unix.TUNSETLINK, arphrd))
		}
		f = os.NewFile(uintptr(fd), "tun") // now: before, there was nothing to poll
		link, err := netlink.LinkByName("wan")
		must(t, err)
		must(t, netlink.LinkSetMTU(link, mtu))
		must(t, netlink.LinkSetUp(link))
	})
	return f
}

// Underlays without Ethernet headers: every shape of frame, whole and in fragments, TCP,
// and a packet of many that another program puts in.
func TestUnderlayWithoutEthernet(t *testing.T) {
	for _, c := range []struct {
		name string
		set  setting
	}{
		{"UDP over IPv4", setting{cookie: 8}},
		{"UDP over IPv6", setting{cookie: 4, v6: true}},
		{"IPv4", setting{cookie: 8, ip: true}},
		{"IPv6", setting{v6: true, ip: true}},
		{"UDP over IPv4, PPP", setting{cookie: 8, arphrd: unix.ARPHRD_PPP}},
		{"UDP over IPv6, RAWIP", setting{cookie: 8, v6: true, arphrd: unix.ARPHRD_RAWIP}},
		{"UDP over IPv4, cross-connected", setting{cookie: 8, crossed: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.set.tun, c.set.mtu, c.set.tagRoom = true, 1400, 16
			a, b := up(t, c.set)
			pump(t, a)
			pump(t, b)
			portA, portB := openPort(t, a.host, "eth0"), openPort(t, b.host, "eth0")
			before := a.counters().Drops["fragmented"]
			for _, s := range shapes {
				// One at a time: some frames take the way through the lane, some do not.
				for _, n := range []int{60, 61, 64, 128, 512, 1000, 1300} {
					carry(t, portA, portB, s, []int{n})
					carry(t, portB, portA, s, []int{n})
				}
			}
			if n := a.counters().Drops["fragmented"]; n != before {
				t.Errorf("%d packets left in fragments that would have fit", n-before)
			}
			for _, s := range shapes[:9] {
				// Put together, a frame comes with all its tags in it.
				for _, n := range []int{1420, 1500, 1514 - len(s.tags)} {
					carry(t, portA, portB, s, []int{n})
					carry(t, portB, portA, s, []int{n})
				}
			}
			if n := a.counters().Drops["fragmented"]; n == before {
				t.Error("no packet left in fragments")
			}
			transfer(t, a.host, b.host, "10.0.0.2:5001", 4<<20)
			transfer(t, b.host, a.host, "[fd00::1]:5001", 4<<20)
			if drops := b.counters().Drops; drops["error"] != 0 || drops["no-neighbour"] != 0 {
				t.Errorf("b dropped %v", drops)
			}
		})
	}
}

// What is not a data message of ours is the stack's, as it was.
func TestStackKeepsItsPacketsWithoutEthernet(t *testing.T) {
	a, b := up(t, setting{cookie: 8, tun: true})
	echo(t, b.space, "192.0.2.2:7")
	var conn net.Conn
	a.do(func() {
		var err error
		conn, err = net.Dial("udp", "192.0.2.2:7")
		must(t, err)
	})
	defer conn.Close()
	for n := 1; n < 1000; n += 97 {
		roundTrip(t, conn, n)
	}
	// The tunnel's: a control message comes to its socket, data of no session does not.
	to, from := udpSocket(t, b.space, b.tunnel.Local, b.tunnel.Remote), udpSocket(t, a.space, a.tunnel.Local, a.tunnel.Remote)
	defer unix.Close(to)
	defer unix.Close(from)
	control := append([]byte{0xc8, 0x03, 0, 32}, make([]byte, 28)...)
	for _, message := range [][]byte{append([]byte{0, 3, 0, 0, 1, 2, 3, 4}, make([]byte, 60)...), control} {
		if _, err := unix.Write(from, message); err != nil {
			t.Fatal(err)
		}
	}
	must(t, unix.SetsockoptTimeval(to, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}))
	got := make([]byte, 2048)
	n, err := unix.Read(to, got)
	if err != nil || !bytes.Equal(got[:n], control) {
		t.Errorf("the socket got % x (%v), not % x", got[:max(n, 0)], err, control)
	}
	if n := b.global()["unknown-session"]; n != 1 {
		t.Errorf("counted %d packets of unknown sessions, not 1", n)
	}
}
