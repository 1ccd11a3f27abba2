//go:build vm

package datapath

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/mdlayher/genetlink"
	mdnetlink "github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// An underlay without Ethernet headers: WireGuard, on top of an underlay that has them.
func TestOverWireGuard(t *testing.T) {
	lab := netlab.New(t)
	a, b := newSite(t, lab, "a"), newSite(t, lab, "b")
	sites := [2]*site{a, b}
	lower := [2]*netlab.Link{}
	lower[0], lower[1] = lab.Veth(a.lcce, "eth0", b.lcce, "eth0")
	for i, l := range lower {
		l.MTU(1600).Addr(lowerAddr(i).String() + "/24").Up()
	}
	for _, l := range lower {
		l.Operational()
	}
	addWireGuard(t, sites)
	inner := [2]netip.Addr{families[0].a, families[0].b}
	for i, s := range sites {
		s.wan, s.addr = s.lcce.Link("wan0"), inner[i]
		s.wan.Addr(s.addr.String() + families[0].prefix).Up()
	}
	carriesWithoutEthernet(t, a, b, 1420, func() {
		// The end of a connection is still on its way: WireGuard keeps packets for
		// its workers. What comes behind it says that it has come.
		ping(t, a, b, 56)
		ping(t, b, a, 56)
	})
}

// carriesWithoutEthernet has two sites carry frames, over UDP and over IP, on an underlay of IPv4 that they have, and that has
// no Ethernet headers, and its MTU. After each it calls then.
func carriesWithoutEthernet(t *testing.T, a, b *site, mtu int, then func()) {
	t.Helper()
	a.tunnel.LocalID, a.tunnel.RemoteID = 11, 22
	b.tunnel.LocalID, b.tunnel.RemoteID = 22, 11
	a.open(ebpf)
	b.open(ebpf)
	a.lan.Addr("10.0.0.1/24").Up()
	b.lan.Addr("10.0.0.2/24").Up()
	for _, e := range []l2tpv3.Encapsulation{l2tpv3.UDP, l2tpv3.IP} {
		a.change(b, setup{kinds: [2]pseudowire.Kind{ebpf, ebpf}, family: families[0], cookie: 8, underlay: mtu, pw: 1500, encapsulation: e})
		carries(t, a, b)
		then()
	}
}

func lowerAddr(i int) netip.Addr { return netip.AddrFrom4([4]byte{198, 51, 100, byte(i + 1)}) }

func named(name string) netlink.LinkAttrs {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	return attrs
}

// Of linux/wireguard.h.
const (
	wgCmdSetDevice     = 1
	wgDeviceIfname     = 2
	wgDevicePrivateKey = 3
	wgDeviceListenPort = 6
	wgDevicePeers      = 8
	wgPeerPublicKey    = 1
	wgPeerEndpoint     = 4
	wgPeerAllowedIPs   = 9
	wgAllowedFamily    = 1
	wgAllowedAddress   = 2
	wgAllowedMask      = 3
	wgPort             = 51820
)

func addWireGuard(t *testing.T, sites [2]*site) {
	var keys [2]*ecdh.PrivateKey
	for i := range keys {
		var err error
		if keys[i], err = ecdh.X25519().GenerateKey(rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	for i, s := range sites {
		if err := s.lcce.Netlink().LinkAdd(&netlink.Wireguard{LinkAttrs: named("wan0")}); err != nil {
			t.Fatalf("add a WireGuard link: %v", err)
		}
		err := s.lcce.Do(func() error { return setWireGuard(keys[i], keys[1-i].PublicKey(), lowerAddr(1-i)) })
		if err != nil {
			t.Fatalf("configure WireGuard: %v", err)
		}
	}
}

func setWireGuard(own *ecdh.PrivateKey, peer *ecdh.PublicKey, at netip.Addr) error {
	conn, err := genetlink.Dial(nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	family, err := conn.GetFamily("wireguard")
	if err != nil {
		return err
	}
	endpoint := make([]byte, 16) // struct sockaddr_in
	binary.NativeEndian.PutUint16(endpoint, unix.AF_INET)
	binary.BigEndian.PutUint16(endpoint[2:], wgPort)
	copy(endpoint[4:], at.AsSlice())
	ae := mdnetlink.NewAttributeEncoder()
	ae.String(wgDeviceIfname, "wan0")
	ae.Bytes(wgDevicePrivateKey, own.Bytes())
	ae.Uint16(wgDeviceListenPort, wgPort)
	ae.Nested(wgDevicePeers, func(ae *mdnetlink.AttributeEncoder) error {
		ae.Nested(0, func(ae *mdnetlink.AttributeEncoder) error {
			ae.Bytes(wgPeerPublicKey, peer.Bytes())
			ae.Bytes(wgPeerEndpoint, endpoint)
			ae.Nested(wgPeerAllowedIPs, func(ae *mdnetlink.AttributeEncoder) error {
				ae.Nested(0, func(ae *mdnetlink.AttributeEncoder) error {
					ae.Uint16(wgAllowedFamily, unix.AF_INET)
					ae.Bytes(wgAllowedAddress, make([]byte, 4))
					ae.Uint8(wgAllowedMask, 0)
					return nil
				})
				return nil
			})
			return nil
		})
		return nil
	})
	data, err := ae.Encode()
	if err != nil {
		return err
	}
	_, err = conn.Execute(genetlink.Message{Header: genetlink.Header{Command: wgCmdSetDevice, Version: 1}, Data: data}, family.ID, mdnetlink.Request|mdnetlink.Acknowledge)
	return err
}
