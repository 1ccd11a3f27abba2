package bridge

import (
	"fmt"
	"net"

	"github.com/mdlayher/ethernet"
	"golang.org/x/sys/unix"
)

// etherTypeRARP is RFC 903's.
const etherTypeRARP ethernet.EtherType = 0x8035

// Announce tells the other end of a pseudowire which addresses are here: for
// each that the pseudowire's bridge has learned behind another port, in a VLAN
// that the pseudowire carries, it sends a RARP request from that address into the
// device, as hypervisors do for a virtual machine that has moved. The bridges on
// the way learn from it; hosts take no notice. It returns how many it sent.
func (m *Manager) Announce(pseudowire string) (int, error) {
	macs, err := m.MACs()
	if err != nil {
		return 0, err
	}
	p, known := m.attachments[pseudowire]
	if !known {
		return 0, &InvalidError{"pseudowire " + pseudowire, "it is not attached"}
	}
	l, err := m.nl.link(p.Device)
	if err != nil || l == nil {
		return 0, failed("find", p.Device, orGone(err))
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, failed("open a packet socket on", p.Device, err)
	}
	defer unix.Close(fd)
	sent := 0
	for _, mac := range macs {
		if mac.Bridge != p.target.name || mac.Port == p.Device || !p.target.carriesVLAN(p.Attachment, mac.VLAN) {
			continue
		}
		// What is behind another isolated port does not come through this one.
		if o, is := m.attachments[mac.Pseudowire]; is && o.Isolated && p.Isolated {
			continue
		}
		frame, err := announcement(mac.Address, p.tagOnDevice(mac.VLAN))
		if err != nil {
			return sent, fmt.Errorf("announce %v: %w", mac.Address, err)
		}
		// A port's netdev sends what is given to it to the other end of the pseudowire.
		if err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: l.index}); err != nil {
			return sent, failed("send into", p.Device, err)
		}
		sent++
	}
	return sent, nil
}

// tagOnDevice is the tag that frames of a VLAN have on the device, 0 for none.
func (p placed) tagOnDevice(vlan uint16) uint16 {
	if p.Tagged {
		return p.VLAN
	}
	return 0
}

// carriesVLAN reports whether frames that the bridge has in a VLAN go through
// the attachment.
func (t *target) carriesVLAN(a Attachment, vlan uint16) bool {
	if !t.shape.aware {
		return true // it does not tell them apart
	}
	_, is := deviceVLANs(a, t.shape)[vlan]
	return is
}

// announcement is a RARP request in which an address asks for itself (RFC 903).
func announcement(a Address, vlan uint16) ([]byte, error) {
	const (
		ethernetHardware = 1
		requestReverse   = 3
	)
	payload := []byte{
		0, ethernetHardware, 0x08, 0x00, 6, 4, 0, requestReverse,
		a[0], a[1], a[2], a[3], a[4], a[5], 0, 0, 0, 0,
		a[0], a[1], a[2], a[3], a[4], a[5], 0, 0, 0, 0,
	}
	f := ethernet.Frame{
		Destination: ethernet.Broadcast, Source: net.HardwareAddr(a[:]),
		EtherType: etherTypeRARP, Payload: payload,
	}
	if vlan != 0 {
		f.VLAN = &ethernet.VLAN{ID: vlan}
	}
	return f.MarshalBinary()
}
