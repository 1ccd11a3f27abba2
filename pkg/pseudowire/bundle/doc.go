// Package bundle gives a pseudowire several sessions on a datapath that makes a device for
// each of them, as the kernel's l2tp_eth does: one device of the pseudowire's stays, whatever
// becomes of the sessions, and one of them sends (RFC 5641, Section 2, is about which).
//
//	                         ┌─ pwl-…  session in tunnel gold
//	bridge ─ pw-NAME ═ pwo-NAME
//	                         └─ pwl-…  session in tunnel silver
//
// The pseudowire's device is one end of a veth pair, as with the eBPF datapath. What comes
// to the other end is sent out of the device of the session that sends, or with rules
// (pseudowire.Steer) of one of those that do, by the program of bpf/spread.c. What the devices
// of all sessions receive is redirected to the other end, standby or not, so that nothing is lost
// while both ends of the pseudowire change over; each has a program of three instructions for
// that, which names the other end. Without a session that sends, the other end is down, and the
// pseudowire's device has no carrier.
//
// # Restarts
//
// Nothing is pinned: the programs of an earlier process, which are attached, go on with its maps.
// They are replaced once it is known where frames leave: with rules, when all sessions are set,
// or at Prune. Flows that were about to go over to a tunnel that had come back go over then.
//
// # Objects
//
// Both ends of the pair have the alias "pwd:bundle:NAME". The sessions' devices are those
// of pseudowires of the datapath below, "NAME+TUNNEL", and are its. Everything that is
// attached goes with the devices.
//
// Pseudowires with one session (pseudowire.Pseudowire.Several is not set) are the datapath's
// own.
package bundle
