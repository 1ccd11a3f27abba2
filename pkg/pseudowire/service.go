package pseudowire

import "github.com/pwd-project/pwd/pkg/vlan"

// Service is the native service processing (RFC 3985, Section 4.2.2) of a pseudowire:
// what happens to frames between its device and the attachment circuit. It is comparable.
type Service struct {
	// Filter says that not all frames are the pseudowire's, neither way: with Untagged
	// those without a tag or with one of VID 0, and those whose outer tag is in VLANs and,
	// unless Inner is 0, whose inner tag is that.
	Filter, Untagged bool
	VLANs            vlan.Set
	Inner            uint16
	// Protocol is the TPID of outer tags, 0 for 0x8100. That of inner ones is 0x8100.
	Protocol uint16
	// Push says that the tags come off on the way into the pseudowire and are put on on
	// the way out. Rewrite says that the first tag of a frame out of it becomes the tag of
	// VLANs, and that a frame without gets it. Either takes Filter and one VLAN.
	Push, Rewrite bool
	PCP           PCP
	// RefusedGroups are the link-local groups 01-80-C2-00-00-0x (IEEE 802.1Q, Table 8-1)
	// whose frames are not carried: bit x.
	RefusedGroups uint16
	Limits        Limits
}

// PCP says which priority bits the tags of frames out of a pseudowire have. The zero value
// leaves them as they are, and 0 in tags that are put on.
type PCP struct {
	// Mapped says that Map has the new bits by the old ones.
	Mapped bool
	Map    [8]uint8
	// DSCP says that they are the class selector of the IP header inside, 0 without one.
	DSCP bool
}

// Limits are of frames a second, each way for itself, and of octets; 0 for none.
type Limits struct {
	Broadcast, Multicast uint32
	// UnknownUnicast is of frames to addresses that have sent nothing the other way through
	// the pseudowire for five minutes.
	UnknownUnicast uint32
	// Police is of octets of frames out of the pseudowire, in bits a second.
	Police uint64
}
