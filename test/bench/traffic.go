package main

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/internal/netlab"
)

// route is where traffic goes: from one namespace to an address of another.
type route struct {
	from, to *netlab.Namespace
	addr     netip.Addr
}

// cpus are those that senders and receivers run on; less than 0 is any.
type cpus struct{ send, receive int }

// swapped are the CPUs for traffic the other way round, so that both have the same to do.
func (c cpus) swapped(i int) cpus {
	if i%2 == 1 {
		return cpus{c.receive, c.send}
	}
	return c
}

// warmUp is how long traffic runs before it is measured.
const warmUp = 150 * time.Millisecond

// sample is what one measurement found.
type sample struct {
	// Value is in the measure's unit.
	Value float64 `json:"value"`
	// CPU is the time that all CPUs of the machine were busy, in seconds for each gigabit; of TCP alone.
	CPU float64 `json:"cpuPerGigabit,omitempty"`
	// PerCPUSecond is Value for each second that the traffic had a CPU, not for each of the clock;
	// of latency there is none.
	PerCPUSecond float64 `json:"perCPUSecond,omitempty"`
	// P99 is the 99th percentile of what Value is the median of; of latency alone.
	P99 float64 `json:"p99,omitempty"`
}

// crew are the threads of one measurement.
type crew struct {
	wg   sync.WaitGroup
	stop atomic.Bool
	mu   sync.Mutex
	err  error
}

// start runs f on a thread of its own in a namespace, on a CPU.
func (c *crew) start(ns *netlab.Namespace, cpu int, what string, f func() error) {
	c.wg.Go(func() {
		err := ns.Do(func() error {
			if err := pin(cpu); err != nil {
				return err
			}
			return f()
		})
		if err != nil {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.err = errors.Join(c.err, fmt.Errorf("%s in %s: %w", what, ns.Name, err))
		}
	})
}

func (c *crew) end() error {
	c.stop.Store(true)
	c.wg.Wait()
	return c.err
}

// span is what happened during a measurement.
type span struct {
	count float64
	took  time.Duration
	busy  time.Duration // how long the machine's CPUs were, in sum
	own   time.Duration // see ownTime
}

// sample is what a span says of rates; scale is how much of the unit one counted thing is.
func (s span) sample(scale float64) sample {
	n := s.count * scale
	return sample{Value: n / s.took.Seconds(), PerCPUSecond: n / max(s.own, tick).Seconds()}
}

// between counts what f counts during d, after the warm-up.
func between(d time.Duration, f *atomic.Uint64) (span, error) {
	time.Sleep(warmUp)
	busy, err := busyTime()
	own, err2 := ownTime()
	if err := errors.Join(err, err2); err != nil {
		return span{}, err
	}
	began, first := time.Now(), f.Load()
	time.Sleep(d)
	s := span{count: float64(f.Load() - first), took: time.Since(began)}
	ownAfter, err := ownTime()
	busyAfter, err2 := busyTime()
	s.own, s.busy = ownAfter-own, busyAfter-busy
	if err := errors.Join(err, err2); err != nil {
		return span{}, err
	}
	if s.count == 0 {
		return span{}, errNothing
	}
	return s, nil
}

var errNothing = errors.New("nothing arrived")

// tcp measures the bits per second that arrive over so many connections.
func tcp(p route, streams int, on cpus, d time.Duration) (sample, error) {
	var octets atomic.Uint64
	var c crew
	var listener int
	at := netip.AddrPortFrom(p.addr, 5201)
	err := p.to.Do(func() (err error) {
		if listener, err = bound(unix.SOCK_STREAM, at); err == nil {
			err = unix.Listen(listener, streams)
		}
		return err
	})
	if err != nil {
		return sample{}, err
	}
	defer unix.Close(listener)
	for i := range streams {
		on := on.swapped(i)
		c.start(p.to, on.receive, "receive", func() error {
			fd, err := accept(listener)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return drain(fd, &octets)
		})
		c.start(p.from, on.send, "send", func() error {
			fd, err := connected(unix.SOCK_STREAM, at)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return pour(fd, &c.stop)
		})
	}
	seen, err := between(d, &octets)
	if err := errors.Join(err, c.end()); err != nil {
		return sample{}, err
	}
	s := seen.sample(8)
	s.CPU = seen.busy.Seconds() / (seen.count * 8 / 1e9)
	return s, nil
}

// drain reads to the end and counts.
func drain(fd int, octets *atomic.Uint64) error {
	b := make([]byte, 256<<10)
	for {
		n, err := unix.Read(fd, b)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return err
		case n == 0:
			return nil
		}
		octets.Add(uint64(max(n, 0)))
	}
}

// pour writes until it is told to stop.
func pour(fd int, stop *atomic.Bool) error {
	b := make([]byte, 128<<10)
	for !stop.Load() {
		if _, err := unix.Write(fd, b); err != nil && err != unix.EINTR {
			return err
		}
	}
	return unix.Shutdown(fd, unix.SHUT_WR)
}

// udp measures the datagrams per second that arrive, of as many as can be sent.
func udp(p route, size int, on cpus, d time.Duration) (sample, error) {
	var datagrams atomic.Uint64
	var c crew
	var receiver int
	at := netip.AddrPortFrom(p.addr, 5202)
	err := p.to.Do(func() (err error) {
		if receiver, err = bound(unix.SOCK_DGRAM, at); err == nil {
			// Room for what comes while the receiver does not run: one CPU is for both.
			err = unix.SetsockoptInt(receiver, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20)
		}
		return err
	})
	if err != nil {
		return sample{}, err
	}
	defer unix.Close(receiver)
	c.start(p.to, on.receive, "receive", func() error {
		b := newBatch(64, 2048)
		for !c.stop.Load() {
			n, err := b.receive(receiver)
			if err == unix.EAGAIN {
				// Not woken up for each of them: that would be most of what is measured.
				time.Sleep(time.Millisecond)
			} else if err != nil && err != unix.EINTR {
				return err
			}
			datagrams.Add(uint64(n))
		}
		return nil
	})
	c.start(p.from, on.send, "send", func() error {
		fd, err := connected(unix.SOCK_DGRAM, at)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		b := newBatch(64, size)
		for !c.stop.Load() {
			if _, err := b.send(fd); err != nil && err != unix.ENOBUFS && err != unix.EINTR && err != unix.EAGAIN {
				return err
			}
		}
		return nil
	})
	seen, err := between(d, &datagrams)
	if err := errors.Join(err, c.end()); err != nil {
		return sample{}, err
	}
	return seen.sample(1), nil
}

// requestLen is the length of requests and responses.
const requestLen = 64

// latency measures the time from a request to its response, in seconds.
func latency(p route, on cpus, d time.Duration) (sample, error) {
	var c crew
	var listener int
	var times []time.Duration
	at := netip.AddrPortFrom(p.addr, 5203)
	err := p.to.Do(func() (err error) {
		if listener, err = bound(unix.SOCK_STREAM, at); err == nil {
			err = unix.Listen(listener, 1)
		}
		return err
	})
	if err != nil {
		return sample{}, err
	}
	defer unix.Close(listener)
	c.start(p.to, on.receive, "respond", func() error {
		fd, err := accept(listener)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return respond(fd)
	})
	c.start(p.from, on.send, "request", func() error {
		fd, err := connected(unix.SOCK_STREAM, at)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		times, err = request(fd, d)
		return err
	})
	c.wg.Wait()
	if err := c.end(); err != nil {
		return sample{}, err
	}
	if len(times) == 0 {
		return sample{}, errNothing
	}
	slices.Sort(times)
	return sample{Value: times[len(times)/2].Seconds(), P99: times[len(times)*99/100].Seconds()}, nil
}

func respond(fd int) error {
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return err
	}
	b := make([]byte, requestLen)
	for {
		n, err := unix.Read(fd, b)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return err
		}
		if err := again(func() error { _, err := unix.Write(fd, b[:n]); return err }); err != nil {
			return err
		}
	}
}

// request asks for d, one request after the other.
func request(fd int, d time.Duration) ([]time.Duration, error) {
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return nil, err
	}
	b := make([]byte, requestLen)
	var times []time.Duration
	for began := time.Now(); ; {
		start := time.Now()
		if err := again(func() error { _, err := unix.Write(fd, b); return err }); err != nil {
			return nil, err
		}
		for got := 0; got < len(b); {
			n, err := unix.Read(fd, b[got:])
			if err != nil && err != unix.EINTR {
				return nil, err
			}
			got += max(n, 0)
		}
		end := time.Now()
		if end.Sub(began) > warmUp {
			times = append(times, end.Sub(start))
		}
		if end.Sub(began) > warmUp+d {
			return times, unix.Shutdown(fd, unix.SHUT_WR)
		}
	}
}
