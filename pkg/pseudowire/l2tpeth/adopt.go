package l2tpeth

import (
	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// adoptTunnel takes over the tunnel that an earlier process made of this very socket; nil
// if there is none. Nothing is done to the socket but what does not hold it.
func (d *Datapath) adoptTunnel(t pseudowire.Tunnel, socket uint64) (*tunnel, error) {
	live, ok, err := d.l2tp.tunnel(t.LocalID)
	if err != nil {
		return nil, &OpError{"look for", tunnelName(t), err}
	}
	if !ok || live.peerID != t.RemoteID || live.encap != encapOf(t) {
		return nil, nil
	}
	carries, err := d.socket.carries(t.Socket, t.Encapsulation)
	if err != nil {
		return nil, &OpError{"look at the socket of", tunnelName(t), err}
	}
	if !carries {
		return nil, nil // that tunnel is another socket's, on its way out
	}
	dscp, err := d.socket.dscp(t)
	if err != nil {
		return nil, &OpError{"look at the socket of", tunnelName(t), err}
	}
	priority, err := d.socket.priority(t.Socket)
	if err != nil {
		return nil, &OpError{"look at the socket of", tunnelName(t), err}
	}
	discovery, err := d.socket.discovery(t)
	if err != nil {
		return nil, &OpError{"look at the socket of", tunnelName(t), err}
	}
	d.log.Debug("tunnel taken over", "tunnel", t.Name)
	return &tunnel{Tunnel: t, socket: socket, dscp: dscp, priority: priority, discovery: discovery, adopted: true}, nil
}

// adoptSession takes over the session that an earlier process made, with its device, if it is what is
// wanted; nil if there is none. Its sublayer the kernel does not tell: that is settled
// for the life of a session (RFC 3931, Section 5.4.4), whose IDs and cookies are random.
func (d *Datapath) adoptSession(s pseudowire.Session, spec sessionSpec) (*session, link, error) {
	none := link{}
	if !d.tunnels[s.Tunnel].adopted {
		return nil, none, nil
	}
	live, ok, err := d.l2tp.session(spec.connID, spec.id)
	if err != nil {
		return nil, none, &OpError{"look for", sessionName(s), err}
	}
	if !ok || live.pwType != pwEth || live.peerID != spec.peerID || live.cookie != spec.cookie ||
		live.peerCookie != spec.peerCookie || live.ifName != spec.ifName {
		return nil, none, nil
	}
	l, ok, err := d.links.byName(spec.ifName)
	if err != nil {
		return nil, none, &OpError{"look at", "device " + spec.ifName, err}
	}
	if !ok || l.alias != alias(s.Pseudowire) {
		return nil, none, nil
	}
	d.log.Debug("session taken over", "session", s.LocalID, "device", l.name)
	return &session{s, spec, live.sequencing, l.index}, l, nil
}
