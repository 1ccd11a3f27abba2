package control

import (
	"cmp"
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

// Endpoint is the control plane of one host: every tunnel, connection and
// session that it has. It is made by New and is not safe for concurrent use.
type Endpoint struct {
	cfg    Config
	timers Timers
	now    time.Time

	tunnels map[string]*tunnel
	// connections are found by local control connection ID, sessions by local session ID.
	connections map[uint32]*connection
	sessions    map[uint32]*session
	// requests finds the connection that an SCCRQ started, see request.
	requests map[request]*connection
	// peers is nil if it has to be made anew, see known; so is sorted.
	peers  *directory
	sorted []*tunnel

	outputs outputs
	alarms  alarms
	touched []timed
	owing   []*connection // an acknowledgment, see acknowledge
	dirty   map[string]struct{}
	names   []string // what TakeDirty has returned
	tally   tally
	// occasion is empty but while a datagram is received.
	occasion occasion
	serial   uint32
	// callers limits what is looked at of unknown addresses.
	callers callers
	// parser's storage is used again for each message that is received.
	parser l2tpv3.Parser
	// integrity is the empty secret of messages without authentication (Section 4.3).
	integrity *l2tpv3.Secret
	// accepted, if set, sees every message as it is delivered: for tests.
	accepted func(*connection, *l2tpv3.Message)
	// stopping is set by HalfOpenClose: nothing new is opened or accepted.
	stopping bool
}

// New makes an Endpoint without tunnels.
func New(c Config) *Endpoint {
	c.VendorName = c.VendorName[:min(len(c.VendorName), maxName)]
	return &Endpoint{
		cfg:         c,
		timers:      c.Timers.withDefaults(),
		tunnels:     map[string]*tunnel{},
		connections: map[uint32]*connection{},
		sessions:    map[uint32]*session{},
		requests:    map[request]*connection{},
		dirty:       map[string]struct{}{},
		integrity:   l2tpv3.NewSecret(nil),
	}
}

func (t Timers) withDefaults() Timers {
	for _, d := range []struct {
		v   *time.Duration
		def time.Duration
	}{
		{&t.Retransmit, time.Second},
		{&t.RetransmitCap, 8 * time.Second},
		{&t.OpenDelay, time.Second},
		{&t.ReopenMin, time.Second},
		{&t.ReopenMax, 30 * time.Second},
		{&t.Linger, 31 * time.Second},
	} {
		if *d.v <= 0 {
			*d.v = d.def
		}
	}
	if t.MaxRetransmits <= 0 {
		t.MaxRetransmits = 10
	}
	return t
}

// Deadline is when Advance has to be called; false if no timer runs.
func (e *Endpoint) Deadline() (time.Time, bool) {
	if len(e.alarms) == 0 {
		return time.Time{}, false
	}
	return e.alarms[0].at, true
}

// Advance handles the timers that have run out by now.
func (e *Endpoint) Advance(now time.Time) {
	e.now = now
	// Each expiry sets its timer to later than now or ends it, so that this ends.
	for len(e.alarms) > 0 && !e.alarms[0].at.After(now) {
		x := e.alarms[0].owner
		x.expire(now)
		e.touch(x)
		e.settle()
	}
}

// Receive handles one received control packet, whatever it holds. What is not
// from a peer, or makes no sense, changes nothing but a counter. It returns the
// name of the tunnel that the packet was about, empty if that cannot be said.
func (e *Endpoint) Receive(now time.Time, d Datagram) (tunnel string) {
	e.now = now
	d.Local, d.Remote = unmap(d.Local), unmap(d.Remote)
	e.occasion = occasion{received: true, d: d}
	e.count(countReceived)
	if c, ok := e.addressee(d); ok {
		e.receive(c, d)
	}
	if t := e.occasion.t; t != nil {
		tunnel = t.cfg.Name
	}
	e.occasion = occasion{}
	e.settle()
	return tunnel
}

// receive handles a datagram for a connection, or for none.
func (e *Endpoint) receive(c *connection, d Datagram) {
	m, err := e.parser.Parse(d.Payload)
	switch {
	case err != nil:
		// Section 7.1: "A control message with a malformed header MUST be
		// discarded." One whose AVPs cannot be told apart is no better.
		e.count(countMalformed)
	case c == nil:
		m.Standardize()
		e.receiveUnassigned(d, m)
	default:
		m.Standardize()
		c.receive(d, m)
	}
}

// read parses a message that could be read before.
func read(octets []byte) (*l2tpv3.Message, error) {
	m, err := l2tpv3.Parse(octets)
	if err == nil {
		m.Standardize()
	}
	return m, err
}

// addressee finds the connection that a datagram is for by its header, or none
// if its Control Connection ID is 0. It is false for what is nobody's, or not
// from a peer: nothing more is spent on that, however long it is.
func (e *Endpoint) addressee(d Datagram) (c *connection, ok bool) {
	if len(d.Payload) < 12 {
		e.count(countMalformed)
		return nil, false
	}
	id := binary.BigEndian.Uint32(d.Payload[4:])
	if id == 0 {
		known := e.knows(d.Remote.Addr())
		limit, host, may := e.mayCall(d, known)
		e.occasion.anybody, e.occasion.host = may, host
		if !may && !known {
			// A stranger gets nothing at all.
			e.count(limit)
			return nil, false
		}
		return nil, true
	}
	if c = e.connections[id]; c == nil {
		e.count(countUnknownConnection)
		return nil, false
	}
	e.concerns(c.t)
	if why, ok := c.from(d.Path); !ok {
		e.count(why)
		return nil, false
	}
	return c, true
}

// Heard says that data of the connection's sessions has arrived from the peer:
// it counts as life (Section 4.4).
func (e *Endpoint) Heard(now time.Time, connection uint32) {
	e.now = now
	if c := e.connections[connection]; c != nil {
		c.heard = now
		e.alarms.set(c)
	}
}

// touch notes that x has to be settled before the call into the Endpoint ends.
func (e *Endpoint) touch(x timed) {
	if a := x.alarm(); !a.touched {
		a.touched = true
		e.touched = append(e.touched, x)
	}
}

// settle sends what the touched connections have to send, acknowledgments that
// no message carried included, and sets the timers.
func (e *Endpoint) settle() {
	for i := 0; i < len(e.touched); i++ {
		x := e.touched[i]
		x.alarm().touched = false
		if c, ok := x.(*connection); ok {
			c.flush()
		}
		e.alarms.set(x)
	}
	clear(e.touched)
	e.touched = e.touched[:0]
}

// TakeDirty gives the names of the tunnels whose state has changed since the
// last call, sorted. Those that SaveTunnel does not know are gone. The slice is
// used again by the next call.
func (e *Endpoint) TakeDirty() []string {
	if len(e.dirty) == 0 {
		return nil
	}
	e.names = e.names[:0]
	for name := range e.dirty {
		e.names = append(e.names, name)
	}
	slices.Sort(e.names)
	clear(e.dirty)
	return e.names
}

// random fills b. Config.Random cannot fail, as crypto/rand cannot.
func (e *Endpoint) random(b []byte) {
	for n := 0; n < len(b); {
		k, err := e.cfg.Random.Read(b[n:])
		if n += k; err != nil && n < len(b) {
			panic("control: Config.Random: " + err.Error())
		}
	}
}

func (e *Endpoint) random32() uint32 {
	var b [4]byte
	e.random(b[:])
	return binary.BigEndian.Uint32(b[:])
}

// jitter is a random time from 0 to d.
func (e *Endpoint) jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * float64(e.random32()) / (1 << 32))
}

// newConnectionID draws a local control connection ID (Section 5.4.3: not 0).
func (e *Endpoint) newConnectionID() uint32 {
	for {
		if id := e.random32(); id != 0 && e.connections[id] == nil {
			return id
		}
	}
}

// newSessionID draws a local session ID. Section 4.1: 0 is for control messages.
func (e *Endpoint) newSessionID() uint32 {
	for {
		id := e.random32()
		if id != 0 && e.sessions[id] == nil && (e.cfg.SessionIDTaken == nil || !e.cfg.SessionIDTaken(id)) {
			return id
		}
	}
}

// nextSerial gives "progressively increasing values" (Section 5.4.4, Serial
// Number), across restarts too because they never fall behind the clock.
func (e *Endpoint) nextSerial() l2tpv3.SerialNumber {
	e.serial = max(e.serial+1, uint32(e.now.Unix()))
	return l2tpv3.SerialNumber(e.serial)
}

// sortedTunnels are all tunnels by name. The slice is not to be changed.
func (e *Endpoint) sortedTunnels() []*tunnel {
	if e.sorted == nil {
		e.sorted = slices.SortedFunc(maps.Values(e.tunnels), func(a, b *tunnel) int { return cmp.Compare(a.cfg.Name, b.cfg.Name) })
	}
	return e.sorted
}

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
