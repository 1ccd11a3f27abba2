package conformance

import (
	"fmt"
	"slices"
)

// required are the AVPs that have to be in each message (RFC 3931, Sections 6.1
// to 6.14).
var required = map[messageType][]uint16{
	sccrq:   {avpHostName, avpRouterID, avpAssignedCCID, avpCapabilities},
	sccrp:   {avpHostName, avpRouterID, avpAssignedCCID, avpCapabilities},
	scccn:   {},
	stopCCN: {avpResultCode},
	hello:   {},
	icrq:    {avpLocalSessionID, avpRemoteSessionID, avpSerialNumber, avpPseudowireType, avpRemoteEndID, avpCircuitStatus},
	icrp:    {avpLocalSessionID, avpRemoteSessionID, avpCircuitStatus},
	iccn:    {avpLocalSessionID, avpRemoteSessionID},
	cdn:     {avpResultCode, avpLocalSessionID, avpRemoteSessionID},
	wen:     {avpLocalSessionID, avpRemoteSessionID, avpCircuitErrors},
	sli:     {avpLocalSessionID, avpRemoteSessionID},
	ack:     {},
	zlb:     {},
}

// lengths are those of the values of AVPs that have only one.
var lengths = map[uint16]int{
	avpMessageType: 2, avpTieBreaker: 8, avpReceiveWindow: 2, avpSerialNumber: 4, avpPhysicalChannel: 4,
	avpRouterID: 4, avpAssignedCCID: 4, avpLocalSessionID: 4, avpRemoteSessionID: 4,
	avpPseudowireType: 2, avpSublayer: 2, avpSequencing: 2, avpCircuitStatus: 2, avpTxSpeed: 8, avpRxSpeed: 8,
}

// judge finds what no control message may be. It is used on every one that any
// test receives.
func judge(b []byte) (faults []error) {
	m, err := decode(b)
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if err != nil {
		fault("Section 3.2.1 or 5.1: %w", err)
	}
	if m.bits != controlWord {
		fault("Section 3.2.1: it begins with %04x, want %04x", m.bits, controlWord)
	}
	for i, a := range m.avps {
		if a.reserved != 0 {
			fault("Section 5.1: reserved bits of %v", a)
		}
		if a.kind == avpMessageType && (i > 0 || !a.mandatory || a.hidden || len(a.value) != 2) {
			fault("Section 5.4.1: %v at place %d: it is the first, with M set, H clear and Length 8", a, i)
		}
		if want, ok := lengths[a.kind]; ok && a.vendor == 0 && !a.hidden && len(a.value) != want {
			fault("Section 5.4: %v has a value of %d octets, want %d", a, len(a.value), want)
		}
	}
	kind := m.kind()
	wants, known := required[kind]
	if !known {
		fault("Section 5.4.1: the first AVP is no Message Type, or of a type that nobody asked for")
	}
	for _, want := range wants {
		if !m.has(want) {
			fault("Section 6: %v without AVP %d", kind, want)
		}
	}
	// Section 5.4.3: 0 until the peer's ID is known, and never assigned.
	switch {
	case kind == sccrq && m.ccid != 0:
		fault("Section 5.4.3: SCCRQ with Control Connection ID %08x", m.ccid)
	case kind == stopCCN && m.ccid == 0 && !m.has(avpAssignedCCID):
		fault("Section 5.4.3: StopCCN with neither ID")
	case kind != sccrq && kind != stopCCN && m.ccid == 0:
		fault("Section 5.4.3: %v with Control Connection ID 0", kind)
	}
	for _, id := range []uint16{avpAssignedCCID, avpLocalSessionID} {
		if m.has(id) && m.number(id) == 0 {
			fault("Sections 5.4.3 and 5.4.4: AVP %d with 0", id)
		}
	}
	// RFC 5641, Section 3: the A bit "MUST NOT be set until all fault status bits are cleared".
	if s := m.number(avpCircuitStatus); s&circuitActive != 0 && s&circuitFaults != 0 || s > 0x7f {
		fault("RFC 5641, Section 3: Circuit Status %04x", s)
	}
	if m.has(avpCookie) && !slices.Contains([]int{0, 4, 8}, len(m.value(avpCookie))) {
		fault("Section 5.4.4: a cookie of %d octets", len(m.value(avpCookie)))
	}
	return faults
}
