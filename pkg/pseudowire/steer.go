package pseudowire

import "github.com/pwd-project/pwd/pkg/steer"

// Steer says which of a pseudowire's sessions a frame leaves over, of those that send.
type Steer struct {
	// Tunnels are the Session.Tunnel of them, by preference: the last one takes what no
	// rule says anything of, and each stands in for the one before it, the first for the last.
	Tunnels []string
	Rules   []steer.Rule
}

// Classified is what would become of a frame that comes to a pseudowire's device.
type Classified struct {
	// Rule is the index of the rule that matches, -1 for none.
	Rule int
	// Tunnel and Session are what it would leave over: the name, and the local session ID.
	Tunnel  string
	Session uint32
	// DSCP and Priority are the outer packet's.
	DSCP     uint8
	Priority uint32
	// Dropped says by which reason it would be dropped instead, a Drop constant; empty for not.
	Dropped string
}

// Classifier is a Datapath that can say what would become of a frame.
type Classifier interface {
	// Classify looks at a frame as it comes to the device of a pseudowire. Nothing is sent or
	// counted.
	Classify(pseudowire string, frame Frame) (Classified, error)
}

// Frame is one that is asked about.
type Frame struct {
	// Octets are the frame's from its destination address on.
	Octets []byte
	// Popped says that a tag has come off it, whose priority bits were PCP.
	Popped bool
	PCP    uint8
}
