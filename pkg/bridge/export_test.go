package bridge

import "golang.org/x/sys/unix"

// FailAfter lets n more changing requests through to the kernel and refuses all
// that follow: the process has ended as far as the kernel can see.
func (m *Manager) FailAfter(n int) {
	m.nl.refuse = func() error {
		if n--; n < 0 {
			return unix.EIO
		}
		return nil
	}
}

// Asked is how many requests the kernel got so far.
func (m *Manager) Asked() int { return m.nl.asked }
