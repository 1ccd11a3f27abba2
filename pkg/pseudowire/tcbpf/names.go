package tcbpf

// Names and marks of what is ours.
const (
	// aliasPrefix is that of the alias on both ends of a pseudowire's veth pair;
	// the pseudowire's name follows.
	aliasPrefix = "pwd:pseudowire:"
	aliasLane   = "pwd:lane"

	maxDeviceName = 15
)

// altName is the name that a device gets beside its own where that was shortened.
func altName(prefix, name, device string) string {
	if prefix+name == device {
		return ""
	}
	return prefix + name
}
