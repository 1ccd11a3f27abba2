package transport

import (
	"slices"

	"golang.org/x/sys/unix"
)

// A raw socket gets a copy of every packet of its protocol to its address, also
// of those that the kernel's own L2TP or another program takes. These classic
// BPF programs decide in the kernel, before a copy costs anything more.

const (
	// maxFilter is how many instructions the kernel takes (BPF_MAXINSNS).
	maxFilter = 4096
	// leaf is how many session IDs are compared one after another. The jumps over
	// them have eight bits.
	leaf = 32
	// whole accepts a packet untruncated.
	whole = 1 << 18
)

func statement(code uint16, k uint32) unix.SockFilter { return unix.SockFilter{Code: code, K: k} }

func jump(code uint16, k uint32, yes, no int) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | code, K: k, Jt: uint8(yes), Jf: uint8(no)}
}

var (
	accept = statement(unix.BPF_RET|unix.BPF_K, whole)
	reject = statement(unix.BPF_RET|unix.BPF_K, 0)
)

// header puts the length of what is before the Session ID into X: raw sockets
// get IPv4 packets with their header, and IPv6 packets without.
func header(six bool) unix.SockFilter {
	if six {
		return statement(unix.BPF_LDX|unix.BPF_IMM, 0)
	}
	return statement(unix.BPF_LDX|unix.BPF_B|unix.BPF_MSH, 0)
}

// sessionID puts the Session ID into A. Of a packet that is too short for it
// nothing is accepted.
var sessionID = statement(unix.BPF_LD|unix.BPF_W|unix.BPF_IND, 0)

// controlFilter accepts control messages, which have Session ID 0 (RFC 3931,
// Section 4.1.1.2), and what is too short to have any: that is counted.
func controlFilter(six bool) []unix.SockFilter {
	return []unix.SockFilter{
		header(six),
		statement(unix.BPF_LD|unix.BPF_W|unix.BPF_LEN, 0),
		statement(unix.BPF_ALU|unix.BPF_SUB|unix.BPF_X, 0),
		jump(unix.BPF_JGE|unix.BPF_K, 4, 0, 2),
		sessionID,
		jump(unix.BPF_JEQ|unix.BPF_K, 0, 0, 1),
		accept,
		reject,
	}
}

// dataFilter accepts data messages, of all sessions.
func dataFilter(six bool) []unix.SockFilter {
	return []unix.SockFilter{header(six), sessionID, jump(unix.BPF_JEQ|unix.BPF_K, 0, 0, 1), reject, accept}
}

// sessionFilter accepts data messages of the sessions, which are in order and
// not 0.
func sessionFilter(six bool, ids []uint32) []unix.SockFilter {
	return append([]unix.SockFilter{header(six), sessionID}, search(ids)...)
}

// search compares A with sorted values: halving, and one by one at the end.
func search(ids []uint32) []unix.SockFilter {
	if n := len(ids); n <= leaf {
		var program []unix.SockFilter
		for i, id := range ids {
			program = append(program, jump(unix.BPF_JEQ|unix.BPF_K, id, n-i, 0))
		}
		return append(program, reject, accept)
	}
	middle := len(ids) / 2
	low, high := search(ids[:middle]), search(ids[middle:])
	program := []unix.SockFilter{
		jump(unix.BPF_JGE|unix.BPF_K, ids[middle], 0, 1),
		statement(unix.BPF_JMP|unix.BPF_JA, uint32(len(low))),
	}
	return slices.Concat(program, low, high)
}

// attach puts the filter onto a socket, in place of the one it has.
func attach(fd int, program []unix.SockFilter) error {
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
}

// attachSessions lets data of the sessions through, or of all. More sessions than
// the kernel has room for (net.core.optmem_max) are all: the owner gets to see
// data that it does not want, and no more than the socket's buffer holds.
func attachSessions(fd int, six bool, wanted dataSessions) error {
	if err := attach(fd, dataFilter(six)); err != nil || !wanted.restricted {
		return err
	}
	program := sessionFilter(six, wanted.ids)
	if len(program) > maxFilter {
		return nil
	}
	if err := attach(fd, program); err != unix.ENOMEM {
		return err
	}
	return nil
}
