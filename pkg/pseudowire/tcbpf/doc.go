// Package tcbpf is the eBPF datapath: L2TPv3 Ethernet pseudowires in programs of
// the kernel's traffic control hook, without the kernel's l2tp.
//
// A pseudowire device is one end of a veth pair; the other end, the outer one,
// has the encapsulation program at its ingress. The decapsulation program is at
// the ingress of the underlay and puts frames into the outer end, so that they
// come out of the device. What the programs need to know is in maps (package
// bpf); this package keeps them in line with routes and neighbours.
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
// the tunnel's socket, who gives it to Deliver.
//
// # UDP checksums
//
// Packets that leave whole have none, over IPv6 too (RFC 6935); a peer that is
// Linux has to allow that on its socket (UDP_NO_CHECK6_RX). Those in fragments
// have one, because identifications wrap (RFC 4963). In what comes in, a checksum
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
