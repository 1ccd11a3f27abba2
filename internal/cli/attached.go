package cli

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/internal/doctor"
)

// The hooks of the clsact qdisc (linux/pkt_sched.h), and attributes of its filters (linux/rtnetlink.h,
// linux/pkt_cls.h).
const (
	clsactIngress = 0xfffffff2
	clsactEgress  = 0xfffffff3
	rootParent    = 0xffffffff

	tcmsgOctets = 20
	tcaKind     = 1
	tcaOptions  = 2
	tcaBPFName  = 7
	tcaBPFID    = 11
)

// attached are the root qdiscs of all interfaces, and the eBPF programs of their clsact and ingress qdiscs. The library for
// that is the daemon's: pwctl does without.
func attached() (found []doctor.Attached, err error) {
	c, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, fmt.Errorf("open rtnetlink: %w", err)
	}
	defer c.Close()
	qdiscs, err := dumpTC(c, unix.RTM_GETQDISC, 0, 0)
	if err != nil {
		return nil, fmt.Errorf("list qdiscs: %w", err)
	}
	for _, q := range qdiscs {
		i, err := net.InterfaceByIndex(int(q.index))
		if err != nil {
			continue // it has gone in between, or is another namespace's
		}
		at := doctor.Attached{Interface: i.Name, Kind: q.kind, Handle: q.handle}
		switch {
		case q.parent == rootParent && q.handle != 0:
			found = append(found, at)
		case q.kind == "clsact" || q.kind == "ingress":
			programs, err := programsOf(c, q, i.Name)
			if err != nil {
				return nil, err
			}
			found = append(found, programs...)
		}
	}
	return found, nil
}

func programsOf(c *netlink.Conn, q traffic, name string) (found []doctor.Attached, err error) {
	for _, hook := range []struct {
		name   string
		parent uint32
	}{{"ingress", clsactIngress}, {"egress", clsactEgress}} {
		if q.kind == "ingress" && hook.parent != clsactIngress {
			continue // of which it has none, and gives those of its ingress
		}
		filters, err := dumpTC(c, unix.RTM_GETTFILTER, q.index, hook.parent)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENODEV) {
			continue // it has gone in between
		}
		if err != nil {
			return nil, fmt.Errorf("list the filters of %s: %w", name, err)
		}
		for _, f := range filters {
			if f.kind == "bpf" && f.handle != 0 {
				found = append(found, doctor.Attached{Interface: name, Kind: "bpf", Handle: f.handle,
					Hook: hook.name, Priority: uint16(f.info >> 16), Name: f.name, Program: f.program})
			}
		}
	}
	return found, nil
}

// traffic is a qdisc or filter.
type traffic struct {
	index                int32
	handle, parent, info uint32
	kind, name           string
	program              uint32
}

func dumpTC(c *netlink.Conn, what netlink.HeaderType, index int32, parent uint32) (all []traffic, err error) {
	request := make([]byte, tcmsgOctets) // struct tcmsg
	binary.NativeEndian.PutUint32(request[4:], uint32(index))
	binary.NativeEndian.PutUint32(request[12:], parent)
	messages, err := c.Execute(netlink.Message{Header: netlink.Header{Type: what, Flags: netlink.Request | netlink.Dump}, Data: request})
	if err != nil {
		return nil, err
	}
	for _, m := range messages {
		if len(m.Data) < tcmsgOctets {
			continue
		}
		u32 := func(at int) uint32 { return binary.NativeEndian.Uint32(m.Data[at:]) }
		x := traffic{index: int32(u32(4)), handle: u32(8), parent: u32(12), info: u32(16)}
		d, err := netlink.NewAttributeDecoder(m.Data[tcmsgOctets:])
		if err != nil {
			return nil, err
		}
		for d.Next() {
			switch d.Type() {
			case tcaKind:
				x.kind = d.String()
			case tcaOptions:
				if x.kind == "bpf" {
					d.Nested(x.options)
				}
			}
		}
		if err := d.Err(); err != nil {
			return nil, err
		}
		all = append(all, x)
	}
	return all, nil
}

func (x *traffic) options(d *netlink.AttributeDecoder) error {
	for d.Next() {
		switch d.Type() {
		case tcaBPFName:
			x.name = d.String()
		case tcaBPFID:
			x.program = d.Uint32()
		}
	}
	return nil
}
