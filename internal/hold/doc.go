// Package hold keeps the sockets that the kernel's L2TP tunnels hang on while the daemon
// is away: in the service manager's file descriptor store, where there is one, and in a
// holder, a process of its own that does nothing else (pwd --hold).
//
// The service manager's store is there for a restart, a crash and an upgrade, but not, or
// not everywhere, for a stop and a start. The holder is there for both.
//
// # Between daemon and holder
//
// The holder's socket is a SOCK_SEQPACKET one in a folder beside the daemon's run
// directory; both may be used by their owner alone. Each request is one message, answered
// by one, or for "take" by several:
//
//	hello                              ok
//	keep NAME     with a descriptor    ok
//	forget NAME                        ok
//	take                               NAME with a descriptor, for each; ok
//
// What is refused is answered "error", and why. The holder looks into no descriptor. The
// daemon does not wait for answers, but for that to "take", which it asks before it begins:
// a holder that hangs is told of, and costs it nothing.
package hold
