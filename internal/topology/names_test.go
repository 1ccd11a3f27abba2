package topology

import (
	"strings"
	"testing"
)

// The digests were computed with another implementation of SHA-256 and base32.
func TestDeviceName(t *testing.T) {
	for name, want := range map[string]string{
		"a":                         "pw-a",
		"tenant-a":                  "pw-tenant-a",
		"twelve-chars":              "pw-twelve-chars",
		"thirteen-char":             "pw-thirtee-hlog",
		"tenant-of-the-third-floor": "pw-tenant--cumg",
		strings.Repeat("a", 63):     "pw-aaaaaaa-pu7h",
		"storage/dc2":               "pw-storage-7irq",
		"lan/dc2":                   "pw-lan-dgzn",
	} {
		if got := DeviceName(name); got != want || len(got) > 15 {
			t.Errorf("DeviceName(%q) = %q, want %q", name, got, want)
		}
	}
}

func TestRouterID(t *testing.T) {
	for _, test := range []struct {
		tunnel, site, host string
		id                 uint32
	}{
		{"gold", "dc1", "gold.dc1", 0x694244f8},
		{"gold", "dc2", "gold.dc2", 0x7eb19a10},
		{"silver", "dc1", "silver.dc1", 0x65d26a1a},
		{"core", "dc3", "core.dc3", 0x9b78bb38},
	} {
		if got := HostName(test.tunnel, test.site); got != test.host {
			t.Errorf("host name %q, want %q", got, test.host)
		}
		if got := RouterID(test.tunnel, test.site); got != test.id {
			t.Errorf("router ID of %s is %#x, want %#x", test.host, got, test.id)
		}
	}
}

func TestIsName(t *testing.T) {
	for name, want := range map[string]bool{
		"": false, "a": true, "7": true, "-": false, "a-": false, "-a": false, "a-b": true, "a--b": true,
		"A": false, "a_b": false, "a.b": false, "é": false, "a b": false, "a\n": false,
		strings.Repeat("a", 63): true, strings.Repeat("a", 64): false,
	} {
		if got := isName(name); got != want {
			t.Errorf("isName(%q) = %v", name, got)
		}
	}
}

func TestNearest(t *testing.T) {
	keys := []string{"tunnel", "tunnels", "attach", "end-id", "mtu", "router-id"}
	for word, want := range map[string]string{
		"tunel": "tunnel", "tunnesl": "tunnels", "Attach": "attach", "end_id": "end-id", "endid": "end-id",
		"mtus": "mtu", "mut": "mtu", "colour": "", "x": "", "": "", "router": "router-id", strings.Repeat("tunnel", 20): "",
	} {
		if got, _ := nearest(word, keys); got != want {
			t.Errorf("nearest(%q) = %q, want %q", word, got, want)
		}
	}
}
