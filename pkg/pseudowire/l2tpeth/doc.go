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
// on forwarding without the daemon, unlike tcbpf. After a restart the owner sets
// tunnels and sessions again, with the same IDs and cookies, so the peer need not
// know; the devices are new ones of the same names. This package keeps no
// duplicate of the socket. Before Linux 6.12 a socket that has carried a tunnel
// cannot carry another one, or the same again: after RemoveTunnel, and for
// other control connection IDs, the control connection needs a new socket.
//
// # What the kernel does by itself
//
// It fragments packets that are too large for the underlay (DF is not set), puts
// received fragments together, and follows routes and neighbours: Refresh has
// nothing to do. Data packets of sessions that it does not know it leaves on the
// tunnel's socket, which has to be read; Deliver counts them.
//
// Devices are down until Session.Transmit is set, and a device that is down does
// not receive: frames that the peer sends before are lost.
//
// RFC 3931, Sections 4.1 and 4.5; linux/l2tp.h.
package l2tpeth
