package pseudowire

import (
	"crypto/sha256"
	"encoding/base32"
	"strings"
)

const maxDeviceName = 15

// OuterDevice is the other end of a pseudowire's device where that is one of a veth pair:
// pw-X has pwo-X, shortened as the device's name is where it would be too long.
func OuterDevice(name, device string) string {
	outer := "pwo-" + strings.TrimPrefix(device, "pw-")
	if len(outer) <= maxDeviceName {
		return outer
	}
	sum := sha256.Sum256([]byte(name))
	short := strings.ToLower(base32.StdEncoding.EncodeToString(sum[:])[:4])
	return "pwo-" + name[:min(len(name), 6)] + "-" + short
}
