package qos

import (
	"encoding/binary"
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Counters of a class since it was made.
type Counters struct {
	Octets, Frames uint64
	// Full and Managed count packets that its queue dropped: because it was full, and because
	// they had waited for too long (RFC 8289). Those marked for that (ECN) are not among them.
	Full, Managed, Marked uint64
	// BacklogOctets and BacklogFrames wait.
	BacklogOctets, BacklogFrames uint64
}

// Drops are all of them.
func (c *Counters) Drops() uint64 { return c.Full + c.Managed }

// Add adds those of another class.
func (c *Counters) Add(o Counters) {
	c.Octets += o.Octets
	c.Frames += o.Frames
	c.Full += o.Full
	c.Managed += o.Managed
	c.Marked += o.Marked
	c.BacklogOctets += o.BacklogOctets
	c.BacklogFrames += o.BacklogFrames
}

// Counters of an interface's classes, by number.
func (m *Manager) Counters(index int) (map[uint16]Counters, error) {
	if m.paced[index] != nil {
		return m.departures(index)
	}
	l, err := m.nl.LinkByIndex(index)
	if err != nil {
		return nil, &OpError{fmt.Sprintf("find interface %d", index), err}
	}
	classes, err := m.nl.ClassList(l, netlink.HANDLE_NONE)
	if err != nil {
		return nil, &OpError{"list the classes of " + l.Attrs().Name, err}
	}
	queues, err := m.queues(index)
	if err != nil {
		return nil, err
	}
	all := make(map[uint16]Counters)
	for _, c := range classes {
		a := c.Attrs()
		if c.Type() != "htb" || a.Handle>>16 != major || a.Handle&0xf != 0 || a.Statistics == nil {
			continue
		}
		s := a.Statistics
		n := Counters{Octets: s.Basic.Bytes, Frames: uint64(s.Basic.Packets)}
		if q, ok := queues[a.Handle]; ok {
			n.BacklogOctets, n.BacklogFrames = uint64(q.backlog), uint64(q.length)
			n.Full, n.Managed, n.Marked = q.full, q.managed, q.marked
		}
		all[uint16(a.Handle)>>4] = n
	}
	return all, nil
}

// queue is what a class's queue has counted. The class itself knows nothing of what
// fq_codel drops.
type queue struct {
	length, backlog       uint32
	full, managed, marked uint64
}

// queues are those of an interface's classes, by the class.
func (m *Manager) queues(index int) (map[uint32]queue, error) {
	req := nl.NewNetlinkRequest(unix.RTM_GETQDISC, unix.NLM_F_DUMP)
	req.AddData(&nl.TcMsg{Family: nl.FAMILY_ALL, Ifindex: int32(index)})
	messages, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWQDISC)
	if err != nil {
		return nil, &OpError{fmt.Sprintf("list the queues of interface %d", index), err}
	}
	all := make(map[uint32]queue)
	for _, message := range messages {
		msg := nl.DeserializeTcMsg(message)
		if int(msg.Ifindex) != index || msg.Parent>>16 != major {
			continue
		}
		attrs, err := nl.ParseRouteAttr(message[msg.Len():])
		if err != nil {
			return nil, &OpError{fmt.Sprintf("read the queues of interface %d", index), err}
		}
		for _, a := range attrs {
			if a.Attr.Type&^unix.NLA_F_NESTED == nl.TCA_STATS2 {
				all[msg.Parent] = queueOf(a.Value)
			}
		}
	}
	return all, nil
}

// queueOf reads TCA_STATS2: struct gnet_stats_queue and, of fq_codel, struct tc_fq_codel_xstats.
func queueOf(stats []byte) (q queue) {
	attrs, err := nl.ParseRouteAttr(stats)
	if err != nil {
		return q
	}
	word := func(b []byte, n int) uint64 {
		if len(b) < 4*n+4 {
			return 0
		}
		return uint64(binary.NativeEndian.Uint32(b[4*n:]))
	}
	var dropped uint64
	managed := false
	for _, a := range attrs {
		switch a.Attr.Type {
		case nl.TCA_STATS_QUEUE:
			q.length, q.backlog, dropped = uint32(word(a.Value, 0)), uint32(word(a.Value, 1)), word(a.Value, 2)
		case nl.TCA_STATS_APP:
			// Type 0 is of the qdisc: maxpacket, drop_overlimit, ecn_mark, new_flow_count,
			// new_flows_len, old_flows_len, ce_mark, memory_usage, drop_overmemory.
			if len(a.Value) >= 4*4 && word(a.Value, 0) == 0 {
				managed = true
				q.full, q.marked = word(a.Value, 2)+word(a.Value, 9), word(a.Value, 3)
			}
		}
	}
	if !managed {
		q.full = dropped
		return q
	}
	// Both are of 32 bits, and read one after the other.
	q.full = min(q.full, dropped)
	q.managed = dropped - q.full
	return q
}
