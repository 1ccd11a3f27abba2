package tcbpf

import (
	"crypto/sha256"
	"encoding/base32"
	"strings"
)

// Names and marks of what is ours.
const (
	// aliasPrefix is that of the alias on both ends of a pseudowire's veth pair;
	// the pseudowire's name follows.
	aliasPrefix = "pwd:pseudowire:"
	aliasLane   = "pwd:lane"

	maxDeviceName = 15
)

// outerName is the device of the outer end of a pseudowire's veth pair: pw-X
// has pwo-X, shortened as the inner end's name is where it would be too long.
func outerName(name, device string) string {
	outer := "pwo-" + strings.TrimPrefix(device, "pw-")
	if len(outer) <= maxDeviceName {
		return outer
	}
	sum := sha256.Sum256([]byte(name))
	short := strings.ToLower(base32.StdEncoding.EncodeToString(sum[:])[:4])
	return "pwo-" + name[:min(len(name), 6)] + "-" + short
}

// altName is the name that a device gets beside its own where that was shortened.
func altName(prefix, name, device string) string {
	if prefix+name == device {
		return ""
	}
	return prefix + name
}
