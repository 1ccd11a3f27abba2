package tcbpf

import (
	"fmt"
	"slices"
	"strings"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// featureSocket changes devices' offloads, over the kernel's ethtool family
// (Documentation/networking/ethtool-netlink.rst).
type featureSocket struct {
	conn   *genetlink.Conn
	family genetlink.Family
}

func openFeatures() (*featureSocket, error) {
	conn, err := genetlink.Dial(nil)
	if err != nil {
		return nil, fmt.Errorf("open generic netlink: %w", err)
	}
	family, err := conn.GetFamily(unix.ETHTOOL_GENL_NAME)
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("look for the ethtool family: %w", err)
	}
	return &featureSocket{conn, family}, nil
}

func (f *featureSocket) Close() error { return f.conn.Close() }

func (f *featureSocket) execute(command uint8, flags netlink.HeaderFlags, encode func(*netlink.AttributeEncoder)) ([]genetlink.Message, error) {
	ae := netlink.NewAttributeEncoder()
	encode(ae)
	data, err := ae.Encode()
	if err != nil {
		return nil, err
	}
	m := genetlink.Message{Header: genetlink.Header{Command: command, Version: unix.ETHTOOL_GENL_VERSION}, Data: data}
	return f.conn.Execute(m, f.family.ID, netlink.Request|flags)
}

func header(index int, flags uint32) func(*netlink.AttributeEncoder) error {
	return func(ae *netlink.AttributeEncoder) error {
		ae.Uint32(unix.ETHTOOL_A_HEADER_DEV_INDEX, uint32(index))
		ae.Uint32(unix.ETHTOOL_A_HEADER_FLAGS, flags)
		return nil
	}
}

// active are the names of the features that are on.
func (f *featureSocket) active(index int) ([]string, error) {
	messages, err := f.execute(unix.ETHTOOL_MSG_FEATURES_GET, 0, func(ae *netlink.AttributeEncoder) {
		ae.Nested(unix.ETHTOOL_A_FEATURES_HEADER, header(index, 0))
	})
	if err != nil {
		return nil, fmt.Errorf("read the features of link %d: %w", index, err)
	}
	var names []string
	for _, m := range messages {
		ad, err := netlink.NewAttributeDecoder(m.Data)
		if err != nil {
			return nil, err
		}
		for ad.Next() {
			if ad.Type() == unix.ETHTOOL_A_FEATURES_ACTIVE {
				ad.Nested(func(set *netlink.AttributeDecoder) error { return bitNames(set, &names) })
			}
		}
		if err := ad.Err(); err != nil {
			return nil, fmt.Errorf("decode the features of link %d: %w", index, err)
		}
	}
	return names, nil
}

// bitNames reads a bit set without a mask, in its verbose form.
func bitNames(set *netlink.AttributeDecoder, names *[]string) error {
	for set.Next() {
		if set.Type() != unix.ETHTOOL_A_BITSET_BITS {
			continue
		}
		set.Nested(func(bits *netlink.AttributeDecoder) error {
			for bits.Next() {
				bits.Nested(func(bit *netlink.AttributeDecoder) error {
					for bit.Next() {
						if bit.Type() == unix.ETHTOOL_A_BITSET_BIT_NAME {
							*names = append(*names, bit.String())
						}
					}
					return bit.Err()
				})
			}
			return bits.Err()
		})
	}
	return set.Err()
}

// set turns features on or off; those not named stay as they are.
func (f *featureSocket) set(index int, names []string, on bool) error {
	if len(names) == 0 {
		return nil
	}
	bit := func(name string) func(*netlink.AttributeEncoder) error {
		return func(ae *netlink.AttributeEncoder) error {
			ae.String(unix.ETHTOOL_A_BITSET_BIT_NAME, name)
			ae.Flag(unix.ETHTOOL_A_BITSET_BIT_VALUE, on)
			return nil
		}
	}
	_, err := f.execute(unix.ETHTOOL_MSG_FEATURES_SET, netlink.Acknowledge, func(ae *netlink.AttributeEncoder) {
		ae.Nested(unix.ETHTOOL_A_FEATURES_HEADER, header(index, unix.ETHTOOL_FLAG_OMIT_REPLY))
		ae.Nested(unix.ETHTOOL_A_FEATURES_WANTED, func(set *netlink.AttributeEncoder) error {
			set.Nested(unix.ETHTOOL_A_BITSET_BITS, func(bits *netlink.AttributeEncoder) error {
				for _, name := range names {
					bits.Nested(unix.ETHTOOL_A_BITSET_BITS_BIT, bit(name))
				}
				return nil
			})
			return nil
		})
	})
	if err != nil {
		return fmt.Errorf("set the features %s of link %d: %w", strings.Join(names, " "), index, err)
	}
	return nil
}

// finishes says that a feature leaves to the device what the kernel otherwise
// finishes before it hands a frame over: checksums, segments, gathering.
func finishes(feature string) bool {
	if !strings.HasPrefix(feature, "tx-") {
		return false
	}
	for _, word := range []string{"checksum", "segmentation", "scatter-gather", "gso"} {
		if strings.Contains(feature, word) {
			return true
		}
	}
	return false
}

var (
	gro = []string{"rx-gro"}
	tso = []string{"tx-tcp-segmentation", "tx-tcp-ecn-segmentation", "tx-tcp-mangleid-segmentation", "tx-tcp6-segmentation"}
	// segmentation is all that a veth lets pass in frames of several segments.
	segmentation = append(slices.Clone(tso),
		"tx-udp-segmentation", "tx-sctp-segmentation", "tx-gso-list", "tx-gso-partial",
		"tx-gre-segmentation", "tx-gre-csum-segmentation", "tx-ipxip4-segmentation", "tx-ipxip6-segmentation",
		"tx-udp_tnl-segmentation", "tx-udp_tnl-csum-segmentation")
)

// gather has the kernel put the segments of a TCP connection together as they
// come out of a pseudowire, which it can do for packets of the underlay only
// before they are decapsulated, and does not for L2TP. A veth does so if it is
// asked for and the end where frames go in says that it cannot send them
// together. Without it all is slower, no more.
func (d *Datapath) gather(p pair) {
	err := d.features.set(p.inner, gro, true)
	if err == nil {
		err = d.features.set(p.outer, tso, false)
	}
	if err != nil {
		d.log.Warn("segments are not put together", "device", p.innerName, "err", err)
	}
}
