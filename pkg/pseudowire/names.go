package pseudowire

import (
	"crypto/sha256"
	"encoding/base32"
	"iter"
	"slices"
	"strings"
)

// PartOf names, for the datapath below, what a pseudowire has there with a device of its own. No pseudowire of a
// topology has a name with the mark in it, which is "+" or "~".
func PartOf(name, mark, part string) string { return Plain(name + mark + part) }

// Plain is a pseudowire's name as PartOf and Wholes have it, which can be a device's alternative one.
func Plain(name string) string { return strings.ReplaceAll(name, "/", "+") }

// Wholes are what a name of the datapath below can be a part of, by its marks.
func Wholes(part string) (names []string) {
	for i, c := range part {
		if c == '+' || c == '~' {
			names = append(names, part[:i])
		}
	}
	return names
}

// ObjectOf is what a repair of the datapath below is about (drift.Repair), where that is part of one of the
// pseudowires named: that one.
func ObjectOf(object string, pseudowires iter.Seq[string]) string {
	const kind = "pseudowire "
	part, is := strings.CutPrefix(object, kind)
	if !is {
		return object
	}
	for _, whole := range slices.Backward(Wholes(part)) {
		for name := range pseudowires {
			if Plain(name) == whole {
				return kind + name
			}
		}
	}
	return object
}

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
