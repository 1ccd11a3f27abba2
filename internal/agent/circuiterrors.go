package agent

import (
	"math"
	"time"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/pkg/bridge"
	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

// countErrors tells the control machine what errors the interfaces of attachment
// circuits have counted since the last look; it tells the peers (RFC 3931, Section
// 6.13). An interface's first look only shows what it had before, and one whose
// counters have gone back is another. A bridge is no circuit that has errors: which
// of its ports' are of one pseudowire cannot be said.
func (a *Agent) countErrors(now time.Time) {
	more, seen := map[string]l2tpv3.CircuitErrors{}, map[string]bridge.CircuitErrors{}
	for _, w := range a.wires {
		name := w.Attachment.Interface
		if name == "" {
			continue
		}
		if _, looked := seen[name]; !looked {
			e, ok := a.bridges.CircuitErrors(name)
			if !ok {
				continue
			}
			if before, known := a.errors[name]; known {
				more[name] = since(before, e)
			}
			seen[name] = e
		}
		for _, r := range w.rides {
			a.control.CountErrors(now, r.Tunnel, w.Name, more[name])
		}
	}
	a.errors = seen
}

// since is what was counted from one look to the next.
func since(before, now bridge.CircuitErrors) l2tpv3.CircuitErrors {
	grown := func(before, now uint64) uint32 {
		if now < before {
			before = 0
		}
		return uint32(min(now-before, math.MaxUint32))
	}
	return l2tpv3.CircuitErrors{
		CRC: grown(before.CRC, now.CRC), Framing: grown(before.Length, now.Length), Alignment: grown(before.Alignment, now.Alignment),
		HardwareOverruns: grown(before.HardwareOverruns, now.HardwareOverruns), BufferOverruns: grown(before.BufferOverruns, now.BufferOverruns),
	}
}

// errorsView has the kinds that there are.
func errorsView(e l2tpv3.CircuitErrors) (v map[string]uint64) {
	for _, c := range []struct {
		kind string
		n    uint32
	}{
		{api.ErrorsCRC, e.CRC}, {api.ErrorsFraming, e.Framing}, {api.ErrorsHardwareOverruns, e.HardwareOverruns},
		{api.ErrorsBufferOverruns, e.BufferOverruns}, {api.ErrorsTimeouts, e.Timeouts}, {api.ErrorsAlignment, e.Alignment},
	} {
		if c.n == 0 {
			continue
		}
		if v == nil {
			v = map[string]uint64{}
		}
		v[c.kind] = uint64(c.n)
	}
	return v
}
