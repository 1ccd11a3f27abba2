package bridge

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// rtnl is a route netlink socket in the namespace it was opened in. The
// requests are built here, not by the netlink package's calls, because bridges
// and ports have attributes that it does not know.
type rtnl struct {
	handle *nl.SocketHandle
	// view is what was looked at at once, nil if that has changed since, or was not.
	view *view
	// asked counts the requests; for tests.
	asked int
	// refuse, if set, is asked before every change; for tests.
	refuse func() error
}

func openRTNL() (*rtnl, error) {
	s, err := nl.GetNetlinkSocketAt(netns.None(), netns.None(), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(s.SetSendTimeout(&nl.SocketTimeoutTv), s.SetReceiveTimeout(&nl.SocketTimeoutTv), s.SetExtAck(true)); err != nil {
		s.Close()
		return nil, err
	}
	return &rtnl{handle: &nl.SocketHandle{Socket: s}}, nil
}

func (r *rtnl) close() { r.handle.Close() }

func (r *rtnl) request(command, flags int, data ...nl.NetlinkRequestData) *nl.NetlinkRequest {
	r.asked++
	q := nl.NewNetlinkRequest(command, flags)
	q.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: r.handle}
	for _, d := range data {
		q.AddData(d)
	}
	return q
}

// do carries out a change.
func (r *rtnl) do(command, flags int, data ...nl.NetlinkRequestData) error {
	r.lookAway()
	return r.change(command, flags, data...)
}

// doPort carries out a change that concerns one netdev and no other.
func (r *rtnl) doPort(index, command int, data ...nl.NetlinkRequestData) error {
	r.lookAwayFrom(index)
	return r.change(command, 0, data...)
}

func (r *rtnl) change(command, flags int, data ...nl.NetlinkRequestData) error {
	if r.refuse != nil {
		if err := r.refuse(); err != nil {
			return err
		}
	}
	_, err := r.request(command, flags|unix.NLM_F_ACK, data...).Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// dump asks for a table, again if it changed while it was being read.
func (r *rtnl) dump(command int, kind uint16, data ...nl.NetlinkRequestData) (messages [][]byte, err error) {
	for range 16 {
		messages, err = r.request(command, unix.NLM_F_DUMP, data...).Execute(unix.NETLINK_ROUTE, kind)
		if !errors.Is(err, nl.ErrDumpInterrupted) {
			return messages, err
		}
	}
	return nil, err
}

// link is what of a netdev matters here.
type link struct {
	index, master, parent int
	name, kind, alias     string
	slaveKind             string
	flags, mtu, group     uint32
	carrier               bool
	addrGen               uint8 // IPv6 address generation mode
	hasIPv6               bool

	// Of a bridge: whether it filters VLANs, and whether it could.
	filters, canFilter bool
	defaultPVID        uint16

	// Of a bridge's port.
	learning         bool
	isolated         bool
	portGroupForward uint16
	portState        uint8

	// Of a VLAN device.
	vlan uint16
}

func (l *link) up() bool { return l.flags&unix.IFF_UP != 0 }

// link finds a netdev by name; nil if there is none.
func (r *rtnl) link(name string) (*link, error) {
	if l := r.seen(name, 0); l != nil {
		return l, nil
	}
	return r.one(nl.NewIfInfomsg(unix.AF_UNSPEC), nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
}

// linkByIndex finds a netdev by index; nil if there is none.
func (r *rtnl) linkByIndex(index int) (*link, error) {
	if l := r.seen("", index); l != nil {
		return l, nil
	}
	message := nl.NewIfInfomsg(unix.AF_UNSPEC)
	message.Index = int32(index)
	return r.one(message)
}

func (r *rtnl) one(data ...nl.NetlinkRequestData) (*link, error) {
	messages, err := r.request(unix.RTM_GETLINK, unix.NLM_F_ACK, data...).Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	switch {
	case errors.Is(err, unix.ENODEV):
		return nil, nil
	case err != nil:
		return nil, err
	case len(messages) == 0:
		return nil, nil
	}
	return parseLink(messages[0])
}

// links lists all netdevs.
func (r *rtnl) links() ([]*link, error) {
	messages, err := r.dump(unix.RTM_GETLINK, unix.RTM_NEWLINK, nl.NewIfInfomsg(unix.AF_UNSPEC))
	if err != nil {
		return nil, err
	}
	all := make([]*link, 0, len(messages))
	for _, m := range messages {
		l, err := parseLink(m)
		if err != nil {
			return nil, err
		}
		all = append(all, l)
	}
	return all, nil
}

// walk calls f with each attribute, nested flags taken off its type.
func walk(b []byte, f func(kind uint16, value []byte) error) error {
	attrs, err := nl.ParseRouteAttr(b)
	if err != nil {
		return err
	}
	for _, a := range attrs {
		if err := f(a.Attr.Type&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), a.Value); err != nil {
			return err
		}
	}
	return nil
}

// Attributes have the length that the kernel's policy gives them; what is
// shorter is read as 0.
func u8(b []byte) uint8 {
	if len(b) < 1 {
		return 0
	}
	return b[0]
}

func u16(b []byte) uint16 {
	if len(b) < 2 {
		return 0
	}
	return nl.NativeEndian().Uint16(b)
}

func u32(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return nl.NativeEndian().Uint32(b)
}

func parseLink(message []byte) (*link, error) {
	if len(message) < unix.SizeofIfInfomsg {
		return nil, fmt.Errorf("a link message of %d octets", len(message))
	}
	header := nl.DeserializeIfInfomsg(message)
	l := &link{index: int(header.Index), flags: header.Flags}
	return l, walk(message[unix.SizeofIfInfomsg:], func(kind uint16, v []byte) error {
		switch kind {
		case unix.IFLA_IFNAME:
			l.name = unix.ByteSliceToString(v)
		case unix.IFLA_IFALIAS:
			l.alias = unix.ByteSliceToString(v)
		case unix.IFLA_MTU:
			l.mtu = u32(v)
		case unix.IFLA_MASTER:
			l.master = int(u32(v))
		case unix.IFLA_LINK:
			l.parent = int(u32(v))
		case unix.IFLA_GROUP:
			l.group = u32(v)
		case unix.IFLA_CARRIER:
			l.carrier = u8(v) != 0
		case unix.IFLA_LINKINFO:
			return l.parseInfo(v)
		case unix.IFLA_AF_SPEC:
			return walk(v, func(family uint16, v []byte) error {
				if family != unix.AF_INET6 {
					return nil
				}
				return walk(v, func(kind uint16, v []byte) error {
					if kind == unix.IFLA_INET6_ADDR_GEN_MODE {
						l.hasIPv6, l.addrGen = true, u8(v)
					}
					return nil
				})
			})
		}
		return nil
	})
}

func (l *link) parseInfo(info []byte) error {
	var data, slaveData []byte
	err := walk(info, func(kind uint16, v []byte) error {
		switch kind {
		case unix.IFLA_INFO_KIND:
			l.kind = unix.ByteSliceToString(v)
		case unix.IFLA_INFO_DATA:
			data = v
		case unix.IFLA_INFO_SLAVE_KIND:
			l.slaveKind = unix.ByteSliceToString(v)
		case unix.IFLA_INFO_SLAVE_DATA:
			slaveData = v
		}
		return nil
	})
	if err != nil {
		return err
	}
	if l.slaveKind == "bridge" {
		if err := walk(slaveData, l.parsePort); err != nil {
			return err
		}
	}
	switch l.kind {
	case "bridge":
		return walk(data, l.parseBridge)
	case "vlan":
		return walk(data, func(kind uint16, v []byte) error {
			if kind == unix.IFLA_VLAN_ID {
				l.vlan = u16(v)
			}
			return nil
		})
	}
	return nil
}

func (l *link) parseBridge(kind uint16, v []byte) error {
	switch kind {
	case unix.IFLA_BR_VLAN_FILTERING:
		l.filters = u8(v) != 0 // given, as 0, by kernels that cannot, too
	case unix.IFLA_BR_VLAN_DEFAULT_PVID:
		l.canFilter, l.defaultPVID = true, u16(v)
	}
	return nil
}

func (l *link) parsePort(kind uint16, v []byte) error {
	switch kind {
	case unix.IFLA_BRPORT_STATE:
		l.portState = u8(v)
	case unix.IFLA_BRPORT_LEARNING:
		l.learning = u8(v) != 0
	case unix.IFLA_BRPORT_ISOLATED:
		l.isolated = u8(v) != 0
	case unix.IFLA_BRPORT_GROUP_FWD_MASK:
		l.portGroupForward = u16(v)
	}
	return nil
}

// attr builds an attribute, nested if it is given others.
func attr(kind int, value []byte, nested ...*nl.RtAttr) *nl.RtAttr {
	if len(nested) > 0 {
		kind |= unix.NLA_F_NESTED
	}
	a := nl.NewRtAttr(kind, value)
	for _, n := range nested {
		a.AddChild(n)
	}
	return a
}

func header(family, index int) *nl.IfInfomsg {
	h := nl.NewIfInfomsg(family)
	h.Index = int32(index)
	return h
}

// infoOf is IFLA_LINKINFO.
func infoOf(kind string, data ...*nl.RtAttr) *nl.RtAttr {
	info := attr(unix.IFLA_LINKINFO, nil, attr(unix.IFLA_INFO_KIND, nl.NonZeroTerminated(kind)))
	if len(data) > 0 {
		info.AddChild(attr(unix.IFLA_INFO_DATA, nil, data...))
	}
	return info
}

// create makes a netdev, with the mark of what is ours and not finished: an alias
// cannot be given at once.
func (r *rtnl) create(name string, info *nl.RtAttr, more ...*nl.RtAttr) error {
	data := []nl.NetlinkRequestData{
		header(unix.AF_UNSPEC, 0),
		attr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)),
		attr(unix.IFLA_GROUP, nl.Uint32Attr(newGroup)),
		info,
	}
	for _, a := range more {
		data = append(data, a)
	}
	return r.do(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, data...)
}

func (r *rtnl) remove(index int) error {
	return r.do(unix.RTM_DELLINK, 0, header(unix.AF_UNSPEC, index))
}

// set changes attributes of a netdev.
func (r *rtnl) set(index int, attrs ...*nl.RtAttr) error {
	data := []nl.NetlinkRequestData{header(unix.AF_UNSPEC, index)}
	for _, a := range attrs {
		data = append(data, a)
	}
	return r.do(unix.RTM_SETLINK, 0, data...)
}

func (r *rtnl) setUp(index int, up bool) error {
	h := header(unix.AF_UNSPEC, index)
	h.Change = unix.IFF_UP
	if up {
		h.Flags = unix.IFF_UP
	}
	return r.do(unix.RTM_SETLINK, 0, h)
}

func (r *rtnl) setMaster(index, master int) error {
	return r.doPort(index, unix.RTM_SETLINK, header(unix.AF_UNSPEC, index), attr(unix.IFLA_MASTER, nl.Uint32Attr(uint32(master))))
}

func (r *rtnl) setAlias(index int, alias string) error {
	return r.set(index, attr(unix.IFLA_IFALIAS, []byte(alias)))
}

// finish brings a new netdev up and takes its mark off.
func (r *rtnl) finish(index int) error {
	h := header(unix.AF_UNSPEC, index)
	h.Flags, h.Change = unix.IFF_UP, unix.IFF_UP
	return r.do(unix.RTM_SETLINK, 0, h, attr(unix.IFLA_GROUP, nl.Uint32Attr(0)))
}

// setAddrGen sets how IPv6 makes link-local addresses. It returns
// EAFNOSUPPORT where there is no IPv6 on the netdev.
func (r *rtnl) setAddrGen(index int, mode uint8) error {
	return r.set(index, attr(unix.IFLA_AF_SPEC, nil,
		attr(unix.AF_INET6, nil, attr(unix.IFLA_INET6_ADDR_GEN_MODE, nl.Uint8Attr(mode)))))
}

// setBridge changes attributes (IFLA_BR_*) of a bridge.
func (r *rtnl) setBridge(index int, attrs ...*nl.RtAttr) error {
	return r.do(unix.RTM_NEWLINK, 0, header(unix.AF_UNSPEC, index), infoOf("bridge", attrs...))
}

// setPort changes attributes (IFLA_BRPORT_*) of a bridge's port.
func (r *rtnl) setPort(index int, attrs ...*nl.RtAttr) error {
	return r.doPort(index, unix.RTM_SETLINK, header(unix.AF_BRIDGE, index), attr(unix.IFLA_PROTINFO, nil, attrs...))
}
