package l2tpv3

import (
	"strings"
	"testing"
)

func TestDescribe(t *testing.T) {
	for _, c := range []struct {
		t    MessageType
		r    ResultCode
		want string
	}{
		{StopCCN, ResultCode{Result: StopCCNShutdown}, "shutting down"},
		{StopCCN, ResultCode{Result: StopCCNGeneral, HasError: true, Message: "Peer reset"}, `general request to clear the control connection ("Peer reset")`},
		{StopCCN, ResultCode{Result: StopCCNVersion, HasError: true, Error: 3}, "protocol version not supported, the highest is 3"},
		{StopCCN, ResultCode{Result: StopCCNError, HasError: true, Error: 8, Message: "attribute 2000"}, `general error: unknown mandatory AVP ("attribute 2000")`},
		{StopCCN, ResultCode{Result: StopCCNError, HasError: true, Error: 77}, "general error: error code 77"},
		{StopCCN, ResultCode{Result: 99}, "result code 99"},
		{CDN, ResultCode{Result: CDNTieBreakerLost}, "tie breaker lost"},
		{CDN, ResultCode{Result: CDNPseudowireType, HasError: true}, "pseudowire type not supported"},
		{CDN, ResultCode{Result: CDNTDMParameters, HasError: true, Error: 3}, "TDM parameters refused: requested payload size too big or too small"},
		{CDN, ResultCode{Result: CDNError, HasError: true, Error: ErrorSessionID}, "general error: invalid Session ID"},
		// The same number is another thing in the other message.
		{StopCCN, ResultCode{Result: 3}, "control connection already exists"},
		{CDN, ResultCode{Result: 3}, "administrative reasons"},
		{Hello, ResultCode{Result: 3}, "result code 3"},
		// What a peer sends cannot break a line of a log.
		{CDN, ResultCode{Result: 3, HasError: true, Message: "a\nb\x1b"}, `administrative reasons ("a\nb\x1b")`},
	} {
		if got := c.r.Describe(c.t); got != c.want {
			t.Errorf("%v %+v: %q, want %q", c.t, c.r, got, c.want)
		}
	}
}

// All codes of the registries have words.
func TestCodesHaveWords(t *testing.T) {
	for r := uint16(0); r <= 8; r++ {
		if s := (ResultCode{Result: r}).Describe(StopCCN); strings.HasPrefix(s, "result code") {
			t.Errorf("StopCCN %d: %s", r, s)
		}
	}
	for r := uint16(0); r <= 31; r++ {
		if s := (ResultCode{Result: r}).Describe(CDN); strings.HasPrefix(s, "result code") != (r == 29) { // 29 is unassigned
			t.Errorf("CDN %d: %s", r, s)
		}
	}
	for e := ErrorCode(0); e <= 9; e++ {
		if s := e.String(); strings.HasPrefix(s, "error code") {
			t.Errorf("error %d: %s", e, s)
		}
	}
}

// TestExplained: a result gets words for the other end, which shows them (Section
// 5.4.2: the Error Message is preceded by an Error Code).
func TestExplained(t *testing.T) {
	for _, row := range []struct {
		result ResultCode
		kind   MessageType
		why    string
		want   ResultCode
		shown  string
	}{
		{ResultCode{Result: StopCCNShutdown}, StopCCN, "tunnel removed", ResultCode{StopCCNShutdown, true, 0, "tunnel removed"}, `shutting down ("tunnel removed")`},
		{ResultCode{Result: CDNMTU}, CDN, "", ResultCode{CDNMTU, true, 0, "mismatching interface MTU"}, "mismatching interface MTU"},
		{ResultCode{Result: CDNError, HasError: true, Error: ErrorValue}, CDN, "Data Sequencing", ResultCode{CDNError, true, ErrorValue, "Data Sequencing"}, `general error: value out of range ("Data Sequencing")`},
		{ResultCode{Result: StopCCNExists, HasError: true, Message: "tie breaker lost"}, StopCCN, "other", ResultCode{StopCCNExists, true, 0, "tie breaker lost"}, `control connection already exists ("tie breaker lost")`},
		{ResultCode{Result: 999}, CDN, "", ResultCode{999, true, 0, "result code 999"}, "result code 999"},
		{ResultCode{Result: CDNError}, CDN, strings.Repeat("a", longestMessage-1) + "é", ResultCode{CDNError, true, 0, strings.Repeat("a", longestMessage-1)}, ""},
	} {
		got := row.result.Explained(row.kind, row.why)
		if got != row.want {
			t.Errorf("%v, %q: %+v, not %+v", row.result, row.why, got, row.want)
		}
		if s := got.Describe(row.kind); row.shown != "" && s != row.shown {
			t.Errorf("%v, %q: shown as %s, not %s", row.result, row.why, s, row.shown)
		}
	}
}
