package netlab

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	mathrand "math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"
)

// TransferResult tells of a TCP transfer.
type TransferResult struct {
	// Sent and Received are octets, SentSum and ReceivedSum SHA-256 of them, each taken at its own end.
	Sent, Received       int64
	SentSum, ReceivedSum [sha256.Size]byte
	Duration             time.Duration
}

// Same says that all that was sent was received, bit for bit.
func (r TransferResult) Same() bool { return r.Sent == r.Received && r.SentSum == r.ReceivedSum }

// Rate in bits per second of payload.
func (r TransferResult) Rate() float64 { return float64(r.Received) * 8 / r.Duration.Seconds() }

// Transfer sends size octets of random data over one TCP connection from the namespace to an address of another, and waits until they have arrived.
func (ns *Namespace) Transfer(ctx context.Context, far *Namespace, to netip.Addr, size int64) (TransferResult, error) {
	r, err := ns.transfer(ctx, far, to, io.LimitReader(randomData(), size), io.Discard)
	if err != nil {
		return r, fmt.Errorf("netlab: transfer %d octets from %s to %v in %s: %w", size, ns.Name, to, far.Name, err)
	}
	return r, nil
}

// randomData has no end.
func randomData() io.Reader {
	var seed [32]byte
	rand.Read(seed[:])
	return mathrand.NewChaCha8(seed)
}

// Stream is a transfer that goes on until it is stopped.
type Stream struct {
	stop     chan struct{}
	stopOnce sync.Once
	done     chan struct{}
	result   TransferResult
	err      error

	mu       sync.Mutex
	received int64
	progress chan struct{} // closed and replaced with every arrival
}

// Stream starts to send random data over one TCP connection from the namespace to an address
// of another.
func (ns *Namespace) Stream(ctx context.Context, far *Namespace, to netip.Addr) *Stream {
	s := &Stream{stop: make(chan struct{}), done: make(chan struct{}), progress: make(chan struct{})}
	data := randomData()
	endless := readerFunc(func(b []byte) (int, error) {
		select {
		case <-s.stop:
			return 0, io.EOF
		default:
			return data.Read(b)
		}
	})
	go func() {
		defer close(s.done)
		s.result, s.err = ns.transfer(ctx, far, to, endless, writerFunc(s.count))
		if s.err != nil {
			s.err = fmt.Errorf("netlab: stream from %s to %v in %s: %w", ns.Name, to, far.Name, s.err)
		}
	}()
	return s
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

func (s *Stream) count(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.received += int64(len(b))
	close(s.progress)
	s.progress = make(chan struct{})
	return len(b), nil
}

// WaitReceived waits until so many more octets have come.
func (s *Stream) WaitReceived(ctx context.Context, octets int64) error {
	target := int64(-1)
	for {
		s.mu.Lock()
		received, progress := s.received, s.progress
		s.mu.Unlock()
		if target < 0 {
			target = received + octets
		}
		if received >= target {
			return nil
		}
		select {
		case <-progress:
		case <-s.done:
			return cmp.Or(s.err, fmt.Errorf("netlab: the stream ended with %d octets, %d were waited for", received, target))
		case <-ctx.Done():
			return fmt.Errorf("netlab: %d octets received, %d waited for: %w", received, target, ctx.Err())
		}
	}
}

// Stop ends the sending and waits until all that was sent has arrived.
func (s *Stream) Stop() (TransferResult, error) {
	s.stopOnce.Do(func() { close(s.stop) })
	<-s.done
	return s.result, s.err
}

// transfer sends what source has; what arrives goes to sink.
func (ns *Namespace) transfer(ctx context.Context, far *Namespace, to netip.Addr, source io.Reader, sink io.Writer) (r TransferResult, err error) {
	var listener *net.TCPListener
	if err := far.Do(func() (err error) {
		listener, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(to, 0)))
		return err
	}); err != nil {
		return r, err
	}
	defer listener.Close()
	type end struct {
		n   int64
		sum hash.Hash
		err error
	}
	received := make(chan end, 1)
	defer context.AfterFunc(ctx, func() { listener.Close() })()
	go func() {
		e := end{sum: sha256.New()}
		conn, err := listener.AcceptTCP()
		if err != nil {
			e.err = err
		} else {
			defer context.AfterFunc(ctx, func() { abort(conn) })()
			e.n, e.err = copyThrough(io.MultiWriter(e.sum, sink), conn)
			conn.Close()
		}
		received <- e
	}()

	began := time.Now()
	var conn net.Conn
	if err := ns.Do(func() (err error) {
		conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", listener.Addr().String())
		return err
	}); err != nil {
		return r, err
	}
	sender := conn.(*net.TCPConn)
	defer sender.Close()
	defer context.AfterFunc(ctx, func() { abort(sender) })()
	sum := sha256.New()
	r.Sent, err = copyThrough(io.MultiWriter(sum, sender), source)
	if err == nil {
		err = sender.CloseWrite()
	}
	if err != nil {
		abort(sender)
	}
	far2 := <-received
	r.Duration = time.Since(began)
	r.Received = far2.n
	sum.Sum(r.SentSum[:0])
	far2.sum.Sum(r.ReceivedSum[:0])
	switch {
	case ctx.Err() != nil:
		return r, fmt.Errorf("after %d octets sent and %d received: %w", r.Sent, r.Received, ctx.Err())
	case err != nil:
		return r, fmt.Errorf("send, after %d octets: %w", r.Sent, err)
	case far2.err != nil:
		return r, fmt.Errorf("receive, after %d octets: %w", r.Received, far2.err)
	}
	return r, nil
}

// copyThrough copies with a buffer large enough that neither hashing nor system calls are many small ones.
func copyThrough(w io.Writer, r io.Reader) (int64, error) {
	// The wrappers hide ReadFrom and WriteTo, which would not use the buffer.
	return io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, make([]byte, 256<<10))
}

// abort closes a connection with a reset: one that waits for a peer that does not
// answer would hold its namespace for minutes.
func abort(c *net.TCPConn) {
	c.SetLinger(0)
	c.Close()
}
