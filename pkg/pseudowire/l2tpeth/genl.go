package l2tpeth

import (
	"errors"
	"fmt"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// The generic netlink family, its commands and attributes (linux/l2tp.h).
const (
	familyName    = "l2tp"
	familyVersion = 1

	cmdTunnelCreate  = 1
	cmdTunnelDelete  = 2
	cmdTunnelGet     = 4
	cmdSessionCreate = 5
	cmdSessionDelete = 6
	cmdSessionModify = 7
	cmdSessionGet    = 8

	attrPWType        = 1  // u16
	attrEncapType     = 2  // u16
	attrL2SpecType    = 5  // u8
	attrProtoVersion  = 7  // u8
	attrIfName        = 8  // string
	attrConnID        = 9  // u32
	attrPeerConnID    = 10 // u32
	attrSessionID     = 11 // u32
	attrPeerSessionID = 12 // u32
	attrCookie        = 15 // octets that packets sent carry
	attrPeerCookie    = 16 // octets that packets received must carry
	attrReceiveSeq    = 18 // u8: packets received must have a sequence number
	attrSendSeq       = 19 // u8: packets sent have one
	attrLNSMode       = 20 // u8: see sequencing
	attrFD            = 23 // s32
	attrStats         = 30 // nested

	statTxPackets      = 1 // u64, as are all
	statTxBytes        = 2
	statTxErrors       = 3
	statRxPackets      = 4
	statRxBytes        = 5
	statSeqDiscards    = 6
	statRxErrors       = 8
	statCookieDiscards = 10
	statRxInvalid      = 11

	encapUDP = 0
	encapIP  = 1
	pwEth    = 5
	version3 = 3
)

// kernelTunnel is a tunnel as the kernel lists it.
type kernelTunnel struct {
	id, peerID uint32
	encap      uint16
	stats      stats
}

// kernelSession is a session as the kernel lists it.
type kernelSession struct {
	connID, id, peerID uint32
	pwType             uint16
	ifName             string
	// cookie is sent, peerCookie expected.
	cookie, peerCookie string
	sequencing         sequencing
	stats              stats
}

// stats are the kernel's counters of a session or a tunnel.
type stats struct {
	txPackets, txBytes, txErrors uint64
	rxPackets, rxBytes, rxErrors uint64
	// rxErrors has rxCookieDiscards and rxSeqDiscards in it.
	rxCookieDiscards, rxSeqDiscards uint64
	rxInvalid                       uint64
}

// l2tpClient speaks the family "l2tp".
type l2tpClient struct {
	conn   *genetlink.Conn
	family uint16
}

// newL2TPClient looks the family up, which also makes the kernel load its module
// where it is installed.
func newL2TPClient(conn *genetlink.Conn) (*l2tpClient, error) {
	f, err := conn.GetFamily(familyName)
	if errors.Is(err, unix.ENOENT) {
		return nil, &UnsupportedError{Feature: "the kernel's L2TP (module l2tp_netlink)", Hint: moduleHint, Err: err}
	}
	if err != nil {
		return nil, &OpError{"look up", "generic netlink family l2tp", err}
	}
	return &l2tpClient{conn, f.ID}, nil
}

// do carries out a command that answers with an acknowledgement.
func (c *l2tpClient) do(cmd uint8, encode func(*netlink.AttributeEncoder)) error {
	_, err := c.request(cmd, netlink.Request|netlink.Acknowledge, encode)
	return err
}

func (c *l2tpClient) request(cmd uint8, flags netlink.HeaderFlags, encode func(*netlink.AttributeEncoder)) ([]genetlink.Message, error) {
	e := netlink.NewAttributeEncoder()
	if encode != nil {
		encode(e)
	}
	data, err := e.Encode()
	if err != nil {
		return nil, err
	}
	return c.conn.Execute(genetlink.Message{
		Header: genetlink.Header{Command: cmd, Version: familyVersion},
		Data:   data,
	}, c.family, flags)
}

func (c *l2tpClient) createTunnel(id, peerID uint32, encapsulation uint16, fd int) error {
	return c.do(cmdTunnelCreate, func(e *netlink.AttributeEncoder) {
		e.Uint32(attrConnID, id)
		e.Uint32(attrPeerConnID, peerID)
		e.Uint8(attrProtoVersion, version3)
		e.Uint16(attrEncapType, encapsulation)
		e.Int32(attrFD, int32(fd))
	})
}

func (c *l2tpClient) deleteTunnel(id uint32) error {
	return c.do(cmdTunnelDelete, func(e *netlink.AttributeEncoder) { e.Uint32(attrConnID, id) })
}

// tunnels lists the tunnels of the namespace, others' too.
func (c *l2tpClient) tunnels() ([]kernelTunnel, error) {
	msgs, err := c.request(cmdTunnelGet, netlink.Request|netlink.Dump, nil)
	if err != nil {
		return nil, err
	}
	return decodeAll(msgs, decodeTunnel)
}

// hasTunnel reports whether the kernel has a tunnel of that ID.
func (c *l2tpClient) hasTunnel(id uint32) (bool, error) {
	_, ok, err := c.tunnel(id)
	return ok, err
}

// tunnel is that of an ID; ok is false if there is none.
func (c *l2tpClient) tunnel(id uint32) (t kernelTunnel, ok bool, err error) {
	return only(decodeTunnel)(c.request(cmdTunnelGet, netlink.Request, func(e *netlink.AttributeEncoder) { e.Uint32(attrConnID, id) }))
}

// sessionSpec is what a session is made of.
type sessionSpec struct {
	connID, id, peerID uint32
	l2spec             uint8
	// cookie is sent, peerCookie expected.
	cookie, peerCookie string
	ifName             string
}

// sequencing is what the kernel does about sequence numbers (RFC 3931, Section 4.6.1):
// with send each packet is numbered; with receive one without a number is dropped.
// It looks at the numbers of all that have one, whatever is set here.
type sequencing struct{ send, receive bool }

// encode also makes the session an LNS's. The other side of that old distinction
// begins and ceases to number packets as its peer does (RFC 2661, Section 5.4),
// whatever it was asked for.
func (q sequencing) encode(e *netlink.AttributeEncoder) {
	flag := map[bool]uint8{true: 1}
	e.Uint8(attrLNSMode, 1)
	e.Uint8(attrSendSeq, flag[q.send])
	e.Uint8(attrReceiveSeq, flag[q.receive])
}

func (c *l2tpClient) modifySession(connID, id uint32, q sequencing) error {
	return c.do(cmdSessionModify, func(e *netlink.AttributeEncoder) {
		e.Uint32(attrConnID, connID)
		e.Uint32(attrSessionID, id)
		q.encode(e)
	})
}

func (c *l2tpClient) createSession(s sessionSpec, q sequencing) error {
	return c.do(cmdSessionCreate, func(e *netlink.AttributeEncoder) {
		e.Uint32(attrConnID, s.connID)
		e.Uint32(attrSessionID, s.id)
		e.Uint32(attrPeerSessionID, s.peerID)
		e.Uint16(attrPWType, pwEth)
		e.Uint8(attrL2SpecType, s.l2spec)
		if s.cookie != "" {
			e.Bytes(attrCookie, []byte(s.cookie))
		}
		if s.peerCookie != "" {
			e.Bytes(attrPeerCookie, []byte(s.peerCookie))
		}
		q.encode(e)
		e.String(attrIfName, s.ifName)
	})
}

func (c *l2tpClient) deleteSession(connID, id uint32) error {
	return c.do(cmdSessionDelete, func(e *netlink.AttributeEncoder) {
		e.Uint32(attrConnID, connID)
		e.Uint32(attrSessionID, id)
	})
}

// hasSession reports whether the kernel has that session.
func (c *l2tpClient) hasSession(connID, id uint32) (bool, error) {
	_, ok, err := c.session(connID, id)
	return ok, err
}

// session is that of an ID; ok is false if there is none.
func (c *l2tpClient) session(connID, id uint32) (s kernelSession, ok bool, err error) {
	return only(decodeSession)(c.request(cmdSessionGet, netlink.Request, func(e *netlink.AttributeEncoder) {
		e.Uint32(attrConnID, connID)
		e.Uint32(attrSessionID, id)
	}))
}

// sessions lists the sessions of the namespace, others' too.
func (c *l2tpClient) sessions() ([]kernelSession, error) {
	msgs, err := c.request(cmdSessionGet, netlink.Request|netlink.Dump, nil)
	if err != nil {
		return nil, err
	}
	return decodeAll(msgs, decodeSession)
}

// gone reports whether err says that the tunnel or session does not exist.
func gone(err error) bool { return errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT) }

// only reads the answer about one object; false is that there is none.
func only[T any](decode func(*netlink.AttributeDecoder) (T, error)) func([]genetlink.Message, error) (T, bool, error) {
	return func(msgs []genetlink.Message, err error) (none T, ok bool, _ error) {
		if gone(err) || err == nil && len(msgs) == 0 {
			return none, false, nil
		}
		if err != nil {
			return none, false, err
		}
		all, err := decodeAll(msgs[:1], decode)
		if err != nil {
			return none, false, err
		}
		return all[0], true, nil
	}
}

func decodeAll[T any](msgs []genetlink.Message, decode func(*netlink.AttributeDecoder) (T, error)) ([]T, error) {
	out := make([]T, 0, len(msgs))
	for _, m := range msgs {
		d, err := netlink.NewAttributeDecoder(m.Data)
		if err != nil {
			return nil, fmt.Errorf("decode the kernel's answer: %w", err)
		}
		v, err := decode(d)
		if err != nil {
			return nil, fmt.Errorf("decode the kernel's answer: %w", err)
		}
		out = append(out, v)
	}
	return out, nil
}

func decodeTunnel(d *netlink.AttributeDecoder) (kernelTunnel, error) {
	var t kernelTunnel
	for d.Next() {
		switch d.Type() {
		case attrConnID:
			t.id = d.Uint32()
		case attrPeerConnID:
			t.peerID = d.Uint32()
		case attrEncapType:
			t.encap = d.Uint16()
		case attrStats:
			d.Nested(t.stats.decode)
		}
	}
	return t, d.Err()
}

func decodeSession(d *netlink.AttributeDecoder) (kernelSession, error) {
	var s kernelSession
	for d.Next() {
		switch d.Type() {
		case attrConnID:
			s.connID = d.Uint32()
		case attrSessionID:
			s.id = d.Uint32()
		case attrPeerSessionID:
			s.peerID = d.Uint32()
		case attrPWType:
			s.pwType = d.Uint16()
		case attrIfName:
			s.ifName = d.String()
		case attrCookie:
			s.cookie = string(d.Bytes())
		case attrPeerCookie:
			s.peerCookie = string(d.Bytes())
		case attrSendSeq:
			s.sequencing.send = d.Uint8() != 0
		case attrReceiveSeq:
			s.sequencing.receive = d.Uint8() != 0
		case attrStats:
			d.Nested(s.stats.decode)
		}
	}
	return s, d.Err()
}

func (s *stats) decode(d *netlink.AttributeDecoder) error {
	for d.Next() {
		switch d.Type() {
		case statTxPackets:
			s.txPackets = d.Uint64()
		case statTxBytes:
			s.txBytes = d.Uint64()
		case statTxErrors:
			s.txErrors = d.Uint64()
		case statRxPackets:
			s.rxPackets = d.Uint64()
		case statRxBytes:
			s.rxBytes = d.Uint64()
		case statSeqDiscards:
			s.rxSeqDiscards = d.Uint64()
		case statRxErrors:
			s.rxErrors = d.Uint64()
		case statCookieDiscards:
			s.rxCookieDiscards = d.Uint64()
		case statRxInvalid:
			s.rxInvalid = d.Uint64()
		}
	}
	return d.Err()
}
