package netlab

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// PingOptions say how to ping; the zero value is one echo of 56 octets.
type PingOptions struct {
	Count int
	// Size is the echo's data, octets, without the ICMP header's 8. 0 is 56.
	Size int
	// Interval between echoes; 0 sends each as soon as the one before is answered.
	Interval time.Duration
	// Timeout is how long an answer is waited for; 0 is 3 s, time for an address
	// resolution that is lost once or twice and asked again each second.
	Timeout time.Duration
	// DontFragment refuses packets that do not fit the path, with EMSGSIZE.
	DontFragment bool
}

// PingResult is what came of it.
type PingResult struct {
	Sent, Received int
	// RTT of each that was answered.
	RTT []time.Duration
}

// Lost is how many were not answered.
func (r PingResult) Lost() int { return r.Sent - r.Received }

// Median is the median of the round-trip times, 0 if nothing was answered.
func (r PingResult) Median() time.Duration {
	if len(r.RTT) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(r.RTT))
	return s[len(s)/2]
}

// The types of RFC 792 and RFC 4443.
const (
	icmpEchoReply   = 0
	icmpEcho        = 8
	icmpv6Echo      = 128
	icmpv6EchoReply = 129
)

// Ping sends ICMP or ICMPv6 echoes from the namespace and compares what comes back, to the octet.
// Echoes without an answer are no error.
func (ns *Namespace) Ping(ctx context.Context, to netip.Addr, o PingOptions) (PingResult, error) {
	var r PingResult
	if o.Count == 0 {
		o.Count = 1
	}
	if o.Size == 0 {
		o.Size = 56
	}
	if o.Timeout == 0 {
		o.Timeout = 3 * time.Second
	}
	conn, err := ns.openPing(to, o.DontFragment)
	if err != nil {
		return r, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()

	id := uint16(rand.Uint32())
	for seq := range o.Count {
		began := time.Now()
		message := echo(to, id, uint16(seq), o.Size)
		if _, err := conn.WriteTo(message, &net.IPAddr{IP: to.AsSlice(), Zone: to.Zone()}); err != nil {
			if ctx.Err() != nil {
				err = ctx.Err()
			}
			return r, fmt.Errorf("netlab: ping %v from %s with %d octets: %w", to, ns.Name, o.Size, err)
		}
		r.Sent++
		conn.SetReadDeadline(began.Add(o.Timeout))
		if err := awaitReply(conn, to, message); err == nil {
			r.Received++
			r.RTT = append(r.RTT, time.Since(began))
		} else if ctx.Err() != nil {
			return r, fmt.Errorf("netlab: ping %v from %s: %w", to, ns.Name, ctx.Err())
		} else if !errors.Is(err, os.ErrDeadlineExceeded) {
			return r, fmt.Errorf("netlab: ping %v from %s: %w", to, ns.Name, err)
		}
		if wait := time.Until(began.Add(o.Interval)); wait > 0 && seq < o.Count-1 {
			select {
			case <-time.After(wait):
			case <-ctx.Done():
			}
		}
	}
	return r, nil
}

func (ns *Namespace) openPing(to netip.Addr, dontFragment bool) (*net.IPConn, error) {
	network := "ip4:icmp"
	level, option, value := unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT
	if dontFragment {
		value = unix.IP_PMTUDISC_DO
	}
	if to.Is6() {
		network = "ip6:ipv6-icmp"
		level, option = unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER
	}
	var conn *net.IPConn
	err := ns.Do(func() error {
		lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
			if e := c.Control(func(fd uintptr) {
				if err = unix.SetsockoptInt(int(fd), level, option, value); err == nil {
					err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 1<<20)
				}
			}); e != nil {
				return e
			}
			return err
		}}
		c, err := lc.ListenPacket(context.Background(), network, "")
		if err == nil {
			conn = c.(*net.IPConn)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("netlab: open a socket for ping in %s: %w", ns.Name, err)
	}
	return conn, nil
}

// echo is an echo request with data that differs from octet to octet and from echo to echo.
func echo(to netip.Addr, id, seq uint16, size int) []byte {
	m := make([]byte, 8+size)
	m[0] = icmpEcho
	if to.Is6() {
		m[0] = icmpv6Echo
	}
	binary.BigEndian.PutUint16(m[4:], id)
	binary.BigEndian.PutUint16(m[6:], seq)
	for i := range m[8:] {
		m[8+i] = byte(i) + byte(seq)
	}
	if to.Is4() { // the kernel does it for ICMPv6 (RFC 3542, Section 3.1)
		binary.BigEndian.PutUint16(m[2:], checksum(m))
	}
	return m
}

// checksum is RFC 1071's.
func checksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// awaitReply reads until the answer to the request has come, whole.
func awaitReply(conn *net.IPConn, from netip.Addr, request []byte) error {
	want := byte(icmpEchoReply)
	if from.Is6() {
		want = icmpv6EchoReply
	}
	b := make([]byte, 64<<10)
	for {
		n, addr, err := conn.ReadFromIP(b)
		if err != nil {
			return err
		}
		if a, ok := netip.AddrFromSlice(addr.IP); !ok || a.Unmap() != from.WithZone("") || n < 8 || b[0] != want || !bytes.Equal(b[4:8], request[4:8]) {
			continue
		}
		if !bytes.Equal(b[8:n], request[8:]) {
			return fmt.Errorf("the answer differs from the request: %d octets for %d", n, len(request))
		}
		return nil
	}
}
