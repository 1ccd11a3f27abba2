package transport

import (
	"net"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/pkg/l2tpv3/control"
)

// shelf keeps descriptors as a service manager does.
type shelf map[string]int

func (s shelf) Keep(name string, fd int) {
	s.Forget(name)
	kept, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		s[name] = kept
	}
}

func (s shelf) Forget(name string) {
	if fd, ok := s[name]; ok {
		unix.Close(fd)
		delete(s, name)
	}
}

// give hands a Transport all that is kept, as a new process gets it.
func (s shelf) give(t *testing.T, to *Transport) {
	t.Helper()
	for name, fd := range s {
		given, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := to.Inherit(name, given); err != nil {
			t.Error(err)
		}
	}
}

func (s shelf) names() (names []string) {
	for name := range s {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func connectedTo(t *testing.T, tr *Transport, id uint32, remote netip.AddrPort) int {
	t.Helper()
	path := control.Path{Local: netip.MustParseAddrPort("127.0.0.1:0"), Remote: remote}
	if err := tr.Transmit(control.Transmit{Connection: id, Initiator: true, Path: path, Payload: []byte{0xc8, 3}}); err != nil {
		t.Fatal(err)
	}
	if err := tr.Connect(control.Connected{Connection: id, Initiator: true, Path: path}); err != nil {
		t.Fatal(err)
	}
	fd, err := tr.Socket(id)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// A socket that is kept is the very same one after the process has ended, with what came
// meanwhile; others are made anew, and what nobody knows is closed.
func TestKeptSockets(t *testing.T) {
	peer, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	remote := peer.LocalAddr().(*net.UDPAddr).AddrPort()
	kept := shelf{}
	defer func() {
		for name := range kept {
			kept.Forget(name)
		}
	}()
	first, err := Open(Options{Keeper: kept})
	if err != nil {
		t.Fatal(err)
	}
	connectedTo(t, first, 7, remote)
	connectedTo(t, first, 8, remote)
	connectedTo(t, first, 9, remote)
	first.Release(9)
	if got, want := kept.names(), []string{"l2tpv3-7", "l2tpv3-8"}; !slices.Equal(got, want) {
		t.Fatalf("kept %q, want %q", got, want)
	}
	state := first.Save()
	first.Close()
	if len(kept) != 2 {
		t.Fatalf("kept after Close: %q", kept.names())
	}
	// The eighth is not what was saved: another socket under its name.
	kept.Forget("l2tpv3-8")
	other, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	kept.Keep("l2tpv3-8", other)
	unix.Close(other)
	was := state.Connections[0]
	if _, err := peer.WriteToUDPAddrPort([]byte{0xc8, 3, 0, 12}, was.Local); err != nil {
		t.Fatal(err)
	}

	second, err := Open(Options{Keeper: kept})
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	kept.give(t, second)
	kept.give(t, second) // of two keepers
	if err := second.Restore(state); err != nil {
		t.Fatal(err)
	}
	if got, want := second.Disown(), []string{"l2tpv3-8"}; !slices.Equal(got, want) {
		t.Errorf("disowned %q, want %q", got, want)
	}
	now, ok := second.SaveConnection(7)
	if !ok || now != was {
		t.Errorf("%+v, then %+v", was, now)
	}
	fd, err := second.Socket(7)
	if err != nil {
		t.Fatal(err)
	}
	if cookie, err := cookieOf(fd); err != nil || cookie != was.Kept {
		t.Errorf("socket %d, %v; it was %d", cookie, err, was.Kept)
	}
	if again, _ := second.SaveConnection(8); again.Kept != 0 || again.Local != state.Connections[1].Local {
		t.Errorf("the eighth: %+v, was %+v", again, state.Connections[1])
	}
	<-second.Ready()
	if p, ok := second.Take(); !ok || p.Connection != 7 || !p.Control {
		t.Errorf("what came meanwhile: %+v, %v", p, ok)
	}
	if _, err := second.Socket(8); err != nil {
		t.Fatal(err)
	}
	for name := range kept {
		kept.Forget(name)
	}
	second.KeepAgain()
	if got, want := kept.names(), []string{"l2tpv3-7", "l2tpv3-8"}; !slices.Equal(got, want) {
		t.Errorf("kept again %q, want %q", got, want)
	}
	second.Release(7)
	second.Release(8)
	if len(kept) != 0 {
		t.Errorf("kept at the end: %q", kept.names())
	}
}
