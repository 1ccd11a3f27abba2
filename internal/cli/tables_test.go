package cli

import (
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/internal/netlab"
)

// The kernel's own tables are read, and a policy that is set in one is seen.
func TestReadTable(t *testing.T) {
	for _, tt := range []struct {
		names         string
		family, level int
		size          int // of a rule without extensions, with its target
	}{{"/proc/net/ip_tables_names", unix.AF_INET, unix.SOL_IP, 152}, {"/proc/net/ip6_tables_names", unix.AF_INET6, unix.SOL_IPV6, 208}} {
		ns := netlab.New(t).Namespace("tables")
		err := ns.Do(func() error {
			fd, err := unix.Socket(tt.family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			before, err := askTable(fd, tt.level, "filter") // which makes it
			if err != nil {
				return err
			}
			names, err := os.ReadFile(strings.Replace(tt.names, "/proc/", "/proc/thread-self/", 1))
			if err != nil || !strings.Contains(string(names), "filter") {
				t.Errorf("%s: %q, %v", tt.names, names, err)
			}
			const input = 1
			verdict := before.Policy[input] + uint32(tt.size) - 8
			if got := int32(binary.NativeEndian.Uint32(before.Rules[verdict:])); got != -2 {
				t.Errorf("the policy of a new table is %d, not to accept", got)
			}
			// struct ipt_replace
			b := make([]byte, tableName, 200)
			copy(b, "filter")
			u32 := func(v ...uint32) {
				for _, v := range v {
					b = binary.NativeEndian.AppendUint32(b, v)
				}
			}
			u32(before.Hooks, 4, uint32(len(before.Rules)))
			u32(before.Entry[:]...)
			u32(before.Policy[:]...)
			u32(4)
			counters := make([]byte, 4*16)
			b = append(b, make([]byte, (8-len(b)%8)%8)...)
			b = binary.NativeEndian.AppendUint64(b, uint64(uintptr(unsafe.Pointer(&counters[0]))))
			binary.NativeEndian.PutUint32(before.Rules[verdict:], 0xffffffff)
			b = append(b, before.Rules...)
			if _, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(tt.level), 64, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), 0); errno != 0 {
				return errno
			}
			after, err := readTable("filter", tt.family == unix.AF_INET6)
			if err != nil {
				return err
			}
			if got := int32(binary.NativeEndian.Uint32(after.Rules[verdict:])); got != -1 {
				t.Errorf("the policy is %d, not to drop", got)
			}
			return nil
		})
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOPROTOOPT) {
			netlab.Missing(t, "tables of iptables-legacy", err)
		} else if err != nil {
			t.Error(err)
		}
	}
}
