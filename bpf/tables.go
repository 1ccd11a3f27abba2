package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// The values of the maps, as in maps.h.
type (
	// Transmit is how frames of one pseudowire leave.
	Transmit = objectTransmit
	// Circuit is an attachment circuit's pseudowire.
	Circuit    = objectCircuit
	CircuitKey = objectCircuitKey
	// Receive is how packets of one session arrive.
	Receive = objectReceive
	// Flow is a flow of packets between two LCCEs as it arrives; see NewFlow.
	Flow = objectFlow
	// Counters of one session, or of one session on one CPU.
	Counters = objectCounters
	// HeldFrame is one that waits for its turn, TurnKey its session and number.
	HeldFrame = objectHeldFrame
	TurnKey   = objectTurnKey
	// Order is what has come of a session's numbered packets.
	Order = objectOrder
	// Steer says which way the frames of a pseudowire take, by rules.
	Steer = objectSteer
	Rule  = objectRule
)

// Flags of Transmit.
const (
	TransmitEstablished  = 1 << iota // the peer takes frames
	TransmitResolved                 // Outer has the next hop's address
	TransmitChecksum                 // outer packets carry a UDP checksum
	TransmitIPv6                     // the outer header is IPv6
	TransmitIP                       // L2TP is directly over IP
	TransmitECN                      // the ECN field of IP inside is copied outside
	TransmitKeepTag                  // the tag Vlan stays on
	TransmitNumberAll                // packets have sequence numbers
	TransmitNumberOthers             // those that have no IP inside
	TransmitDF                       // packets do not leave in fragments
	TransmitCopyDSCP                 // the DSCP of IP inside is copied outside
	TransmitMapPCP                   // the DSCP outside is that in Dscp
	TransmitSteered                  // there are several ways, and rules for them

	TransmitNoEthernet = 1 << 15 // the underlay takes packets without an Ethernet header
)

// Flags of Receive.
const (
	ReceiveUp       = 1 << iota // the device takes frames
	ReceiveSublayer             // the peer sends a default sublayer
	ReceiveNumbers              // sequence numbers count
	ReceiveECN                  // the ECN field outside counts
	ReceiveKeepTag              // a tag that is there becomes the tag Vlan
)

// CircuitUntag is the flag of Circuit: the tag is not for the pseudowire's device.
const CircuitUntag = 1

// TunnelOurs is the value of a flow in which no session is anybody else's: what
// comes in it for an unknown one is dropped and counted.
const TunnelOurs uint32 = 1

// Marks of packets that are to be decapsulated in the slow lane.
const (
	LaneDecap       = 0
	LaneReassembled = 1 << 31
	LaneRelease     = 1<<31 + 1
)

// Waiting says that packets of a session are held, since when by CLOCK_MONOTONIC, and
// is to be answered, when their time is over, by a packet with LaneRelease in the slow
// lane that has the session's local ID behind its Ethernet header.
type Waiting struct {
	Since   uint64
	Session uint64
}

// Keys of Objects.Keeper.
const (
	KeeperUntil  uint32 = iota // until when Waits is read, by CLOCK_MONOTONIC
	KeeperUntold               // how often it had no room
)

// Event is what the programs count besides frames carried: an index of
// Counters.Events and of the global counters.
type Event uint32

const (
	WrongCookie Event = iota
	UnknownSession
	Oversize
	NoNeighbour
	NotEstablished
	WrongVLAN
	Error
	Fragmented
	OutOfSequence
	Congestion
	Reassembled
	Events // how many there are
)

// NewFlow is the flow over UDP from remote to local, IPv4 addresses mapped into IPv6.
func NewFlow(local, remote netip.AddrPort) Flow {
	var ports [8]byte
	binary.BigEndian.PutUint16(ports[:], local.Port())
	binary.BigEndian.PutUint16(ports[2:], remote.Port())
	return newFlow(local, remote, ports)
}

// NewFlowIP is the flow of L2TP directly over IP from remote to local.
func NewFlowIP(local, remote netip.Addr) Flow {
	return newFlow(netip.AddrPortFrom(local, 0), netip.AddrPortFrom(remote, 0), [8]byte{7: protocolL2TP})
}

const protocolL2TP = 115

func newFlow(local, remote netip.AddrPort, ports [8]byte) Flow {
	return Flow{
		Local:  words(local.Addr()),
		Remote: words(remote.Addr()),
		Ports:  binary.NativeEndian.Uint64(ports[:]),
	}
}

// idSlots is the number of counters for fragments' identifications (lane.h).
const idSlots = 256

// Slot is which counter has the identifications of fragments between the two
// addresses: the same for all flows between them.
func (f Flow) Slot() uint32 {
	h := fnv.New32a()
	for _, w := range slices.Concat(f.Local[:], f.Remote[:]) {
		h.Write(binary.NativeEndian.AppendUint64(nil, w))
	}
	return h.Sum32() % idSlots
}

func words(a netip.Addr) (w [2]uint64) {
	b := a.As16()
	for i := range w {
		w[i] = binary.NativeEndian.Uint64(b[8*i:])
	}
	return w
}

// CookieMask covers a cookie of that many octets in Receive.Cookie.
func CookieMask(octets int) uint64 {
	var b [8]byte
	for i := range octets {
		b[i] = 0xff
	}
	return binary.NativeEndian.Uint64(b[:])
}

// NetworkOrder16 is v as a program finds it in a packet.
func NetworkOrder16(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}

// Now is the clock that the programs read: CLOCK_MONOTONIC, in nanoseconds.
func Now() uint64 {
	var now unix.Timespec
	// It cannot fail: the clock exists and the address is good.
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
	return uint64(now.Nano())
}

// Table is a hash map of the programs', with its types.
type Table[K comparable, V any] struct{ m *ebpf.Map }

// Put sets the value of a key.
func (t Table[K, V]) Put(key K, value *V) error {
	return update(t.m, &key, value, ebpf.UpdateAny)
}

// Create sets the value of a key that has none yet.
func (t Table[K, V]) Create(key K, value *V) error {
	return create(t.m, &key, value)
}

// ErrFull: a map has as many entries as it can.
var ErrFull = errors.New("full")

// updated is a map, for tests without one.
type updated interface {
	Update(key, value any, flags ebpf.MapUpdateFlags) error
	MaxEntries() uint32
}

// create is update of a key that may have a value, which stays.
func create(m updated, key, value any) error {
	if err := update(m, key, value, ebpf.UpdateNoExist); !errors.Is(err, ebpf.ErrKeyExist) {
		return err
	}
	return nil
}

// update sets the value of a key, again where the kernel had no memory at hand: it gets some meanwhile.
func update(m updated, key, value any, flags ebpf.MapUpdateFlags) error {
	const tries = 100
	err := m.Update(key, value, flags)
	for try := 1; errors.Is(err, unix.ENOMEM) && try < tries; try++ {
		time.Sleep(time.Millisecond)
		err = m.Update(key, value, flags)
	}
	switch {
	case errors.Is(err, unix.E2BIG):
		return fmt.Errorf("write map %v: %w: it has %d entries: %w", m, ErrFull, m.MaxEntries(), err)
	case err != nil:
		return fmt.Errorf("write map %v: %w", m, err)
	}
	return nil
}

// Get is the value of a key.
func (t Table[K, V]) Get(key K) (value V, err error) {
	if err := t.m.Lookup(&key, &value); err != nil {
		return value, fmt.Errorf("read map %s: %w", t.m, err)
	}
	return value, nil
}

// Delete takes a key out; that it was not there is no error.
func (t Table[K, V]) Delete(key K) error {
	if err := t.m.Delete(&key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("delete from map %s: %w", t.m, err)
	}
	return nil
}

// Keys are all keys there are, in no order.
func (t Table[K, V]) Keys() ([]K, error) {
	var keys []K
	var key K
	var value V
	it := t.m.Iterate()
	for it.Next(&key, &value) {
		keys = append(keys, key)
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("list map %s: %w", t.m, err)
	}
	return keys, nil
}

// CounterTable is the map of sessions' counters, by local session ID.
type CounterTable struct{ m *ebpf.Map }

// Create makes a session's counters, all 0, unless it has some.
func (t CounterTable) Create(session uint32) error {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return fmt.Errorf("count processors: %w", err)
	}
	return create(t.m, &session, make([]Counters, cpus))
}

// Delete forgets a session's counters.
func (t CounterTable) Delete(session uint32) error {
	return Table[uint32, Counters](t).Delete(session)
}

// Keys are the sessions that have counters.
func (t CounterTable) Keys() ([]uint32, error) {
	return Table[uint32, []Counters](t).Keys()
}

// Sum is a session's counters over all CPUs; of an unknown session, 0.
func (t CounterTable) Sum(session uint32) (Counters, error) {
	var perCPU []Counters
	var sum Counters
	if err := t.m.Lookup(&session, &perCPU); err != nil {
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return sum, nil
		}
		return sum, fmt.Errorf("read map %s: %w", t.m, err)
	}
	for i := range perCPU {
		c := &perCPU[i]
		sum.Received.Frames += c.Received.Frames
		sum.Received.Octets += c.Received.Octets
		sum.Transmitted.Frames += c.Transmitted.Frames
		sum.Transmitted.Octets += c.Transmitted.Octets
		for e := range c.Events {
			sum.Events[e] += c.Events[e]
		}
	}
	return sum, nil
}

// GlobalTable counts what belongs to no session.
type GlobalTable struct{ m *ebpf.Map }

// Sum is every event's count over all CPUs.
func (t GlobalTable) Sum() ([Events]uint64, error) {
	var sum [Events]uint64
	for event := range Events {
		var perCPU []uint64
		key := uint32(event)
		if err := t.m.Lookup(&key, &perCPU); err != nil {
			return sum, fmt.Errorf("read map %s: %w", t.m, err)
		}
		for _, n := range perCPU {
			sum[event] += n
		}
	}
	return sum, nil
}
