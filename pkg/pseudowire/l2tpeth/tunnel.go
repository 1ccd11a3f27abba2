package l2tpeth

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// tunnel is a tunnel that was set.
type tunnel struct {
	pseudowire.Tunnel
	// socket is the kernel's own number of the socket, which no other one ever has.
	socket uint64
	// dscp and priority are what was last set on it.
	dscp     uint8
	priority uint32
	// discovery is its IP_MTU_DISCOVER, -1 if that is not known.
	discovery int
	// adopted says that an earlier process made it, and perhaps its sessions.
	adopted bool
}

func (t *tunnel) String() string { return tunnelName(t.Tunnel) }

func tunnelName(t pseudowire.Tunnel) string { return fmt.Sprintf("tunnel %s (%d)", t.Name, t.LocalID) }

// SetTunnel makes a tunnel of the socket, which must be of the datapath's namespace
// and connected: one of UDP or, over IP, one of IPPROTO_L2TP that is also bound to
// the local control connection ID. A tunnel whose IDs, encapsulation or socket
// changed is made anew, and so are its sessions, with new devices of the same names.
func (d *Datapath) SetTunnel(t pseudowire.Tunnel) error {
	if err := checkTunnel(t); err != nil {
		return err
	}
	socket, err := d.socket.identity(t.Socket)
	if err != nil {
		return &OpError{"look at the socket of", tunnelName(t), err}
	}
	old := d.tunnels[t.Name]
	if old != nil {
		live, err := d.l2tp.hasTunnel(old.LocalID)
		if err != nil {
			return &OpError{"look for", old.String(), err}
		}
		if live && old.socket == socket && old.LocalID == t.LocalID && old.RemoteID == t.RemoteID && old.Encapsulation == t.Encapsulation {
			old.Tunnel = t
			d.tryIgnoreICMP(old)
			return nil
		}
	}
	var sessions []pseudowire.Session
	if old != nil {
		sessions = d.sessionsOf(t.Name)
		if err := d.RemoveTunnel(t.Name); err != nil {
			return err
		}
	}
	adopted, err := d.adoptTunnel(t, socket)
	if err != nil {
		return err
	}
	if adopted != nil {
		d.tunnels[t.Name] = adopted
		d.tryIgnoreICMP(adopted)
		return nil
	}
	if err := d.createTunnel(t); err != nil {
		return err
	}
	discovery, err := d.socket.discovery(t) // another tunnel may have had the socket
	if err != nil {
		discovery = -1
	}
	made := &tunnel{Tunnel: t, socket: socket, discovery: discovery}
	d.tunnels[t.Name] = made
	d.tryIgnoreICMP(made)
	for _, s := range sessions {
		if err := d.SetSession(s); err != nil {
			return err
		}
	}
	return nil
}

func checkTunnel(t pseudowire.Tunnel) error {
	switch {
	case t.Encapsulation != l2tpv3.UDP && t.Encapsulation != l2tpv3.IP:
		return &UnsupportedError{Feature: t.Encapsulation.String(), Hint: "use `encapsulation: udp` or `encapsulation: ip`"}
	// RFC 6040, Section 4.2: what the PSN did to the outer ECN field would be lost.
	case t.ECN:
		return &UnsupportedError{Feature: "ECN (" + tunnelName(t) + ")", Hint: "do not announce it to the peer, or use `datapath: ebpf`"}
	// RFC 3931, Section 4.1: a Control Connection ID of 0 stands for none.
	case t.LocalID == 0 || t.RemoteID == 0:
		return &ArgumentError{tunnelName(t), "a control connection ID is 0"}
	case t.Socket < 0:
		return &ArgumentError{tunnelName(t), "no socket: the kernel makes a tunnel of the control connection's"}
	}
	return nil
}

// createTunnel waits for one of the same ID that is on its way out: the one
// that the previous run of the daemon left when it ended.
func (d *Datapath) createTunnel(t pseudowire.Tunnel) error {
	encapsulation := encapOf(t)
	if encapsulation == encapUDP && six(t) {
		if err := d.socket.acceptNoChecksum(t.Socket); err != nil {
			return &OpError{"prepare the IPv6 socket of", tunnelName(t), err}
		}
	}
	created, err := d.until(func() (bool, error) {
		err := d.l2tp.createTunnel(t.LocalID, t.RemoteID, encapsulation, t.Socket)
		if errors.Is(err, unix.EEXIST) {
			return false, d.removeLeftovers(func(s kernelSession) bool { return s.connID == t.LocalID })
		}
		return err == nil, err
	})
	switch {
	case errors.Is(err, unix.EBUSY):
		return &ConflictError{"the socket of " + tunnelName(t), "it carries a tunnel, or did: give the control connection a new one"}
	case err != nil:
		return &OpError{"create", tunnelName(t), err}
	case !created:
		return &ConflictError{fmt.Sprintf("tunnel ID %d", t.LocalID),
			fmt.Sprintf("see `ip l2tp show tunnel tunnel_id %d`", t.LocalID)}
	}
	return nil
}

func encapOf(t pseudowire.Tunnel) uint16 {
	if t.Encapsulation == l2tpv3.UDP {
		return encapUDP
	}
	return encapIP
}

func six(t pseudowire.Tunnel) bool { return t.Remote.Addr().Unmap().Is6() }

// mark has the tunnel's packets carry a DSCP, and be in a class of the underlay's qdisc. Both
// are the socket's, and so those of all sessions of the tunnel. Working with the socket costs
// the packet that is being sent at that moment, so it is done for other values only, and not
// on a descriptor whose socket is no longer the tunnel's.
func (d *Datapath) mark(t *tunnel, dscp uint8, priority uint32) error {
	if t.dscp == dscp && t.priority == priority {
		return nil
	}
	if err := d.holds(t); err != nil {
		return &OpError{"set the DSCP of", t.String(), err}
	}
	if t.dscp != dscp {
		if err := d.socket.setDSCP(t.Socket, six(t.Tunnel), dscp); err != nil {
			return &OpError{"set the DSCP of", t.String(), err}
		}
		t.dscp = dscp
		// The kernel takes one from the other.
		t.priority = ^priority
	}
	if err := d.socket.setPriority(t.Socket, priority); err != nil {
		return &OpError{"set the class of", t.String(), err}
	}
	t.priority = priority
	return nil
}

// RemoveTunnel removes a tunnel and its sessions; the socket stays. One that is unknown is no error.
func (d *Datapath) RemoveTunnel(name string) error {
	t := d.tunnels[name]
	if t == nil {
		return nil
	}
	for _, s := range d.sessionsOf(name) {
		if err := d.RemoveSession(s.LocalID); err != nil {
			return err
		}
	}
	if err := d.deleteTunnel(t.LocalID); err != nil {
		return &OpError{"delete", t.String(), err}
	}
	delete(d.tunnels, name)
	return nil
}

// deleteTunnel returns when the kernel has let go of it.
func (d *Datapath) deleteTunnel(id uint32) error {
	if err := d.l2tp.deleteTunnel(id); err != nil && !gone(err) {
		return err
	}
	ended, err := d.until(func() (bool, error) {
		has, err := d.l2tp.hasTunnel(id)
		return !has, err
	})
	if err == nil && !ended {
		err = fmt.Errorf("still there after %v", patience)
	}
	return err
}

// sessionsOf a tunnel, by local ID.
func (d *Datapath) sessionsOf(tunnel string) []pseudowire.Session {
	var out []pseudowire.Session
	for _, s := range d.sessions {
		if s.Tunnel == tunnel {
			out = append(out, s.Session)
		}
	}
	slices.SortFunc(out, func(a, b pseudowire.Session) int { return int(int64(a.LocalID) - int64(b.LocalID)) })
	return out
}

// socketOps is what is done to a tunnel's socket besides making a tunnel of it.
type socketOps interface {
	// identity is a number that no other socket has had since the machine booted.
	identity(fd int) (uint64, error)
	// carries reports whether a tunnel of the kernel's hangs on it.
	carries(fd int, e l2tpv3.Encapsulation) (bool, error)
	// dscp is how the kernel marks what it sends from a tunnel's.
	dscp(t pseudowire.Tunnel) (uint8, error)
	// acceptNoChecksum lets UDP datagrams without a checksum in.
	acceptNoChecksum(fd int) error
	// setDSCP marks what the kernel sends from it, ECN field 00.
	setDSCP(fd int, six bool, dscp uint8) error
	// priority is that of what the kernel sends from it (skb->priority).
	priority(fd int) (uint32, error)
	setPriority(fd int, priority uint32) error
	// discovery is IP_MTU_DISCOVER of a tunnel's: 0 over IPv6.
	discovery(t pseudowire.Tunnel) (int, error)
	setDiscovery(fd, discovery int) error
}

type kernelSockets struct{}

func (kernelSockets) identity(fd int) (uint64, error) {
	return unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
}

// carries: the kernel notes at a UDP socket what it does with packets, here
// UDP_ENCAP_L2TPINUDP. Over IP there is one socket of a tunnel's ID (ErrConnectionIDInUse of
// package transport), and the tunnel of that ID is of no other.
func (kernelSockets) carries(fd int, e l2tpv3.Encapsulation) (bool, error) {
	if e == l2tpv3.IP {
		return true, nil
	}
	kind, err := unix.GetsockoptInt(fd, unix.SOL_UDP, unix.UDP_ENCAP)
	return kind == unix.UDP_ENCAP_L2TPINUDP, err
}

// acceptNoChecksum: a peer whose sender leaves segmentation to the network card
// cannot compute UDP checksums over IPv6 (RFC 6935 and RFC 6936 let tunnels go
// without). What this end sends carries them, which every peer takes.
func (kernelSockets) acceptNoChecksum(fd int) error {
	return unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_NO_CHECK6_RX, 1)
}

func (kernelSockets) setDSCP(fd int, six bool, dscp uint8) error {
	if six {
		return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_TCLASS, int(dscp)<<2)
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TOS, int(dscp)<<2)
}

func (kernelSockets) priority(fd int) (uint32, error) {
	v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PRIORITY)
	return uint32(v), err
}

func (kernelSockets) setPriority(fd int, priority uint32) error {
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PRIORITY, int(priority))
}

func (kernelSockets) discovery(t pseudowire.Tunnel) (int, error) {
	if six(t) {
		return 0, nil
	}
	return unix.GetsockoptInt(t.Socket, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER)
}

func (kernelSockets) setDiscovery(fd, discovery int) error {
	return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, discovery)
}
