package control

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const statesIntroduction = `# State machines

What a control connection and a session do about each event in each state: the tables of
RFC 3931, Sections 7.2 to 7.4, as the daemon goes by them, complete. This page is written from
the code (` + "`go test ./pkg/l2tpv3/control -run TestTablesAreComplete -update`" + `).

*idle* is a connection that has not begun, or one that is over and acknowledges what is repeated.
Repetitions of messages are no events; they end in the reliable delivery. Outgoing calls
(Section 7.4) are refused: pseudowires do not use them.
`

// printTables writes the transition tables as Section 7 writes them.
func printTables() string {
	var b strings.Builder
	row := func(state, event, action, next fmt.Stringer) {
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", state, event, action, next)
	}
	const head = "\n| State | Event | Action | New state |\n|---|---|---|---|\n"
	b.WriteString(statesIntroduction)
	b.WriteString("\n## Control connections (RFC 3931, Section 7.2)\n" + head)
	for s := range connectionStates {
		for e := range connectionEvents {
			step := connectionTable[s][e]
			row(s, e, step.action, step.next)
		}
	}
	b.WriteString("\n## Sessions (RFC 3931, Sections 7.3 and 7.4)\n" + head)
	for s := range sessionStates {
		for e := range sessionEvents {
			step := sessionTable[s][e]
			row(s, e, step.action, step.next)
		}
	}
	return b.String()
}

// TestTablesAreComplete: every state has an answer to every event. The tables
// are a page of the documentation, which is fresh.
func TestTablesAreComplete(t *testing.T) {
	for s := range connectionStates {
		for e := range connectionEvents {
			if connectionTable[s][e].action == undefinedConnectionAction {
				t.Errorf("a connection in %v has no answer to %v", s, e)
			}
		}
	}
	for s := range sessionStates {
		for e := range sessionEvents {
			if sessionTable[s][e].action == undefinedSessionAction {
				t.Errorf("a session in %v has no answer to %v", s, e)
			}
		}
	}
	const file = "../../../docs/states.md"
	if *updateFlag {
		if err := os.WriteFile(file, []byte(printTables()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), printTables()); d != "" {
		t.Errorf("the tables differ from %s, -update rewrites it (-file +now)\n%s", file, d)
	}
}

// TestConnectionTableFollowsTheRFC has the rows of Section 7.2 as they stand
// there, in their order.
func TestConnectionTableFollowsTheRFC(t *testing.T) {
	const (
		idle    = ConnectionIdle
		reply   = ConnectionWaitReply
		connect = ConnectionWaitConnect
		up      = ConnectionEstablished
	)
	for _, row := range []struct {
		state  ConnectionState
		event  connectionEvent
		action connectionAction
		next   ConnectionState
	}{
		{idle, openConnection, sendSCCRQ, reply},
		{idle, requestAcceptable, sendSCCRP, connect},
		{idle, requestUnacceptable, refuse, idle},
		{idle, receiveSCCRP, refuse, idle},
		{idle, receiveSCCCN, refuse, idle},
		{reply, receiveSCCRP, sendSCCCN, up},
		{reply, receiveSCCRPUnacceptable, stop, idle},
		// "Send SCCRP, clean up losing connection": the SCCRP is idle's.
		{reply, tieLost, giveWay, idle},
		{reply, tieWon, refusePeersRequest, reply},
		{reply, receiveSCCCN, stop, idle},
		{connect, receiveSCCCN, openSessions, up},
		{connect, receiveSCCCNUnacceptable, stop, idle},
		{connect, receiveSCCRQ, stop, idle},
		{connect, receiveSCCRP, stop, idle},
		{up, openConnection, openSessions, up},
		{up, closeConnection, stop, idle},
		{up, receiveSCCRQ, stop, idle},
		{up, receiveSCCRP, stop, idle},
		{up, receiveSCCCN, stop, idle},
		{idle, receiveStopCCN, stopped, idle},
		{reply, receiveStopCCN, stopped, idle},
		{connect, receiveStopCCN, stopped, idle},
		{up, receiveStopCCN, stopped, idle},
	} {
		if got := connectionTable[row.state][row.event]; got != (connectionStep{row.action, row.next}) {
			t.Errorf("%v, %v: %v, %v; the RFC has %v, %v", row.state, row.event, got.action, got.next, row.action, row.next)
		}
	}
}

// TestSessionTableFollowsTheRFC has the rows of Sections 7.3.1 and 7.3.2 as they
// stand there, in their order.
func TestSessionTableFollowsTheRFC(t *testing.T) {
	const (
		idle    = SessionIdle
		control = SessionWaitControl
		reply   = SessionWaitReply
		connect = SessionWaitConnect
		up      = SessionEstablished
	)
	for _, row := range []struct {
		state  SessionState
		event  sessionEvent
		action sessionAction
		next   SessionState
	}{
		// 7.3.1
		{idle, callLocal, waitForControl, control},
		{idle, receiveICCN, ignoreEvent, idle},
		{idle, receiveCDN, ignoreEvent, idle},
		{control, closeSession, cleanUp, idle},
		{control, connectionOpen, sendICRQ, reply},
		{reply, receiveICRP, sendICCN, up},
		{reply, receiveICRPUnacceptable, disconnect, idle},
		{reply, icrqTieLost, switchRole, connect}, // "Process as ICRQ Recipient"
		{reply, icrqTieWon, refuseMessage, reply},
		{reply, receiveCDN, cleanUp, idle},
		{reply, receiveICCN, cleanUp, idle},
		{reply, closeSession, disconnect, idle},
		{up, receiveCDN, cleanUp, idle},
		{up, receiveICRQ, disconnect, idle},
		{up, receiveICRP, disconnect, idle},
		{up, receiveICCN, disconnect, idle},
		{up, closeSession, disconnect, idle},
		// 7.3.2
		{idle, receiveICRQ, sendICRP, connect},
		{idle, receiveICRQUnacceptable, refuseMessage, idle},
		{idle, receiveICRP, refuseMessage, idle}, // "Send CDN"; 7.3.1 has "Clean up" only
		{idle, receiveICCN, ignoreEvent, idle},
		{connect, receiveICCN, prepareData, up},
		{connect, receiveICCNUnacceptable, disconnect, idle},
		{connect, receiveICRQ, disconnect, idle},
		{connect, receiveICRP, disconnect, idle},
		{connect, receiveCDN, cleanUp, idle},
		{connect, closeSession, disconnect, idle},
		// 7.4.2, where an OCRQ is never acceptable
		{idle, receiveOCRQ, refuseMessage, idle},
		{idle, receiveOCRP, refuseMessage, idle},
		{idle, receiveOCCN, ignoreEvent, idle},
	} {
		if got := sessionTable[row.state][row.event]; got != (sessionStep{row.action, row.next}) {
			t.Errorf("%v, %v: %v, %v; the RFC has %v, %v", row.state, row.event, got.action, got.next, row.action, row.next)
		}
	}
}
