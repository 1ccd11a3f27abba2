package api

import "time"

// Cause is why something is in its state, for programs; reasons say the same in
// words. It is left out for the regular course of things.
type Cause struct {
	// Kind is one of: waiting, peer-silent, secret, not-authorized, wrong-name, duplicate,
	// replaced, closed, shutdown, configuration, timeout, protocol-error, wrong-type,
	// mismatch, unknown-to-peer, data-plane, no-connection, circuit.
	Kind string `json:"kind"`
	// By is who decided: "here" or "peer"; empty where nobody did.
	By string `json:"by,omitempty"`
	// Message is the control message that brought it or that was not answered, as
	// "SCCRQ"; Sent is how often that was sent.
	Message string `json:"message,omitempty"`
	Sent    int    `json:"sent,omitempty"`
	// Result and Error are the codes of the StopCCN or CDN (RFC 3931, Section 5.4.2),
	// Meaning is their text in the registry, Text what the sender added.
	Result  uint16 `json:"result,omitempty"`
	Error   uint16 `json:"error,omitempty"`
	Meaning string `json:"meaning,omitempty"`
	Text    string `json:"text,omitempty"`
}

// Stranger is what came from addresses that no tunnel has, and was dropped.
type Stranger struct {
	// Prefix is a /24 of IPv4 or a /48 of IPv6; empty for all that are not listed.
	Prefix string `json:"prefix"`
	// Last is the last address, Reasons count the messages.
	Last    string            `json:"last,omitempty"`
	Reasons map[string]uint64 `json:"reasons"`
	// Seen is when the last came.
	Seen time.Time `json:"seen"`
}
