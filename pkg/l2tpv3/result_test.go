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
