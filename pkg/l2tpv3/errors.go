package l2tpv3

import (
	"errors"
	"fmt"
)

// What can be wrong with a message or a value; wrapped by the error types below.
var (
	// ErrShort says that the octets end before what has to be there.
	ErrShort = errors.New("fewer octets than it needs")
	// ErrLength says that a length disagrees with what it is the length of.
	ErrLength = errors.New("wrong length")
	// ErrValue says that a value is outside of its range.
	ErrValue = errors.New("value out of range")
	// ErrVersion says that the Ver field is one that is not spoken here.
	ErrVersion = errors.New("unsupported version")
	// ErrFlags says that bits that have to be set are not, or the other way round.
	ErrFlags = errors.New("wrong flag bits")
	// ErrTooLong says that a value does not fit the length field before it.
	ErrTooLong = errors.New("longer than its length field can say")
	// ErrRandomVector says that no Random Vector AVP precedes a hidden AVP.
	ErrRandomVector = errors.New("no Random Vector AVP before it")
	// ErrHidden says that an AVP is hidden which must not be, or cannot be revealed.
	ErrHidden = errors.New("must not be hidden")
)

// ParseError is why octets are not what they should be.
type ParseError struct {
	// Offset is where the field starts, in octets from the start of what was parsed.
	Offset int
	// Field is its name as the RFC has it.
	Field string
	// Err is what is wrong with it: one of the Err… values.
	Err error
}

func (e *ParseError) Error() string {
	return fmt.Sprintf("l2tpv3: %s at octet %d: %v", e.Field, e.Offset, e.Err)
}

func (e *ParseError) Unwrap() error { return e.Err }

// EncodeError is why a message cannot be written.
type EncodeError struct {
	// Index is the AVP's place in Message.AVPs; -1 for the message itself.
	Index int
	// Field is the name of the AVP or of the field of the header.
	Field string
	// Err is what is wrong with it: one of the Err… values.
	Err error
}

func (e *EncodeError) Error() string {
	return fmt.Sprintf("l2tpv3: encoding %s: %v", e.Field, e.Err)
}

func (e *EncodeError) Unwrap() error { return e.Err }

// MissingAVPError says that a message lacks an AVP that its type requires.
type MissingAVPError struct {
	// Message is its type; 0 if it is the Message Type that is missing.
	Message MessageType
	AVP     AVPType
}

func (e *MissingAVPError) Error() string {
	if e.AVP == AVPMessageType {
		return "l2tpv3: message without Message Type"
	}
	return fmt.Sprintf("l2tpv3: %v without %v", e.Message, e.AVP)
}

// UnknownMandatoryAVPError names the AVP for which a session or a control
// connection has to be shut down (Sections 5.2 and 7.1).
type UnknownMandatoryAVPError struct {
	// Index is its place in Message.AVPs.
	Index  int
	Vendor uint16
	Type   AVPType
	// Hidden says that it is known, but was not revealed.
	Hidden bool
	// Malformed is why its value could not be read; nil for an AVP that is not known.
	Malformed error
}

func (e *UnknownMandatoryAVPError) Error() string {
	return "l2tpv3: " + e.text()
}

func (e *UnknownMandatoryAVPError) Unwrap() error { return e.Malformed }

// ResultCode is what the StopCCN or CDN says: Result Code 2, Error Code 8, and
// the attribute in text form (Section 5.4.2).
func (e *UnknownMandatoryAVPError) ResultCode() ResultCode {
	return ResultCode{Result: resultGeneralError, HasError: true, Error: ErrorUnknownMandatoryAVP, Message: e.text()}
}

func (e *UnknownMandatoryAVPError) text() string {
	name := avpName(e.Vendor, e.Type)
	if e.Malformed == nil && e.Hidden {
		return "unreadable mandatory AVP: " + name + " is hidden"
	}
	if e.Malformed == nil {
		return "unknown mandatory AVP: " + name
	}
	cause := e.Malformed
	if p, ok := errors.AsType[*ParseError](cause); ok {
		cause = p.Err
	}
	return fmt.Sprintf("malformed mandatory AVP: %s: %v", name, cause)
}

// InvalidAVPError says that an AVP that the message's type requires has a value
// that it must not have there.
type InvalidAVPError struct {
	Message MessageType
	AVP     AVPType
	Err     error
}

func (e *InvalidAVPError) Error() string {
	return fmt.Sprintf("l2tpv3: %v with %v: %v", e.Message, e.AVP, e.Err)
}

func (e *InvalidAVPError) Unwrap() error { return e.Err }
