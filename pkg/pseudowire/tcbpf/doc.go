// Package tcbpf is the eBPF datapath: L2TPv3 Ethernet pseudowires in programs of
// the kernel's traffic control hook, without the kernel's l2tp.
//
// A pseudowire device is one end of a veth pair; the other end, the outer one,
// has the encapsulation program at its ingress. The decapsulation program is at
// the ingress of the underlay and puts frames into the outer end, so that they
// come out of the device. What the programs need to know is in maps (package
// bpf); this package keeps them in line with routes and neighbours.
//
// Most frames do not need what the kernel does on the way over the pair. They are
// encapsulated at the egress of the device already, and put into the device itself: that is
// a tenth more small frames. What needs the pair is said at pwd_enter (bpf/encap.h) and
// to_device (bpf/decap.h).
//
// The device has carrier while a session of its pseudowire may send: the outer
// end is up then. There is no carrier in one direction alone, so what a peer
// sends before that is counted (pseudowire.DropNotTransmit), not delivered.
//
// # The slow lane
//
// What a program cannot do to a packet, the kernel does to it on its way through
// a veth pair without offloads, one for all pseudowires: frames that do not fit
// the underlay get their checksums finished there, are encapsulated one by one
// and leave in fragments; packets of many segments that come in are taken apart.
// What comes in fragments the kernel puts together, and it reaches the owner of
// the tunnel's socket, who gives it to Deliver, which puts it into the lane: there is
// one place where packets are judged. The ECN field of fragments is lost on that way.
//
// Of a tunnel that is not to fragment (pseudowire.Tunnel.DF) such frames are counted there
// and dropped, or become the ICMP error that tells their sender so (bpf/toobig.h): at most
// 100 a second for each pseudowire. An MTU below 1280 cannot be told to IPv6, nor one below
// 576 to IPv4.
//
// # Underlays without Ethernet headers
//
// Where packets are no frames (WireGuard, PPP, tun), those that come in get an Ethernet
// header, so that decapsulation is one and the same. From those that leave the kernel
// takes the outer Ethernet header off: it goes by what the skb says of where its IP header
// is, and where that is not so, as of frames that are not IP, the packet goes through the
// slow lane once more. No neighbour has to be known.
//
// # Protocol 115
//
// Directly over IP (RFC 3931, Section 4.1.1) there are no ports: all tunnels between two
// addresses are one flow, and the session ID tells them apart. Where the kernel's l2tp_ip
// is there, sessions that are not known here may be its own and are left to the stack.
// The kernel knows no segmentation of such packets, so it cuts frames of several
// segments before they enter the device; the slow lane would do it as well, but what
// needs no cutting would overtake them. The same holds where all packets are numbered.
//
// # Cross-connection
//
// Where a pseudowire has an interface, or a VLAN of one, for itself (Pseudowire.Port), a
// program at that interface's ingress encapsulates, and what comes out leaves through it
// (bpf/port.h): no frame takes the way over the bridge. TCP alone comes out of the
// device first, for the kernel to put segments together, and leaves from there; so does
// all of a session that asks for order. The bridge is there nevertheless, and takes over
// wherever a program is not: before and after, and where the interface is an underlay.
//
// # Order
//
// Sessions that ask for it have their packets numbered and the peer's numbers looked at
// (RFC 3931, Section 4.6.1). Numbers are given in the order in which packets leave; senders
// on several CPUs never share one, but their packets may pass each other after that. What
// comes in order is delivered at once; what comes behind is dropped
// (pseudowire.DropOutOfSequence). What is ahead of a missing packet is held for it, 10 ms
// by default, up to 512 numbers ahead: bpf/order.h says how a program can do that. While
// frames are held the session's packets go through the slow lane; when none is, nothing
// is different from before. The first number of a session is expected to be 0, so what
// was lost before the first one that comes is waited for as well. Once held, 2048 frames
// of all sessions is the most there can be, each of 1600 octets at most: a longer one
// waits for nobody. A goroutine has the last packets before a pause delivered; when it is
// not there, because the process is not, nothing is held, and what is late is dropped.
//
// Both ends' state is in maps: with pins a restart changes nothing, without them numbers
// begin anew, and a peer that looks at them drops the first 8.
//
// # Congestion
//
// Of tunnels with ECN (RFC 9601) the outer ECN field is that of IP inside, behind up to
// four tags, and what the PSN did to it is merged in by RFC 6040. What is not IP counts as
// not capable of ECN: 00 outside, and dropped where that has become CE.
//
// # UDP checksums
//
// Packets that leave whole have none, over IPv6 too (RFC 6935), unless the tunnel is to
// have them; a peer that is Linux has to allow that on its socket (UDP_NO_CHECK6_RX).
// Those in fragments have one, because identifications wrap (RFC 4963). Packets with
// a checksum all go through the slow lane, where it is computed. In what comes in, a checksum
// that the device has not verified is verified only by the stack, in fragments:
// links guard their frames, and IP inside guards itself.
//
// # Taking over
//
// What a process made goes on forwarding after its end. The next one must not
// disturb that while its setters are being called one by one: until Prune they
// only make devices and remember. Prune then writes the maps, of all sessions,
// and only after that puts this process's programs in the place of the old ones,
// each in one step. If the maps are pinned the old programs see what is written
// and it is the same; if not, they go on with maps of their own until replaced.
// Last comes the removal of what nobody named.
//
// Programs are replaced from the end of a frame's way to its beginning: the slow
// lane, then decapsulation, then encapsulation. So a program never hands on to
// one that knows less.
//
// Where there is nothing to take over, all takes effect at once.
//
// # Namespaces
//
// A Datapath works in the network namespace in which it was opened; where
// attachments are by tcx, its methods have to be called from a thread in it.
package tcbpf
