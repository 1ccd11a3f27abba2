package l2tpeth

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/genetlink/genltest"
	"github.com/mdlayher/netlink"
	"github.com/mdlayher/netlink/nltest"
	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// fakeKernel answers both netlink families as the kernel does, from what it was
// told before. It keeps the requests that change something.
type fakeKernel struct {
	t        *testing.T
	tunnels  []kernelTunnel
	sessions []kernelSession
	links    []link
	next     uint32
	// lingering is how many looks a deleted object takes to be gone.
	lingering int
	dying     []func()
	// requests that changed something, as "command attributes".
	requests []request
	// asked counts all requests.
	asked int
	// refuse is what a command of the family l2tp fails with.
	refuse map[uint8]unix.Errno
	// reused is a descriptor whose socket is another since; 0 is none.
	reused int
	// carries are the sockets that tunnels hang on, marks their DSCPs.
	carries []int
	marks   map[int]uint8
	// priorities are what is sent from them has.
	priorities map[int]uint32
	// discoveries are their IP_MTU_DISCOVER; lowerRoute is a route with an MTU below the link's,
	// noRoute is what the way to every peer fails with.
	discoveries map[int]int
	lowerRoute  bool
	noRoute     error
	// noIPv6 is a kernel without IPv6.
	noIPv6 bool
	paused time.Duration
}

// request is a request that changes something: its command or message type, and
// what follows the header.
type request struct {
	what string
	data []byte
}

const fakeFamily = 0x1b

func newFake(t *testing.T) (*fakeKernel, *Datapath) {
	k := &fakeKernel{t: t, next: 40, refuse: map[uint8]unix.Errno{}, marks: map[int]uint8{}, discoveries: map[int]int{}}
	return k, k.datapath()
}

// datapath is a further process's on the same kernel.
func (k *fakeKernel) datapath() *Datapath {
	t := k.t
	t.Helper()
	g := genltest.Dial(genltest.ServeFamily(genetlink.Family{ID: fakeFamily, Version: 1, Name: "l2tp"}, k.l2tp))
	d, err := open(Options{}, g, nltest.Dial(k.rtnetlink))
	if err != nil {
		t.Fatal(err)
	}
	d.sysctl = t.TempDir()
	d.socket, d.routes = fakeSockets{k}, fakeRoutes{k}
	d.pause = func(p time.Duration) {
		k.paused += p
		if k.lingering--; k.lingering <= 0 {
			for _, f := range k.dying {
				f()
			}
			k.dying = nil
		}
	}
	return d
}

// die removes an object, at once or after some looks.
func (k *fakeKernel) die(f func()) {
	if k.lingering == 0 {
		f()
		return
	}
	k.dying = append(k.dying, f)
}

func (k *fakeKernel) note(what string, data []byte) {
	k.requests = append(k.requests, request{what, slices.Clone(data)})
}

// changed returns what was asked since the last call, without the attributes.
func (k *fakeKernel) changed() []string {
	var out []string
	for _, r := range k.requests {
		out = append(out, r.what)
	}
	k.requests = nil
	return out
}

var commandNames = map[uint8]string{
	cmdTunnelCreate: "create tunnel", cmdTunnelDelete: "delete tunnel",
	cmdSessionCreate: "create session", cmdSessionDelete: "delete session", cmdSessionModify: "modify session",
}

func (k *fakeKernel) l2tp(m genetlink.Message, n netlink.Message) ([]genetlink.Message, error) {
	if n.Header.Type != fakeFamily || m.Header.Version != 1 {
		k.t.Errorf("message of family %d, version %d", n.Header.Type, m.Header.Version)
	}
	k.asked++
	if e := k.refuse[m.Header.Command]; e != 0 {
		return nil, genltest.Error(int(e))
	}
	s, err := decodeRequest(m.Data)
	if err != nil {
		k.t.Fatal(err)
	}
	dump := n.Header.Flags&netlink.Dump == netlink.Dump
	tunnel := func(t kernelTunnel) bool { return t.id == s.connID }
	session := func(x kernelSession) bool { return x.connID == s.connID && x.id == s.id }
	named := func(l link) bool { return l.name == s.ifName }
	switch m.Header.Command {
	case cmdTunnelGet:
		if !dump && !slices.ContainsFunc(k.tunnels, tunnel) {
			return nil, genltest.Error(int(unix.ENODEV))
		}
		return answer(k.tunnels, func(t kernelTunnel) bool { return dump || tunnel(t) }, func(t kernelTunnel, e *netlink.AttributeEncoder) {
			e.Uint32(attrConnID, t.id)
			e.Uint32(attrPeerConnID, t.peerID)
			e.Uint16(attrEncapType, t.encap)
			e.Nested(attrStats, encodeStats(t.stats))
		})
	case cmdSessionGet:
		if !dump && !slices.ContainsFunc(k.sessions, session) {
			return nil, genltest.Error(int(unix.ENODEV))
		}
		return answer(k.sessions, func(x kernelSession) bool { return dump || session(x) }, func(x kernelSession, e *netlink.AttributeEncoder) {
			e.Uint32(attrConnID, x.connID)
			e.Uint32(attrSessionID, x.id)
			e.Uint32(attrPeerSessionID, x.peerID)
			e.Uint16(attrPWType, pwEth)
			e.String(attrIfName, x.ifName)
			e.Bytes(attrCookie, []byte(x.cookie))
			e.Bytes(attrPeerCookie, []byte(x.peerCookie))
			x.sequencing.encode(e)
			e.Nested(attrStats, encodeStats(x.stats))
		})
	}

	k.note(commandNames[m.Header.Command], m.Data)
	switch m.Header.Command {
	case cmdTunnelCreate:
		if slices.ContainsFunc(k.tunnels, tunnel) {
			return nil, genltest.Error(int(unix.EEXIST))
		}
		created, fd, err := decodeTunnelRequest(m.Data)
		if err != nil {
			k.t.Fatal(err)
		}
		k.tunnels = append(k.tunnels, created)
		k.carries = append(k.carries, fd)
	case cmdTunnelDelete:
		id := s.connID
		k.die(func() {
			k.tunnels = slices.DeleteFunc(k.tunnels, func(t kernelTunnel) bool { return t.id == id })
		})
	case cmdSessionCreate:
		if !slices.ContainsFunc(k.tunnels, tunnel) {
			return nil, genltest.Error(int(unix.ENODEV))
		}
		if slices.ContainsFunc(k.sessions, session) || slices.ContainsFunc(k.links, named) {
			return nil, genltest.Error(int(unix.EEXIST))
		}
		k.next++
		k.sessions = append(k.sessions, s)
		k.links = append(k.links, link{index: k.next, name: s.ifName, mtu: 1454})
	case cmdSessionModify:
		i := slices.IndexFunc(k.sessions, session)
		if i < 0 {
			return nil, genltest.Error(int(unix.ENODEV))
		}
		k.sessions[i].sequencing = s.sequencing
	case cmdSessionDelete:
		i := slices.IndexFunc(k.sessions, session)
		if i < 0 {
			return nil, genltest.Error(int(unix.ENODEV))
		}
		name := k.sessions[i].ifName
		k.sessions = slices.Delete(k.sessions, i, i+1)
		k.die(func() { k.links = slices.DeleteFunc(k.links, func(l link) bool { return l.name == name }) })
	default:
		k.t.Errorf("unknown command %d", m.Header.Command)
	}
	return nil, io.EOF
}

// decodeRequest reads the attributes that select or describe a tunnel or session.
func decodeRequest(b []byte) (kernelSession, error) {
	d, err := netlink.NewAttributeDecoder(b)
	if err != nil {
		return kernelSession{}, err
	}
	return decodeSession(d)
}

// decodeTunnelRequest reads what a tunnel is to be, and of which socket.
func decodeTunnelRequest(b []byte) (t kernelTunnel, fd int, err error) {
	d, err := netlink.NewAttributeDecoder(b)
	if err != nil {
		return t, 0, err
	}
	for d.Next() {
		switch d.Type() {
		case attrConnID:
			t.id = d.Uint32()
		case attrPeerConnID:
			t.peerID = d.Uint32()
		case attrEncapType:
			t.encap = d.Uint16()
		case attrFD:
			fd = int(d.Int32())
		}
	}
	return t, fd, d.Err()
}

func answer[T any](all []T, wanted func(T) bool, encode func(T, *netlink.AttributeEncoder)) ([]genetlink.Message, error) {
	var out []genetlink.Message
	for _, x := range all {
		if !wanted(x) {
			continue
		}
		e := netlink.NewAttributeEncoder()
		encode(x, e)
		b, err := e.Encode()
		if err != nil {
			return nil, err
		}
		out = append(out, genetlink.Message{Header: genetlink.Header{Command: 8, Version: 1}, Data: b})
	}
	if len(out) == 0 {
		return nil, io.EOF
	}
	return out, nil
}

func encodeStats(s stats) func(*netlink.AttributeEncoder) error {
	return func(e *netlink.AttributeEncoder) error {
		for typ, v := range map[uint16]uint64{
			statTxPackets: s.txPackets, statTxBytes: s.txBytes, statTxErrors: s.txErrors,
			statRxPackets: s.rxPackets, statRxBytes: s.rxBytes, statRxErrors: s.rxErrors,
			statCookieDiscards: s.rxCookieDiscards, statSeqDiscards: s.rxSeqDiscards, statRxInvalid: s.rxInvalid,
		} {
			e.Uint64(typ, v)
		}
		return nil
	}
}

func (k *fakeKernel) rtnetlink(reqs []netlink.Message) ([]netlink.Message, error) {
	m := reqs[0]
	k.asked++
	reply := func(links ...link) ([]netlink.Message, error) {
		if len(links) == 0 {
			return nil, io.EOF
		}
		var out []netlink.Message
		for _, l := range links {
			out = append(out, netlink.Message{
				Header: netlink.Header{Type: unix.RTM_NEWLINK, Sequence: m.Header.Sequence, PID: m.Header.PID},
				Data:   encodeLink(k.t, l),
			})
		}
		return out, nil
	}
	index, name := binary.NativeEndian.Uint32(m.Data[4:]), ""
	attrs, err := netlink.UnmarshalAttributes(m.Data[unix.SizeofIfInfomsg:])
	if err != nil {
		k.t.Fatal(err)
	}
	for _, a := range attrs {
		if a.Type == unix.IFLA_IFNAME {
			name = string(a.Data[:len(a.Data)-1])
		}
	}
	if m.Header.Flags&netlink.Dump == netlink.Dump {
		return reply(k.links...)
	}
	i := slices.IndexFunc(k.links, func(l link) bool { return l.index == index || index == 0 && l.name == name })
	if i < 0 {
		return nltest.Error(int(unix.ENODEV), reqs)
	}
	l := &k.links[i]
	switch m.Header.Type {
	case unix.RTM_GETLINK:
		return reply(*l)
	case unix.RTM_NEWLINKPROP:
		k.note("add name to "+l.name, m.Data)
		return nil, io.EOF
	}
	what := "set " + l.name
	// The kernel looks at this before it changes anything (rtnetlink.c, validate_linkmsg).
	if k.noIPv6 && slices.ContainsFunc(attrs, func(a netlink.Attribute) bool { return a.Type&^netlink.Nested == unix.IFLA_AF_SPEC }) {
		return nltest.Error(int(unix.EAFNOSUPPORT), reqs)
	}
	for _, a := range attrs {
		switch a.Type &^ netlink.Nested {
		case unix.IFLA_IFALIAS:
			l.alias = string(a.Data)
			what += " alias"
		case unix.IFLA_MTU:
			l.mtu = binary.NativeEndian.Uint32(a.Data)
			what += fmt.Sprint(" mtu ", l.mtu)
		case unix.IFLA_AF_SPEC:
			what += " addrgenmode"
		}
	}
	if change := binary.NativeEndian.Uint32(m.Data[12:]); change&unix.IFF_UP != 0 {
		l.up = binary.NativeEndian.Uint32(m.Data[8:])&unix.IFF_UP != 0
		what += map[bool]string{true: " up", false: " down"}[l.up]
	}
	k.note(what, m.Data)
	return nil, io.EOF
}

func encodeLink(t *testing.T, l link) []byte {
	e := netlink.NewAttributeEncoder()
	e.String(unix.IFLA_IFNAME, l.name)
	e.Uint32(unix.IFLA_MTU, l.mtu)
	if l.alias != "" {
		e.String(unix.IFLA_IFALIAS, l.alias)
	}
	b, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	var flags uint32
	if l.up {
		flags = unix.IFF_UP
	}
	return append(ifInfo(l.index, flags, 0), b...)
}

func messages(b []byte) []genetlink.Message { return []genetlink.Message{{Data: b}} }

// fakeSockets takes a descriptor's number for the socket's identity, unless the
// fake says that it has become another's.
type fakeSockets struct{ k *fakeKernel }

func (s fakeSockets) identity(fd int) (uint64, error) {
	if fd == s.k.reused {
		return 1 << 40, nil
	}
	return uint64(fd), nil
}

func (s fakeSockets) carries(fd int, _ l2tpv3.Encapsulation) (bool, error) {
	return slices.Contains(s.k.carries, fd), nil
}

func (s fakeSockets) dscp(t pseudowire.Tunnel) (uint8, error) { return s.k.marks[t.Socket], nil }

func (s fakeSockets) acceptNoChecksum(fd int) error {
	s.k.note(fmt.Sprintf("accept no checksum on %d", fd), nil)
	return nil
}

func (s fakeSockets) priority(fd int) (uint32, error) { return s.k.priorities[fd], nil }

func (s fakeSockets) setPriority(fd int, priority uint32) error {
	if s.k.priorities[fd] != priority {
		s.k.note(fmt.Sprintf("give %d priority %#x", fd, priority), nil)
	}
	if s.k.priorities == nil {
		s.k.priorities = make(map[int]uint32)
	}
	s.k.priorities[fd] = priority
	return nil
}

func (s fakeSockets) setDSCP(fd int, six bool, dscp uint8) error {
	s.k.marks[fd] = dscp
	// As in the kernel (__ip_sock_set_tos).
	delete(s.k.priorities, fd)
	s.k.note(fmt.Sprintf("mark %d with DSCP %d, IPv6 %v", fd, dscp, six), nil)
	return nil
}

func (s fakeSockets) discovery(t pseudowire.Tunnel) (int, error) {
	return s.k.discoveries[t.Socket], nil
}

// setDiscovery is no request that is noted: what there is is looked at.
func (s fakeSockets) setDiscovery(fd, discovery int) error {
	if s.k.discoveries[fd] == discovery {
		s.k.t.Errorf("descriptor %d is told %d again: that costs a packet", fd, discovery)
	}
	s.k.discoveries[fd] = discovery
	return nil
}

type fakeRoutes struct{ k *fakeKernel }

func (r fakeRoutes) lower(pseudowire.Tunnel) (bool, error) { return r.k.lowerRoute, r.k.noRoute }

func (fakeRoutes) close() {}
