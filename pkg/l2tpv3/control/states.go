package control

import "strconv"

func name(names []string, i uint8) string {
	if int(i) < len(names) {
		return names[i]
	}
	return strconv.Itoa(int(i))
}

// String is the state's name in Section 7.2.
func (s ConnectionState) String() string {
	return name([]string{"idle", "wait-ctl-reply", "wait-ctl-conn", "established"}, uint8(s))
}

// String is the state's name in Sections 7.3 and 7.4.
func (s SessionState) String() string {
	return name([]string{"idle", "wait-control-conn", "wait-reply", "wait-connect", "established"}, uint8(s))
}

const (
	connectionStates = ConnectionEstablished + 1
	sessionStates    = SessionEstablished + 1
)

// connectionEvent is what happens to a control connection. Messages are new
// ones: repetitions end in the reliable delivery.
type connectionEvent uint8

const (
	openConnection    connectionEvent = iota
	requestAcceptable                 // SCCRQ that starts this connection
	requestUnacceptable
	tieLost // SCCRQ of the peer's own attempt at the same connection
	tieWon
	tieEqual
	receiveSCCRQ // with this connection's ID
	receiveSCCRP
	receiveSCCRPUnacceptable
	receiveSCCCN
	receiveSCCCNUnacceptable
	receiveStopCCN
	receiveHello
	receiveSessionMessage
	receiveInvalid // unknown mandatory AVP or message type, or malformed
	closeConnection
	halfOpenTooLong
	peerSilent // reliable delivery has given up
	connectionEvents
)

func (e connectionEvent) String() string {
	return name([]string{
		"local open request", "SCCRQ, acceptable", "SCCRQ, not acceptable", "SCCRQ, lose tie breaker",
		"SCCRQ, win tie breaker", "SCCRQ, equal tie breakers", "SCCRQ on the connection", "SCCRP, acceptable",
		"SCCRP, not acceptable", "SCCCN, acceptable", "SCCCN, not acceptable", "StopCCN", "HELLO",
		"session message", "invalid message", "administrative close", "half open too long", "peer silent",
	}, uint8(e))
}

// connectionAction is what a connection does about an event.
type connectionAction uint8

const (
	undefinedConnectionAction connectionAction = iota
	doNothing
	sendSCCRQ
	sendSCCRP
	sendSCCCN
	openSessions
	passToSession
	refusePeersRequest // StopCCN for the other connection, which the caller sends
	stop               // send StopCCN, clean up
	refuse             // the same of a connection that has not begun, or is over
	giveWay            // clean up, silently
	stopped            // by the peer: clean up, acknowledge repetitions
	lose               // clean up, nothing more can be said
)

func (a connectionAction) String() string {
	return name([]string{
		"undefined", "none", "send SCCRQ", "send SCCRP", "send SCCCN, control-conn-open to sessions",
		"control-conn-open to sessions", "to the session", "send StopCCN for losing connection",
		"send StopCCN, clean up", "send StopCCN, clean up", "clean up losing connection", "clean up", "clean up",
	}, uint8(a))
}

type connectionStep struct {
	action connectionAction
	next   ConnectionState
}

// connectionTable is Section 7.2. Where it goes beyond the section's rows:
//
//   - Messages that are not in it, in a state in which they make no sense, are
//     invalid (Section 7.1) and clear the connection.
//   - A tie is between two connections, ours and the peer's. The rows here are
//     those of ours; that of the peer begins in idle with an acceptable SCCRQ, or
//     not acceptable if the tie is won.
//   - idle is a connection that has not begun, or one that is closing or lingers.
var connectionTable = [connectionStates][connectionEvents]connectionStep{
	ConnectionIdle: {
		openConnection:           {sendSCCRQ, ConnectionWaitReply},
		requestAcceptable:        {sendSCCRP, ConnectionWaitConnect},
		requestUnacceptable:      {refuse, ConnectionIdle},
		tieLost:                  {doNothing, ConnectionIdle},
		tieWon:                   {doNothing, ConnectionIdle},
		tieEqual:                 {doNothing, ConnectionIdle},
		receiveSCCRQ:             {refuse, ConnectionIdle},
		receiveSCCRP:             {refuse, ConnectionIdle},
		receiveSCCRPUnacceptable: {refuse, ConnectionIdle},
		receiveSCCCN:             {refuse, ConnectionIdle},
		receiveSCCCNUnacceptable: {refuse, ConnectionIdle},
		receiveStopCCN:           {stopped, ConnectionIdle},
		receiveHello:             {doNothing, ConnectionIdle},
		receiveSessionMessage:    {doNothing, ConnectionIdle},
		receiveInvalid:           {doNothing, ConnectionIdle},
		closeConnection:          {doNothing, ConnectionIdle},
		halfOpenTooLong:          {doNothing, ConnectionIdle},
		peerSilent:               {lose, ConnectionIdle},
	},
	ConnectionWaitReply: {
		openConnection:           {doNothing, ConnectionWaitReply},
		requestAcceptable:        {stop, ConnectionIdle},
		requestUnacceptable:      {stop, ConnectionIdle},
		tieLost:                  {giveWay, ConnectionIdle},
		tieWon:                   {refusePeersRequest, ConnectionWaitReply},
		tieEqual:                 {giveWay, ConnectionIdle},
		receiveSCCRQ:             {stop, ConnectionIdle},
		receiveSCCRP:             {sendSCCCN, ConnectionEstablished},
		receiveSCCRPUnacceptable: {stop, ConnectionIdle},
		receiveSCCCN:             {stop, ConnectionIdle},
		receiveSCCCNUnacceptable: {stop, ConnectionIdle},
		receiveStopCCN:           {stopped, ConnectionIdle},
		receiveHello:             {doNothing, ConnectionWaitReply},
		receiveSessionMessage:    {stop, ConnectionIdle},
		receiveInvalid:           {stop, ConnectionIdle},
		closeConnection:          {stop, ConnectionIdle},
		halfOpenTooLong:          {stop, ConnectionIdle},
		peerSilent:               {lose, ConnectionIdle},
	},
	ConnectionWaitConnect: {
		openConnection:           {doNothing, ConnectionWaitConnect},
		requestAcceptable:        {stop, ConnectionIdle},
		requestUnacceptable:      {stop, ConnectionIdle},
		tieLost:                  {doNothing, ConnectionWaitConnect},
		tieWon:                   {doNothing, ConnectionWaitConnect},
		tieEqual:                 {doNothing, ConnectionWaitConnect},
		receiveSCCRQ:             {stop, ConnectionIdle},
		receiveSCCRP:             {stop, ConnectionIdle},
		receiveSCCRPUnacceptable: {stop, ConnectionIdle},
		receiveSCCCN:             {openSessions, ConnectionEstablished},
		receiveSCCCNUnacceptable: {stop, ConnectionIdle},
		receiveStopCCN:           {stopped, ConnectionIdle},
		receiveHello:             {doNothing, ConnectionWaitConnect},
		receiveSessionMessage:    {stop, ConnectionIdle},
		receiveInvalid:           {stop, ConnectionIdle},
		closeConnection:          {stop, ConnectionIdle},
		halfOpenTooLong:          {stop, ConnectionIdle},
		peerSilent:               {lose, ConnectionIdle},
	},
	ConnectionEstablished: {
		openConnection:           {openSessions, ConnectionEstablished},
		requestAcceptable:        {stop, ConnectionIdle},
		requestUnacceptable:      {stop, ConnectionIdle},
		tieLost:                  {doNothing, ConnectionEstablished},
		tieWon:                   {doNothing, ConnectionEstablished},
		tieEqual:                 {doNothing, ConnectionEstablished},
		receiveSCCRQ:             {stop, ConnectionIdle},
		receiveSCCRP:             {stop, ConnectionIdle},
		receiveSCCRPUnacceptable: {stop, ConnectionIdle},
		receiveSCCCN:             {stop, ConnectionIdle},
		receiveSCCCNUnacceptable: {stop, ConnectionIdle},
		receiveStopCCN:           {stopped, ConnectionIdle},
		receiveHello:             {doNothing, ConnectionEstablished},
		receiveSessionMessage:    {passToSession, ConnectionEstablished},
		receiveInvalid:           {stop, ConnectionIdle},
		closeConnection:          {stop, ConnectionIdle},
		halfOpenTooLong:          {doNothing, ConnectionEstablished},
		peerSilent:               {lose, ConnectionIdle},
	},
}
