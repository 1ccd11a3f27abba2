package bridge

// support is what the kernel can do.
type support struct{ vlanFiltering, vlanDevices bool }

// Supports finds out whether the kernel has bridges that filter VLANs and VLAN
// devices, by asking for them; modules are loaded where they can be. The answer is
// kept. Where there are VLAN devices, an attachment to a VLAN of an interface is
// better without Attachment.Tagged: it leaves the rest of the interface to the host.
func (m *Manager) Supports() (vlanFiltering, vlanDevices bool, err error) {
	if m.nl == nil {
		return false, false, ErrClosed
	}
	can, err := m.supported()
	return can.vlanFiltering, can.vlanDevices, err
}

func (m *Manager) supported() (support, error) {
	if m.support != nil {
		return *m.support, nil
	}
	var s support
	var err error
	if s.vlanFiltering, err = m.nl.vlanFiltering(); err != nil {
		return support{}, failed("look for", "bridge VLAN filtering", err)
	}
	if s.vlanDevices, err = m.nl.vlanDevices(); err != nil {
		return support{}, failed("look for", "VLAN devices", err)
	}
	m.support = &s
	return s, nil
}
