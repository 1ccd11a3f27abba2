package transport_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/pkg/l2tpv3/transport"
)

// TestTrouble: an initiator hears before anybody has answered that nothing listens where
// the peer should.
func TestTrouble(t *testing.T) {
	families(t, func(t *testing.T, f family) {
		a := open(t, f.zero)
		transmit(t, a, 1, true, path(at(f.zero, 0), at(f.one, 1701)), sccrq)
		for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
			if x := a.Trouble(1); x != nil {
				if x.Err != unix.ECONNREFUSED || time.Since(x.At) > patience {
					t.Errorf("%+v", x)
				}
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("nothing was heard")
			}
		}
		if x := a.Trouble(2); x != nil {
			t.Errorf("of no connection: %+v", x)
		}
	})
}

// TestFloodOfStrangers: strangers whose messages fill their queue leave room for what
// comes from a peer's address, which is handed out before them.
func TestFloodOfStrangers(t *testing.T) {
	families(t, func(t *testing.T, f family) {
		const flood = 3000
		a := open(t, f.zero)
		a.SetPeers([]netip.Addr{f.one})
		local := at(f.zero, 1701)
		stranger, peer := udp(t, at(f.zero, 0)), udp(t, at(f.one, 0))
		arrived := func(n uint64) {
			t.Helper()
			for deadline := time.Now().Add(patience); a.Counters().ReceivedControl < n; time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("%+v, want %d received", a.Counters(), n)
				}
			}
		}
		for i := range uint64(flood) {
			stranger.send(t, local, sccrq)
			if i%100 == 99 {
				arrived(i + 1)
			}
		}
		peer.send(t, local, sccrq)
		arrived(flood + 1)
		if c := a.Counters(); c.DroppedControl == 0 {
			t.Fatalf("the flood was none: %+v", c)
		}
		if x := receive(t, a); x.Path.Remote != peer.local {
			t.Errorf("the first is from %v, want the peer's, from %v", x.Path.Remote, peer.local)
		}
	})
}

// TestConnectUnderFlood: while many connections get their sockets, a flood of
// strangers' messages goes on; each one arrives, as a stranger's, and none is
// taken for a peer's. Between bind and connect the kernel gives the new socket
// what is the listener's.
func TestConnectUnderFlood(t *testing.T) {
	families(t, func(t *testing.T, f family) {
		const strangers, window, rounds = 4, 64, 100
		a := open(t, f.zero)
		local := at(f.zero, 1701)

		// Each stranger has at most window messages on the way, so that nothing
		// is lost for want of room, and a lost one stops it for good.
		credit := make([]chan struct{}, strangers)
		peers := make(map[netip.AddrPort]int)
		var senders sync.WaitGroup
		stop := make(chan struct{})
		sent := make([]uint32, strangers)
		for i := range strangers {
			s := udp(t, at(f.one, 0))
			peers[s.local] = i
			credit[i] = make(chan struct{}, window)
			for range window {
				credit[i] <- struct{}{}
			}
			senders.Add(1)
			go func() {
				defer senders.Done()
				for {
					select {
					case <-stop:
						return
					case <-credit[i]:
					}
					b := binary.BigEndian.AppendUint32([]byte{0xc8, 0x03}, sent[i])
					if _, err := s.WriteToUDPAddrPort(b, local); err != nil {
						t.Error(err)
						return
					}
					sent[i]++
				}
			}()
		}

		got := make([]map[uint32]bool, strangers)
		for i := range got {
			got[i] = map[uint32]bool{}
		}
		take := func() error {
			p, ok := next(a, patience)
			if !ok {
				return fmt.Errorf("no packet any more")
			}
			i, known := peers[p.Path.Remote]
			if !known || p.Connection != 0 || p.Path.Local != local {
				return fmt.Errorf("a packet of connection %d from %v to %v", p.Connection, p.Path.Remote, p.Path.Local)
			}
			number := binary.BigEndian.Uint32(p.Payload[2:])
			if got[i][number] {
				return fmt.Errorf("message %d of stranger %d arrived twice", number, i)
			}
			got[i][number] = true
			credit[i] <- struct{}{}
			return nil
		}
		for id := range uint32(rounds) {
			connect(t, a, id+1, false, local, at(f.one, uint16(20000+id)))
			for range 20 {
				if err := take(); err != nil {
					t.Fatal(err)
				}
			}
			// Not the one that has just been connected: a processor that has found that socket while it was
			// not may put a message into it yet, when what had arrived was passed on, and it is closed.
			if id%3 == 0 && id >= 12 {
				a.Release(id + 1 - 12)
			}
		}
		close(stop)
		senders.Wait()
		total := 0
		for i := range got {
			for len(got[i]) < int(sent[i]) {
				if err := take(); err != nil {
					t.Fatalf("stranger %d: %d of %d messages arrived: %v", i, len(got[i]), sent[i], err)
				}
			}
			total += len(got[i])
		}
		if c := a.Counters(); c.DroppedControl != 0 || c.ReceivedControl != uint64(total) {
			t.Errorf("counters %+v, %d messages", c, total)
		}
		t.Logf("%d messages during %d connects", total, rounds)
	})
}

// TestFlood: an owner that takes nothing costs bounded memory; what does not fit
// is counted; and after a flood of data, control messages come first.
func TestFlood(t *testing.T) {
	families(t, func(t *testing.T, f family) {
		const flood = 10000
		a := open(t, f.zero)
		local := at(f.zero, 1701)
		p, stranger := udp(t, at(f.one, 0)), udp(t, at(f.one, 0))
		connect(t, a, 1, false, local, p.local)

		arrived := func(n uint64) {
			t.Helper()
			for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
				c := a.Counters()
				if c.ReceivedControl+c.ReceivedData >= n {
					return
				}
				if time.Now().After(deadline) {
					t.Fatalf("%+v, want %d received", c, n)
				}
			}
		}
		var n uint64
		send := func(s *udpSocket, payload string, times int) {
			t.Helper()
			for i := range times {
				s.send(t, local, payload)
				if n++; i%100 == 99 {
					arrived(n) // the socket's own buffer must not lose any
				}
			}
			arrived(n)
		}
		send(stranger, data, flood)
		send(p, data, flood)
		send(stranger, sccrq, flood)
		send(p, hello, 3)

		c := a.Counters()
		if c.ReceivedControl != flood+3 || c.ReceivedData != 2*flood {
			t.Errorf("received: %+v", c)
		}
		const strangersControl, peersData, strangersData = 1024, 4096, 256
		if want := uint64(flood - strangersControl); c.DroppedControl != want {
			t.Errorf("%d control messages dropped, want %d", c.DroppedControl, want)
		}
		if want := uint64(2*flood - peersData - strangersData); c.DroppedData != want {
			t.Errorf("%d data messages dropped, want %d", c.DroppedData, want)
		}

		// runs is what comes out: who, what, how many in a row.
		type run struct {
			connection uint32
			control    bool
			n          int
		}
		var runs []run
		for range strangersControl + peersData + strangersData + 3 {
			x := receive(t, a)
			if last := len(runs) - 1; last >= 0 && runs[last].connection == x.Connection && runs[last].control == x.Control {
				runs[last].n++
				continue
			}
			runs = append(runs, run{x.Connection, x.Control, 1})
		}
		want := []run{{1, true, 3}, {0, true, strangersControl}, {1, false, peersData}, {0, false, strangersData}}
		if fmt.Sprint(runs) != fmt.Sprint(want) {
			t.Errorf("came out as %v, want %v", runs, want)
		}
	})
}

// TestCloseUnderFlood: Close comes back at once while datagrams arrive without end.
func TestCloseUnderFlood(t *testing.T) {
	families(t, func(t *testing.T, f family) {
		a, err := transport.Open(transport.Options{Listen: overUDP(f.zero)})
		if err != nil {
			t.Fatal(err)
		}
		s := udp(t, at(f.one, 0))
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			for {
				select {
				case <-stop:
					return
				default:
					s.WriteToUDPAddrPort([]byte(data), at(f.zero, 1701))
				}
			}
		}()
		receive(t, a)
		closed := make(chan struct{})
		go func() { a.Close(); close(closed) }()
		select {
		case <-closed:
		case <-time.After(patience):
			t.Error("Close does not come back")
		}
		close(stop)
		<-stopped
	})
}

// addAddress6 puts an address with a 128-bit prefix onto loopback.
func addAddress6(fd int, a netip.Addr) error {
	request := struct { // struct in6_ifreq
		addr   [16]byte
		prefix uint32
		index  int32
	}{a.As16(), 128, 1}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCSIFADDR, uintptr(unsafe.Pointer(&request)))
	if errno != 0 {
		return errno
	}
	return nil
}
