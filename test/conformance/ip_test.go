package conformance

import (
	"encoding/binary"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/pwd-project/pwd/internal/netlab"
)

// overIP are the rules' tests that are run over IP, too (RFC 3931, Section 4.1.1).
var overIP = map[string]func(*testing.T){
	"Rule3_4_1_1_2_ControlMessagesOverIP":                 TestRule3_4_1_1_2_ControlMessagesOverIP,
	"Rule11_5_2_UnknownOptionalAVPsAreIgnored":            TestRule11_5_2_UnknownOptionalAVPsAreIgnored,
	"Rule12_5_2_UnknownMandatoryAVPInSCCRQ":               TestRule12_5_2_UnknownMandatoryAVPInSCCRQ,
	"Rule12_5_2_UnknownMandatoryAVPInSCCRP":               TestRule12_5_2_UnknownMandatoryAVPInSCCRP,
	"Rule12_5_2_UnknownMandatoryAVPInSCCCN":               TestRule12_5_2_UnknownMandatoryAVPInSCCCN,
	"Rule12_5_2_UnknownMandatoryAVPInHELLO":               TestRule12_5_2_UnknownMandatoryAVPInHELLO,
	"Rule13_5_2_UnknownMandatoryAVPInICRQ":                TestRule13_5_2_UnknownMandatoryAVPInICRQ,
	"Rule13_5_2_UnknownMandatoryAVPInICCN":                TestRule13_5_2_UnknownMandatoryAVPInICCN,
	"Rule13_5_2_UnknownMandatoryAVPInICRP":                TestRule13_5_2_UnknownMandatoryAVPInICRP,
	"Rule13_5_2_UnknownMandatoryAVPInSLI":                 TestRule13_5_2_UnknownMandatoryAVPInSLI,
	"Rule14_5_2_MandatoryBitOfKnownAVPsIsOfNoConsequence": TestRule14_5_2_MandatoryBitOfKnownAVPsIsOfNoConsequence,
	"Rule15_5_4_1_UnknownMandatoryMessageType":            TestRule15_5_4_1_UnknownMandatoryMessageType,
	"Rule16_5_4_1_UnknownOptionalMessageType":             TestRule16_5_4_1_UnknownOptionalMessageType,
	"Rule35_5_4_4_PseudowireTypeThatWasNotAdvertised":     TestRule35_5_4_4_PseudowireTypeThatWasNotAdvertised,
	"Rule35_5_4_4_TypeThatTheClientDoesNotAdvertise":      TestRule35_5_4_4_TypeThatTheClientDoesNotAdvertise,
	"Rule35_5_4_4_SequencingWithoutSublayer":              TestRule35_5_4_4_SequencingWithoutSublayer,
	"Rule39_5_4_4_ReverseLookUp":                          TestRule39_5_4_4_ReverseLookUp,
	"Rule40_7_3_2_MessagesInTheWrongState":                TestRule40_7_3_2_MessagesInTheWrongState,
	"Rule24_3_3_2_StopCCNIsAcknowledgedForAWhile":         TestRule24_3_3_2_StopCCNIsAcknowledgedForAWhile,
	"Rule25_4_2_StopCCNIsRepeatedForAFullCycle":           TestRule25_4_2_StopCCNIsRepeatedForAFullCycle,
	"Rule25_4_2_StopCCNIsNotRepeatedOnceAcknowledged":     TestRule25_4_2_StopCCNIsNotRepeatedOnceAcknowledged,
	"Rule26_5_4_3_6_4_StopCCNBeforeAnAnswer":              TestRule26_5_4_3_6_4_StopCCNBeforeAnAnswer,
	"Rule17_4_2_RepeatedMessagesHaveOneEffect":            TestRule17_4_2_RepeatedMessagesHaveOneEffect,
	"Rule18_4_2_OldMessagesAreDuplicates":                 TestRule18_4_2_OldMessagesAreDuplicates,
	"Rule19_4_2_OrderedDelivery":                          TestRule19_4_2_OrderedDelivery,
	"Rule20_4_2_RetransmissionAndLoss":                    TestRule20_4_2_RetransmissionAndLoss,
	"Rule21_4_2_RepetitionsHaveTheNrOfNow":                TestRule21_4_2_RepetitionsHaveTheNrOfNow,
	"Rule22_4_2_ACKsTakeNoSequenceNumber":                 TestRule22_4_2_ACKsTakeNoSequenceNumber,
	"Rule31_6_15_ZLBAcknowledges":                         TestRule31_6_15_ZLBAcknowledges,
	"Rule23_4_2_5_4_3_ReceiveWindow":                      TestRule23_4_2_5_4_3_ReceiveWindow,
	"Rule36_4_5_SessionIDsAndCookies":                     TestRule36_4_5_SessionIDsAndCookies,
	"Rule37_4_6_5_4_4_Sequencing":                         TestRule37_4_6_5_4_4_Sequencing,
	"Rule38_5_4_5_CircuitOfTheClient":                     TestRule38_5_4_5_CircuitOfTheClient,
	"Rule38_4719_2_3_2_CircuitOfTheDaemon":                TestRule38_4719_2_3_2_CircuitOfTheDaemon,
	"Rule40_9601_6_1_1_OuterECN":                          TestRule40_9601_6_1_1_OuterECN,
	"Rule2_3_2_1_ReservedBitsAreIgnored":                  TestRule2_3_2_1_ReservedBitsAreIgnored,
	"Rule4_7_1_MalformedHeaderIsDiscarded":                TestRule4_7_1_MalformedHeaderIsDiscarded,
	"Rule8_5_4_3_ControlConnectionIDs":                    TestRule8_5_4_3_ControlConnectionIDs,
	"Rule10_6_1_6_2_MandatoryAVPs":                        TestRule10_6_1_6_2_MandatoryAVPs,
	"Rule27_4_4_SilenceGivesAHello":                       TestRule27_4_4_SilenceGivesAHello,
	"Rule27_4_4_DataPostponesAHello":                      TestRule27_4_4_DataPostponesAHello,
	"Rule27_4_4_UnansweredHelloEndsTheConnection":         TestRule27_4_4_UnansweredHelloEndsTheConnection,
	"Rule28_5_4_1_EveryMessageHasADigest":                 TestRule28_5_4_1_EveryMessageHasADigest,
	"Rule29_5_4_1_WrongDigestOrNone":                      TestRule29_5_4_1_WrongDigestOrNone,
	"Rule30_5_4_1_TwoDigests":                             TestRule30_5_4_1_TwoDigests,
	"Rule31_6_15_ZLBWithAuthentication":                   TestRule31_6_15_ZLBWithAuthentication,
	"Rule32_5_3_HiddenAVPs":                               TestRule32_5_3_HiddenAVPs,
	"Rule29_4_3_StrangerToTheSecret":                      TestRule29_4_3_StrangerToTheSecret,
	"Rule33_5_4_3_ControlConnectionTie":                   TestRule33_5_4_3_ControlConnectionTie,
	"Rule34_5_4_4_SessionTie":                             TestRule34_5_4_4_SessionTie,
}

// notOverIP are those that are not, and why.
var notOverIP = map[string]string{
	"Rule5_4_1_2_2_InitiatorsPort":                "there are no ports",
	"Rule6_4_1_2_2_RespondersPort":                "there are no ports",
	"Rule7_4_1_2_3_UDPChecksums":                  "there is no UDP",
	"Rule36_4_1_2_1_ReservedBitsOfDataAreIgnored": "data over IP begins with the session ID",
	"Rule40_4_7_3_FallbackSCCRQ":                  "L2TPv2 is over UDP only",
}

// Every rule holds over IP as it does over UDP.
func TestOverIP(t *testing.T) {
	t.Parallel()
	for name, rule := range overIP {
		t.Run(name, rule)
	}
}

// Over IPv6: each way of data, of authentication and of the connection's end.
func TestOverIPv6(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"Rule20_4_2_RetransmissionAndLoss", "Rule24_3_3_2_StopCCNIsAcknowledgedForAWhile",
		"Rule27_4_4_SilenceGivesAHello", "Rule28_5_4_1_EveryMessageHasADigest", "Rule36_4_5_SessionIDsAndCookies", "Rule37_4_6_5_4_4_Sequencing",
	} {
		rule := overIP[name]
		if rule == nil {
			t.Fatalf("there is no rule %s", name)
		}
		t.Run("IP/"+name, rule)
		t.Run("UDP/"+name, rule)
	}
	t.Run("UDP/Rule5_4_1_2_2_InitiatorsPort", TestRule5_4_1_2_2_InitiatorsPort)
	t.Run("UDP/Rule6_4_1_2_2_RespondersPort", TestRule6_4_1_2_2_RespondersPort)
}

// All forty rules have a test, and each test is run over IP or it is said why not.
func TestEveryRuleHasATest(t *testing.T) {
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	name := regexp.MustCompile(`^TestRule([0-9]+)_`)
	// Rules 1, 8 and 9 are in TestEveryMessage and judge, beside all others.
	tested := map[int]bool{1: true, 9: true}
	for _, file := range files {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || !name.MatchString(fn.Name.Name) {
				continue
			}
			n, _ := strconv.Atoi(name.FindStringSubmatch(fn.Name.Name)[1])
			tested[n] = true
			short := strings.TrimPrefix(fn.Name.Name, "Test")
			if (overIP[short] != nil) == (notOverIP[short] != "") {
				t.Errorf("%s: it is to be in overIP or in notOverIP, with a reason", fn.Name.Name)
			}
		}
	}
	for n := 1; n <= 40; n++ {
		if !tested[n] {
			t.Errorf("rule %d has no test", n)
		}
	}
}

// Every control message over IP has four zeros before its header, which its Length does not
// count, and data begins with the session ID.
func TestRule3_4_1_1_2_ControlMessagesOverIP(t *testing.T) {
	t.Parallel()
	d := start(t, options{overIP: true, pseudowires: []pseudowire{{name: "a", cookie: 8, circuit: "eth1"}}})
	capture, err := d.underlay.Capture(netlab.CaptureOptions{Keep: func(f *netlab.Frame) bool {
		return len(f.Data) > 14+20+4 && f.Data[12] == 8 && f.Data[14+9] == 115 && slices.Equal(f.Data[14+12:14+16], ipv4.dut.AsSlice())
	}})
	if err != nil {
		t.Fatal(err)
	}
	n := d.client.open("gold", d.socket)
	a := n.accept()
	h := d.host("eth1")
	h.receives(a, "to the host")
	a.receives(h, "from the host")
	n.alive()
	frames, err := capture.Stop()
	if err != nil {
		t.Fatal(err)
	}
	control, data := 0, 0
	for _, f := range frames {
		ip := f.Data[14:]
		payload := ip[20:binary.BigEndian.Uint16(ip[2:])]
		switch id := binary.BigEndian.Uint32(payload); id {
		case 0:
			control++
			if length := int(binary.BigEndian.Uint16(payload[6:])); payload[4] != 0xc8 || payload[5] != 3 || length != len(payload)-4 {
				t.Errorf("after the zeros it begins with %x, its Length is %d of %d octets: %x", payload[4:6], length, len(payload)-4, payload)
			}
		case a.local:
			data++
		default:
			t.Errorf("a packet of session %08x: %x", id, payload)
		}
	}
	if control < 5 || data == 0 {
		t.Errorf("%d control messages and %d of data, want more", control, data)
	}
}
