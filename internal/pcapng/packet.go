package pcapng

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

// Message is one control message, or a packet of data, with where it came from and went to.
type Message struct {
	Time time.Time
	// Sent is a message of ours, otherwise it was received.
	Sent                bool
	Encapsulation       l2tpv3.Encapsulation
	Source, Destination netip.AddrPort
	// Payload begins with the T bit.
	Payload []byte
	// Packet, if set, is a whole packet from its IP header on, as it was seen; the
	// addresses and Payload are not used then.
	Packet []byte
	// Comment, if set, says what the message is; Counter does not count it then.
	Comment string
	// Missed is the number of messages before this one that were not taken.
	Missed uint64
}

const (
	protocolUDP = 17
	timeToLive  = 64
	udpHeader   = 8
	maxPayload  = 1<<16 - 1
)

// packet is the message as it was on the wire, from the IP header on.
func (m *Message) packet() []byte {
	if m.Packet != nil {
		return m.Packet
	}
	source, destination := m.Source.Addr().Unmap(), m.Destination.Addr().Unmap()
	protocol := byte(protocolUDP)
	var payload []byte
	if m.Encapsulation == l2tpv3.IP {
		protocol = l2tpv3.Protocol
		payload = append(l2tpv3.AppendControlPrefix(nil, l2tpv3.IP), m.Payload...)
	} else {
		payload = m.datagram(source, destination)
	}
	payload = payload[:min(len(payload), maxPayload)]
	if source.Is4() && destination.Is4() {
		return append(header4(protocol, source, destination, len(payload)), payload...)
	}
	return append(header6(protocol, source, destination, len(payload)), payload...)
}

// datagram is the message over UDP (RFC 768).
func (m *Message) datagram(source, destination netip.Addr) []byte {
	b := binary.BigEndian.AppendUint16(nil, m.Source.Port())
	b = binary.BigEndian.AppendUint16(b, m.Destination.Port())
	b = binary.BigEndian.AppendUint16(b, uint16(min(udpHeader+len(m.Payload), maxPayload)))
	b = append(b, 0, 0)
	b = append(b, m.Payload...)
	pseudo := append(source.AsSlice(), destination.AsSlice()...)
	pseudo = append(pseudo, 0, protocolUDP, b[4], b[5])
	sum := checksum(pseudo, b)
	if sum == 0 {
		sum = 0xffff // 0 is that there is none
	}
	binary.BigEndian.PutUint16(b[6:], sum)
	return b
}

func header4(protocol byte, source, destination netip.Addr, payload int) []byte {
	h := make([]byte, 12, 20)
	h[0] = 4<<4 | 5
	binary.BigEndian.PutUint16(h[2:], uint16(min(20+payload, maxPayload)))
	h[8], h[9] = timeToLive, protocol
	h = append(h, source.AsSlice()...)
	h = append(h, destination.AsSlice()...)
	binary.BigEndian.PutUint16(h[10:], checksum(h))
	return h
}

func header6(protocol byte, source, destination netip.Addr, payload int) []byte {
	h := make([]byte, 8, 40)
	h[0] = 6 << 4
	binary.BigEndian.PutUint16(h[4:], uint16(payload))
	h[6], h[7] = protocol, timeToLive
	from, to := source.As16(), destination.As16()
	return append(append(h, from[:]...), to[:]...)
}

// checksum is the Internet checksum (RFC 1071) of parts, each but the last of an
// even length.
func checksum(parts ...[]byte) uint16 {
	var sum uint32
	for _, p := range parts {
		for ; len(p) >= 2; p = p[2:] {
			sum += uint32(binary.BigEndian.Uint16(p))
		}
		if len(p) == 1 {
			sum += uint32(p[0]) << 8
		}
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
