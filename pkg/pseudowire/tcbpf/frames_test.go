package tcbpf

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// The frames of these tests come from one station, by which they are told from
// what the hosts' kernels have to say.
var station = [6]byte{0x02, 0x70, 0x77, 0x64, 0, 1}

// port is a raw socket on a host's eth0.
type port struct {
	t    testing.TB
	host *space
	fd   int
}

func openPort(t testing.TB, host *space, link string) *port {
	t.Helper()
	p := &port{t: t, host: host}
	host.do(func() {
		var err error
		p.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		must(t, err)
		must(t, unix.SetsockoptInt(p.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20))
		must(t, unix.SetsockoptInt(p.fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1))
		must(t, unix.SetsockoptTimeval(p.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 500_000}))
		must(t, unix.Bind(p.fd, &unix.SockaddrLinklayer{Protocol: 0x0300, Ifindex: index(t, link)}))
	})
	t.Cleanup(func() { unix.Close(p.fd) })
	return p
}

func (p *port) send(frame []byte) {
	p.t.Helper()
	if _, err := unix.Write(p.fd, frame); err != nil {
		p.t.Fatalf("%s: send %d octets: %v", p.host.name, len(frame), err)
	}
}

// receive returns the next frame of the station that comes in, with its tag
// where it was on the wire; nil after half a second without one.
func (p *port) receive() []byte { return p.receiveFrom(station) }

// receiveNow returns the next frame if one has come.
func (p *port) receiveNow() []byte {
	b := make([]byte, 65536)
	n, _, err := unix.Recvfrom(p.fd, b, unix.MSG_DONTWAIT)
	if err != nil {
		return nil
	}
	return b[:n]
}

func (p *port) receiveFrom(source [6]byte) []byte {
	b, oob := make([]byte, 65536), make([]byte, 256)
	for {
		n, oobn, _, from, err := unix.Recvmsg(p.fd, b, oob, 0)
		if err == unix.EAGAIN {
			return nil
		}
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			p.t.Fatalf("%s: receive: %v", p.host.name, err)
		}
		if from.(*unix.SockaddrLinklayer).Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		if n < 14 || [6]byte(b[6:12]) != source {
			continue
		}
		return withMetadata(b[:n], oob[:oobn])
	}
}

// withMetadata puts the tag that the kernel keeps beside a frame back into it.
func withMetadata(frame, oob []byte) []byte {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return bytes.Clone(frame)
	}
	for _, m := range messages {
		if m.Header.Type != unix.PACKET_AUXDATA || len(m.Data) < 20 {
			continue
		}
		status := binary.NativeEndian.Uint32(m.Data)
		tci, tpid := binary.NativeEndian.Uint16(m.Data[16:]), binary.NativeEndian.Uint16(m.Data[18:])
		if status&unix.TP_STATUS_VLAN_VALID != 0 {
			tagged := bytes.Clone(frame[:12])
			tagged = binary.BigEndian.AppendUint16(tagged, tpid)
			tagged = binary.BigEndian.AppendUint16(tagged, tci)
			return append(tagged, frame[12:]...)
		}
	}
	return bytes.Clone(frame)
}

// shape is a kind of frame.
type shape struct {
	name string
	to   [6]byte
	tags []byte // tags, each of four octets
	// ethertype of the payload, whose octets mean nothing; 0 makes it a length.
	ethertype uint16
}

var (
	unicast   = [6]byte{0x02, 0x70, 0x77, 0x64, 0, 2}
	broadcast = [6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	multicast = [6]byte{0x01, 0x00, 0x5e, 0x01, 0x02, 0x03}
	tag5      = []byte{0x81, 0x00, 0x60, 0x05} // priority 3, VLAN 5
	priority  = []byte{0x81, 0x00, 0xe0, 0x00} // priority 7, no VLAN
	service   = []byte{0x88, 0xa8, 0x10, 0x64} // drop eligible, VLAN 100
	twice     = append(bytes.Clone(service), tag5...)
	thrice    = append(bytes.Clone(twice), tag5...)
)

const experimental = 0x88b5 // IEEE 802, Local Experimental EtherType 1

var shapes = []shape{
	{"unicast", unicast, nil, experimental},
	{"unicast IPv4", unicast, nil, 0x0800},
	{"unicast IPv6", unicast, nil, 0x86dd},
	{"unicast length", unicast, nil, 0},
	{"broadcast", broadcast, nil, experimental},
	{"multicast IPv4", multicast, nil, 0x0800},
	{"tagged unicast", unicast, tag5, experimental},
	{"tagged broadcast", broadcast, tag5, experimental},
	{"tagged multicast IPv4", multicast, tag5, 0x0800},
	{"tagged unicast IPv6", unicast, tag5, 0x86dd},
	{"priority tag", unicast, priority, 0x0800},
	{"service tag", unicast, service, 0x0800},
	{"two tags", unicast, twice, 0x0800},
	{"two tags, broadcast", broadcast, twice, experimental},
	{"three tags", unicast, thrice, 0x0800},
}

func newRand() *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }

// frame is one of the shape, size octets long without its tags.
func (s shape) frame(rng *rand.Rand, size int) []byte {
	b := append(s.to[:], station[:]...)
	b = append(b, s.tags...)
	ethertype := s.ethertype
	if ethertype == 0 {
		ethertype = uint16(min(size-14, 1500))
	}
	b = binary.BigEndian.AppendUint16(b, ethertype)
	b = appendIP(b, ethertype, size-14)
	for len(b) < size+len(s.tags) {
		b = append(b, byte(rng.Uint32()))
	}
	return b
}

// appendIP appends an IP header, of a protocol for experiments: a bridge may
// drop what says that it is IP and is not.
func appendIP(b []byte, ethertype uint16, length int) []byte {
	switch {
	case ethertype == 0x0800 && length >= 20:
		h := []byte{0x45, 0, byte(length >> 8), byte(length), 0, 0, 0, 0, 1, 253, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2}
		sum := sum16(h)
		sum = sum&0xffff + sum>>16
		binary.NativeEndian.PutUint16(h[10:], ^uint16(sum+sum>>16))
		return append(b, h...)
	case ethertype == 0x86dd && length >= 40:
		h := make([]byte, 40)
		h[0], h[4], h[5], h[6], h[7] = 0x60, byte((length-40)>>8), byte(length-40), 253, 1
		h[8], h[23], h[24], h[39] = 0xfd, 1, 0xfd, 2
		return append(b, h...)
	}
	return b
}

// carry sends frames of the sizes from one port to another and compares.
func carry(t *testing.T, from, to *port, s shape, sizes []int) {
	t.Helper()
	rng := rand.New(rand.NewPCG(1, uint64(len(s.name))))
	const window = 32
	for len(sizes) > 0 {
		n := min(window, len(sizes))
		var sent [][]byte
		for _, size := range sizes[:n] {
			sent = append(sent, s.frame(rng, size))
			from.send(sent[len(sent)-1])
		}
		for i, want := range sent {
			got := to.receive()
			if !bytes.Equal(got, want) {
				t.Fatalf("%s, %d octets: got %d octets, sent %d: %s", s.name, sizes[i], len(got), len(want), firstDifference(got, want))
			}
		}
		sizes = sizes[n:]
	}
}

func firstDifference(got, want []byte) string {
	if got == nil {
		return "nothing came"
	}
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			return fmt.Sprintf("octet %d is %#02x, not %#02x: % x… not % x…", i, got[i], want[i], got[:min(len(got), 34)], want[:34])
		}
	}
	return "the length"
}

// most is the longest frame of the shape that a LAN of 1500 octets carries, its
// tags not counted: a bridge allows for one tag and the one beside the frame.
func (s shape) most() int { return 1514 - max(0, len(s.tags)-8) }

func sizes(from, to int) (all []int) {
	for n := from; n <= to; n++ {
		all = append(all, n)
	}
	return all
}

// some is every size about the ends, and some between: for what differs little.
func some(from, to int) (all []int) {
	for n := from; n <= to; n++ {
		if n < from+20 || n > to-20 || n%97 == 0 {
			all = append(all, n)
		}
	}
	return all
}

// Every size, tagged and not, both ways, over an underlay that has room.
func TestEveryFrameArrivesAsSent(t *testing.T) {
	for _, underlay := range []struct {
		name string
		set  setting
	}{
		{"IPv4, cookie 8", setting{cookie: 8, mtu: 1600}},
		{"IPv4, cookie 4", setting{cookie: 4, mtu: 1600}},
		{"IPv4, no cookie", setting{mtu: 1600}},
		{"IPv6, cookie 8", setting{cookie: 8, mtu: 1600, v6: true}},
		{"IPv6, no cookie", setting{mtu: 1600, v6: true}},
		{"protocol 115 over IPv4, cookie 8", setting{cookie: 8, mtu: 1600, ip: true}},
		{"protocol 115 over IPv4, no cookie", setting{mtu: 1600, ip: true}},
		{"protocol 115 over IPv6, cookie 4", setting{cookie: 4, mtu: 1600, v6: true, ip: true}},
	} {
		t.Run(underlay.name, func(t *testing.T) {
			underlay.set.tagRoom = 16
			a, b := up(t, underlay.set)
			portA, portB := openPort(t, a.host, "eth0"), openPort(t, b.host, "eth0")
			for _, s := range shapes {
				which := some(60, s.most())
				if underlay.set.cookie == 8 && !underlay.set.ip {
					which = sizes(60, s.most())
				}
				carry(t, portA, portB, s, which)
				carry(t, portB, portA, s, which)
			}
			// Runts too: nothing on the way pads.
			carry(t, portA, portB, shapes[0], sizes(15, 59))
			carry(t, portA, portB, shapes[1], sizes(34, 59))
		})
	}
}

// pump hands what reaches a site's tunnel socket to its datapath, as the daemon does.
func pump(t testing.TB, s *site) {
	t.Helper()
	open, header := udpSocket, 0
	if overIP(&s.tunnel) {
		open = rawSocket
		if s.tunnel.Local.Addr().Is4() {
			header = ipv4Len
		}
	}
	fd := open(t, s.space, s.tunnel.Local, s.tunnel.Remote)
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 65536)
		for {
			n, err := unix.Read(fd, b)
			select {
			case <-stop:
				return
			default:
			}
			if err == nil {
				s.do(func() { s.dp.Deliver(s.tunnel.Remote, b[header:n]) })
			}
		}
	}()
	t.Cleanup(func() { close(stop); <-done; unix.Close(fd) })
}

func udpSocket(t testing.TB, s *space, local, remote netip.AddrPort) (fd int) {
	t.Helper()
	return ipSocket(t, s, unix.SOCK_DGRAM, 0, local, remote)
}

// rawSocket is one of protocol 115, which gets what the stack has put together, and
// everything else of the peer's.
func rawSocket(t testing.TB, s *space, local, remote netip.AddrPort) (fd int) {
	t.Helper()
	return ipSocket(t, s, unix.SOCK_RAW, protocolL2TP, local, remote)
}

func ipSocket(t testing.TB, s *space, kind, protocol int, local, remote netip.AddrPort) (fd int) {
	t.Helper()
	sockaddr := func(a netip.AddrPort) unix.Sockaddr {
		if a.Addr().Is4() {
			return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
		}
		return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
	}
	s.do(func() {
		family := unix.AF_INET6
		if local.Addr().Is4() {
			family = unix.AF_INET
		}
		var err error
		fd, err = unix.Socket(family, kind|unix.SOCK_CLOEXEC, protocol)
		must(t, err)
		must(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20))
		must(t, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000}))
		must(t, unix.Bind(fd, sockaddr(local)))
		must(t, unix.Connect(fd, sockaddr(remote)))
	})
	return fd
}

// Over an underlay that is too small for a full frame: what does not fit comes
// in fragments, which the peer's stack puts together again.
func TestFragments(t *testing.T) {
	for _, underlay := range []struct {
		name string
		set  setting
		last int
	}{
		{"IPv4 1500", setting{cookie: 8, mtu: 1500}, 1514},
		{"IPv4 1280", setting{cookie: 8, mtu: 1280}, 1514},
		{"IPv6 1500", setting{cookie: 8, mtu: 1500, v6: true}, 1514},
		{"IPv6 1280", setting{cookie: 4, mtu: 1280, v6: true}, 1514},
		{"IPv4 1500, jumbo frames", setting{cookie: 8, mtu: 1500, lanMTU: 9000}, 9014},
		{"IPv6 1280, jumbo frames", setting{cookie: 8, mtu: 1280, lanMTU: 9000, v6: true}, 9014},
		{"protocol 115 over IPv4 1500", setting{cookie: 8, mtu: 1500, ip: true}, 1514},
		{"protocol 115 over IPv6 1280, jumbo frames", setting{cookie: 8, mtu: 1280, lanMTU: 9000, v6: true, ip: true}, 9014},
	} {
		t.Run(underlay.name, func(t *testing.T) {
			underlay.set.tagRoom = 16
			a, b := up(t, underlay.set)
			pump(t, a)
			pump(t, b)
			portA, portB := openPort(t, a.host, "eth0"), openPort(t, b.host, "eth0")
			which := []int{1180, 1220, 1221, 1222, 1223, 1224, 1230, 1280, 1400, 1440, 1441, 1442, 1443, 1444, 1450, 1460, 1500, 1513, 1514}
			if underlay.last > 1514 {
				for n := 1514; n < underlay.last; n += 211 {
					which = append(which, n)
				}
				which = append(which, underlay.last-1, underlay.last)
			}
			// Fragments overtake what is put together from them: one at a time.
			for _, s := range shapes {
				// Put together, a frame comes with all its tags in it.
				most := underlay.last - max(0, len(s.tags)-4)
				for _, n := range which {
					carry(t, portA, portB, s, []int{min(n, most)})
				}
				carry(t, portB, portA, s, []int{most})
			}
			got, want := b.counters(), a.counters()
			if got.Drops["reassembled"] != want.Drops["fragmented"] || got.Drops["reassembled"] == 0 {
				t.Errorf("b put together %d packets, a sent %d in fragments", got.Drops["reassembled"], want.Drops["fragmented"])
			}
			if n := uint64(len(which) * len(shapes)); want.TransmittedFrames < n || got.ReceivedFrames < n {
				t.Errorf("counted %d sent and %d received, of %d", want.TransmittedFrames, got.ReceivedFrames, n)
			}
		})
	}
}
