package agent

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/internal/topology"
	"github.com/pwd-project/pwd/pkg/qos"
)

// Two underlays that share an interface have a rate each, and what joins two sites shares
// what their pair may send.
func TestShapes(t *testing.T) {
	lab := netlab.New(t)
	dc1, router := lab.Namespace("dc1"), lab.Namespace("router")
	eth0, far := lab.Veth(dc1, "eth0", router, "eth0")
	eth0.Addr("192.0.2.1/24", "192.0.2.11/24").Up()
	far.Addr("192.0.2.254/24").Up()
	eth0.Route("default", "192.0.2.254")
	file, diagnostics := topology.Parse("topology.yaml", []byte(`apiVersion: pwd/v1
kind: Topology
metadata: {name: test}
sites:
  dc1: {underlays: {wan1: {address: 192.0.2.1, rate: 100mbit}, wan2: {address: 192.0.2.11, rate: 20mbit}}}
  dc2: {address: 198.51.100.1}
  dc3: {address: 203.0.113.1}
classes:
  voice: {rate: 5mbit, ceiling: 50mbit, priority: 2}
pairs:
  west: {sites: [dc2, dc1], rate: 30mbit}
tunnels:
  gold: {sites: [dc1, dc2, dc3], class: voice, underlay: {dc1: wan1}}
  silver: {sites: [dc1, dc2], class: voice, underlay: {dc1: wan2}}
  bronze: {sites: [dc1, dc2], underlay: {dc1: wan1}}
  none: {sites: [dc1, dc3], underlay: {dc1: wan1}}
`))
	if file == nil {
		t.Fatal(diagnostics)
	}
	local, _ := file.Local("dc1")
	a := newAgent(Options{})
	if err := dc1.Do(func() (err error) { a.shaper, err = qos.Open(nil, ""); return err }); err != nil {
		t.Fatal(err)
	}
	defer a.shaper.Close()
	for i := range local.Tunnels {
		a.tunnels[local.Tunnels[i].Key] = &tunnel{Tunnel: local.Tunnels[i]}
	}
	interfaces, err := a.shapes()
	if err != nil || len(interfaces) != 1 || interfaces[0].Index != eth0.Index {
		t.Fatalf("%+v, %v", interfaces, err)
	}
	i := interfaces[0]
	group := func(name string) uint16 { return a.groups[name] }
	if diff := cmp.Diff([]qos.Group{
		{Number: group("underlay wan1"), Rate: 100e6},
		{Number: group("pair dc2 wan1"), In: group("underlay wan1"), Rate: 30e6},
		{Number: group("pair dc3 wan1"), In: group("underlay wan1")},
		{Number: group("underlay wan2"), Rate: 20e6},
		{Number: group("pair dc2 wan2"), In: group("underlay wan2"), Rate: 30e6},
	}, i.Groups); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]qos.Class{
		// Shaped for the pair's sake alone.
		{Number: a.numbers["bronze/dc2"], In: group("pair dc2 wan1"), Priority: 7},
		{Number: a.numbers["gold/dc2"], In: group("pair dc2 wan1"), Rate: 5e6, Ceiling: 50e6, Priority: 2},
		{Number: a.numbers["gold/dc3"], In: group("pair dc3 wan1"), Rate: 5e6, Ceiling: 50e6, Priority: 2},
		{Number: a.numbers["silver/dc2"], In: group("pair dc2 wan2"), Rate: 5e6, Ceiling: 50e6, Priority: 2},
	}, i.Classes); diff != "" {
		t.Error(diff)
	}
	if err := dc1.Do(func() error { return a.shaper.Set(interfaces) }); err != nil {
		netlab.Missing(t, "htb", err)
	}
}

// Which qdiscs were replaced outlives the daemon, until the machine starts again.
func TestReplacedQdiscs(t *testing.T) {
	s, err := openStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	q := replacedQdiscs{s}
	if list, err := q.Replaced(); err != nil || list != nil {
		t.Errorf("of a new state directory: %v, %v", list, err)
	}
	want := []qos.Replaced{{Interface: "eth0", Index: 2, Qdiscs: []qos.Qdisc{{Kind: "fq", Handle: 1 << 16, Parent: 1<<32 - 1, Options: []byte{8, 0, 1, 0}}}}}
	if err := q.SetReplaced(want); err != nil {
		t.Fatal(err)
	}
	list, err := q.Replaced()
	if diff := cmp.Diff(want, list); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	if err := s.write("qdiscs.json", &replacedFile{stateVersion, "another boot", want}); err != nil {
		t.Fatal(err)
	}
	if list, err := q.Replaced(); err != nil || list != nil {
		t.Errorf("of another boot: %v, %v", list, err)
	}
}

// The rate of late is over two seconds at least, and begins anew with the counter.
func TestPace(t *testing.T) {
	start := time.Unix(1000, 0)
	p := paces{}
	for _, x := range []struct {
		at     time.Duration
		octets uint64
		want   uint64
	}{
		{0, 1000, 0},
		{time.Second, 2000, 0},
		{2 * time.Second, 3000, 8000},
		{3 * time.Second, 5000, 10667}, // of three seconds
		{4 * time.Second, 5000, 8000},  // of the last two
		{14 * time.Second, 5000, 0},
		{16 * time.Second, 1000, 0}, // anew
		{18 * time.Second, 2000, 4000},
	} {
		if got := p.pace("gold", x.octets, start.Add(x.at)); got+1 < x.want || got > x.want+1 {
			t.Errorf("after %v: %d bit/s, want %d", x.at, got, x.want)
		}
	}
}
