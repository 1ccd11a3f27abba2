package cli

import (
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// aliases are those of all interfaces of this network namespace, by name. /sys may be another namespace's: it stays
// as it was mounted under `nsenter -n`.
func aliases() (map[string]string, error) {
	c, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, fmt.Errorf("open rtnetlink: %w", err)
	}
	defer c.Close()
	messages, err := c.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETLINK, Flags: netlink.Request | netlink.Dump}, Data: make([]byte, unix.SizeofIfInfomsg),
	})
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	found := make(map[string]string)
	for _, m := range messages {
		if len(m.Data) < unix.SizeofIfInfomsg {
			continue
		}
		d, err := netlink.NewAttributeDecoder(m.Data[unix.SizeofIfInfomsg:])
		if err != nil {
			return nil, fmt.Errorf("list interfaces: %w", err)
		}
		var name, alias string
		for d.Next() {
			switch d.Type() {
			case unix.IFLA_IFNAME:
				name = d.String()
			case unix.IFLA_IFALIAS:
				alias = d.String()
			}
		}
		if err := d.Err(); err != nil {
			return nil, fmt.Errorf("list interfaces: %w", err)
		}
		if alias != "" {
			found[name] = alias
		}
	}
	return found, nil
}
