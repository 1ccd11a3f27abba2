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
	// Duplicated counts further copies; Reordered those that came after a later one; Damaged those with other octets than were sent.
	Duplicated, Reordered, Damaged uint64
	// LongestGap is the longest time between two arrivals.
	LongestGap time.Duration
	// FirstLost are numbers of the first few that never came.
	FirstLost []uint64
}

// Lost is how many never came.
func (r FlowResult) Lost() uint64 { return r.Sent - r.Received }

func (r FlowResult) String() string {
	s := fmt.Sprintf("%d sent, %d received, %d lost, %d duplicated, %d reordered, %d damaged, longest gap %v",
		r.Sent, r.Received, r.Lost(), r.Duplicated, r.Reordered, r.Damaged, r.LongestGap.Round(time.Microsecond))
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
	n   uint64
	err error
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

// fill writes the datagram of a number: the number, then octets that depend on it.
func fill(b []byte, n uint64) {
	binary.BigEndian.PutUint64(b, n)
	for i := range b[8:] {
		b[8+i] = byte(n) + byte(i)
	}
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

// send keeps to the rate on the whole: after a pause it sends at once what is due.
func (f *Flow) send(rate int) {
	defer f.sender.Close()
	if err := stay(); err != nil {
		f.sent <- sendResult{0, fmt.Errorf("netlab: keep the sender on its CPU: %w", err)}
		return
	}
	b := make([]byte, f.size)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	began, n := time.Now(), uint64(0)
	for {
		due := uint64(time.Since(began)) * uint64(rate) / uint64(time.Second)
		for ; n < due; n++ {
			fill(b, n)
			// A refusal tells of an earlier datagram (ICMP) and takes this one with it.
			_, err := f.sender.Write(b)
			if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.EHOSTUNREACH) {
				_, err = f.sender.Write(b)
			}
			if err != nil {
				f.sent <- sendResult{n, fmt.Errorf("netlab: send datagram %d: %w", n, err)}
				return
			}
		}
		select {
		case <-tick.C:
		case <-f.stop:
			f.sent <- sendResult{n: n}
			return
		}
	}
}

func (f *Flow) receive() {
	defer close(f.done)
	b, want := make([]byte, 64<<10), make([]byte, f.size)
	for {
		n, err := f.receiver.Read(b)
		if err != nil {
			return
		}
		now := time.Now()
		f.mu.Lock()
		if number := uint64(0); n != f.size {
			f.result.Damaged++
		} else {
			number = binary.BigEndian.Uint64(b)
			if fill(want, number); string(want) != string(b[:n]) {
				f.result.Damaged++
			} else {
				f.count(number, now)
			}
		}
		close(f.progress)
		f.progress = make(chan struct{})
		f.mu.Unlock()
	}
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
	r.Sent = sent.n
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
