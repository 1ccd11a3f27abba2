package cli

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"github.com/pwd-project/pwd/internal/topology"
	"github.com/spf13/pflag"
)

// synthetic is what a frame is made of.
type synthetic struct {
	pcp, vlan                   int
	dscp, protocol, ethertype   string
	source, destination         string
	sourcePort, destinationPort uint16
	sourceMAC, destinationMAC   string
}

// madeOf are the flags of a synthetic frame.
var madeOf = []string{"pcp", "vlan", "dscp", "protocol", "ethertype", "source", "destination", "source-port", "destination-port", "source-mac", "destination-mac"}

func (s *synthetic) flags(f *pflag.FlagSet) {
	f.IntVar(&s.pcp, "pcp", -1, "the priority bits of its tag, `0-7`")
	f.IntVar(&s.vlan, "vlan", 0, "the VLAN of its tag")
	f.StringVar(&s.dscp, "dscp", "", "the `DSCP` of its packet, by name or number")
	f.StringVar(&s.protocol, "protocol", "udp", "its packet's protocol, by name or number")
	f.StringVar(&s.ethertype, "ethertype", "", "its EtherType instead of an IP packet, as arp or 0x88cc")
	f.StringVar(&s.source, "source", "", "its packet's source `ADDRESS`; 10.0.0.1 or that of the destination's family")
	f.StringVar(&s.destination, "destination", "", "its packet's destination `ADDRESS`")
	f.Uint16Var(&s.sourcePort, "source-port", 49152, "the source port")
	f.Uint16Var(&s.destinationPort, "destination-port", 9, "the destination port")
	f.StringVar(&s.sourceMAC, "source-mac", "02:00:00:00:00:01", "its source `ADDRESS`")
	f.StringVar(&s.destinationMAC, "destination-mac", "02:00:00:00:00:02", "its destination `ADDRESS`")
}

// given says whether any of them was.
func (s *synthetic) given(f *pflag.FlagSet) bool {
	for _, name := range madeOf {
		if f.Changed(name) {
			return true
		}
	}
	return false
}

func (s *synthetic) frame() ([]byte, error) {
	var b []byte
	for _, m := range []struct{ flag, text string }{{"destination-mac", s.destinationMAC}, {"source-mac", s.sourceMAC}} {
		a, err := net.ParseMAC(m.text)
		if err != nil || len(a) != 6 {
			return nil, fmt.Errorf("--%s %s is not a MAC address", m.flag, m.text)
		}
		b = append(b, a...)
	}
	if s.pcp < -1 || s.pcp > 7 || s.vlan < 0 || s.vlan > 4094 {
		return nil, errors.New("--pcp is from 0 to 7, and --vlan from 1 to 4094")
	}
	if s.pcp >= 0 || s.vlan != 0 {
		b = binary.BigEndian.AppendUint16(append(b, 0x81, 0), uint16(max(s.pcp, 0)<<13|s.vlan))
	}
	if s.ethertype != "" {
		v, ok := topology.EtherType(s.ethertype)
		if !ok {
			return nil, fmt.Errorf("--ethertype %s is none: write one like arp or 0x88cc", s.ethertype)
		}
		return append(binary.BigEndian.AppendUint16(b, v), make([]byte, 46)...), nil
	}
	packet, v6, err := s.packet()
	if err != nil {
		return nil, err
	}
	ethertype := uint16(0x0800)
	if v6 {
		ethertype = 0x86dd
	}
	return append(binary.BigEndian.AppendUint16(b, ethertype), packet...), nil
}

// packet is an IP packet with sixty octets behind its header, of which the first are ports.
func (s *synthetic) packet() (packet []byte, v6 bool, err error) {
	dscp, protocol := uint8(0), uint8(0)
	var ok bool
	if s.dscp != "" {
		if dscp, ok = topology.DSCP(s.dscp); !ok {
			return nil, false, fmt.Errorf("--dscp %s is none: write a name as ef, or 0 to 63", s.dscp)
		}
	}
	if protocol, ok = topology.IPProtocol(s.protocol); !ok {
		return nil, false, fmt.Errorf("--protocol %s is none: write a name as udp, or 0 to 255", s.protocol)
	}
	from, to, err := s.addresses()
	if err != nil {
		return nil, false, err
	}
	rest := make([]byte, 60)
	binary.BigEndian.PutUint16(rest, s.sourcePort)
	binary.BigEndian.PutUint16(rest[2:], s.destinationPort)
	if from.Is4() {
		b := []byte{0x45, dscp << 2, 0, 80, 0, 0, 0x40, 0, 64, protocol, 0, 0}
		b = append(append(b, from.AsSlice()...), to.AsSlice()...)
		return append(b, rest...), false, nil
	}
	b := []byte{0x60 | dscp>>2, dscp << 6, 0, 0, 0, 60, protocol, 64}
	b = append(append(b, from.AsSlice()...), to.AsSlice()...)
	return append(b, rest...), true, nil
}

// addresses are both of one family; what is not said is of the other's.
func (s *synthetic) addresses() (from, to netip.Addr, err error) {
	parse := func(flag, text, other, four, six string) (netip.Addr, error) {
		if text == "" {
			text = four
			if a, err := netip.ParseAddr(other); err == nil && a.Is6() {
				text = six
			}
		}
		a, err := netip.ParseAddr(text)
		if err != nil || a.Zone() != "" || a.Is4In6() {
			return a, fmt.Errorf("--%s %s is not an IP address", flag, strconv.Quote(text))
		}
		return a, nil
	}
	from, err1 := parse("source", s.source, s.destination, "10.0.0.1", "fd00::1")
	to, err2 := parse("destination", s.destination, s.source, "10.0.0.2", "fd00::2")
	if err := errors.Join(err1, err2); err != nil {
		return from, to, err
	}
	if from.Is4() != to.Is4() {
		return from, to, errors.New("--source and --destination are of two families")
	}
	return from, to, nil
}
