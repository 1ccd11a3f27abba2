// Package control is the L2TPv3 control protocol (RFC 3931) as a pure state
// machine: control connections, sessions and reliable delivery of one host.
//
// # The owner's duties
//
// An Endpoint does no I/O, starts nothing and reads no clock. It belongs to one
// goroutine, which gives it datagrams and the time and then
//
//  1. takes everything that Next returns and carries it out in that order, but
//     holds back what is to be transmitted,
//  2. writes the tunnels that TakeDirty names (SaveTunnel, or what changed of them,
//     SaveChange) to where they survive the process,
//  3. transmits, and gives the payloads back (Recycle) if it has no more use for them,
//  4. calls Advance when the time that Deadline returns has come. Before that it
//     tells what data was received (Heard), or a HELLO is sent in vain.
//
// An InstallSession stands in the queue before the Transmit of the message that
// lets the peer use the session: whoever carries out the queue in order never
// loses a frame to a session that is not there yet. A state that was written
// before its messages left is never behind what the peer knows, so a process
// that dies at any moment goes on as if some packets had been lost.
//
// # Objects
//
// A tunnel is what is wanted: one control connection between two sites, an LCCE
// of its own on each side. It has at most one connection in force, which is an
// attempt (wait-ctl-reply, wait-ctl-conn) or established, and some that are
// closing or linger to acknowledge what the peer repeats. A session is what is
// wanted on a tunnel; it has at most one local session ID at a time.
//
// # Timers
//
// Every timer is one field of the object that it belongs to, and the least of an
// object's timers is its place in the Endpoint's heap.
//
//   - Retransmission (reliable): runs while a sent message is unacknowledged, from
//     the sending or from the last progress; doubles from Timers.Retransmit up to
//     RetransmitCap; after MaxRetransmits the connection is lost (Section 4.2).
//   - HELLO (connection): runs in an established connection with nothing
//     unacknowledged, from the last message or data heard (Section 4.4).
//   - Half-open limit (connection): from the entry to wait-ctl-reply or
//     wait-ctl-conn, one retransmission cycle and a little: the peer acknowledges
//     but does not go on. It ends in StopCCN 7.
//   - Linger (connection): from the receipt of StopCCN, or from the acknowledgment
//     of ours; repetitions are acknowledged until it ends (Section 3.3.2).
//   - Open (tunnel): a random time up to Timers.OpenDelay after the tunnel is set,
//     none, and no timer, after one without an address was removed and set again,
//     ReopenMin doubling to ReopenMax after a failure. It sends an SCCRQ.
//   - Test (tunnel): runs while another SCCRQ waits beside an established
//     connection; when it ends without an answer to the HELLO, the old one yields.
//   - Retry (session): after a CDN, as Open; later where the peer does not know the
//     session, because it will ask by itself when it does. It sends an ICRQ.
//   - Half-open limit (session): in wait-reply and wait-connect, once the
//     connection has nothing unacknowledged and the peer has nothing to say of
//     other sessions, or after 16 times as long. It ends in CDN 16.
//
// The RFCs: 3931 (the protocol), 4719 (Ethernet), 4667 (AGI, forwarders, MTU),
// 5641 (circuit status). Section numbers without an RFC are of RFC 3931.
package control
