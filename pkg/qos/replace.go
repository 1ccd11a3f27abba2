package qos

import (
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Replaced are the qdiscs that somebody else had set on an interface before ours took
// their place: the root, and what of it was set by hand.
type Replaced struct {
	Interface string  `json:"interface"`
	Index     int     `json:"index"`
	Qdiscs    []Qdisc `json:"qdiscs"`
}

// Qdisc is one of them, as the kernel told it.
type Qdisc struct {
	Kind    string `json:"kind"`
	Handle  uint32 `json:"handle"`
	Parent  uint32 `json:"parent"`
	Options []byte `json:"options,omitempty"`
	// Beside says that it has more than that: a size table, an estimator, a shared block.
	Beside bool `json:"-"`
}

// Memory keeps what was replaced, beyond the process and until it is given back. It is
// written before anything is replaced.
type Memory interface {
	Replaced() ([]Replaced, error)
	SetReplaced([]Replaced) error
}

// simple are the kinds that the kernel takes back as it told them: without classes that
// somebody made.
var simple = []string{"bfifo", "cake", "codel", "fq", "fq_codel", "fq_pie", "mq", "noqueue", "pfifo", "pfifo_fast", "pie", "sfq", "tbf"}

// existing are an interface's qdiscs, the root first; not those that the kernel gave it,
// which have no handle, nor those of ingress.
func (m *Manager) existing(index int) ([]Qdisc, error) {
	req := nl.NewNetlinkRequest(unix.RTM_GETQDISC, unix.NLM_F_DUMP)
	req.AddData(&nl.TcMsg{Family: nl.FAMILY_ALL, Ifindex: int32(index)})
	messages, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWQDISC)
	if err != nil {
		return nil, &OpError{fmt.Sprintf("list the qdiscs of interface %d", index), err}
	}
	var all []Qdisc
	for _, message := range messages {
		msg := nl.DeserializeTcMsg(message)
		if int(msg.Ifindex) != index || msg.Handle == 0 || msg.Parent == netlink.HANDLE_CLSACT {
			continue
		}
		attrs, err := nl.ParseRouteAttr(message[msg.Len():])
		if err != nil {
			return nil, &OpError{fmt.Sprintf("read the qdiscs of interface %d", index), err}
		}
		q := Qdisc{Handle: msg.Handle, Parent: msg.Parent}
		for _, a := range attrs {
			switch a.Attr.Type {
			case nl.TCA_KIND:
				q.Kind = string(a.Value[:max(len(a.Value)-1, 0)])
			case nl.TCA_OPTIONS:
				q.Options = slices.Clone(a.Value)
			case nl.TCA_STAB, nl.TCA_RATE, unix.TCA_INGRESS_BLOCK, unix.TCA_EGRESS_BLOCK:
				q.Beside = true
			}
		}
		all = append(all, q)
	}
	slices.SortStableFunc(all, func(a, b Qdisc) int {
		switch {
		case a.Parent == netlink.HANDLE_ROOT && b.Parent != netlink.HANDLE_ROOT:
			return -1
		case b.Parent == netlink.HANDLE_ROOT && a.Parent != netlink.HANDLE_ROOT:
			return 1
		}
		return 0
	})
	return all, nil
}

// restorable says why the qdiscs of an interface could not be given back; "" if they can.
func (m *Manager) restorable(l netlink.Link, all []Qdisc) string {
	if len(all) == 0 || all[0].Parent != netlink.HANDLE_ROOT {
		return "it has gone"
	}
	for i, q := range all {
		switch {
		case !slices.Contains(simple, q.Kind):
			return "a qdisc of kind " + q.Kind + " cannot be given back later"
		case q.Beside:
			return "it has a size table (stab), an estimator or a shared block, which cannot be given back later"
		case i > 0 && all[0].Kind != "mq":
			return "it has qdiscs in it, which cannot be given back later"
		}
		if filters, err := m.nl.FilterList(l, q.Handle); err != nil {
			return fmt.Sprintf("its filters cannot be listed (%v)", err)
		} else if len(filters) > 0 {
			return "it has filters, which cannot be given back later"
		}
	}
	return ""
}

// replace notes what is on an interface, for ours to take its place.
func (m *Manager) replace(l netlink.Link, kind string) error {
	all, err := m.existing(l.Attrs().Index)
	if err != nil {
		return err
	}
	if why := m.restorable(l, all); why != "" {
		return &OccupiedError{l.Attrs().Name, kind, why}
	}
	kept := slices.DeleteFunc(slices.Clone(m.replaced), func(r Replaced) bool { return r.Index == l.Attrs().Index })
	return m.keep(append(kept, Replaced{l.Attrs().Name, l.Attrs().Index, all}))
}

// keep has what was replaced be that.
func (m *Manager) keep(replaced []Replaced) error {
	if m.memory != nil {
		if err := m.memory.SetReplaced(replaced); err != nil {
			return &OpError{"note which qdiscs were replaced", err}
		}
	}
	m.replaced = replaced
	return nil
}

// replacedAt is where the note of an interface is, negative without one.
func (m *Manager) replacedAt(index int) int {
	return slices.IndexFunc(m.replaced, func(r Replaced) bool { return r.Index == index })
}

// forget drops the note of an interface.
func (m *Manager) forget(index int) error {
	return m.keep(slices.DeleteFunc(slices.Clone(m.replaced), func(r Replaced) bool { return r.Index == index }))
}

// forgetUnlessOurs drops the note of an interface whose qdisc ours did not replace after all.
func (m *Manager) forgetUnlessOurs(index int) error {
	roots, err := m.roots()
	if err != nil || ours(roots[index]) {
		return err
	}
	return m.forget(index)
}

// follow keeps the note of an interface with the interface, whose name changes. What has no
// qdisc of ours and another name is another one, which has got the number.
func (m *Manager) follow(l netlink.Link, shaped bool) error {
	at := m.replacedAt(l.Attrs().Index)
	if at < 0 || m.replaced[at].Interface == l.Attrs().Name {
		return nil
	}
	if !shaped {
		return m.forget(l.Attrs().Index)
	}
	renamed := slices.Clone(m.replaced)
	renamed[at].Interface = l.Attrs().Name
	return m.keep(renamed)
}

// restore gives an interface, which has a qdisc of ours, back what was there before. It is
// false if there was nothing but what the kernel gives by itself, or the kernel does not take
// it back: a *NotGivenBackError, once.
func (m *Manager) restore(index int) (bool, error) {
	at := m.replacedAt(index)
	if at < 0 {
		return false, nil
	}
	r := m.replaced[at]
	if _, err := m.nl.LinkByIndex(index); errors.As(err, new(netlink.LinkNotFoundError)) {
		return false, m.forget(index)
	}
	root := true
	var lost []error
	for i, q := range r.Qdiscs {
		err := m.give(index, q)
		switch {
		case err == nil:
			continue
		case i == 0 && !refused(err):
			return false, &OpError{fmt.Sprintf("give %s its qdisc %s %s back", r.Interface, q.Kind, netlink.HandleStr(q.Handle)), err}
		}
		lost = append(lost, &NotGivenBackError{r.Interface, q.Kind, q.Parent, err})
		if i == 0 {
			root = false
			break
		}
	}
	return root, errors.Join(append(lost, m.forget(index))...)
}

// give sets a qdisc as it was.
func (m *Manager) give(index int, q Qdisc) error {
	req := nl.NewNetlinkRequest(unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_REPLACE|unix.NLM_F_ACK)
	req.AddData(&nl.TcMsg{Family: nl.FAMILY_ALL, Ifindex: int32(index), Handle: q.Handle, Parent: q.Parent})
	req.AddData(nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated(q.Kind)))
	if q.Options != nil {
		req.AddData(nl.NewRtAttr(nl.TCA_OPTIONS, q.Options))
	}
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// refused says that the kernel would not take a qdisc however often it is asked.
func refused(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP)
}
