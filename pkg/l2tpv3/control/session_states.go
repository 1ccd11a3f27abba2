package control

// sessionEvent is what happens to a session.
type sessionEvent uint8

const (
	callLocal      sessionEvent = iota // call signal: the session is wanted
	connectionOpen                     // control-conn-open
	receiveICRQ                        // acceptable
	receiveICRQUnacceptable
	icrqTieLost
	icrqTieWon
	icrqTieEqual
	icrqNoTieBreaker
	receiveICRP
	receiveICRPUnacceptable
	receiveICCN
	receiveICCNUnacceptable
	receiveOCRQ
	receiveOCRP
	receiveOCCN
	receiveCDN
	receiveSLI
	receiveWEN
	receiveInvalidSession // unknown mandatory AVP, or malformed
	closeSession
	sessionTooLong // half open
	installFailed
	connectionGone
	sessionEvents
)

func (e sessionEvent) String() string {
	return name([]string{
		"call signal", "control-conn-open", "ICRQ, acceptable", "ICRQ, not acceptable", "ICRQ, lose tie breaker",
		"ICRQ, win tie breaker", "ICRQ, equal tie breakers", "ICRQ, no tie breakers", "ICRP, acceptable",
		"ICRP, not acceptable", "ICCN, acceptable", "ICCN, not acceptable", "OCRQ", "OCRP", "OCCN", "CDN", "SLI", "WEN",
		"invalid message", "local close request", "half open too long", "data plane refused", "control connection gone",
	}, uint8(e))
}

// sessionAction is what a session does about an event.
type sessionAction uint8

const (
	undefinedSessionAction sessionAction = iota
	ignoreEvent
	waitForControl
	sendICRQ
	sendICRP      // install, then answer as recipient
	switchRole    // forget our request, then the same
	sendICCN      // install, then connect
	prepareData   // let data flow
	refuseMessage // CDN for what was received; the session stays as it is
	disconnect    // send CDN, clean up
	cleanUp
	forgetBoth // ours silently, theirs by CDN
	closeBoth  // CDN for ours and theirs
	takeStatus
	takeErrors
)

func (a sessionAction) String() string {
	return name([]string{
		"undefined", "none", "wait for the control connection", "send ICRQ", "send ICRP",
		"clean up, process as ICRQ recipient: send ICRP", "send ICCN", "prepare for data", "send CDN for what was received",
		"send CDN, clean up", "clean up", "clean up, send CDN for losing session", "send CDN for both, clean up",
		"note circuit status", "note circuit errors",
	}, uint8(a))
}

type sessionStep struct {
	action sessionAction
	next   SessionState
}

// sessionTable is Sections 7.3.1 (ICRQ sender) and 7.3.2 (ICRQ recipient), and
// what Section 7.4 says to one that places no outgoing calls. A session can be
// the sender or the recipient; wait-reply is the sender's state, wait-connect the
// recipient's. Where it goes beyond the sections' rows:
//
//   - idle is also that of a session that is not ours: a message for it is
//     handled as for one that is.
//   - OCRQ is refused in every state: pseudowires do not use outgoing calls
//     (RFC 4719, Section 2.2).
//   - SLI is taken in every state after the ICRQ (RFC 4719, Section 2.3.2).
//   - An ICRQ in wait-connect or established, from a peer that delivers in order,
//     says that the session is over for the peer: CDN, idle. If it is for another
//     session ID it is a new request then, and handled in idle.
var sessionTable = [sessionStates][sessionEvents]sessionStep{
	SessionIdle: {
		callLocal:               {waitForControl, SessionWaitControl},
		connectionOpen:          {sendICRQ, SessionWaitReply},
		receiveICRQ:             {sendICRP, SessionWaitConnect},
		receiveICRQUnacceptable: {refuseMessage, SessionIdle},
		icrqTieLost:             {sendICRP, SessionWaitConnect},
		icrqTieWon:              {refuseMessage, SessionIdle},
		icrqTieEqual:            {refuseMessage, SessionIdle},
		icrqNoTieBreaker:        {refuseMessage, SessionIdle},
		receiveICRP:             {refuseMessage, SessionIdle},
		receiveICRPUnacceptable: {refuseMessage, SessionIdle},
		receiveICCN:             {ignoreEvent, SessionIdle},
		receiveICCNUnacceptable: {ignoreEvent, SessionIdle},
		receiveOCRQ:             {refuseMessage, SessionIdle},
		receiveOCRP:             {refuseMessage, SessionIdle},
		receiveOCCN:             {ignoreEvent, SessionIdle},
		receiveCDN:              {ignoreEvent, SessionIdle},
		receiveSLI:              {ignoreEvent, SessionIdle},
		receiveWEN:              {ignoreEvent, SessionIdle},
		receiveInvalidSession:   {refuseMessage, SessionIdle},
		closeSession:            {ignoreEvent, SessionIdle},
		sessionTooLong:          {ignoreEvent, SessionIdle},
		installFailed:           {ignoreEvent, SessionIdle},
		connectionGone:          {waitForControl, SessionWaitControl},
	},
	SessionWaitControl: {
		callLocal:               {ignoreEvent, SessionWaitControl},
		connectionOpen:          {sendICRQ, SessionWaitReply},
		receiveICRQ:             {sendICRP, SessionWaitConnect},
		receiveICRQUnacceptable: {refuseMessage, SessionWaitControl},
		icrqTieLost:             {sendICRP, SessionWaitConnect},
		icrqTieWon:              {refuseMessage, SessionWaitControl},
		icrqTieEqual:            {refuseMessage, SessionWaitControl},
		icrqNoTieBreaker:        {refuseMessage, SessionWaitControl},
		receiveICRP:             {refuseMessage, SessionWaitControl},
		receiveICRPUnacceptable: {refuseMessage, SessionWaitControl},
		receiveICCN:             {ignoreEvent, SessionWaitControl},
		receiveICCNUnacceptable: {ignoreEvent, SessionWaitControl},
		receiveOCRQ:             {refuseMessage, SessionWaitControl},
		receiveOCRP:             {refuseMessage, SessionWaitControl},
		receiveOCCN:             {ignoreEvent, SessionWaitControl},
		receiveCDN:              {ignoreEvent, SessionWaitControl},
		receiveSLI:              {ignoreEvent, SessionWaitControl},
		receiveWEN:              {ignoreEvent, SessionWaitControl},
		receiveInvalidSession:   {refuseMessage, SessionWaitControl},
		closeSession:            {cleanUp, SessionIdle},
		sessionTooLong:          {ignoreEvent, SessionWaitControl},
		installFailed:           {ignoreEvent, SessionWaitControl},
		connectionGone:          {ignoreEvent, SessionWaitControl},
	},
	SessionWaitReply: {
		callLocal:               {ignoreEvent, SessionWaitReply},
		connectionOpen:          {ignoreEvent, SessionWaitReply},
		receiveICRQ:             {switchRole, SessionWaitConnect},
		receiveICRQUnacceptable: {refuseMessage, SessionWaitReply},
		icrqTieLost:             {switchRole, SessionWaitConnect},
		icrqTieWon:              {refuseMessage, SessionWaitReply},
		icrqTieEqual:            {forgetBoth, SessionIdle},
		icrqNoTieBreaker:        {closeBoth, SessionIdle},
		receiveICRP:             {sendICCN, SessionEstablished},
		receiveICRPUnacceptable: {disconnect, SessionIdle},
		receiveICCN:             {cleanUp, SessionIdle},
		receiveICCNUnacceptable: {cleanUp, SessionIdle},
		receiveOCRQ:             {refuseMessage, SessionWaitReply},
		receiveOCRP:             {disconnect, SessionIdle},
		receiveOCCN:             {disconnect, SessionIdle},
		receiveCDN:              {cleanUp, SessionIdle},
		receiveSLI:              {takeStatus, SessionWaitReply},
		receiveWEN:              {takeErrors, SessionWaitReply},
		receiveInvalidSession:   {disconnect, SessionIdle},
		closeSession:            {disconnect, SessionIdle},
		sessionTooLong:          {disconnect, SessionIdle},
		installFailed:           {disconnect, SessionIdle},
		connectionGone:          {waitForControl, SessionWaitControl},
	},
	SessionWaitConnect: {
		callLocal:               {ignoreEvent, SessionWaitConnect},
		connectionOpen:          {ignoreEvent, SessionWaitConnect},
		receiveICRQ:             {disconnect, SessionIdle},
		receiveICRQUnacceptable: {disconnect, SessionIdle},
		icrqTieLost:             {disconnect, SessionIdle},
		icrqTieWon:              {disconnect, SessionIdle},
		icrqTieEqual:            {disconnect, SessionIdle},
		icrqNoTieBreaker:        {disconnect, SessionIdle},
		receiveICRP:             {disconnect, SessionIdle},
		receiveICRPUnacceptable: {disconnect, SessionIdle},
		receiveICCN:             {prepareData, SessionEstablished},
		receiveICCNUnacceptable: {disconnect, SessionIdle},
		receiveOCRQ:             {refuseMessage, SessionWaitConnect},
		receiveOCRP:             {disconnect, SessionIdle},
		receiveOCCN:             {disconnect, SessionIdle},
		receiveCDN:              {cleanUp, SessionIdle},
		receiveSLI:              {takeStatus, SessionWaitConnect},
		receiveWEN:              {takeErrors, SessionWaitConnect},
		receiveInvalidSession:   {disconnect, SessionIdle},
		closeSession:            {disconnect, SessionIdle},
		sessionTooLong:          {disconnect, SessionIdle},
		installFailed:           {disconnect, SessionIdle},
		connectionGone:          {waitForControl, SessionWaitControl},
	},
	SessionEstablished: {
		callLocal:               {ignoreEvent, SessionEstablished},
		connectionOpen:          {ignoreEvent, SessionEstablished},
		receiveICRQ:             {disconnect, SessionIdle},
		receiveICRQUnacceptable: {disconnect, SessionIdle},
		icrqTieLost:             {disconnect, SessionIdle},
		icrqTieWon:              {disconnect, SessionIdle},
		icrqTieEqual:            {disconnect, SessionIdle},
		icrqNoTieBreaker:        {disconnect, SessionIdle},
		receiveICRP:             {disconnect, SessionIdle},
		receiveICRPUnacceptable: {disconnect, SessionIdle},
		receiveICCN:             {disconnect, SessionIdle},
		receiveICCNUnacceptable: {disconnect, SessionIdle},
		receiveOCRQ:             {refuseMessage, SessionEstablished},
		receiveOCRP:             {disconnect, SessionIdle},
		receiveOCCN:             {disconnect, SessionIdle},
		receiveCDN:              {cleanUp, SessionIdle},
		receiveSLI:              {takeStatus, SessionEstablished},
		receiveWEN:              {takeErrors, SessionEstablished},
		receiveInvalidSession:   {disconnect, SessionIdle},
		closeSession:            {disconnect, SessionIdle},
		sessionTooLong:          {ignoreEvent, SessionEstablished},
		installFailed:           {disconnect, SessionIdle},
		connectionGone:          {waitForControl, SessionWaitControl},
	},
}
