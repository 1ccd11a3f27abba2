package l2tpv3

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
)

// avpSamples has every AVP as the figures of the RFCs draw it: the M bit that the
// RFC recommends, Length, Vendor ID, Attribute Type, value.
var avpSamples = []struct {
	avp  AVP
	wire string
}{
	// RFC 3931, Section 5.4.1
	{SCCRQ, "8008 0000 0000 0001"},
	{FSQ, "0008 0000 0000 0015"}, // RFC 4951, Section 4.1: M MUST be 0
	{MessageDigest{HMACMD5, octets("0102030405060708090a0b0c0d0e0f10")}, "8017 0000 003b 00 0102030405060708090a0b0c0d0e0f10"},
	{MessageDigest{HMACSHA1, octets("0102030405060708090a0b0c0d0e0f1011121314")}, "801b 0000 003b 01 0102030405060708090a0b0c0d0e0f1011121314"},
	{MessageDigest{2, octets("ff")}, "8008 0000 003b 02 ff"}, // a digest type of the future
	{Nonce(octets("a1a2a3a4")), "800a 0000 0049 a1a2 a3a4"},
	{RandomVector(octets("b1b2b3b4")), "800a 0000 0024 b1b2 b3b4"},
	// Section 5.4.2
	{ResultCode{Result: 6}, "8008 0000 0001 0006"},
	{ResultCode{Result: 2, HasError: true, Error: 8}, "800a 0000 0001 0002 0008"},
	{ResultCode{Result: 1, HasError: true}, "800a 0000 0001 0001 0000"},
	{ResultCode{Result: 2, HasError: true, Error: 6, Message: "vélo"}, "800f 0000 0001 0002 0006 76c3 a96c 6f"},
	// Section 5.4.3
	{TieBreaker(octets("0102030405060708")), "800e 0000 0005 0102 0304 0506 0708"},
	{HostName("gold.dc1"), "800e 0000 0007 676f 6c64 2e64 6331"},
	{RouterID(0xc0000201), "800a 0000 003c c000 0201"},
	{VendorName("pwd"), "0009 0000 0008 7077 64"},
	{VendorName(""), "0006 0000 0008"},
	{AssignedControlConnectionID(0x22222222), "800a 0000 003d 2222 2222"},
	{ReceiveWindowSize(16), "8008 0000 000a 0010"},
	{PseudowireCapabilities{EthernetVLAN, Ethernet}, "800a 0000 003e 0004 0005"},
	{PreferredLanguage("de"), "0008 0000 0048 6465"},
	// Section 5.4.4
	{LocalSessionID(0x01020304), "800a 0000 003f 0102 0304"},
	{RemoteSessionID(0), "800a 0000 0040 0000 0000"},
	{AssignedCookie{}, "8006 0000 0041"},
	{AssignedCookie(octets("01020304")), "800a 0000 0041 0102 0304"},
	{AssignedCookie(octets("0102030405060708")), "800e 0000 0041 0102 0304 0506 0708"},
	{SerialNumber(7), "000a 0000 000f 0000 0007"},
	{RemoteEndID("tenant-a"), "800e 0000 0042 7465 6e61 6e74 2d61"},
	{RemoteEndID(octets("00000007")), "800a 0000 0042 0000 0007"},
	{Ethernet, "8008 0000 0044 0005"},
	{SublayerDefault, "8008 0000 0045 0001"},
	{SequencingAll, "8008 0000 0046 0002"},
	{TxConnectSpeed(10_000_000_000), "000e 0000 004a 0000 0002 540b e400"},
	{RxConnectSpeed(1_000_000_000), "000e 0000 004b 0000 0000 3b9a ca00"},
	{PhysicalChannelID(0x00010002), "000a 0000 0019 0001 0002"},
	// Section 5.4.5: 24 octets as drawn, 32 as written
	{CircuitActive | CircuitNew, "8008 0000 0047 0003"},
	{CircuitStandby | CircuitPSNRxFault, "8008 0000 0047 0050"},
	{CircuitErrors{Short: true, HardwareOverruns: 1, BufferOverruns: 2, Timeouts: 3, Alignment: 4},
		"0018 0000 0022 0000 00000001 00000002 00000003 00000004"},
	{CircuitErrors{CRC: 5, Framing: 6, HardwareOverruns: 1, BufferOverruns: 2, Timeouts: 3, Alignment: 4},
		"0020 0000 0022 0000 00000005 00000006 00000001 00000002 00000003 00000004"},
	{CircuitErrors{Reserved: 0xffff}, "0020 0000 0022 ffff 00000000 00000000 00000000 00000000 00000000 00000000"},
	// Section 5.1, Figure 5.2
	{ExtendedVendorID{Vendor: 0x00012345, Type: 9, Value: octets("aa")}, "000d 0000 003a 0001 2345 0009 aa"},
	// RFC 3308
	{ControlConnectionDS(0xb800), "0008 0000 002f b800"},
	{SessionDS(0x2800), "0008 0000 0030 2800"},
	// RFC 4951
	{FailoverCapability{Flags: FailoverControl | FailoverData, RecoveryTime: 5000}, "000c 0000 004c 0003 0000 1388"},
	{TunnelRecovery{ControlConnectionID: 1, RemoteControlConnectionID: 2}, "8010 0000 004d 0000 0000 0001 0000 0002"},
	{SuggestedControlSequence{Ns: 3, Nr: 4}, "000c 0000 004e 0000 0003 0004"},
	{FailoverSessionState{SessionID: 5, RemoteSessionID: 6}, "8010 0000 004f 0000 0000 0005 0000 0006"},
	// RFC 4591, 4454, 4667, 4720, 4623
	{FrameRelayHeaderLength(4), "0008 0000 0055 0004"},
	{ATMMaximumConcatenatedCells(28), "0008 0000 0056 001c"},
	{OAMEmulationRequired{}, "0006 0000 0057"},
	{ATMAlarmStatus{Reason: 1, Alarm: 2}, "000a 0000 0058 0001 0002"},
	{AttachmentGroupID("vpn1"), "000a 0000 0059 7670 6e31"},
	{LocalEndID(octets("00000009")), "000a 0000 005a 0000 0009"},
	{InterfaceMTU(1500), "0008 0000 005b 05dc"},
	{FCSRetention(4), "0008 0000 005c 0004"},
	{MaximumReceiveUnit(1400), "0008 0000 005e 0578"},
	{MaximumReassembledReceiveUnit(9018), "0008 0000 005f 233a"},
	// RFC 5085, 5515, 5611, 6073, 7886, 9601
	{VCCVCapability{ControlChannels: 1, ConnectivityVerification: 0x10}, "0008 0000 0060 0110"},
	{ConnectSpeedUpdate{RemoteSessionID: 0x01020304, Tx: 1_000_000, Rx: 64_000},
		"001a 0000 0061 01020304 00000000000f4240 000000000000fa00"},
	{ConnectSpeedUpdateEnable{}, "0006 0000 0062"},
	{TDMPseudowire(octets("0000 0020 0100")), "000c 0000 0063 0000 0020 0100"},
	{RTP(octets("8000 0000 03e8 dead beef")), "0010 0000 0064 8000 0000 03e8 dead beef"},
	{PseudowireSwitchingPoint(octets("0104 00000001")), "000c 0000 0065 0104 0000 0001"},
	{SBFDTargetDiscriminator{1, 0x7fffffff}, "000e 0000 0066 0000 0001 7fff ffff"},
	{ECNCapability{}, "0006 0000 0067"},
	// RFC 2661
	{ProtocolVersion{1, 0}, "8008 0000 0002 0100"},
	{FramingCapabilities(3), "800a 0000 0003 0000 0003"},
	{BearerCapabilities(0), "800a 0000 0004 0000 0000"},
	{FirmwareRevision(0x0611), "0008 0000 0006 0611"},
	{AssignedTunnelID(0x1234), "8008 0000 0009 1234"},
	{Challenge(octets("0102")), "8008 0000 000b 0102"},
	{ChallengeResponse(octets("0102030405060708090a0b0c0d0e0f10")), "8016 0000 000d 0102030405060708090a0b0c0d0e0f10"},
	{SequencingRequired{}, "8006 0000 0027"},
	// not known: another vendor's, an attribute of the future, a registered number
	// that has no type here
	{RawAVP{Vendor: 9, Type: 1, Mandatory: true, Value: octets("11111111")}, "800a 0009 0001 1111 1111"},
	{RawAVP{Vendor: 9, Type: 61, Value: []byte{}}, "0006 0009 003d"},
	{RawAVP{Type: 2000, Reserved: 0xf, Value: octets("00")}, "3c07 0000 07d0 00"},
	{RawAVP{Type: 67, Value: []byte{}}, "0006 0000 0043"},
	// hidden
	{RawAVP{Type: 65, Mandatory: true, Hidden: true, Value: octets("69eaafe275574f0180f9")}, "c010 0000 0041 69ea afe2 7557 4f01 80f9"},
}

// Each sample is written as drawn, and read back as the same value.
func TestAVPs(t *testing.T) {
	for _, s := range avpSamples {
		t.Run(describe(s.avp), func(t *testing.T) {
			want := message(s.wire)
			m := &Message{Version: 3, ControlConnectionID: 0x11111111, Ns: 2, Nr: 3, AVPs: []AVP{s.avp}}
			got, err := m.Append(nil)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Fatalf("wrote\n%x, want\n%x", got, want)
			}
			back, err := Parse(want)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(back, m) {
				t.Fatalf("read %#v, want %#v", back, m)
			}
		})
	}
}

// No entry of the registry is without a sample, and each sample has the M bit of
// its entry.
func TestEveryAVPHasASample(t *testing.T) {
	seen := map[AVPType]bool{}
	for _, s := range avpSamples {
		if _, raw := s.avp.(RawAVP); !raw {
			seen[s.avp.AVPType()] = true
		}
	}
	n := 0
	for info := range KnownAVPs() {
		n++
		if !seen[info.Type] {
			t.Errorf("no sample of %v", info.Type)
		}
		if info.Reference == "" || info.decode == nil {
			t.Errorf("%v lacks a reference or a decoder", info.Type)
		}
	}
	if n != len(seen) {
		t.Errorf("%d entries, %d types with samples", n, len(seen))
	}
}

// Malformed values of known types: kept as they are, with the reason, so that
// their M bit decides (Section 7.1).
func TestMalformedAVPs(t *testing.T) {
	for _, c := range []struct {
		name string
		wire string
		want error
	}{
		{"Message Type of one octet", "8007 0000 0000 01", ErrLength},
		{"Message Type of three octets", "8009 0000 0000 0001 00", ErrLength},
		{"Message Type hidden", "c00a 0000 0000 0001 0001", ErrHidden},
		{"Result Code without result", "8006 0000 0001", ErrLength},
		{"Result Code with half an error", "8009 0000 0001 0002 00", ErrLength},
		{"Tie Breaker of four octets", "800a 0000 0005 0000 0001", ErrLength},
		{"Host Name without octets", "8006 0000 0007", ErrLength},
		{"Receive Window Size of zero", "8008 0000 000a 0000", ErrValue},
		{"Circuit Errors of 28 octets", "001c 0000 0022 0000 00000001 00000002 00000003 00000004 00000005", ErrLength},
		{"Random Vector hidden", "c008 0000 0024 0001", ErrHidden},
		{"Extended Vendor ID without type", "000a 0000 003a 0000 0009", ErrLength},
		{"Message Digest without digest", "8007 0000 003b 00", ErrLength},
		{"Message Digest, MD5 of 20 octets", "801b 0000 003b 00 0102030405060708090a0b0c0d0e0f1011121314", ErrLength},
		{"Message Digest, SHA-1 of 16 octets", "8017 0000 003b 01 0102030405060708090a0b0c0d0e0f10", ErrLength},
		{"Router ID of 16 octets", "8016 0000 003c 20010db8000000000000000000000001", ErrLength},
		{"Assigned Control Connection ID of zero", "800a 0000 003d 0000 0000", ErrValue},
		{"Assigned Control Connection ID of version 2", "8008 0000 003d 0001", ErrLength},
		{"Pseudowire Capabilities without any", "8006 0000 003e", ErrLength},
		{"Pseudowire Capabilities, one and a half", "8009 0000 003e 0005 00", ErrLength},
		{"Assigned Cookie of six octets", "800c 0000 0041 0102 0304 0506", ErrLength},
		{"Assigned Cookie of twelve octets", "8012 0000 0041 0102 0304 0506 0708 090a 0b0c", ErrLength},
		{"Nonce without octets", "8006 0000 0049", ErrLength},
		// The example of Section 7.1: 4 octets instead of 8.
		{"Rx Connect Speed of four octets", "000a 0000 004b 3b9a ca00", ErrLength},
		{"Circuit Status of four octets", "800a 0000 0047 0000 0001", ErrLength},
		{"Frame Relay Header Length of three", "0008 0000 0055 0003", ErrValue},
		{"OAM Emulation Required with a value", "0007 0000 0057 01", ErrLength},
		{"S-BFD without discriminators", "0006 0000 0066", ErrLength},
		{"ECN Capability with a value", "0008 0000 0067 0001", ErrLength},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := message("8008 0000 0000 0006", c.wire)
			m, err := Parse(b)
			if err != nil {
				t.Fatal(err)
			}
			raw, ok := m.AVPs[1].(RawAVP)
			if !ok {
				t.Fatalf("read as %#v", m.AVPs[1])
			}
			if !errors.Is(raw.Malformed, c.want) {
				t.Errorf("malformed because %v, want %v", raw.Malformed, c.want)
			}
			if p, ok := errors.AsType[*ParseError](raw.Malformed); !ok || p.Offset != 20 {
				t.Errorf("%#v does not say that it is at octet 20", raw.Malformed)
			}
			if !strings.Contains(m.String(), "malformed") {
				t.Errorf("%q does not say malformed", m)
			}
			if u, ok := UnknownMandatory(m); ok != raw.Mandatory || ok && u.Index != 1 {
				t.Errorf("mandatory %v, but UnknownMandatory says %v, %v", raw.Mandatory, u, ok)
			}
			if again, err := m.Append(nil); err != nil || !bytes.Equal(again, b) {
				t.Errorf("wrote %x, %v", again, err)
			}
		})
	}
}

// What a peer may do that we do not: the value is read all the same.
func TestTolerated(t *testing.T) {
	for _, c := range []struct {
		name string
		wire string
		want AVP
	}{
		{"M bit inverted", "000a 0000 003f 0000 0001", LocalSessionID(1)},
		{"M bit set where it is not recommended", "800a 0000 000f 0000 0001", SerialNumber(1)},
		{"all reserved bits", "bc08 0000 0047 0001", CircuitActive},
		{"Local Session ID of zero, for a CDN", "800a 0000 003f 0000 0000", LocalSessionID(0)},
		{"Circuit Status with bits of the future", "8008 0000 0047 ff01", CircuitStatus(0xff01)},
		{"Pseudowire Type of the future", "8008 0000 0044 7fff", PseudowireType(0x7fff)},
		{"sequencing level of the future", "8008 0000 0046 0003", DataSequencing(3)},
		{"Failover Capability without any", "000c 0000 004c 0000 0000 0000", FailoverCapability{}},
		{"Host Name that is not US-ASCII", "8008 0000 0007 c3a9", HostName("é")},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := message(c.wire)
			m, err := Parse(b)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(m.AVPs[0], c.want) {
				t.Errorf("read %#v, want %#v", m.AVPs[0], c.want)
			}
			if again, err := m.Append(nil); err != nil || !bytes.Equal(again, b) {
				t.Errorf("wrote %x, %v; want %x", again, err, b)
			}
		})
	}
}
