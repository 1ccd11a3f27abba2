package cli

import (
	"encoding/binary"
	"errors"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/internal/doctor"
)

// Of struct ipt_getinfo and struct ipt_get_entries, which ip6tables has too. The latter's rules begin
// where 64 bits may.
const (
	tableName   = 32
	infoOctets  = tableName + 4 + 20 + 20 + 4 + 4
	entriesHead = tableName + 8
	getInfo     = 64 // IPT_SO_GET_INFO, IP6T_SO_GET_INFO
	getEntries  = 65
)

// readTable asks the kernel for a table of iptables-legacy or ip6tables-legacy. It has to be one that is
// in use: another one would be made. The programs do the same, and need not be installed.
func readTable(name string, ipv6 bool) (*doctor.Table, error) {
	family, level := unix.AF_INET, unix.SOL_IP
	if ipv6 {
		family, level = unix.AF_INET6, unix.SOL_IPV6
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	const tries = 5
	for try := 1; ; try++ {
		t, err := askTable(fd, level, name)
		if errors.Is(err, unix.EAGAIN) && try < tries {
			continue // it has changed in between
		}
		if t != nil {
			t.IPv6 = ipv6
		}
		return t, err
	}
}

func askTable(fd, level int, name string) (*doctor.Table, error) {
	info := make([]byte, infoOctets)
	copy(info[:tableName-1], name)
	if err := getOption(fd, level, getInfo, info); err != nil {
		return nil, err
	}
	u32 := func(at int) uint32 { return binary.NativeEndian.Uint32(info[tableName+at:]) }
	t := &doctor.Table{Hooks: u32(0)}
	for i := range t.Entry {
		t.Entry[i], t.Policy[i] = u32(4+4*i), u32(24+4*i)
	}
	size := u32(48)
	entries := make([]byte, entriesHead+int(size))
	copy(entries[:tableName-1], name)
	binary.NativeEndian.PutUint32(entries[tableName:], size)
	if err := getOption(fd, level, getEntries, entries); err != nil {
		return nil, err
	}
	t.Rules = entries[entriesHead:]
	return t, nil
}

func getOption(fd, level, option int, b []byte) error {
	n := uint32(len(b))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option),
		uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&n)), 0)
	if errno != 0 {
		return os.NewSyscallError("getsockopt", errno)
	}
	return nil
}
