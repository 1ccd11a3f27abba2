package netlab

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// ownThread runs fn on an OS thread that ends with it, so fn may leave the
// thread in any namespace. It does not wait.
//
// The process's first thread is never taken: it cannot end before the process
// does, and what it leaves shows as the whole process's in /proc/self.
func ownThread(fn func()) {
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			fn()
			return
		}
		// As long as this goroutine holds the first thread, the next one gets another.
		started := make(chan struct{})
		ownThread(func() { close(started); fn() })
		<-started
		runtime.UnlockOSThread()
	}()
}
