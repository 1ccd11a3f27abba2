package vrf

import (
	"net/netip"
	"testing"
)

// The kind of a link is found among what else is said of it, and nothing is read beyond the end.
func TestKindOfLink(t *testing.T) {
	vrf := []byte("\x08\x00\x01\x00vrf\x00")
	table := []byte("\x0c\x00\x02\x00\x08\x00\x01\x00\x4d\x00\x00\x00")
	for _, c := range []struct {
		info []byte
		want string
	}{
		{nil, ""}, {vrf, "vrf"}, {table, ""},
		{append(append([]byte(nil), table...), vrf...), "vrf"},
		{append([]byte("\x05\x00\x02\x00a\x00\x00\x00"), vrf...), "vrf"}, // padded
		{vrf[:7], ""}, {[]byte("\x00\x00\x01\x00"), ""}, {[]byte("\x05\x00\x02\x00a"), ""},
	} {
		if got := kind(c.info); got != c.want {
			t.Errorf("% x: %q, want %q", c.info, got, c.want)
		}
	}
}

// An address of an interface in no VRF, or of none, is in none.
func TestInNoVRF(t *testing.T) {
	for _, addr := range []string{"127.0.0.1", "::1", "192.0.2.1", "fe80::1%lo"} {
		if v, err := Of(netip.MustParseAddr(addr)); err != nil || v != (VRF{}) {
			t.Errorf("%s is in %v, %v", addr, v, err)
		}
	}
}
