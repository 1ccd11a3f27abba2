package tcbpf

import (
	"encoding/binary"
	"net"
	"net/netip"

	"github.com/pwd-project/pwd/bpf"
	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/pseudowire"
)

const (
	ethernetLen = 14
	ipv4Len     = 20
	udpLen      = 8
	l2tpLen     = 8 // over UDP: flags, reserved, session ID
	l2tpIPLen   = 4 // over IP: session ID
	sublayerLen = 4

	ttl          = 64
	protocolUDP  = 17
	protocolL2TP = 115
	dontFrag     = 0x4000
	l2tpVersion  = 0x0003
)

// outerDSCP is the DSCP of all outer packets of a session.
func outerDSCP(s *pseudowire.Session) uint8 {
	if s.Marking.Copy || s.Marking.Mapped {
		return 0
	}
	return s.DSCP
}

// putMarking says how the DSCP comes from the frame, if it does.
func putMarking(t *bpf.Transmit, m *pseudowire.Marking) {
	switch {
	case m.Copy:
		t.Flags |= bpf.TransmitCopyDSCP
	case m.Mapped:
		t.Flags |= bpf.TransmitMapPCP
		for pcp, dscp := range m.Map {
			t.Dscp |= uint64(dscp) << 2 << (8 * pcp)
		}
	}
}

// putOuter writes the headers of a session's outer packets, from Ethernet to the
// L2-Specific Sublayer, into t: all that does not depend on the frame.
func putOuter(t *bpf.Transmit, p path, tun *pseudowire.Tunnel, s *pseudowire.Session) {
	var outer [8 * len(t.Outer)]byte
	b := outer[:0]
	b = append(b, hardware(p.destination)...)
	b = append(b, hardware(p.source)...)
	local, remote := tun.Local.Addr().Unmap(), tun.Remote.Addr().Unmap()
	protocol := byte(protocolUDP)
	if overIP(tun) {
		protocol = protocolL2TP
		t.Flags |= bpf.TransmitIP
	}
	if remote.Is4() {
		b = binary.BigEndian.AppendUint16(b, 0x0800)
		b = appendIPv4(b, local, remote, protocol, outerDSCP(s))
		t.IpSum = sum16(b[ethernetLen:])
	} else {
		t.Flags |= bpf.TransmitIPv6
		b = binary.BigEndian.AppendUint16(b, 0x86dd)
		b = appendIPv6(b, local, remote, protocol, outerDSCP(s))
	}
	if !overIP(tun) {
		t.PseudoSum = sum16(local.AsSlice()) + sum16(remote.AsSlice()) + uint32(bpf.NetworkOrder16(protocolUDP))
		b = binary.BigEndian.AppendUint16(b, tun.Local.Port())
		b = binary.BigEndian.AppendUint16(b, tun.Remote.Port())
		b = append(b, 0, 0, 0, 0) // length and checksum, the program's
		// RFC 3931, Section 4.1.2.1.
		b = binary.BigEndian.AppendUint16(b, l2tpVersion)
		b = append(b, 0, 0)
	}
	b = appendSession(b, s)
	t.OuterLen = uint32(len(b))
	for i := range t.Outer {
		t.Outer[i] = binary.NativeEndian.Uint64(outer[8*i:])
	}
}

func overIP(t *pseudowire.Tunnel) bool { return t.Encapsulation == l2tpv3.IP }

// appendIPv4 appends an IPv4 header but for its length and checksum. DF is set:
// what does not fit is fragmented here, or the path's MTU was not known yet, and
// then the ICMP error tells it.
func appendIPv4(b []byte, local, remote netip.Addr, protocol, dscp byte) []byte {
	b = append(b, 0x45, dscp<<2, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, dontFrag)
	b = append(b, ttl, protocol, 0, 0)
	b = append(b, local.AsSlice()...)
	return append(b, remote.AsSlice()...)
}

// appendIPv6 appends an IPv6 header but for its length.
func appendIPv6(b []byte, local, remote netip.Addr, protocol, dscp byte) []byte {
	b = append(b, 0x60|dscp>>2, dscp<<6, 0, 0, 0, 0, protocol, ttl)
	b = append(b, local.AsSlice()...)
	return append(b, remote.AsSlice()...)
}

// appendSession appends what data messages over UDP and over IP have in common
// (RFC 3931, Section 4.1), and a default sublayer without sequence number (Section
// 4.6), which the program puts in.
func appendSession(b []byte, s *pseudowire.Session) []byte {
	b = binary.BigEndian.AppendUint32(b, s.RemoteID)
	b = append(b, s.RemoteCookie...)
	if s.TransmitSublayer == l2tpv3.SublayerDefault {
		b = append(b, make([]byte, sublayerLen)...)
	}
	return b
}

// sum16 adds up 16-bit words as they stand in memory, the way the program goes
// on with them.
func sum16(b []byte) (sum uint32) {
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(binary.NativeEndian.Uint16(b))
	}
	return sum
}

func hardware(a net.HardwareAddr) []byte {
	if len(a) != 6 {
		return make([]byte, 6)
	}
	return a
}
