package l2tpeth

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// addrGenModeNone is IN6_ADDR_GEN_MODE_NONE: no link-local address, and so no
// router solicitation, comes with the device going up.
const addrGenModeNone = 1

// link is what matters of a netdev.
type link struct {
	index uint32
	name  string
	alias string
	mtu   uint32
	up    bool
}

// linkClient speaks the links' part of rtnetlink. (rtnetlink(7))
type linkClient struct{ conn *netlink.Conn }

// ifInfo is a struct ifinfomsg: change says which of the flags to set.
func ifInfo(index, flags, change uint32) []byte {
	b := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(b[4:], index)
	binary.NativeEndian.PutUint32(b[8:], flags)
	binary.NativeEndian.PutUint32(b[12:], change)
	return b
}

func (c linkClient) request(typ netlink.HeaderType, flags netlink.HeaderFlags, info []byte, encode func(*netlink.AttributeEncoder)) ([]netlink.Message, error) {
	e := netlink.NewAttributeEncoder()
	if encode != nil {
		encode(e)
	}
	attrs, err := e.Encode()
	if err != nil {
		return nil, err
	}
	return c.conn.Execute(netlink.Message{
		Header: netlink.Header{Type: typ, Flags: netlink.Request | flags},
		Data:   append(info, attrs...),
	})
}

// byName finds a link; ok is false if there is none.
func (c linkClient) byName(name string) (l link, ok bool, err error) {
	return one(c.request(unix.RTM_GETLINK, 0, ifInfo(0, 0, 0), func(e *netlink.AttributeEncoder) {
		e.String(unix.IFLA_IFNAME, name)
	}))
}

// byIndex finds a link; ok is false if there is none.
func (c linkClient) byIndex(index uint32) (l link, ok bool, err error) {
	return one(c.request(unix.RTM_GETLINK, 0, ifInfo(index, 0, 0), nil))
}

// all lists the links of the namespace.
func (c linkClient) all() ([]link, error) {
	msgs, err := c.request(unix.RTM_GETLINK, netlink.Dump, ifInfo(0, 0, 0), nil)
	if err != nil {
		return nil, err
	}
	links := make([]link, 0, len(msgs))
	for _, m := range msgs {
		l, err := decodeLink(m.Data)
		if err != nil {
			return nil, err
		}
		links = append(links, l)
	}
	return links, nil
}

func one(msgs []netlink.Message, err error) (link, bool, error) {
	switch {
	case gone(err), err == nil && len(msgs) == 0:
		return link{}, false, nil
	case err != nil:
		return link{}, false, err
	}
	l, err := decodeLink(msgs[0].Data)
	return l, err == nil, err
}

func decodeLink(b []byte) (link, error) {
	if len(b) < unix.SizeofIfInfomsg {
		return link{}, errors.New("short link message")
	}
	l := link{index: binary.NativeEndian.Uint32(b[4:]), up: binary.NativeEndian.Uint32(b[8:])&unix.IFF_UP != 0}
	d, err := netlink.NewAttributeDecoder(b[unix.SizeofIfInfomsg:])
	if err != nil {
		return link{}, err
	}
	for d.Next() {
		switch d.Type() {
		case unix.IFLA_IFNAME:
			l.name = d.String()
		case unix.IFLA_IFALIAS:
			l.alias = d.String()
		case unix.IFLA_MTU:
			l.mtu = d.Uint32()
		}
	}
	return l, d.Err()
}

// mark sets the alias and the MTU, and, of a device that is to be silent, keeps IPv6 from giving it
// an address of its own. Where the kernel refuses that, it is unsaid, and the rest is done all the same.
func (c linkClient) mark(index uint32, alias string, mtu uint32, silent bool) (unsaid, err error) {
	set := func(silent bool) error {
		_, err := c.request(unix.RTM_SETLINK, netlink.Acknowledge, ifInfo(index, 0, 0), func(e *netlink.AttributeEncoder) {
			e.Uint32(unix.IFLA_MTU, mtu)
			// The kernel takes the attribute's whole length, a terminating NUL too.
			e.Bytes(unix.IFLA_IFALIAS, []byte(alias))
			if silent {
				noAddresses(e)
			}
		})
		return err
	}
	if unsaid = set(silent); !silent || unsaid == nil {
		return nil, unsaid
	}
	err = set(false)
	if errors.Is(unsaid, unix.EAFNOSUPPORT) { // a kernel without IPv6 has nothing to keep from it
		unsaid = nil
	}
	return unsaid, err
}

func noAddresses(e *netlink.AttributeEncoder) {
	e.Nested(unix.IFLA_AF_SPEC, func(e *netlink.AttributeEncoder) error {
		e.Nested(unix.AF_INET6, func(e *netlink.AttributeEncoder) error {
			e.Uint8(unix.IFLA_INET6_ADDR_GEN_MODE, addrGenModeNone)
			return nil
		})
		return nil
	})
}

// addAltName gives the device a second name.
func (c linkClient) addAltName(index uint32, name string) error {
	_, err := c.request(unix.RTM_NEWLINKPROP, netlink.Acknowledge|netlink.Create|netlink.Append, ifInfo(index, 0, 0), func(e *netlink.AttributeEncoder) {
		e.Nested(unix.IFLA_PROP_LIST, func(e *netlink.AttributeEncoder) error {
			e.String(unix.IFLA_ALT_IFNAME, name)
			return nil
		})
	})
	return err
}

// setUp brings the device up or takes it down.
func (c linkClient) setUp(index uint32, up bool) error {
	var flags uint32
	if up {
		flags = unix.IFF_UP
	}
	_, err := c.request(unix.RTM_SETLINK, netlink.Acknowledge, ifInfo(index, flags, unix.IFF_UP), nil)
	return err
}

// disableIPv6 takes IPv6 off a device: a host that routes would otherwise join,
// and report, the routers' groups on it. It needs a writable /proc/sys, which
// a container may not have; mark has done most of it by then.
func disableIPv6(dir, device string) error {
	return os.WriteFile(filepath.Join(dir, device, "disable_ipv6"), []byte("1\n"), 0)
}
