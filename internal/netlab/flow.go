package netlab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// FlowOptions describe a steady flow of UDP datagrams.
type FlowOptions struct {
	// Rate is datagrams per second; 0 is 1000.
	Rate int
	// Size is a datagram's payload in octets, at least 8; 0 is 64.
	Size int
}

// FlowResult is what became of the datagrams.
type FlowResult struct {
	// Sent were numbered in order; Received counts numbers, each once.
	Sent, Received uint64
	// Took is how long they were sent for.
	Took time.Duration
	// Duplicated counts further copies; Reordered those that came after a later one; Damaged those with other octets than were sent.
	Duplicated, Reordered, Damaged uint64
	// LongestGap is the longest time between two arrivals.
	LongestGap time.Duration
	// FirstLost are numbers of the first few that never came.
	FirstLost []uint64
}

// Lost is how many never came.
func (r FlowResult) Lost() uint64 { return r.Sent - r.Received }

// PerSecond is how many were sent a second, which is less than was asked for where the
// machine could not keep up.
func (r FlowResult) PerSecond() float64 { return float64(r.Sent) / max(r.Took.Seconds(), 1e-3) }

func (r FlowResult) String() string {
	s := fmt.Sprintf("%d sent in %v (%.0f/s), %d received, %d lost, %d duplicated, %d reordered, %d damaged, longest gap %v",
		r.Sent, r.Took.Round(time.Millisecond), r.PerSecond(), r.Received, r.Lost(), r.Duplicated, r.Reordered, r.Damaged, r.LongestGap.Round(time.Microsecond))
	if len(r.FirstLost) > 0 {
		s += fmt.Sprintf(", first lost %d", r.FirstLost)
	}
	return s
}

// Flow is a running flow.
type Flow struct {
	sender, receiver *net.UDPConn
	size             int
	stop             chan struct{}
	stopOnce         sync.Once
	sent             chan sendResult
	done             chan struct{} // the receiver has ended

	mu       sync.Mutex
	seen     []uint64 // a bit for each number
	result   FlowResult
	highest  uint64
	last     time.Time
	progress chan struct{} // closed and replaced with every arrival
}

type sendResult struct {
	n    uint64
	took time.Duration
	err  error
}

// Flow starts to send numbered datagrams from the namespace to an address of another, at a steady rate.
func (ns *Namespace) Flow(far *Namespace, to netip.Addr, o FlowOptions) (*Flow, error) {
	if o.Rate == 0 {
		o.Rate = 1000
	}
	if o.Size == 0 {
		o.Size = 64
	}
	o.Size = max(o.Size, 8)
	f := &Flow{size: o.Size, stop: make(chan struct{}), sent: make(chan sendResult, 1), done: make(chan struct{}), progress: make(chan struct{})}
	// A receiver that sleeps must not look like a network that loses.
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		if e := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 256<<20) }); e != nil {
			return e
		}
		return err
	}}
	err := far.Do(func() error {
		c, err := lc.ListenPacket(context.Background(), "udp", netip.AddrPortFrom(to, 0).String())
		if err == nil {
			f.receiver = c.(*net.UDPConn)
		}
		return err
	})
	if err == nil {
		err = ns.Do(func() (err error) {
			f.sender, err = net.DialUDP("udp", nil, f.receiver.LocalAddr().(*net.UDPAddr))
			return err
		})
	}
	if err != nil {
		if f.receiver != nil {
			f.receiver.Close()
		}
		return nil, fmt.Errorf("netlab: flow from %s to %v in %s: %w", ns.Name, to, far.Name, err)
	}
	go f.receive()
	go f.send(o.Rate)
	ns.lab.onClose(f.end)
	return f, nil
}

// filling is what the octets behind the numbers of datagrams of a size are taken from.
func filling(size int) []byte {
	b := make([]byte, 255+size)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}

// fill writes the datagram of a number: the number, then octets that depend on it, which are
// copied, because on an emulated machine each instruction counts.
func fill(b []byte, n uint64, from []byte) {
	binary.BigEndian.PutUint64(b, n)
	copy(b[8:], from[byte(n):])
}

// stay keeps the calling goroutine on the CPU that it runs on: a sender that moves
// to another overtakes what waits in the first one's queue of a veth pair. Its thread
// ends with it.
func stay() error {
	runtime.LockOSThread()
	var cpu uint32
	if _, _, errno := unix.RawSyscall(unix.SYS_GETCPU, uintptr(unsafe.Pointer(&cpu)), 0, 0); errno != 0 {
		return errno
	}
	var one unix.CPUSet
	one.Set(int(cpu))
	return unix.SchedSetaffinity(0, &one)
}

// batch is how many datagrams go into one system call, at most: on an emulated machine
// those cost more than what is measured.
const batch = 64

// newBatch is room for that many datagrams.
func newBatch(size int) []ipv4.Message {
	all := make([]ipv4.Message, batch)
	for i := range all {
		all[i].Buffers = [][]byte{make([]byte, size)}
	}
	return all
}

// most is how much of what was due in a pause is made up for; a machine that cannot keep
// to the rate does what it can, and has time for other things.
const most = 100 * time.Millisecond

// send keeps to the rate on the whole: after a pause it sends at once what is due.
func (f *Flow) send(rate int) {
	defer f.sender.Close()
	if err := stay(); err != nil {
		f.sent <- sendResult{0, 0, fmt.Errorf("netlab: keep the sender on its CPU: %w", err)}
		return
	}
	// Of IPv4 there is nothing in it: it is for IPv6 as well.
	conn, all, from := ipv4.NewPacketConn(f.sender), newBatch(f.size), filling(f.size)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	begin, n := time.Now(), uint64(0)
	began, owed := begin, time.Duration(0)
	for {
		now := time.Now()
		owed, began = min(owed+now.Sub(began), most), now
		due := uint64(owed) * uint64(rate) / uint64(time.Second)
		owed -= time.Duration(due * uint64(time.Second) / uint64(rate))
		for due > 0 {
			some := all[:min(due, batch)]
			for i := range some {
				fill(some[i].Buffers[0], n+uint64(i), from)
			}
			if err := write(conn, some); err != nil {
				f.sent <- sendResult{n, time.Since(begin), fmt.Errorf("netlab: send datagram %d: %w", n, err)}
				return
			}
			n, due = n+uint64(len(some)), due-uint64(len(some))
		}
		select {
		case <-tick.C:
		case <-f.stop:
			f.sent <- sendResult{n, time.Since(begin), nil}
			return
		}
	}
}

// write sends all of them.
func write(conn *ipv4.PacketConn, all []ipv4.Message) error {
	refused := false
	for len(all) > 0 {
		n, err := conn.WriteBatch(all, 0)
		switch {
		case err == nil:
			all, refused = all[n:], false
		case !refused && (errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.EHOSTUNREACH)):
			refused = true // a refusal tells of an earlier datagram (ICMP) and takes this one with it
		default:
			return err
		}
	}
	return nil
}

func (f *Flow) receive() {
	defer close(f.done)
	conn, all, from := ipv4.NewPacketConn(f.receiver), newBatch(f.size+1), filling(f.size)
	for {
		n, err := conn.ReadBatch(all, 0)
		if err != nil {
			return
		}
		now := time.Now()
		f.mu.Lock()
		for _, m := range all[:n] {
			f.look(m.Buffers[0][:m.N], from, now)
		}
		close(f.progress)
		f.progress = make(chan struct{})
		f.mu.Unlock()
	}
}

// look counts what came.
func (f *Flow) look(b, from []byte, now time.Time) {
	if len(b) != f.size {
		f.result.Damaged++
		return
	}
	number := binary.BigEndian.Uint64(b)
	if string(b[8:]) != string(from[byte(number):][:f.size-8]) {
		f.result.Damaged++
		return
	}
	f.count(number, now)
}

func (f *Flow) count(number uint64, now time.Time) {
	for uint64(len(f.seen)) <= number/64 {
		f.seen = append(f.seen, 0)
	}
	if f.seen[number/64]&(1<<(number%64)) != 0 {
		f.result.Duplicated++
		return
	}
	f.seen[number/64] |= 1 << (number % 64)
	f.result.Received++
	if number < f.highest {
		f.result.Reordered++
	}
	f.highest = max(f.highest, number)
	if !f.last.IsZero() {
		f.result.LongestGap = max(f.result.LongestGap, now.Sub(f.last))
	}
	f.last = now
}

// Received is how many have come so far.
func (f *Flow) Received() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.result.Received
}

// WaitReceived waits until n more datagrams have come.
func (f *Flow) WaitReceived(ctx context.Context, n uint64) error {
	target := f.Received() + n
	for {
		f.mu.Lock()
		received, progress := f.result.Received, f.progress
		f.mu.Unlock()
		if received >= target {
			return nil
		}
		select {
		case <-progress:
		case <-f.done:
			return fmt.Errorf("netlab: the flow ended with %d datagrams, %d were waited for", received, target)
		case <-ctx.Done():
			return fmt.Errorf("netlab: %d datagrams received, %d waited for: %w", received, target, ctx.Err())
		}
	}
}

// settle is how long Stop waits for a datagram after the last one that came.
const settle = 500 * time.Millisecond

// Stop ends the sending, waits until every datagram has come or no more come,
// and tells what became of them.
func (f *Flow) Stop() (FlowResult, error) {
	f.stopOnce.Do(func() { close(f.stop) })
	sent := <-f.sent
	f.sent <- sent // for the next call
	quiet := time.NewTimer(settle)
	defer quiet.Stop()
waiting:
	for {
		f.mu.Lock()
		received, progress := f.result.Received, f.progress
		f.mu.Unlock()
		if received >= sent.n {
			break
		}
		select {
		case <-progress:
			quiet.Reset(settle)
		case <-f.done:
			break waiting
		case <-quiet.C:
			break waiting
		}
	}
	f.end()
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.result
	r.Sent, r.Took = sent.n, sent.took
	for n := uint64(0); n < r.Sent && len(r.FirstLost) < 5; n++ {
		if n/64 >= uint64(len(f.seen)) || f.seen[n/64]&(1<<(n%64)) == 0 {
			r.FirstLost = append(r.FirstLost, n)
		}
	}
	return r, sent.err
}

// end closes the sockets and waits for the goroutines.
func (f *Flow) end() {
	f.stopOnce.Do(func() { close(f.stop) })
	sent := <-f.sent
	f.sent <- sent
	f.receiver.Close()
	<-f.done
}
