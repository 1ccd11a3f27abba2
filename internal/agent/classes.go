package agent

import (
	"maps"
	"net"
	"slices"
	"time"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/pkg/qos"
)

// classViews are the classes, each with what its tunnels sent, and their sum.
func (a *Agent) classViews() []api.Class {
	views := []api.Class{}
	if a.local == nil {
		return views
	}
	tunnels := a.classTunnels(time.Now())
	for _, c := range a.local.Classes {
		views = append(views, withTunnels(api.Class{
			Name: c.Name, DSCP: c.DSCP, DSCPFrom: c.Marking.String(), Priority: c.Priority, Rate: c.Rate, Ceiling: c.Ceiling, Queue: c.Queue,
		}, tunnels[c.Name]))
	}
	// Those without a class that share what their pair may send.
	if rest := tunnels[""]; len(rest) > 0 {
		views = append(views, withTunnels(api.Class{Name: noClass}, rest))
	}
	return views
}

// noClass is what stands for no class: it is no name.
const noClass = "-"

// withTunnels is a class with its tunnels, and with what they have in sum.
func withTunnels(v api.Class, tunnels []api.ClassTunnel) api.Class {
	v.Tunnels = tunnels
	for _, t := range tunnels {
		v.Octets += t.Octets
		v.Frames += t.Frames
		v.Drops += t.Drops
		v.Marked += t.Marked
		v.BacklogOctets += t.BacklogOctets
		v.BacklogFrames += t.BacklogFrames
		v.Achieved += t.Achieved
		for reason, n := range t.DropsByReason {
			if v.DropsByReason == nil {
				v.DropsByReason = make(map[string]uint64)
			}
			v.DropsByReason[reason] += n
		}
	}
	return v
}

// classTunnels are the shaped tunnels by class; those that are shaped for their pair's sake
// may have none.
func (a *Agent) classTunnels(now time.Time) map[string][]api.ClassTunnel {
	all := make(map[string][]api.ClassTunnel)
	interfaces, _ := a.shapes()
	seen := make(map[string]bool)
	for _, i := range interfaces {
		counters, err := a.shaper.Counters(i.Index)
		if err != nil {
			a.log.Warn("cannot read what classes have sent", "err", err)
			continue
		}
		name := ""
		if link, err := net.InterfaceByIndex(i.Index); err == nil {
			name = link.Name
		}
		for _, key := range slices.Sorted(maps.Keys(a.tunnels)) {
			t := a.tunnels[key]
			c, there := counters[a.numbers[key]]
			if !there || !t.Shapes() {
				continue
			}
			seen[key] = true
			v := api.ClassTunnel{
				Tunnel: t.Name, Peer: t.Peer, Interface: name, Pseudowires: a.carriedBy(key),
				Octets: c.Octets, Frames: c.Frames, Drops: c.Drops(), DropsByReason: dropsOf(&c), Marked: c.Marked,
				BacklogOctets: c.BacklogOctets, BacklogFrames: c.BacklogFrames,
			}
			v.Achieved = a.paces.pace(key, c.Octets, now)
			if v.Achieved > 0 {
				v.DelayMicroseconds = uint64(float64(v.BacklogOctets) * 8e6 / float64(v.Achieved))
			}
			all[t.Class] = append(all[t.Class], v)
		}
	}
	maps.DeleteFunc(a.paces, func(key string, _ *pace) bool { return !seen[key] })
	return all
}

func dropsOf(c *qos.Counters) map[string]uint64 {
	if c.Drops() == 0 {
		return nil
	}
	drops := map[string]uint64{"queue-full": c.Full}
	if c.Managed > 0 {
		drops["waited-too-long"] = c.Managed
	}
	return drops
}

// carriedBy are the names of the pseudowires that have a session on a tunnel.
func (a *Agent) carriedBy(tunnel string) []string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(a.wires)) {
		if a.wires[name].on(tunnel) != nil {
			names = append(names, name)
		}
	}
	return names
}

// paces are how much is sent of late.
type paces map[string]*pace

// pace is what was sent at two times: long enough ago, and since then.
type pace struct{ before, last reading }

type reading struct {
	at     time.Time
	octets uint64
}

// paceOver is over how long a rate is taken at least.
const paceOver = 2 * time.Second

// pace is the rate in bits a second since a reading that is long enough ago, 0 if there is
// none. What was counted anew begins anew.
func (p paces) pace(key string, octets uint64, now time.Time) uint64 {
	r := reading{now, octets}
	x := p[key]
	if x == nil || octets < x.last.octets {
		p[key] = &pace{before: r, last: r}
		return 0
	}
	if now.Sub(x.last.at) >= paceOver {
		x.before, x.last = x.last, r
	}
	took := now.Sub(x.before.at)
	if took < paceOver {
		return 0
	}
	return uint64(float64(octets-x.before.octets) * 8 / took.Seconds())
}
