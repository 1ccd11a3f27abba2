package bpf

import (
	"crypto/rand"
	"encoding/binary"

	"github.com/cilium/ebpf"
)

// Objects are the programs and maps in the kernel.
type Objects struct {
	// Encap is for the ingress of a pseudowire's outer end, Decap for that of an
	// underlay, DecapIP for that of one without Ethernet headers, Lane for that of the slow
	// lane's end, Port for that of a cross-connected interface and Out for that of its
	// pseudowire's device. Enter is for the egress of a pseudowire's device.
	Encap, Decap, DecapIP, Lane, Port, Out, Enter *ebpf.Program
	// classify is run, see Objects.Classify.
	classify *ebpf.Program

	// Pseudowires by ifindex of the outer end, by that of the device once more, and by SteerWay.
	Pseudowires Table[uint32, Transmit]
	// Steers are the rules of pseudowires, by ifindex of the outer end.
	Steers Table[uint32, Steer]
	// Circuits are the attachment circuits that are cross-connected.
	Circuits Table[CircuitKey, Circuit]
	// Sessions by local session ID.
	Sessions Table[uint32, Receive]
	// Tunnels are the flows of tunnels; see TunnelOurs.
	Tunnels Table[Flow, uint32]
	// Numbers are the sequence numbers of sessions' next numbered packets, Orders
	// what has come of the peers', both by local session ID.
	Numbers Table[uint32, uint64]
	Orders  Table[uint32, Order]
	// FragmentIDs are the next identifications of fragments, by Flow.Slot.
	FragmentIDs Table[uint32, uint64]
	// Held are frames that wait for their turn.
	Held Table[TurnKey, HeldFrame]
	// Waits is the ring buffer of Waiting; Keeper has KeeperUntil and KeeperUntold.
	Waits  *ebpf.Map
	Keeper Table[uint32, uint64]
	Counts CounterTable
	Global GlobalTable

	// TookOver is set if the maps are those of an earlier process.
	TookOver bool

	collection *ebpf.Collection
}

// ErrUnsupported is what a LoadError matches when the kernel lacks something
// that the programs need.
var ErrUnsupported = ebpf.ErrNotSupported

// LoadError says why programs or maps did not get into the kernel.
type LoadError struct {
	// Step is what was being done.
	Step string
	Err  error
}

func (e *LoadError) Error() string { return e.Step + ": " + e.Err.Error() }
func (e *LoadError) Unwrap() error { return e.Err }

// Load puts programs and maps into the kernel. With a directory, which has to be
// on a bpffs, maps are pinned under it, and those pinned there before by a
// process with the same Layout are used again.
func Load(dir string) (*Objects, error) {
	spec, err := loadObject()
	if err != nil {
		return nil, &LoadError{"read the programs", err}
	}
	withoutClamp(spec)
	return loadSpec(spec, pinned(dir, PartDatapath))
}

func loadSpec(spec *ebpf.CollectionSpec, dir string) (*Objects, error) {
	var o Objects
	var err error
	var tookOver map[string]bool
	if o.collection, tookOver, err = loadOver(spec, dir, "the programs"); err != nil {
		return nil, err
	}
	o.TookOver = len(tookOver) == len(spec.Maps)
	if !tookOver[objectMapFragmentIds] {
		if err := seed(o.collection.Maps[objectMapFragmentIds]); err != nil {
			o.collection.Close()
			return nil, &LoadError{"seed the identifications of fragments", err}
		}
	}
	if err := pin(o.collection, dir, tookOver); err != nil {
		o.collection.Close()
		return nil, err
	}
	maps := o.collection.Maps
	programs := o.collection.Programs
	o.Encap, o.Decap, o.Lane = programs[objectProgPwdEncap], programs[objectProgPwdDecap], programs[objectProgPwdLane]
	o.DecapIP = programs[objectProgPwdDecapIp]
	o.Enter = programs[objectProgPwdEnter]
	o.Port, o.Out = programs[objectProgPwdPort], programs[objectProgPwdOut]
	o.classify = programs[objectProgPwdClassify]
	o.Steers.m = maps[objectMapSteers]
	o.Circuits.m = maps[objectMapCircuits]
	o.Pseudowires.m, o.Sessions.m, o.Tunnels.m = maps[objectMapPseudowires], maps[objectMapSessions], maps[objectMapTunnels]
	o.Numbers.m, o.Orders.m = maps[objectMapNumbers], maps[objectMapOrders]
	o.FragmentIDs.m = maps[objectMapFragmentIds]
	o.Held.m = maps[objectMapHeld]
	o.Waits, o.Keeper.m = maps[objectMapWaits], maps[objectMapKeeper]
	o.Counts.m, o.Global.m = maps[objectMapCounts], maps[objectMapGlobalCounts]
	return &o, nil
}

// seed starts the identifications of fragments anywhere: nobody is to foresee
// them, and a new process is not to use the last one's again.
func seed(ids *ebpf.Map) error {
	for slot := range ids.MaxEntries() {
		var b [8]byte
		rand.Read(b[:])
		start := binary.NativeEndian.Uint64(b[:])
		if err := ids.Put(&slot, &start); err != nil {
			return err
		}
	}
	return nil
}

// Close gives up the handles. What is attached or pinned stays.
func (o *Objects) Close() error {
	o.collection.Close()
	return nil
}
