package netlab

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	mathrand "math/rand/v2"
	"net"
	"net/netip"
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
	r, err := ns.transfer(ctx, far, to, size)
	if err != nil {
		return r, fmt.Errorf("netlab: transfer %d octets from %s to %v in %s: %w", size, ns.Name, to, far.Name, err)
	}
	return r, nil
}

func (ns *Namespace) transfer(ctx context.Context, far *Namespace, to netip.Addr, size int64) (r TransferResult, err error) {
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
			e.n, e.err = copyThrough(e.sum, conn)
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
	var seed [32]byte
	rand.Read(seed[:])
	sum := sha256.New()
	r.Sent, err = copyThrough(io.MultiWriter(sum, sender), io.LimitReader(mathrand.NewChaCha8(seed), size))
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
