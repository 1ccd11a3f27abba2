package l2tpv3

// MessageType is the value of the Message Type AVP (RFC 3931, Section 3.1).
type MessageType uint16

const (
	SCCRQ   MessageType = 1
	SCCRP   MessageType = 2
	SCCCN   MessageType = 3
	StopCCN MessageType = 4
	Hello   MessageType = 6
	OCRQ    MessageType = 7
	OCRP    MessageType = 8
	OCCN    MessageType = 9
	ICRQ    MessageType = 10
	ICRP    MessageType = 11
	ICCN    MessageType = 12
	CDN     MessageType = 14
	WEN     MessageType = 15
	SLI     MessageType = 16
	MDMST   MessageType = 17 // RFC 3573
	SRRQ    MessageType = 18 // RFC 3817
	SRRP    MessageType = 19 // RFC 3817
	ACK     MessageType = 20
	FSQ     MessageType = 21 // RFC 4951
	FSR     MessageType = 22 // RFC 4951
	MSRQ    MessageType = 23 // RFC 4045
	MSRP    MessageType = 24 // RFC 4045
	MSE     MessageType = 25 // RFC 4045
	MSI     MessageType = 26 // RFC 4045
	MSEN    MessageType = 27 // RFC 4045
	CSUN    MessageType = 28 // RFC 5515
	CSURQ   MessageType = 29 // RFC 5515
)

// mandatory is the M bit that the type's RFC gives its Message Type AVP.
func (t MessageType) mandatory() bool {
	switch t {
	case FSQ, FSR: // RFC 4951, Sections 4.1 and 4.2: MUST be 0
		return false
	case CSUN, CSURQ: // RFC 5515: SHOULD be 0
		return false
	}
	return true // Section 5.4.1
}

// IsSession reports whether messages of the type are about one session, so that
// what is wrong with them is answered by a CDN and not by a StopCCN (Section 5.2).
func (t MessageType) IsSession() bool {
	switch t {
	case OCRQ, OCRP, OCCN, ICRQ, ICRP, ICCN, CDN, WEN, SLI, CSUN, CSURQ:
		return true
	}
	return false
}

// PseudowireType is the kind of layer-2 service (IANA L2TPv3 Pseudowire Types).
// As an AVP it is the Pseudowire Type (68).
type PseudowireType uint16

const (
	FrameRelayDLCI      PseudowireType = 0x0001 // RFC 4591
	ATMAAL5SDU          PseudowireType = 0x0002 // RFC 4454
	ATMCellPort         PseudowireType = 0x0003 // RFC 4454
	EthernetVLAN        PseudowireType = 0x0004 // RFC 4719
	Ethernet            PseudowireType = 0x0005 // RFC 4719
	HDLC                PseudowireType = 0x0006 // RFC 4349
	PPP                 PseudowireType = 0x0007 // not registered
	ATMCellVCC          PseudowireType = 0x0009 // RFC 4454
	ATMCellVPC          PseudowireType = 0x000a // RFC 4454
	MPTPseudowire       PseudowireType = 0x000c // DOCSIS
	PSPPseudowire       PseudowireType = 0x000d // DOCSIS
	StructureAgnosticE1 PseudowireType = 0x0011 // RFC 5611
	StructureAgnosticT1 PseudowireType = 0x0012 // RFC 5611
	StructureAgnosticE3 PseudowireType = 0x0013 // RFC 5611
	StructureAgnosticT3 PseudowireType = 0x0014 // RFC 5611
	CESoPSNBasic        PseudowireType = 0x0015 // RFC 5611
	CESoPSNWithCAS      PseudowireType = 0x0017 // RFC 5611
)

// L2SpecificSublayer is the value of the L2-Specific Sublayer AVP (69, Section
// 5.4.4): what its sender wants before the frames sent to it.
type L2SpecificSublayer uint16

const (
	SublayerNone    L2SpecificSublayer = 0
	SublayerDefault L2SpecificSublayer = 1
	SublayerATM     L2SpecificSublayer = 2 // RFC 4454
	SublayerMPT     L2SpecificSublayer = 3 // DOCSIS
	SublayerPSP     L2SpecificSublayer = 4 // DOCSIS
)

// DataSequencing is the value of the Data Sequencing AVP (70, Section 5.4.4).
type DataSequencing uint16

const (
	SequencingNone  DataSequencing = 0
	SequencingNonIP DataSequencing = 1
	SequencingAll   DataSequencing = 2
)

// CircuitStatus is the bit mask of the Circuit Status AVP (71, Section 5.4.5 and
// RFC 5641, Section 2).
type CircuitStatus uint16

const (
	CircuitActive     CircuitStatus = 0x0001
	CircuitNew        CircuitStatus = 0x0002
	CircuitACRxFault  CircuitStatus = 0x0004
	CircuitACTxFault  CircuitStatus = 0x0008
	CircuitPSNRxFault CircuitStatus = 0x0010
	CircuitPSNTxFault CircuitStatus = 0x0020
	CircuitStandby    CircuitStatus = 0x0040
	// CircuitFaults has every fault bit. With one of them CircuitActive is clear
	// (RFC 5641, Section 2).
	CircuitFaults = CircuitACRxFault | CircuitACTxFault | CircuitPSNRxFault | CircuitPSNTxFault
)
