package pseudowire

import "github.com/pwd-project/pwd/pkg/l2tpv3"

// The octets of headers on the wire.
const (
	ethernetLen = 14
	ipv4Len     = 20
	ipv6Len     = 40
	udpLen      = 8
	l2tpUDPLen  = 8 // flags, reserved, session ID (RFC 3931, Section 4.1.2.1)
	l2tpIPLen   = 4 // session ID (Section 4.1.1)
	sublayerLen = 4 // Section 4.6
)

// Overhead is how many octets an outer IP packet of the session has before the IP packet
// of an untagged frame: outer IP header, UDP, L2TP, cookie, sublayer, the frame's Ethernet
// header.
func Overhead(t *Tunnel, s *Session) int {
	n := ipv6Len + len(s.RemoteCookie) + ethernetLen
	if t.Remote.Addr().Unmap().Is4() {
		n -= ipv6Len - ipv4Len
	}
	if t.Encapsulation == l2tpv3.IP {
		n += l2tpIPLen
	} else {
		n += udpLen + l2tpUDPLen
	}
	if s.TransmitSublayer == l2tpv3.SublayerDefault {
		n += sublayerLen
	}
	return n
}
