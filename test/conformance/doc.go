// Package conformance tests the daemon against RFC 3931 and its companions from
// outside, with a raw client that shares no code with the stack under test: it has its own encoder
// and decoder of control messages, and sends whatever a test wants it to.
//
//	host 1 ── eth1                               the client
//	               dc1 (pwd) eth0 ──────── eth0  at dc2
//	host 2 ── eth2  192.0.2.1           192.0.2.2
//
// The daemon, at site dc1 in a namespace of its own, is the real one, with the eBPF datapath. The
// client is in another namespace, in the place of site dc2. Each test has its
// own daemon, so that they run beside each other.
//
//	go test ./test/conformance                    as root; a part of go test ./...
//	go test ./test/conformance -run Rule13 -v     one rule; with all that came and went if it fails
//
// Without the rights to make network namespaces the tests are skipped, in CI
// (or with PWD_REQUIRE=netns) they fail. PWD_BIN names a folder with a daemon that is built already.
//
// # Rules
//
// A test is named by the number of the rule, the section of RFC 3931 (or number
// and section of another RFC), and what it is about. "No change" is shown by a valid
// exchange that follows: it finds the daemon where it was in the sequence of
// messages, and nothing came before its answer.
//
//	 1  3.2.1         header of every message                 21  4.2      Nr of repetitions
//	 2  3.2.1         reserved bits                           22  4.2      ACKs take no sequence number
//	 4  7.1           malformed headers                       23  4.2      receive window
//	 5  4.1.2.2       initiator's port                        24  3.3.2    StopCCN received
//	 6  4.1.2.2       responder's port                        25  4.2      StopCCN sent
//	 7  4.1.2.3       UDP checksums                           26  5.4.3    StopCCN before an answer
//	 8  5.4.3         control connection IDs                  27  4.4      HELLO
//	 9  5.4.1         Message Type is first                   28  4.3, 5.4.1 digests, and 29 wrong ones
//	10  6.1, 6.2      mandatory AVPs                          33  5.4.3    ties of control connections
//	11  5.2           unknown optional AVPs                   34  5.4.4    ties of sessions
//	12  5.2           unknown mandatory AVPs, connection      35  5.4.4    pseudowire types, sequencing
//	13  5.2           unknown mandatory AVPs, session         36  4.5      session IDs and cookies
//	14  5.2           M bit of known AVPs                     38  5.4.5    circuit status (RFC 4719, 5641)
//	15  5.4.1         unknown mandatory message types         39  5.4.4    reverse look-up
//	16  4.2, 5.4.1    unknown optional message types          40  4.7.3    Version 2 SCCRQ; 7.3.2 messages
//	17  4.2           repeated messages                                    in the wrong state; RFC 9601
//	18  4.2           old messages                                         outer ECN
//	19  4.2           order
//	20  4.2           retransmission and loss
//
//	30  5.4.1         two digests                             32  5.3      hidden AVPs
//	31  6.15          ZLB, with and without authentication   37  4.6  sequencing
//	 3  4.1.1.2       control messages over IP
//
// Beside its own rule, every control message that the daemon sends in any test is
// judged: header, first AVP, mandatory AVPs, lengths, identifiers, circuit status.
//
// Each is run over UDP and, below TestOverIP, directly over IP (protocol 115), but for
// those that are about UDP; some are run over IPv6, below TestOverIPv6. Rule 3 is over IP alone.
//
// Not covered: of 40, packets with the V bit of RFC 5085; of 33 and 34, no tie breaker on
// either side: the daemon always sends one.
package conformance
