// Package pcapng writes L2TPv3 control messages as a capture file that Wireshark
// and tshark read (draft-ietf-opsawg-pcapng). The messages come without their
// packets' headers, which are put together here: addresses, ports, lengths and
// checksums are right, TTL and DSCP are not those of the wire.
package pcapng

import (
	"encoding/binary"
	"fmt"
	"io"
	"time"
)

// Block types and options (draft-ietf-opsawg-pcapng, Section 4).
const (
	blockSection    = 0x0a0d0d0a
	blockInterface  = 1
	blockStatistics = 5
	blockPacket     = 6

	optionComment    = 1
	optionName       = 2 // of an interface
	optionResolution = 9 // of an interface
	optionFlags      = 2 // of a packet
	optionLost       = 4 // of a packet
	optionReceived   = 4 // of statistics
	optionDropped    = 5 // of statistics

	byteOrderMagic = 0x1a2b3c4d
	// linkRaw is LINKTYPE_RAW: the packet begins with its IP header.
	linkRaw    = 101
	nanosecond = 9 // resolution: 10^-9 s

	inbound, outbound = 1, 2
)

var le = binary.LittleEndian

// Writer writes one capture. Each of its methods writes whole blocks with one
// Write, so that a reader at the other end of a pipe sees a message as it comes.
type Writer struct {
	w               io.Writer
	b               []byte
	packets, missed uint64
}

// NewWriter begins a capture; name is what it is of.
func NewWriter(w io.Writer, name string) (*Writer, error) {
	c := &Writer{w: w}
	section := le.AppendUint32(nil, byteOrderMagic)
	section = le.AppendUint16(section, 1) // version 1.0
	section = le.AppendUint16(section, 0)
	section = le.AppendUint64(section, ^uint64(0)) // length not known
	c.block(blockSection, section)
	iface := le.AppendUint16(nil, linkRaw)
	iface = le.AppendUint16(iface, 0)
	iface = le.AppendUint32(iface, 0) // no limit
	iface = option(iface, optionName, []byte(name))
	iface = option(iface, optionResolution, []byte{nanosecond})
	c.block(blockInterface, endOptions(iface))
	return c, c.flush()
}

// Write adds a message.
func (c *Writer) Write(m *Message) error {
	packet := m.packet()
	at := uint64(m.Time.UnixNano())
	b := le.AppendUint32(nil, 0) // the interface
	b = le.AppendUint32(b, uint32(at>>32))
	b = le.AppendUint32(b, uint32(at))
	b = le.AppendUint32(b, uint32(len(packet)))
	b = le.AppendUint32(b, uint32(len(packet)))
	b = pad(append(b, packet...))
	direction := uint32(inbound)
	if m.Sent {
		direction = outbound
	}
	if m.Comment != "" {
		b = option(b, optionComment, []byte(m.Comment))
	} else {
		c.packets++
	}
	b = option(b, optionFlags, le.AppendUint32(nil, direction))
	if m.Missed > 0 {
		b = option(b, optionLost, le.AppendUint64(nil, m.Missed))
	}
	c.missed += m.Missed
	c.block(blockPacket, endOptions(b))
	return c.flush()
}

// Close ends the capture: how many messages there were, and how many are missing
// beside those that messages told of.
func (c *Writer) Close(now time.Time, missed uint64) error {
	at := uint64(now.UnixNano())
	b := le.AppendUint32(nil, 0)
	b = le.AppendUint32(b, uint32(at>>32))
	b = le.AppendUint32(b, uint32(at))
	b = option(b, optionReceived, le.AppendUint64(nil, c.packets))
	b = option(b, optionDropped, le.AppendUint64(nil, c.missed+missed))
	c.block(blockStatistics, endOptions(b))
	return c.flush()
}

func (c *Writer) block(kind uint32, body []byte) {
	length := uint32(len(body) + 12)
	c.b = le.AppendUint32(c.b, kind)
	c.b = le.AppendUint32(c.b, length)
	c.b = append(c.b, body...)
	c.b = le.AppendUint32(c.b, length)
}

func (c *Writer) flush() error {
	_, err := c.w.Write(c.b)
	c.b = c.b[:0]
	return err
}

func option(b []byte, code uint16, value []byte) []byte {
	b = le.AppendUint16(b, code)
	b = le.AppendUint16(b, uint16(len(value)))
	return pad(append(b, value...))
}

func endOptions(b []byte) []byte { return append(b, 0, 0, 0, 0) }

func pad(b []byte) []byte {
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// maxBlock bounds what Counter keeps of one block: more than any of a Writer's.
const maxBlock = 1 << 18

// Counter reads a Writer's capture as it passes, in pieces of any size, and counts.
type Counter struct {
	// Packets are in it, Missing are not because they came faster than they were taken.
	Packets, Missing uint64
	b                []byte
}

// FormatError says that something is no capture of a Writer's.
type FormatError struct{ Problem string }

func (e *FormatError) Error() string { return "no capture: " + e.Problem }

// Write takes the next piece. Errors are *FormatError.
func (c *Counter) Write(p []byte) (int, error) {
	c.b = append(c.b, p...)
	for len(c.b) >= 12 {
		length := le.Uint32(c.b[4:])
		if length < 12 || length%4 != 0 || length > maxBlock {
			return 0, &FormatError{fmt.Sprintf("a block of %d octets", length)}
		}
		if uint32(len(c.b)) < length {
			break
		}
		c.count(le.Uint32(c.b), c.b[8:length-4])
		c.b = append(c.b[:0], c.b[length:]...)
	}
	return len(p), nil
}

func (c *Counter) count(kind uint32, body []byte) {
	switch kind {
	case blockPacket:
		if len(body) < 20 {
			c.Packets++
			return
		}
		captured := (uint64(le.Uint32(body[12:])) + 3) &^ 3
		if captured > uint64(len(body)-20) {
			c.Packets++
			return
		}
		options := body[20+captured:]
		if len(options) < 2 || le.Uint16(options) != optionComment {
			c.Packets++
		}
		c.Missing += find(options, optionLost)
	case blockStatistics:
		if len(body) >= 12 {
			c.Missing = max(c.Missing, find(body[12:], optionDropped))
		}
	}
}

// find is the value of a numeric option, 0 if it is not there.
func find(options []byte, code uint16) uint64 {
	for len(options) >= 4 {
		got, length := le.Uint16(options), int(le.Uint16(options[2:]))
		if options = options[4:]; length > len(options) || got == 0 {
			return 0
		}
		if got == code && length == 8 {
			return le.Uint64(options)
		}
		options = options[min((length+3)&^3, len(options)):]
	}
	return 0
}
