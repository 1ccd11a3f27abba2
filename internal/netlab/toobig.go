package netlab

import (
	"encoding/binary"
	"net"
	"net/netip"
	"time"
)

// SendTooBig tells the host with the address local, from router, which is an address of the calling thread's
// namespace, that a packet of 1500 octets from local to remote did not fit a link of that MTU (RFC 792 and
// RFC 1191, Section 4; RFC 4443, Section 3.2): as a router does, or somebody who forges it. protocol is that of
// the packet; with ports it is UDP's or TCP's.
func SendTooBig(router netip.Addr, protocol byte, local, remote netip.AddrPort, mtu uint16) error {
	message, network := tooBig(protocol, local, remote, mtu), "ip4:icmp"
	if router.Is6() {
		network = "ip6:ipv6-icmp"
	}
	c, err := net.ListenPacket(network, router.String())
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	_, err = c.WriteTo(message, &net.IPAddr{IP: local.Addr().AsSlice()})
	return err
}

// tooBig is the message; the checksum of ICMPv6 is the kernel's to compute.
func tooBig(protocol byte, local, remote netip.AddrPort, mtu uint16) []byte {
	var quoted, icmp []byte
	four := local.Addr().Is4()
	if four {
		quoted = []byte{0x45, 0, 5, 0xdc, 0, 1, 0x40, 0, 64, protocol, 0, 0}
		icmp = []byte{3, 4, 0, 0, 0, 0, byte(mtu >> 8), byte(mtu)}
	} else {
		quoted = []byte{0x60, 0, 0, 0, 5, 0xdc, protocol, 64}
		icmp = []byte{2, 0, 0, 0, 0, 0, byte(mtu >> 8), byte(mtu)}
	}
	quoted = append(quoted, local.Addr().AsSlice()...)
	quoted = append(quoted, remote.Addr().AsSlice()...)
	icmp = append(icmp, quoted...)
	if local.Port() != 0 {
		icmp = binary.BigEndian.AppendUint16(icmp, local.Port())
		icmp = binary.BigEndian.AppendUint16(icmp, remote.Port())
		icmp = append(icmp, 5, 0xdc, 0, 0)
	} else {
		icmp = append(icmp, 0, 0, 0, 0, 0, 1, 0, 1) // an echo reply, where the protocol is ICMP
	}
	if four {
		var sum uint32
		for i := 0; i < len(icmp); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(icmp[i:]))
		}
		sum = sum>>16 + sum&0xffff
		binary.BigEndian.PutUint16(icmp[2:], ^uint16(sum+sum>>16))
	} else if protocol == protocolICMPv6 {
		icmp[8+40] = 129
	}
	return icmp
}

const protocolICMPv6 = 58
