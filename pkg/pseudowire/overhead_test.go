package pseudowire

import (
	"net/netip"
	"testing"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

func TestOverhead(t *testing.T) {
	v4, v6 := netip.MustParseAddrPort("192.0.2.1:1701"), netip.MustParseAddrPort("[2001:db8::1]:1701")
	for _, tt := range []struct {
		name          string
		remote        netip.AddrPort
		encapsulation l2tpv3.Encapsulation
		cookie        int
		sublayer      l2tpv3.L2SpecificSublayer
		want          int
	}{
		{"IPv4, UDP", v4, l2tpv3.UDP, 8, l2tpv3.SublayerNone, 20 + 8 + 8 + 8 + 14},
		{"IPv4, UDP, sublayer", v4, l2tpv3.UDP, 4, l2tpv3.SublayerDefault, 20 + 8 + 8 + 4 + 4 + 14},
		{"IPv4 in IPv6 form", netip.AddrPortFrom(netip.AddrFrom16(v4.Addr().As16()), 1701), l2tpv3.UDP, 0, l2tpv3.SublayerNone, 20 + 8 + 8 + 14},
		{"IPv6, UDP", v6, l2tpv3.UDP, 8, l2tpv3.SublayerNone, 40 + 8 + 8 + 8 + 14},
		{"IPv4, IP", v4, l2tpv3.IP, 8, l2tpv3.SublayerNone, 20 + 4 + 8 + 14},
		{"IPv6, IP, sublayer", v6, l2tpv3.IP, 0, l2tpv3.SublayerDefault, 40 + 4 + 4 + 14},
	} {
		s := Session{RemoteCookie: make([]byte, tt.cookie), TransmitSublayer: tt.sublayer}
		if got := Overhead(&Tunnel{Remote: tt.remote, Encapsulation: tt.encapsulation}, &s); got != tt.want {
			t.Errorf("%s: %d octets, want %d", tt.name, got, tt.want)
		}
	}
}
