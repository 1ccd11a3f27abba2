package agent

import (
	"encoding/binary"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/internal/pcapng"
	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

// sniffer takes copies of the data packets of tunnels for a capture, from a packet socket:
// they pass the daemon by. It sees them as they leave and arrive, after and before the
// datapaths, and whole where they are cut up on the way out only.
type sniffer struct {
	file    *os.File
	raw     syscall.RawConn
	closing atomic.Bool
	done    chan struct{}

	mu sync.Mutex
	// lanes are the tunnels' sessions.
	lanes map[lane]bool
	// fragments are of those taken last, whose other parts have no session's ID.
	fragments [32]fragment
	next      int
	// seen is the interface that packets were last seen on, by direction: of stacked
	// ones, as a VLAN's and the one below, each sees a packet.
	seen [2]glimpse
}

// lane is a session in one direction.
type lane struct {
	from, to netip.Addr
	session  uint32
}

type fragment struct {
	from, to netip.Addr
	id       uint32
}

type glimpse struct {
	link int
	at   time.Time
}

// stale is after what time without packets another interface may be looked at.
const stale = time.Second

// maxSniffed is the longest packet that is taken, a segment that is cut up later included.
const maxSniffed = 1 << 16

// newSniffer opens the socket. It has to be called in the network namespace.
func newSniffer() (*sniffer, error) {
	file, raw, err := openPacketSocket(outerFilter, nil)
	if err != nil {
		return nil, err
	}
	_ = raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, tapOctets) })
	return &sniffer{file: file, raw: raw, done: make(chan struct{}), lanes: map[lane]bool{}}, nil
}

// outerFilter lets through what may be L2TPv3: IPv4 and IPv6 with UDP, protocol 115, or
// a fragment header, behind an Ethernet header, with a VLAN tag or without, or behind none.
// Where the kernel thinks that the IP header is it does not ask: of what a datapath has
// put a header on, that is the inner one's place.
var outerFilter = []unix.SockFilter{
	{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0xfffff01c}, // SKF_AD_OFF + SKF_AD_HATYPE
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.ARPHRD_ETHER, Jt: 3},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.ARPHRD_LOOPBACK, Jt: 2},
	{Code: unix.BPF_LDX | unix.BPF_IMM, K: 0},
	{Code: unix.BPF_JMP | unix.BPF_JA, K: 5},
	{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: 12},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.ETH_P_8021Q, Jt: 2},
	{Code: unix.BPF_LDX | unix.BPF_IMM, K: ethernetHeader},
	{Code: unix.BPF_JMP | unix.BPF_JA, K: 1},
	{Code: unix.BPF_LDX | unix.BPF_IMM, K: ethernetHeader + 4},
	{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_IND, K: 0},
	{Code: unix.BPF_ALU | unix.BPF_RSH | unix.BPF_K, K: 4},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 6, Jt: 3},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 4, Jf: 7},
	{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_IND, K: 9}, // IPv4: Protocol
	{Code: unix.BPF_JMP | unix.BPF_JA, K: 1},
	{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_IND, K: 6}, // IPv6: Next Header
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.IPPROTO_FRAGMENT, Jt: 2},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.IPPROTO_UDP, Jt: 1},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: l2tpv3.Protocol, Jf: 1},
	{Code: unix.BPF_RET | unix.BPF_K, K: maxSniffed},
	{Code: unix.BPF_RET | unix.BPF_K},
}

const ethernetHeader = 14

// withoutLink takes the link's header off.
func withoutLink(b []byte, kind uint16) []byte {
	if kind != unix.ARPHRD_ETHER && kind != unix.ARPHRD_LOOPBACK {
		return b
	}
	n := ethernetHeader
	if len(b) > n && binary.BigEndian.Uint16(b[12:]) == unix.ETH_P_8021Q {
		n += 4
	}
	return b[min(n, len(b)):]
}

// follow says which sessions are wanted, all of them.
func (s *sniffer) follow(lanes map[lane]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lanes = lanes
}

// run gives packets to put until the sniffer is closed.
func (s *sniffer) run(put func(*pcapng.Message)) {
	defer close(s.done)
	buffer := make([]byte, maxSniffed)
	// The only error is that of a closed socket.
	_ = s.raw.Read(func(fd uintptr) bool {
		for !s.closing.Load() {
			n, from, err := unix.Recvfrom(int(fd), buffer, unix.MSG_DONTWAIT)
			if err != nil {
				return false
			}
			link, ok := from.(*unix.SockaddrLinklayer)
			if !ok {
				continue
			}
			out := link.Pkttype == unix.PACKET_OUTGOING
			if packet := withoutLink(buffer[:n], link.Hatype); s.wants(time.Now(), packet, out, link.Ifindex) {
				put(&pcapng.Message{Time: time.Now(), Sent: out, Packet: trim(packet)})
			}
		}
		return true
	})
}

// trim is a copy of a packet, without what the link has filled it up with.
func trim(b []byte) []byte {
	n := len(b)
	if b[0]>>4 == 4 {
		if total := int(binary.BigEndian.Uint16(b[2:])); total >= 20 {
			n = min(n, total)
		}
	} else if payload := int(binary.BigEndian.Uint16(b[4:])); payload > 0 {
		n = min(n, 40+payload)
	}
	return append([]byte(nil), b[:n]...)
}

// wants says whether a packet is one of the tunnels' data.
func (s *sniffer) wants(now time.Time, packet []byte, out bool, link int) bool {
	p, ok := readOuter(packet)
	if !ok {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	key := fragment{p.from, p.to, p.id}
	if p.later {
		for _, f := range s.fragments {
			if f == key {
				return true
			}
		}
		return false
	}
	session, err := l2tpv3.DataSessionID(p.payload, p.encapsulation)
	if err != nil || !s.lanes[lane{p.from, p.to, session}] {
		return false
	}
	last := &s.seen[0]
	if out {
		last = &s.seen[1]
	}
	if last.link != link && now.Sub(last.at) < stale {
		return false
	}
	*last = glimpse{link, now}
	if p.more {
		s.fragments[s.next] = key
		s.next = (s.next + 1) % len(s.fragments)
	}
	return true
}

// outer is what the outer headers of a packet say.
type outer struct {
	from, to      netip.Addr
	encapsulation l2tpv3.Encapsulation
	// later is a fragment that is not the first, more says that others follow; id is
	// what they have in common.
	later, more bool
	id          uint32
	// payload is what DataSessionID reads.
	payload []byte
}

func readOuter(b []byte) (p outer, ok bool) {
	var protocol byte
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		from, to := netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:]))
		fragment := binary.BigEndian.Uint16(b[6:])
		p = outer{from: from, to: to, later: fragment&0x1fff != 0, more: fragment&0x2000 != 0, id: uint32(binary.BigEndian.Uint16(b[4:]))}
		protocol, p.payload = b[9], b[min(int(b[0]&15)*4, len(b)):]
	case len(b) >= 40 && b[0]>>4 == 6:
		p = outer{from: netip.AddrFrom16([16]byte(b[8:])), to: netip.AddrFrom16([16]byte(b[24:]))}
		protocol, p.payload = b[6], b[40:]
		if protocol == unix.IPPROTO_FRAGMENT && len(p.payload) >= 8 {
			offset := binary.BigEndian.Uint16(p.payload[2:])
			p.later, p.more, p.id = offset&^7 != 0, offset&1 != 0, binary.BigEndian.Uint32(p.payload[4:])
			protocol, p.payload = p.payload[0], p.payload[8:]
		}
	default:
		return p, false
	}
	switch {
	case protocol == l2tpv3.Protocol:
		p.encapsulation = l2tpv3.IP
	case protocol == unix.IPPROTO_UDP && p.later:
	case protocol == unix.IPPROTO_UDP && len(p.payload) >= 8:
		p.payload = p.payload[8:]
	default:
		return p, false
	}
	return p, true
}

// close ends the sniffer. It gives the number of packets that the socket had no room for.
func (s *sniffer) close() (missed uint64) {
	s.closing.Store(true)
	_ = s.raw.Control(func(fd uintptr) {
		if st, err := unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
			missed = uint64(st.Drops)
		}
	})
	s.file.Close()
	<-s.done
	return missed
}
