// Package succession has another session take the place of one, on a datapath that cannot change
// a session's cookies and whose devices are the sessions' own, as those of the kernel's l2tp_eth.
// The pseudowire's device stays what it is, so bridges, addresses that were learned, and whatever
// is attached to it notice nothing.
//
//	before   bridge ─ pw-NAME (session 1)
//	between  bridge ─ pw-NAME (session 1) ═ pwr-… (session 2)
//	after    bridge ─ pw-NAME (deaf)      ═ pwr-… (session 2)
//
// A session beside another one (pseudowire.Session.Beside) gets a device of its own, from which
// what it receives is redirected to the ingress of the pseudowire's; it is down before that
// (pseudowire.Pseudowire.StayDown). When it is the one that
// carries, what comes to the egress of the pseudowire's device, behind all other programs there, is
// redirected to its device. Both are programs of a few instructions that are attached
// by tc and name the other device: there are no maps, and nothing is pinned. The pseudowire's device has to have its
// clsact qdisc before, as package mssclamp sees to: adding one stops a device for a moment.
//
// When the session is removed that the pseudowire's device is of, it has to stay in the kernel for its device's
// sake, deaf: it takes packets with numbers only, and those of a session without a sublayer have none.
// The cookie that it was given opens nothing any more. It goes with the last of the
// pseudowire's sessions, or where the tunnel is made anew.
//
// # Order
//
// Both sessions are of one tunnel, so their packets take one path, and one queue where they arrive. What
// an end sends by the second, it sends after what it has sent by the first.
//
// # Drift
//
// What others do to a device beside is told of the pseudowire, and left alone as the pseudowire is.
//
// # Restarts
//
// The devices and programs of an earlier process go on. A session whose own device there is
// is one that stands beside another, and the session that the pseudowire's device is of is taken
// over with it, whatever it was. Redirections that nobody wants any more end when the session is set.
//
// A session with a sublayer has no successor: it could not be made deaf.
package succession
