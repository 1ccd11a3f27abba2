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
	ACK     MessageType = 20
)

// PseudowireType is the kind of layer-2 service (IANA L2TPv3 Pseudowire Types).
type PseudowireType uint16

const (
	EthernetVLAN PseudowireType = 0x0004
	Ethernet     PseudowireType = 0x0005
)

// L2SpecificSublayer is the value of the L2-Specific Sublayer AVP (Section 5.4.4).
type L2SpecificSublayer uint16

const (
	SublayerNone    L2SpecificSublayer = 0
	SublayerDefault L2SpecificSublayer = 1
)

// DataSequencing is the value of the Data Sequencing AVP (Section 5.4.4).
type DataSequencing uint16

const (
	SequencingNone  DataSequencing = 0
	SequencingNonIP DataSequencing = 1
	SequencingAll   DataSequencing = 2
)

// CircuitStatus is the bit mask of the Circuit Status AVP (Section 5.4.5 and
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
)
