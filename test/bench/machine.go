package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// tick is the unit of /proc/stat, USER_HZ.
const tick = 10 * time.Millisecond

// busyTime is how long all CPUs of the machine together have not been idle.
func busyTime() (time.Duration, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(b), "\n")
	fields := strings.Fields(line) // cpu user nice system idle iowait irq softirq …
	if len(fields) < 8 || fields[0] != "cpu" {
		return 0, fmt.Errorf("/proc/stat begins with %q", line)
	}
	var busy time.Duration
	for _, i := range []int{1, 2, 3, 6, 7} {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/stat: %w", err)
		}
		busy += time.Duration(n) * tick
	}
	return busy, nil
}

// ownTime is how long this process has had CPUs, and with it the kernel's threads that go on
// with what it sends when it is too much for the sender's own time.
func ownTime() (time.Duration, error) {
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
		return 0, fmt.Errorf("ask for the processor time: %w", err)
	}
	sum := time.Duration(r.Utime.Nano() + r.Stime.Nano())
	for _, dir := range softirqThreads() {
		b, err := os.ReadFile(dir + "/schedstat")
		if err != nil {
			return 0, err
		}
		first, _, _ := strings.Cut(string(b), " ")
		n, err := strconv.ParseInt(first, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s/schedstat: %w", dir, err)
		}
		sum += time.Duration(n)
	}
	return sum, nil
}

// softirqThreads are the folders of the kernel's ksoftirqd threads.
var softirqThreads = sync.OnceValue(func() []string {
	var dirs []string
	all, _ := filepath.Glob("/proc/[0-9]*/schedstat") // not every kernel has it
	for _, file := range all {
		if b, _ := os.ReadFile(filepath.Dir(file) + "/comm"); strings.HasPrefix(string(b), "ksoftirqd/") {
			dirs = append(dirs, filepath.Dir(file))
		}
	}
	return dirs
})

// kernelRelease is what `uname -r` says.
func kernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}

// machineName says on what is measured: processor, and how many.
func machineName() string {
	name := "unknown processor"
	b, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(b)) {
		if key, value, found := strings.Cut(line, ":"); found && strings.TrimSpace(key) == "model name" {
			name = strings.TrimSpace(value)
			break
		}
	}
	return fmt.Sprintf("%d × %s", runtime.NumCPU(), name)
}

// load is the load average of the last minute.
func load() float64 {
	b, _ := os.ReadFile("/proc/loadavg")
	first, _, _ := strings.Cut(string(b), " ")
	n, _ := strconv.ParseFloat(first, 64)
	return n
}
