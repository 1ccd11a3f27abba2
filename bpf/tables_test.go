package bpf

import (
	"errors"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// short is a map whose kernel has no memory at hand for a few updates.
type short struct{ left int }

func (*short) MaxEntries() uint32 { return 1 }
func (m *short) Update(any, any, ebpf.MapUpdateFlags) error {
	if m.left == 0 {
		return nil
	}
	m.left--
	return unix.ENOMEM
}

// Memory that is not at hand is waited for, whichever way an entry is made, but not for ever.
func TestMemoryIsWaitedFor(t *testing.T) {
	for name, write := range map[string]func(updated) error{
		"update": func(m updated) error { return update(m, 1, 2, ebpf.UpdateAny) },
		"create": func(m updated) error { return create(m, 1, 2) },
	} {
		if err := write(&short{left: 3}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := write(&short{left: 1 << 30}); !errors.Is(err, unix.ENOMEM) {
			t.Errorf("%s without end: %v", name, err)
		}
	}
}
