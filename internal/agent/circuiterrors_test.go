package agent

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pwd-project/pwd/pkg/bridge"
	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

// erring has an interface count errors.
type erring struct {
	circuits
	of map[string]bridge.CircuitErrors
}

func (b *erring) CircuitErrors(name string) (bridge.CircuitErrors, bool) {
	e, ok := b.of[name]
	return e, ok
}

// Errors of the interface that is attached are told to the peer, and shown at both ends.
func TestCircuitErrors(t *testing.T) {
	dc1, dc2 := pair(t, topo(gold, "a: {tunnel: gold, attach: {dc1: {interface: eth2}, dc2: {interface: eth2}}}\n"))
	lan := &erring{}
	dc1.do(func() { lan.circuits, dc1.a.bridges = dc1.a.bridges, lan })
	look := func(counted map[string]bridge.CircuitErrors) {
		dc1.do(func() {
			lan.of = counted
			dc1.a.countErrors(time.Now())
		})
	}
	look(map[string]bridge.CircuitErrors{"eth2": {CRC: 1000, Length: 5}}) // what it had before is nobody's
	counted := map[string]bridge.CircuitErrors{"eth2": {CRC: 1003, Length: 5, Alignment: 2}}
	look(counted)
	dc2.poll("it was told", func() (err error) {
		dc2.do(func() {
			if n := dc2.a.control.Sessions()[0].Errors; n != 1 {
				err = fmt.Errorf("%d times", n)
			}
		})
		return err
	})
	want := map[string]uint64{"crc": 3, "alignment": 2}
	dc1.do(func() {
		if d := cmp.Diff(want, dc1.a.sessionViews()[0].LocalErrors); d != "" {
			t.Errorf("dc1's own (-want +got)\n%s", d)
		}
	})
	dc2.do(func() {
		v := dc2.a.sessionViews()[0]
		if d := cmp.Diff(want, v.RemoteErrors); d != "" || v.LocalErrors != nil {
			t.Errorf("dc1's at dc2 (-want +got)\n%s; dc2's %v", d, v.LocalErrors)
		}
	})
	// An interface that is not there for a while is looked at anew.
	look(nil)
	look(counted)
	dc1.do(func() {
		if d := cmp.Diff(want, dc1.a.sessionViews()[0].LocalErrors); d != "" {
			t.Errorf("dc1's own, afterwards (-want +got)\n%s", d)
		}
	})
}

func TestErrorsSince(t *testing.T) {
	for _, c := range []struct {
		before, now bridge.CircuitErrors
		want        l2tpv3.CircuitErrors
	}{
		{},
		{now: bridge.CircuitErrors{CRC: 1, Length: 2, Alignment: 3, HardwareOverruns: 4, BufferOverruns: 5},
			want: l2tpv3.CircuitErrors{CRC: 1, Framing: 2, Alignment: 3, HardwareOverruns: 4, BufferOverruns: 5}},
		{before: bridge.CircuitErrors{CRC: 7}, now: bridge.CircuitErrors{CRC: 9}, want: l2tpv3.CircuitErrors{CRC: 2}},
		{before: bridge.CircuitErrors{CRC: 7}, now: bridge.CircuitErrors{CRC: 3}, want: l2tpv3.CircuitErrors{CRC: 3}}, // another interface
		{now: bridge.CircuitErrors{CRC: 1 << 40}, want: l2tpv3.CircuitErrors{CRC: math.MaxUint32}},
	} {
		if got := since(c.before, c.now); got != c.want {
			t.Errorf("from %+v to %+v: %+v, want %+v", c.before, c.now, got, c.want)
		}
	}
}
