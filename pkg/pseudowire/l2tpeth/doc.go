// Package l2tpeth is the datapath of the kernel's own L2TP: sessions of type
// Ethernet of the modules l2tp_eth and l2tp_netlink, over the generic netlink
// family "l2tp".
//
// # Objects
//
//	Tunnel      a managed L2TP tunnel: the kernel takes data packets off the control
//	            connection's own socket and leaves control messages to its owner
//	Session     an L2TP session with its netdev, which has the pseudowire's device name
//	Pseudowire  a name for the device to be; alone it is nothing in the kernel
//
// The kernel has no other place for a mark of ownership: the device's alias,
// "pwd:pseudowire:NAME", says that session and device are ours.
//
// # A tunnel lives as long as its socket
//
// When the owner of the socket closes it, or ends, the kernel takes the tunnel
// and its sessions away, and the devices with them. So this datapath does not go
// on forwarding without the daemon, unlike tcbpf, unless somebody else holds a
// duplicate of the socket meanwhile (transport.Keeper). After a restart the owner sets
// tunnels and sessions again, with the same IDs and cookies, so the peer need not
// know. Those whose socket is the same are taken over as they are, and no frame is
// lost; else the devices are new ones of the same names. This package keeps no
// duplicate of the socket. Before Linux 6.12 a socket that has carried a tunnel
// cannot carry another one, or the same again: after RemoveTunnel, and for
// other control connection IDs, the control connection needs a new socket.
//
// # What the kernel does by itself
//
// It fragments packets that are too large for the underlay (DF is not set), puts
// received fragments together, and follows routes and neighbours. What routers say
// of the path (ICMP), which anybody can forge, it is told to leave out over IPv4, unless
// the route has an MTU of its own below the link's, which Refresh looks at; over IPv6 it
// cannot be told so, and believes it down to 1280 octets. Data packets of sessions that it does not know it leaves on the
// tunnel's socket, which has to be read; Deliver counts them.
//
// Devices are down until Session.Transmit is set, and a device that is down does
// not receive: frames that the peer sends before are lost.
//
// # Over IP
//
// The kernel has a kind of socket for L2TP over IP alone (IPPROTO_L2TP): Tunnel.Socket
// is one, bound to the local address and control connection ID and connected to
// the peer, as transport.Transport.Socket makes it, one for each control connection;
// several between one pair of addresses are told apart by that ID. The socket sends
// data, and nobody reads it: control messages are a raw socket's, which sees them
// first. Raw sockets see the kernel's data as well, so
// transport.Transport.SetDataSessions has to leave out the sessions carried here.
//
// The kernel finds a session over IP by its ID alone, whoever sent the packet: the
// cookie is what keeps others out. Packets of unknown sessions it drops without
// a count (over UDP they reach the socket, and Deliver counts them). It answers
// none of them with an ICMP message.
//
// # Sequencing
//
// The kernel numbers all packets of a session or none; it does not look into
// frames, and RFC 3931, Section 5.4.4 has whoever cannot do that number all for
// a peer that asked for non-IP ones. But where it numbers what it sends it drops
// what comes without a number, and where it does not it still looks at numbers that
// come. So of what two ends may ask of each other it can do:
//
//	                      the peer asked for
//	we ask for     none          non-IP        all
//	none           yes           no            no
//	non-IP         yes           no            no
//	all            yes           yes, all      yes
//
// A packet that is not the next one is dropped, until five in a row have come in
// order: those it goes on from. One packet lost costs five more, and so do two
// that change places. The kernel could hold packets back instead (RECV_TIMEOUT), but
// has no timer for that: they would wait for the next packet, and be dropped, not
// passed on, when the time is over. Packets up to 2^23 behind the last one are
// dropped for good, so numbers that begin anew at a peer that kept its session,
// as after a restart of this one's daemon, are accepted when they have caught up.
//
// Sequencing changes without the session being made anew; a sublayer does not.
//
// # DSCP, ECN, checksums, cookies
//
// Outer packets carry the DSCP of the tunnel's socket, and have its priority, so all sessions
// of a tunnel have one: the last that was set. Control messages have their own (CS6, and
// priority 0), which the transport sends along with each. The ECN field is 00, and that of packets
// received is not looked at: it must not be announced. UDP packets carry checksums,
// and those without one are taken. A session's cookies cannot change; it is made
// anew with others, and frames of that moment are lost. Package succession has another session take
// its place instead, for which this one is made deaf (pseudowire.Session.Deaf).
//
// RFC 3931, Sections 4.1 and 4.5; linux/l2tp.h.
package l2tpeth
