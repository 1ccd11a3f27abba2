package topology

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"strings"
)

// maxInterfaceName is the kernel's IFNAMSIZ without the final zero.
const maxInterfaceName = 15

// DeviceName is the netdev of the pseudowire with that name: pw-NAME if that
// fits 15 octets, else pw-, the first 7 octets of the name, a hyphen and the
// first 4 characters of base32(SHA-256(name)), in lower case. NETWORK/PEER never
// fits, as no netdev's name has a slash: of that the first 7 octets are the network's.
func DeviceName(name string) string {
	network, _, isNetwork := strings.Cut(name, "/")
	if device := "pw-" + name; len(device) <= maxInterfaceName && !isNetwork {
		return device
	}
	sum := sha256.Sum256([]byte(name))
	return "pw-" + network[:min(7, len(network))] + "-" + strings.ToLower(base32.StdEncoding.EncodeToString(sum[:])[:4])
}

// HostName is the Host Name AVP of a tunnel's end at a site (RFC 3931, Section
// 5.4.3): each end is an LCCE of its own.
func HostName(tunnel, site string) string { return tunnel + "." + site }

// RouterID is the Router ID AVP of a tunnel's end at a site (RFC 3931, Section
// 5.4.3) where the site has no ID of its own for it: the first 32 bits of
// SHA-256(TUNNEL.SITE). It is never 0: in place of 0 it is 1.
func RouterID(tunnel, site string) uint32 {
	sum := sha256.Sum256([]byte(HostName(tunnel, site)))
	return max(1, binary.BigEndian.Uint32(sum[:4]))
}

// isName reports whether s can name a site, tunnel, pseudowire and so on:
// [a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?
func isName(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}
