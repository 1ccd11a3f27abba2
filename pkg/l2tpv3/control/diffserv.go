package control

import "github.com/pwd-project/pwd/pkg/l2tpv3"

const (
	maxDSCP = 63
	// controlDSCP is what the transport marks control messages with: CS6 (RFC 4594, Section 3.1).
	controlDSCP = 48
)

// phb is the PHB identification code of a DSCP (RFC 3140, Section 2: case 1, a
// single PHB defined by standards action has its recommended DSCP, left-justified).
func phb(dscp uint8) uint16 { return uint16(dscp) << 10 }

func sessionDS(dscp uint8) l2tpv3.SessionDS { return l2tpv3.SessionDS(phb(dscp)) }

// dscpOf is phb's inverse. Codes of another kind, of groups of PHBs and of local ones, have no
// DSCP here: 0, which is counted as no wish.
func dscpOf(v l2tpv3.SessionDS) uint8 {
	if v&0x03ff != 0 {
		return 0
	}
	return uint8(v >> 10)
}
