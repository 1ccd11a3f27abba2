// Package bundle gives a pseudowire several sessions on a datapath that makes a device for
// each of them, as the kernel's l2tp_eth does: one device of the pseudowire's stays, whatever
// becomes of the sessions, and one of them sends (RFC 5641, Section 2, is about which).
//
//	                         ┌─ pwl-…  session in tunnel gold
//	bridge ─ pw-NAME ═ pwo-NAME
//	                         └─ pwl-…  session in tunnel silver
//
// The pseudowire's device is one end of a veth pair, as with the eBPF datapath. What comes
// to the other end is redirected to the device of the session that sends; what the devices of
// all sessions receive is redirected to the other end, standby or not, so that nothing is lost
// while both ends of the pseudowire change over. Each is an eBPF program of three instructions,
// which names one device; the kernel replaces it between two frames. Without a session that
// sends, the other end is down, and the pseudowire's device has no carrier.
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
