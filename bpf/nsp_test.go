package bpf

import (
	"runtime"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

func TestNSPLoads(t *testing.T) {
	load(t).Close()
	n, err := LoadNSP("", "")
	if err != nil {
		t.Fatalf("%+v", err)
	}
	n.Close()
}

// The daemon's three capabilities are enough for the native service processing, too.
func TestNSPLoadsWithFewCapabilities(t *testing.T) {
	withFewCapabilities(t, func() error {
		n, err := LoadNSP("", "")
		if err == nil {
			n.Close()
		}
		return err
	})
}

// And for the suppression of address resolution.
func TestSuppressionLoadsWithFewCapabilities(t *testing.T) {
	withFewCapabilities(t, func() error {
		s, err := LoadSuppression(time.Minute)
		if err == nil {
			s.Close()
		}
		return err
	})
}

func withFewCapabilities(t *testing.T, f func() error) {
	t.Helper()
	load(t).Close()
	// Capabilities are the thread's, which is not used again: it ends with the goroutine.
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		var keep [2]uint32
		for _, c := range []uint{unix.CAP_NET_ADMIN, unix.CAP_NET_RAW, unix.CAP_BPF} {
			keep[c/32] |= 1 << (c % 32)
		}
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		data := [2]unix.CapUserData{{Effective: keep[0], Permitted: keep[0]}, {Effective: keep[1], Permitted: keep[1]}}
		if err := unix.Capset(&header, &data[0]); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	if err := <-done; err != nil {
		t.Errorf("%+v", err)
	}
}

// The kernel is not asked to delete a table of stations that is not there, for which it would
// wait: it could not delete anything from this map.
func TestDeletesNoTableThatIsNotThere(t *testing.T) {
	load(t).Close()
	n, err := LoadNSP("", "")
	if err != nil {
		t.Fatalf("%+v", err)
	}
	defer n.Close()
	if err := n.Put(1, &Service{Interval: [3]uint64{1, 1, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := n.stations.Freeze(); err != nil {
		t.Fatal(err)
	}
	if err := n.Put(2, &Service{}); err != nil {
		t.Error(err)
	}
	if err := n.Delete(2); err != nil {
		t.Error(err)
	}
	if n.Delete(1) == nil {
		t.Error("a table was deleted from a map that is not to be written")
	}
}

// While a limit is changed no frame is let through by the old one because what it is owed was forgotten already.
func TestChangedLimitOpensNothing(t *testing.T) {
	load(t).Close()
	n, err := LoadNSP("", "")
	if err != nil {
		t.Fatalf("%+v", err)
	}
	defer n.Close()
	if err := n.Put(device, &Service{Interval: [3]uint64{uint64(time.Hour), 0, 0}, Police: uint64(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	frame := arp(1, 1, 2)
	for range 2 {
		run(t, n.Into, frame, 0)
	}
	if err := n.Services.m.Freeze(); err != nil { // as if it ended there
		t.Fatal(err)
	}
	if err := n.Put(device, &Service{Interval: [3]uint64{1, 0, 0}, Police: 1}); err == nil {
		t.Fatal("a map that is not to be written was")
	}
	if action, _, _ := run(t, n.Into, frame, 0); action != shot {
		t.Errorf("a frame too many passes: %#x", action)
	}
}

// A limit that is raised is another at once: what was owed by the one before is forgotten. One that
// stays goes on.
func TestLimitsChangeAtOnce(t *testing.T) {
	load(t).Close()
	n, err := LoadNSP("", "")
	if err != nil {
		t.Fatalf("%+v", err)
	}
	defer n.Close()
	put := func(s Service) {
		t.Helper()
		if err := n.Put(device, &s); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		program   *ebpf.Program
		low, high Service
		packet    []byte
	}{
		"broadcasts": {n.Into, Service{Interval: [3]uint64{uint64(time.Hour), 0, 0}}, Service{Interval: [3]uint64{1, 0, 0}}, arp(1, 1, 2)},
		"all":        {n.Out, Service{Police: uint64(time.Hour)}, Service{Police: 1}, arp(1, 1, 2)},
	} {
		put(c.low)
		if action, _, _ := run(t, c.program, c.packet, 0); action == shot {
			t.Errorf("%s: the first frame is dropped", name)
		}
		put(c.low)
		if action, _, _ := run(t, c.program, c.packet, 0); action != shot {
			t.Errorf("%s: the second one is not dropped, where a limit stays: %#x", name, action)
		}
		put(c.high)
		if action, _, _ := run(t, c.program, c.packet, 0); action == shot {
			t.Errorf("%s: where the limit is raised a frame is dropped", name)
		}
	}
}
