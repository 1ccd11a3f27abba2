package l2tpv3

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

// sample is a value for an AVP.
func sample(t testing.TB, n AVPType) AVP {
	t.Helper()
	for _, s := range avpSamples {
		if _, raw := s.avp.(RawAVP); !raw && s.avp.AVPType() == n {
			return s.avp
		}
	}
	t.Fatalf("no sample of %v", n)
	return nil
}

// fullMessage has every AVP that the rules have for its type.
func fullMessage(t testing.TB, info MessageInfo) *Message {
	t.Helper()
	m := NewMessage(info.Type)
	m.ControlConnectionID, m.Ns, m.Nr = 0x11111111, 2, 3
	for _, n := range info.Mandatory {
		m.AVPs = append(m.AVPs, sample(t, n))
	}
	for _, n := range info.Optional {
		m.AVPs = append(m.AVPs, sample(t, n))
	}
	return m
}

// Section 6: each mandatory AVP left out is missed, and nothing else is.
func TestMandatoryAVPs(t *testing.T) {
	for info := range KnownMessages() {
		t.Run(info.Name, func(t *testing.T) {
			whole := NewMessage(info.Type)
			for _, n := range info.Mandatory {
				whole.AVPs = append(whole.AVPs, sample(t, n))
			}
			if err := Validate(whole); err != nil {
				t.Errorf("with the mandatory AVPs: %v", err)
			}
			if err := Validate(fullMessage(t, info)); err != nil {
				t.Errorf("with all AVPs: %v", err)
			}
			for i, n := range info.Mandatory {
				m := NewMessage(info.Type)
				m.AVPs = append(m.AVPs, whole.AVPs[1:1+i]...)
				m.AVPs = append(m.AVPs, whole.AVPs[2+i:]...)
				err, ok := errors.AsType[*MissingAVPError](Validate(m))
				if !ok || *err != (MissingAVPError{info.Type, n}) {
					t.Errorf("without %v: %v", n, err)
				} else if text := err.Error(); !strings.Contains(text, info.Name) || !strings.Contains(text, n.String()) {
					t.Errorf("error text %q", text)
				}
				// There, but malformed or hidden: not there.
				m.AVPs = append(m.AVPs, RawAVP{Type: n})
				if _, ok := errors.AsType[*MissingAVPError](Validate(m)); !ok {
					t.Errorf("with an unreadable %v it is valid", n)
				}
			}
		})
	}
}

// The table of messages is the one of Section 6: the counts of what MUST be there.
func TestRules(t *testing.T) {
	for typ, want := range map[MessageType]int{
		SCCRQ: 4, SCCRP: 4, SCCCN: 0, StopCCN: 1, Hello: 0,
		OCRQ: 6, OCRP: 3, OCCN: 2, ICRQ: 6, ICRP: 3, ICCN: 2, CDN: 3, WEN: 3, SLI: 2, ACK: 0,
	} {
		info, ok := LookupMessage(typ)
		if !ok || len(info.Mandatory) != want {
			t.Errorf("%v: %d mandatory AVPs, want %d", typ, len(info.Mandatory), want)
		}
		if info.Type != typ || info.Title == "" || info.Reference == "" {
			t.Errorf("%v: %+v", typ, info)
		}
	}
	for info := range KnownMessages() {
		all := slices.Concat(info.Mandatory, info.Optional)
		slices.Sort(all)
		if len(slices.Compact(slices.Clone(all))) != len(all) {
			t.Errorf("%v has an AVP twice", info.Type)
		}
		for _, n := range all {
			if _, ok := LookupAVP(n); !ok {
				t.Errorf("%v has %v, which has no type", info.Type, n)
			}
		}
		// Section 5.2: what names a session is about a session.
		if got := slices.Contains(info.Mandatory, AVPLocalSessionID) || slices.Contains(info.Mandatory, AVPConnectSpeedUpdate); got != info.Type.IsSession() {
			t.Errorf("%v.IsSession is %v", info.Type, info.Type.IsSession())
		}
	}
	for _, unknown := range []MessageType{0, 5, 13, 30, 65535} {
		if _, ok := LookupMessage(unknown); ok {
			t.Errorf("%v is known", unknown)
		}
	}
	for _, unknown := range []AVPType{12, 67, 93, 104, 65535} {
		if _, ok := LookupAVP(unknown); ok {
			t.Errorf("%v is known", unknown)
		}
	}
}

// The lists after the names of the AVPs in Section 5.4 and in later RFCs.
func TestMessagesWith(t *testing.T) {
	everySession := []MessageType{OCRQ, OCRP, OCCN, ICRQ, ICRP, ICCN, CDN, WEN, SLI}
	calls := []MessageType{OCRQ, OCRP, OCCN, ICRQ, ICRP, ICCN}
	for n, want := range map[AVPType][]MessageType{
		AVPResultCode:                  {StopCCN, CDN},
		AVPTieBreaker:                  {SCCRQ, OCRQ, ICRQ},
		AVPHostName:                    {SCCRQ, SCCRP},
		AVPRouterID:                    {SCCRQ, SCCRP},
		AVPVendorName:                  {SCCRQ, SCCRP},
		AVPAssignedControlConnectionID: {SCCRQ, SCCRP, StopCCN},
		AVPReceiveWindowSize:           {SCCRQ, SCCRP},
		AVPPseudowireCapabilities:      {SCCRQ, SCCRP},
		AVPPreferredLanguage:           {SCCRQ, SCCRP},
		AVPNonce:                       {SCCRQ, SCCRP},
		AVPLocalSessionID:              everySession,
		AVPRemoteSessionID:             everySession,
		AVPAssignedCookie:              {OCRQ, OCRP, ICRQ, ICRP},
		AVPSerialNumber:                {OCRQ, ICRQ},
		AVPRemoteEndID:                 {OCRQ, ICRQ},
		AVPPseudowireType:              {OCRQ, ICRQ},
		AVPL2SpecificSublayer:          calls,
		AVPDataSequencing:              calls,
		AVPTxConnectSpeed:              calls,
		AVPRxConnectSpeed:              calls,
		AVPPhysicalChannelID:           {OCRP, ICRQ, ICRP},
		AVPCircuitStatus:               append(slices.Clone(calls), SLI),
		AVPCircuitErrors:               {WEN},
		AVPControlConnectionDS:         {SCCRQ, SCCRP},
		AVPSessionDS:                   {OCRQ, OCRP, ICRQ, ICRP},
		AVPFailoverCapability:          {SCCRQ, SCCRP},
		AVPTunnelRecovery:              {SCCRQ},
		AVPSuggestedControlSequence:    {SCCRP},
		AVPFailoverSessionState:        {FSQ, FSR},
		AVPFrameRelayHeaderLength:      {ICRQ, ICRP},
		AVPATMMaximumConcatenatedCells: {ICRQ, ICRP, SLI},
		AVPATMAlarmStatus:              {SLI},
		AVPAttachmentGroupID:           {ICRQ},
		AVPLocalEndID:                  {ICRQ},
		AVPInterfaceMTU:                {ICRQ, ICRP},
		AVPFCSRetention:                {ICRQ, ICRP, ICCN},
		AVPMaximumReceiveUnit:          append(slices.Clone(calls), SLI),
		AVPVCCVCapability:              {OCRQ, OCRP, ICRQ, ICRP},
		AVPConnectSpeedUpdate:          {CSUN, CSURQ},
		AVPSBFDTargetDiscriminator:     {OCRQ, OCRP, ICRQ, ICRP},
		AVPECNCapability:               {SCCRQ, SCCRP},
		AVPProtocolVersion:             nil,
	} {
		if got := slices.Collect(MessagesWith(n)); !slices.Equal(got, want) {
			t.Errorf("%v is in %v, want %v", n, got, want)
		}
	}
	if got := slices.Collect(MessagesWith(AVPMessageDigest)); len(got) != len(slices.Collect(KnownMessages())) {
		t.Errorf("Message Digest is in %v only", got)
	}
	if got := slices.Collect(MessagesWith(AVPRandomVector)); slices.Contains(got, ACK) || !slices.Contains(got, Hello) {
		t.Errorf("Random Vector is in %v", got)
	}
}

func TestValidate(t *testing.T) {
	if err := Validate(new(Message)); err != nil {
		t.Errorf("ZLB: %v", err)
	}
	if err := Validate(NewMessage(0x7fff)); err != nil {
		t.Errorf("type of the future: %v", err)
	}
	if err := Validate(&Message{AVPs: []AVP{RawAVP{Vendor: 9, Value: []byte{0, 1}}}}); err != nil {
		t.Errorf("another vendor's message: %v", err)
	}
	for _, first := range []AVP{HostName("a"), RawAVP{Type: AVPMessageType, Malformed: ErrLength}, RawAVP{Vendor: 9, Type: 1}} {
		err, ok := errors.AsType[*MissingAVPError](Validate(&Message{AVPs: []AVP{first}}))
		if !ok || err.AVP != AVPMessageType || err.Message != 0 {
			t.Errorf("%v first: %v", first, err)
		}
	}
	// Section 5.4.4: non-zero.
	refused := []AVP{ResultCode{Result: CDNNoForwarder}, LocalSessionID(0), RemoteSessionID(1)}
	if err := Validate(NewMessage(CDN, refused...)); err != nil {
		t.Errorf("CDN of a session that was refused: %v", err)
	}
	err2, ok := errors.AsType[*InvalidAVPError](Validate(NewMessage(SLI, LocalSessionID(0), RemoteSessionID(1))))
	if !ok || err2.AVP != AVPLocalSessionID || !errors.Is(err2, ErrValue) {
		t.Errorf("SLI with Local Session ID 0: %v", err2)
	}
}

// Section 5.2: what is not known and has the M bit ends the session or the connection.
func TestUnknownMandatory(t *testing.T) {
	for _, c := range []struct {
		name  string
		m     *Message
		index int    // 0: none
		text  string // the Error Message
	}{
		{"none", NewMessage(SCCRQ, HostName("a")), 0, ""},
		{"unknown, M=0", NewMessage(SCCRQ, RawAVP{Type: 2000}), 0, ""},
		{"unknown, M=1", NewMessage(SCCRQ, RawAVP{Type: 2000, Mandatory: true}), 1, "unknown mandatory AVP: attribute 2000"},
		{"the first of two", NewMessage(SCCRQ, HostName("a"), RawAVP{Vendor: 9, Type: 1, Mandatory: true}, RawAVP{Type: 2000, Mandatory: true}), 2,
			"unknown mandatory AVP: attribute 1 of vendor 9"},
		{"malformed, M=0", NewMessage(SCCRQ, RawAVP{Type: AVPRouterID, Malformed: ErrLength}), 0, ""},
		{"malformed, M=1", NewMessage(SCCRQ, RawAVP{Type: AVPRouterID, Mandatory: true, Malformed: &ParseError{20, "Router ID AVP", ErrLength}}), 1,
			"malformed mandatory AVP: Router ID: wrong length"},
		{"hidden, M=1", NewMessage(SCCRQ, RawAVP{Type: AVPAssignedCookie, Mandatory: true, Hidden: true}), 1, "unreadable mandatory AVP: Assigned Cookie is hidden"},
		{"unknown Message Type", NewMessage(0x7fff), 0, ""},
		{"RFC 2661 in Version 2", &Message{Version: 2, AVPs: []AVP{SCCRQ, RawAVP{Type: 12, Mandatory: true}, ProtocolVersion{1, 0}}}, 0, ""},
		{"RFC 2661 in Version 3", NewMessage(ICRQ, RawAVP{Type: 39, Mandatory: true}), 0, ""},
		{"RFC 2661 and 3931", NewMessage(ICRQ, RawAVP{Type: AVPHostName, Mandatory: true, Malformed: ErrLength}), 1, "malformed mandatory AVP: Host Name: wrong length"},
		{"RFC 3931 in Version 2", &Message{Version: 2, AVPs: []AVP{SCCRQ, RawAVP{Type: 40, Mandatory: true}}}, 1, "unknown mandatory AVP: attribute 40"},
	} {
		t.Run(c.name, func(t *testing.T) {
			u, ok := UnknownMandatory(c.m)
			if ok != (c.index != 0) {
				t.Fatalf("found %v", u)
			}
			if !ok {
				return
			}
			want := ResultCode{Result: 2, HasError: true, Error: 8, Message: c.text}
			if got := u.ResultCode(); got != want || u.Index != c.index {
				t.Errorf("AVP %d, %+v; want AVP %d, %+v", u.Index, got, c.index, want)
			}
		})
	}
}
