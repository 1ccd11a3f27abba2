package l2tpv3

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestMessageString(t *testing.T) {
	for _, c := range []struct {
		m    *Message
		want string
	}{
		{&Message{ControlConnectionID: 0x11, Ns: 1, Nr: 2}, "ZLB ccid=0x00000011 ns=1 nr=2"},
		{NewMessage(Hello), "HELLO ccid=0x00000000 ns=0 nr=0"},
		{NewMessage(0x7fff), "message type 32767 ccid=0x00000000 ns=0 nr=0"},
		{&Message{AVPs: []AVP{HostName("a")}}, `message without a Message Type ccid=0x00000000 ns=0 nr=0 Host Name: "a"`},
		{NewMessage(SCCRQ, HostName("gold.dc1"), RouterID(0xc0000201), AssignedControlConnectionID(0x2222), PseudowireCapabilities{EthernetVLAN, Ethernet, 0x99}, Nonce("secretish"), ReceiveWindowSize(16)),
			`SCCRQ ccid=0x00000000 ns=0 nr=0 Host Name: "gold.dc1"; Router ID: 192.0.2.1; Assigned Control Connection ID: 0x00002222; ` +
				`Pseudowire Capabilities List: [Ethernet VLAN Ethernet pseudowire type 0x0099]; Control Message Authentication Nonce: 9 octets; Receive Window Size: 16`},
		{NewMessage(ICRQ, LocalSessionID(1), RemoteSessionID(0), RemoteEndID("tenant-a"), RemoteEndID{0, 0, 0, 7}, AssignedCookie("12345678"), Ethernet, CircuitActive|CircuitStandby, SublayerDefault, SequencingNonIP),
			`ICRQ ccid=0x00000000 ns=0 nr=0 Local Session ID: 0x00000001; Remote Session ID: 0x00000000; Remote End ID: "tenant-a"; Remote End ID: 0x00000007; ` +
				`Assigned Cookie: 8 octets; Pseudowire Type: Ethernet; Circuit Status: active, standby; L2-Specific Sublayer: default; Data Sequencing: non-IP`},
		{NewMessage(CDN, ResultCode{Result: 24}, RawAVP{Vendor: 9, Type: 4, Mandatory: true, Value: []byte{1}}),
			"CDN ccid=0x00000000 ns=0 nr=0 Result Code: no such forwarder; attribute 4 of vendor 9: 1 octets, mandatory"},
	} {
		if got := c.m.String(); got != c.want {
			t.Errorf("%s, want\n%s", got, c.want)
		}
	}
}

// Cookies, nonces and keys stay out of logs.
func TestNothingSecretInStrings(t *testing.T) {
	cookie, nonce := AssignedCookie("COOKIE78"), Nonce("NONCENONCENONCE1")
	secret := NewSecret([]byte("SECRET"))
	m := NewMessage(SCCRQ, cookie, nonce, RandomVector("NONCEVEC"), Challenge("CHALLENGE"), TieBreaker{'T', 'I', 'E'})
	var out bytes.Buffer
	slog.New(slog.NewTextHandler(&out, nil)).Info("sent", "message", m, "secret", secret)
	fmt.Fprintf(&out, "%v %+v %#v %s", secret, secret, secret, m)
	for _, word := range []string{"COOKIE", "NONCE", "CHALLENGE", "TIE", "SECRET", fmt.Sprintf("%x", secret.authKey), fmt.Sprint(secret.authKey)} {
		if strings.Contains(out.String(), word) {
			t.Errorf("%q is in %s", word, out.String())
		}
	}
	if !strings.Contains(out.String(), "message.type=SCCRQ") {
		t.Errorf("no type in %s", out.String())
	}
}

// Each value of each enumeration has its own words, unknown ones their number.
func TestWords(t *testing.T) {
	seen := map[string]bool{}
	for _, v := range []fmt.Stringer{
		SCCRQ, SCCRP, SCCCN, StopCCN, Hello, OCRQ, OCRP, OCCN, ICRQ, ICRP, ICCN, CDN, WEN, SLI, ACK, FSQ, FSR, CSUN, CSURQ, MessageType(99),
		FrameRelayDLCI, Ethernet, EthernetVLAN, HDLC, PPP, PseudowireType(99),
		SublayerNone, SublayerDefault, SublayerATM, SublayerMPT, SublayerPSP, L2SpecificSublayer(99),
		SequencingNonIP, SequencingAll, DataSequencing(99),
		CircuitStatus(0), CircuitActive, CircuitNew, CircuitACRxFault, CircuitACTxFault, CircuitPSNRxFault, CircuitPSNTxFault, CircuitStandby, CircuitStatus(0x8000),
		HMACMD5, HMACSHA1, DigestAlgorithm(99),
		UDP, IP, Encapsulation(99),
		AVPHostName, AVPType(99), AVPType(999),
		ErrorNone, ErrorUnknownMandatoryAVP, ErrorCode(99),
	} {
		s := v.String()
		if s == "" || seen[s] && s != "none" {
			t.Errorf("%T %#v is %q, as another value is", v, v, s)
		}
		seen[s] = true
	}
	for _, s := range avpSamples {
		if text := describe(s.avp); !strings.HasPrefix(text, nameOf(s.avp)) {
			t.Errorf("%#v is %q", s.avp, text)
		}
	}
}
