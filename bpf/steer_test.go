package bpf

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/cilium/ebpf"
)

// A frame in the slow lane whose way has gone, or takes no frames any more, leaves over the one that
// rules name by then.
func TestLaneTakesAnotherWay(t *testing.T) {
	o := load(t)
	sessions(t, o)
	ways := [2]uint32{}
	for i := range ways {
		ways[i], _ = SteerWay(device, i)
	}
	second := transmit(t, false, "")
	second.Session = session6
	head := transmit(t, false, "")
	head.Flags |= TransmitSteered
	s := Steer{Ways: 2, Was: 2, Only: ways[1], Up: 2}
	s.Way[0].Key, s.Way[1].Key = ways[0], ways[1]
	for key, tx := range map[uint32]*Transmit{device: &head, ways[1]: &second} {
		if err := o.Pseudowires.Put(key, tx); err != nil {
			t.Fatal(err)
		}
	}
	if err := o.Steers.Put(device, &s); err != nil {
		t.Fatal(err)
	}
	down := transmit(t, false, "")
	down.Flags &^= TransmitEstablished
	for i, first := range []*Transmit{nil, &down} {
		if first != nil {
			if err := o.Pseudowires.Put(ways[0], first); err != nil {
				t.Fatal(err)
			}
		}
		action, _, mark := run(t, o.Lane, bytes.Clone(frame), ways[0])
		c, err := o.Counts.Sum(session6)
		if err != nil || action != redirect || mark != 0 || c.Transmitted.Frames != uint64(i+1) {
			t.Errorf("action %#x, mark %#x, %+v, %v", action, mark, c, err)
		}
	}
}

// noRule is a frame that no rule of setRules matches: the worst case.
var noRule = append([]byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0, 0, 50, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2}, make([]byte, 30)...)

// What the choice of a way costs a frame, in encapsulation. The figures of docs/qos.md are these.
func BenchmarkSteer(b *testing.B) {
	o := load(b)
	add := func(outer int) error {
		way, _ := SteerWay(outer, 0)
		t := &Transmit{Flags: TransmitEstablished | TransmitResolved, Session: 1, Device: uint32(outer)}
		return errors.Join(o.Pseudowires.Put(uint32(outer), t), o.Pseudowires.Put(way, t))
	}
	ask := func(times uint32) (uint32, error) {
		return o.classify.Run(&ebpf.RunOptions{Data: noRule, Context: skBuff{Mark: device}, Repeat: times})
	}
	benchmarkRules(b, device, add, o.Steers, ask, 0)
}

// And what it costs where the kernel's l2tp_eth encapsulates.
func BenchmarkSpread(b *testing.B) {
	s, err := LoadSpread()
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	const loopback = 1 // whose frames those of a test run are
	add := func(outer int) error {
		way, _ := SteerWay(outer, 0)
		x := Exit{Device: loopback, Session: 1, Flags: ExitSteered}
		return errors.Join(s.Exits.Put(uint32(outer), &x), s.Exits.Put(way, &x))
	}
	ask := func(times uint32) (uint32, error) {
		return s.Program.Run(&ebpf.RunOptions{Data: noRule, Repeat: times})
	}
	benchmarkRules(b, loopback, add, s.Steers, ask, redirect)
}

// benchmarkRules asks for frames of the first of some pseudowires.
func benchmarkRules(b *testing.B, first int, add func(outer int) error, steers Table[uint32, Steer], ask func(times uint32) (uint32, error), want uint32) {
	for _, pseudowires := range []int{1, 1000} {
		for i := range pseudowires {
			if err := add(first + i); err != nil {
				b.Fatal(err)
			}
		}
		for _, rules := range []int{-1, 0, 8, 64} {
			for i := range pseudowires {
				if err := setRules(steers, first+i, rules); err != nil {
					b.Fatal(err)
				}
			}
			name := fmt.Sprintf("%d rules, %d pseudowires", rules, pseudowires)
			if rules < 0 {
				name = fmt.Sprintf("no steer, %d pseudowires", pseudowires)
			}
			b.Run(name, func(b *testing.B) {
				if code, err := ask(uint32(b.N)); err != nil || code != want {
					b.Fatal(code, err)
				}
			})
		}
	}
}

// setRules gives a pseudowire rules for a port that no frame here has; none below 0.
func setRules(steers Table[uint32, Steer], outer, rules int) error {
	if rules < 0 {
		return steers.Delete(uint32(outer))
	}
	way, _ := SteerWay(outer, 0)
	s := Steer{Count: uint32(rules), Ways: 1, Was: 1, Only: way}
	s.Way[0].Key = way
	for i := range rules {
		s.Rule[i] = Rule{Dscps: 1<<64 - 1, Pcps: 1<<9 - 1, Families: FamilyIPv4 | FamilyIPv6, Vlans: 1<<32 - 1, SourcePorts: 1<<32 - 1,
			DestinationPort: 5060, Ways: 1, Was: 1, Only: way}
	}
	return steers.Put(uint32(outer), &s)
}
