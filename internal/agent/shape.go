package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	"github.com/pwd-project/pwd/pkg/pseudowire"
	"github.com/pwd-project/pwd/pkg/qos"
)

// shape shapes what the tunnels send, as they were set. An interface that somebody
// else shapes, or a way that is not there (yet), is noted and no failure.
func (a *Agent) shape() error {
	interfaces, lost := a.shapes()
	if len(interfaces) == 0 && !a.shaping {
		a.faults.set("shaping", lost)
		a.giveNumbersBack(interfaces)
		return nil
	}
	a.shaping = true
	err := a.shaper.Set(interfaces)
	a.shaping = err != nil || len(interfaces) > 0
	a.faults.set("shaping", errors.Join(lost, err))
	err = unoccupied(err)
	if err == nil {
		a.giveNumbersBack(interfaces)
	}
	return err
}

// giveNumbersBack does so with those that nothing has any more, once the kernel is as
// wanted: until then packets may wait under them.
func (a *Agent) giveNumbersBack(interfaces []qos.Interface) {
	a.numbers.keep(func(tunnel string, _ uint16) bool { return a.tunnels[tunnel] != nil })
	used := make(map[uint16]bool)
	for _, i := range interfaces {
		for _, g := range i.Groups {
			used[g.Number] = true
		}
	}
	a.groups.keep(func(_ string, n uint16) bool { return used[n] })
}

// replacedQdiscs keeps which qdiscs of others gave way to ours, until the machine starts
// again: then none of them is there.
type replacedQdiscs struct{ store *store }

type replacedFile struct {
	Version  int            `json:"version"`
	Boot     string         `json:"boot"`
	Replaced []qos.Replaced `json:"replaced"`
}

func (q replacedQdiscs) Replaced() ([]qos.Replaced, error) {
	var f replacedFile
	if err := q.store.read("qdiscs.json", &f); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	if f.Boot != bootID() {
		return nil, nil
	}
	return f.Replaced, nil
}

func (q replacedQdiscs) SetReplaced(list []qos.Replaced) error {
	return q.store.replace("qdiscs.json", &replacedFile{stateVersion, bootID(), list}, true)
}

// unoccupied is an error without what is about qdiscs of others.
func unoccupied(err error) error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var rest []error
		for _, e := range joined.Unwrap() {
			rest = append(rest, unoccupied(e))
		}
		return errors.Join(rest...)
	}
	if errors.As(err, new(*qos.OccupiedError)) || errors.As(err, new(*qos.NotGivenBackError)) {
		return nil
	}
	return err
}

// shapes are the interfaces that tunnels with a rate or a ceiling leave through.
func (a *Agent) shapes() (interfaces []qos.Interface, lost error) {
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(a.tunnels)) {
		t := a.tunnels[key]
		if !t.Shapes() {
			continue
		}
		index, err := a.shaper.Egress(t.Local, t.Remote)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		at := slices.IndexFunc(interfaces, func(i qos.Interface) bool { return i.Index == index })
		if at < 0 {
			at = len(interfaces)
			interfaces = append(interfaces, qos.Interface{Index: index, EDT: t.EDT})
		}
		i := &interfaces[at]
		if i.EDT != t.EDT {
			errs = append(errs, fmt.Errorf("tunnel %s is not shaped: another on its interface has the other `shaper:` (htb, edt), and an interface has one", key))
			continue
		}
		i.Replace = i.Replace || t.ReplaceQdisc
		// What has no limit is a group all the same: so that one can come and go while
		// packets wait.
		underlay := a.group(i, "underlay "+t.Underlay, 0, t.LinkRate)
		pair := a.group(i, "pair "+t.Peer+" "+t.Underlay, underlay, t.PairRate)
		i.Classes = append(i.Classes, qos.Class{Number: a.classNumber(key), In: pair, Rate: t.Rate, Ceiling: t.Ceiling, Priority: t.Priority, Queue: t.Queue})
	}
	return interfaces, errors.Join(errs...)
}

// group has an interface have a group, and returns its number.
func (a *Agent) group(i *qos.Interface, name string, in uint16, rate uint64) uint16 {
	n := a.groups.of(name)
	if !slices.ContainsFunc(i.Groups, func(g qos.Group) bool { return g.Number == n }) {
		i.Groups = append(i.Groups, qos.Group{Number: n, In: in, Rate: rate})
	}
	return n
}

// classNumber is that of a tunnel's class, whether it has one or not, so that sessions
// need not be told when it gets one.
func (a *Agent) classNumber(tunnel string) uint16 { return a.numbers.of(tunnel) }

// priority is that of the packets of a tunnel's sessions, 0 where the datapath
// cannot set it.
func (a *Agent) priority(tunnel string, dp pseudowire.Datapath) uint32 {
	n := a.classNumber(tunnel)
	if n == 0 || !dp.Abilities().Priority {
		return 0
	}
	return qos.Handle(n)
}
