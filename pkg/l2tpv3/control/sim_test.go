package control

import (
	"container/heap"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

// network is two hosts and what is between them: it loses, duplicates, delays
// and so reorders packets. Everything comes from one seed.
type network struct {
	t     testing.TB
	rand  *rand.Rand
	now   time.Time
	hosts [2]*host
	air   packets
	sent  int

	loss, duplication float64
	// delay is of one packet; later packets overtake it.
	delay func() time.Duration
	// arrived, if set, sees every packet that arrives.
	arrived func(packet)
	// trace, if set, sees every packet that is sent.
	trace func(from *host, d Datagram)
	// sender is the connection whose packet is being traced, 0 for an answer to a stranger.
	sender uint32
}

type packet struct {
	at time.Time
	n  int
	to *host
	d  Datagram
}

type packets []packet

func (p packets) Len() int { return len(p) }
func (p packets) Less(i, j int) bool {
	return p[i].at.Before(p[j].at) || p[i].at.Equal(p[j].at) && p[i].n < p[j].n
}
func (p packets) Swap(i, j int) { p[i], p[j] = p[j], p[i] }
func (p *packets) Push(x any)   { *p = append(*p, x.(packet)) }
func (p *packets) Pop() any {
	x := (*p)[len(*p)-1]
	*p = (*p)[:len(*p)-1]
	return x
}

// host is one site's daemon: the Endpoint, a transport, a data plane and a disk.
type host struct {
	net  *network
	name string
	addr netip.Addr
	peer *host
	e    *Endpoint
	rand *rand.ChaCha8

	// want is what the topology says.
	tunnels  []Tunnel
	sessions []Session
	timers   Timers

	// ports are the initiators' sockets, by connection.
	ports    map[uint32]uint16
	nextPort uint16
	// data is the data plane: what is installed, by local session ID.
	data map[uint32]InstallSession
	// ever are the session IDs that the data plane has ever known.
	ever map[uint32]bool
	disk disk
	// crashAfter counts the steps of draining until the process dies; negative is never.
	crashAfter int
	down       bool
	steps      int
	// noDisk leaves out what benchmarks are not about.
	noDisk bool
	// started, if set, sees each new Endpoint before it does anything.
	started func(*Endpoint)
	// wrote, if set, sees what is written to the disk.
	wrote func(TunnelChange)
	// check sees every output before it is carried out.
	check func(Output)
	// refuses, if set, says what its data plane cannot do.
	refuses func(*InstallSession) bool
	// mute, if set, says of what the owner never says that it is done.
	mute func(*InstallSession) bool
}

// disk is what survives the process. It is put into octets only when it is read:
// nothing in a saved state may change with what the Endpoint does later.
type disk struct {
	tunnels map[string]TunnelState
	ports   map[uint32]uint16
}

var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func newNetwork(t testing.TB, seed uint64) *network {
	n := &network{t: t, now: epoch, rand: rand.New(rand.NewPCG(seed, 1))}
	if *packetsFlag {
		n.traceAll()
	}
	n.delay = func() time.Duration { return time.Millisecond }
	for i := range n.hosts {
		var key [32]byte
		key[0], key[1] = byte(i), 7
		for j := range 8 {
			key[8+j] = byte(seed >> (8 * j))
		}
		n.hosts[i] = &host{
			net: n, name: fmt.Sprintf("dc%d", i+1), addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}),
			rand: rand.NewChaCha8(key), nextPort: 40000, crashAfter: -1, ever: map[uint32]bool{},
		}
		n.hosts[i].forget()
	}
	n.hosts[0].peer, n.hosts[1].peer = n.hosts[1], n.hosts[0]
	return n
}

// tunnel wants a tunnel at both hosts.
func (n *network) tunnel(name string, change ...func(*Tunnel)) {
	for _, h := range n.hosts {
		t := Tunnel{
			Name: name + "/" + h.peer.name, Local: h.addr, Remote: h.peer.addr, Peer: h.peer.name,
			HostName: name + "." + h.name, PeerHostName: name + "." + h.peer.name, RouterID: 1 + uint32(len(h.tunnels)),
			Capabilities: []l2tpv3.PseudowireType{l2tpv3.Ethernet, l2tpv3.EthernetVLAN}, Hello: 10 * time.Second,
		}
		for _, f := range change {
			f(&t)
		}
		h.tunnels = append(h.tunnels, t)
	}
}

// session wants a session at both hosts.
func (n *network) session(tunnel, name string, change ...func(*Session)) {
	for _, h := range n.hosts {
		s := Session{
			Tunnel: tunnel + "/" + h.peer.name, Name: name, Type: l2tpv3.Ethernet, RemoteEndID: []byte(name),
			CookieLength: 8, Circuit: l2tpv3.CircuitActive,
		}
		for _, f := range change {
			f(&s)
		}
		h.sessions = append(h.sessions, s)
	}
}

// forget is a host without a state, as newly installed.
func (h *host) forget() {
	h.ports, h.data = map[uint32]uint16{}, map[uint32]InstallSession{}
	h.disk = disk{tunnels: map[string]TunnelState{}, ports: map[uint32]uint16{}}
}

// start starts the daemon: with what the disk has, and what the topology wants.
func (h *host) start() {
	h.down, h.steps = false, 0
	h.e = New(Config{Random: h.rand, VendorName: "test", Timers: h.timers})
	if h.started != nil {
		h.started(h.e)
	}
	h.ports = maps.Clone(h.disk.ports)
	state := State{Version: StateVersion}
	for _, name := range slices.Sorted(maps.Keys(h.disk.tunnels)) {
		state.Tunnels = append(state.Tunnels, h.read(name))
	}
	if err := h.e.Restore(h.net.now, state); err != nil {
		h.net.t.Fatal(err)
	}
	h.apply()
	h.drain()
}

// read is a tunnel's state as it comes back from the disk.
func (h *host) read(name string) (t TunnelState) {
	b, err := json.Marshal(h.disk.tunnels[name])
	if err == nil {
		err = json.Unmarshal(b, &t)
	}
	if err != nil {
		h.net.t.Fatal(err)
	}
	return t
}

// apply sets what the topology says, all of it.
func (h *host) apply() {
	for _, t := range h.tunnels {
		if err := h.e.SetTunnel(h.net.now, t); err != nil {
			h.net.t.Fatal(err)
		}
	}
	for _, s := range h.sessions {
		if err := h.e.SetSession(h.net.now, s); err != nil {
			h.net.t.Fatal(err)
		}
	}
}

// step counts a moment at which the process can die. It is false if it has.
func (h *host) step() bool {
	if h.steps++; h.crashAfter >= 0 && h.steps > h.crashAfter {
		h.down, h.crashAfter = true, -1
	}
	return !h.down
}

// drain does what an Endpoint's owner has to do, in that order.
func (h *host) drain() {
	var transmit []Transmit
	for {
		o, ok := h.e.Next()
		if !ok {
			break
		}
		if h.check != nil {
			h.check(o)
		}
		if !h.step() {
			return
		}
		switch o := o.(type) {
		case *Transmit:
			if o.Initiator && h.ports[o.Connection] == 0 {
				h.nextPort++
				h.ports[o.Connection] = h.nextPort
			}
			h.announced(o)
			transmit = append(transmit, *o)
		case *Released:
			delete(h.ports, o.Connection)
		case *InstallSession:
			if h.refuses != nil && h.refuses(o) {
				h.ever[o.LocalID] = true // it has been announced all the same, and is taken back
				h.e.InstallFailed(h.net.now, o.LocalID, errors.New("refused by the test"))
				continue
			}
			h.data[o.LocalID] = *o
			h.ever[o.LocalID] = true
			if o.Transmit && !h.peer.ever[o.RemoteID] {
				h.net.t.Fatalf("%s sends to session %d, which %s has not installed", h.name, o.RemoteID, h.peer.name)
			}
			if h.mute == nil || !h.mute(o) {
				h.e.Installed(h.net.now, o)
			}
		case *RemoveSession:
			delete(h.data, o.LocalID)
		}
	}
	for _, name := range h.e.TakeDirty() {
		if h.noDisk {
			break
		}
		if !h.step() {
			return
		}
		c, ok := h.e.SaveChange(name)
		if !ok {
			delete(h.disk.tunnels, name)
			continue
		}
		if h.wrote != nil {
			h.wrote(c)
		}
		t := h.disk.tunnels[name]
		if err := t.Merge(c); err != nil {
			h.net.t.Fatal(err)
		}
		h.disk.tunnels[name] = t
	}
	h.disk.ports = maps.Clone(h.ports)
	for _, o := range transmit {
		if !h.step() {
			return
		}
		h.net.transmit(h, o)
	}
}

// announced checks that a session is in the data plane before a message leaves
// that lets the peer use it.
func (h *host) announced(o *Transmit) {
	m, err := l2tpv3.Parse(o.Payload)
	if err != nil {
		h.net.t.Fatalf("%s sends %x: %v", h.name, o.Payload, err)
	}
	if kind, _ := m.Type(); kind == l2tpv3.ICRP || kind == l2tpv3.ICCN {
		if id, clear := l2tpv3.Find[l2tpv3.LocalSessionID](m); clear && !h.ever[uint32(id)] {
			h.net.t.Fatalf("%s sends %v for session %d before it is installed", h.name, kind, id)
		}
	}
}

// transmit puts a packet on its way.
func (n *network) transmit(h *host, o Transmit) {
	local := netip.AddrPortFrom(h.addr, 1701)
	switch {
	case o.Path.Encapsulation == l2tpv3.IP:
		local = netip.AddrPortFrom(h.addr, 0)
	case o.Initiator:
		local = netip.AddrPortFrom(h.addr, h.ports[o.Connection])
	}
	d := Datagram{Path: Path{Encapsulation: o.Path.Encapsulation, Local: o.Path.Remote, Remote: local}, Payload: slices.Clone(o.Payload)}
	clear(o.Payload) // that nobody still needs it shows in what follows
	h.e.Recycle(o.Payload)
	if n.sender = o.Connection; n.trace != nil {
		n.trace(h, d)
	}
	copies := 1
	if n.rand.Float64() < n.loss {
		copies = 0
	} else if n.rand.Float64() < n.duplication {
		copies = 2
	}
	for range copies {
		n.sent++
		heap.Push(&n.air, packet{at: n.now.Add(n.delay()), n: n.sent, to: h.peer, d: d})
	}
}

// listens reports whether the host has a socket there.
func (h *host) listens(a netip.AddrPort) bool {
	if a.Addr() != h.addr {
		return false
	}
	if a.Port() == 1701 || a.Port() == 0 {
		return true
	}
	for _, p := range h.ports {
		if p == a.Port() {
			return true
		}
	}
	return false
}

// next does the next thing that happens, if that is before end.
func (n *network) next(end time.Time) bool {
	at, who := end, (*host)(nil)
	if len(n.air) > 0 && n.air[0].at.Before(at) {
		at = n.air[0].at
	} else if len(n.air) > 0 && n.air[0].at.Equal(at) {
		at = n.air[0].at
	}
	for _, h := range n.hosts {
		if h.down || h.e == nil {
			continue
		}
		if d, ok := h.e.Deadline(); ok && d.Before(at) {
			at, who = d, h
		}
	}
	switch {
	case who != nil:
		if at.After(n.now) {
			n.now = at
		}
		who.e.Advance(n.now)
		who.drain()
	case len(n.air) > 0 && !n.air[0].at.After(end):
		p := heap.Pop(&n.air).(packet)
		if p.at.After(n.now) {
			n.now = p.at
		}
		if p.to.down || p.to.e == nil || !p.to.listens(p.d.Local) {
			return true
		}
		if n.arrived != nil {
			n.arrived(p)
		}
		p.to.e.Receive(n.now, p.d)
		p.to.drain()
	default:
		n.now = end
		return false
	}
	return true
}

// run lets time pass.
func (n *network) run(d time.Duration) {
	for end := n.now.Add(d); n.next(end); {
	}
}

// until lets time pass until done, at most d. It reports whether done came.
func (n *network) until(d time.Duration, done func() bool) bool {
	end := n.now.Add(d)
	for !done() {
		if !n.next(end) {
			return done()
		}
	}
	return true
}

// start starts both hosts.
func (n *network) start() {
	for _, h := range n.hosts {
		h.start()
	}
}

// up reports whether every session that both hosts want is up at both, and both
// ends say the same of it.
func (n *network) up() bool { return n.disagreement() == "" }

// disagreement says what is not up, or where the two ends differ.
func (n *network) disagreement() string {
	a, b := n.hosts[0], n.hosts[1]
	if a.down || b.down || a.e == nil || b.e == nil {
		return "a host is down"
	}
	ac, bc := a.e.Connections(), b.e.Connections()
	if len(ac) != len(bc) {
		return "not the same tunnels"
	}
	for i := range ac {
		x, y := ac[i], bc[i]
		switch {
		case x.State != ConnectionEstablished || y.State != ConnectionEstablished:
			return fmt.Sprintf("%s is %v (%s) and %v (%s)", x.Tunnel.Name, x.State, x.Reason, y.State, y.Reason)
		case x.LocalID != y.RemoteID || x.RemoteID != y.LocalID:
			return fmt.Sprintf("%s: IDs %d-%d and %d-%d", x.Tunnel.Name, x.LocalID, x.RemoteID, y.LocalID, y.RemoteID)
		case x.Initiator == y.Initiator:
			return x.Tunnel.Name + ": both ends have the same role"
		case x.PeerHostName != y.Tunnel.HostName || y.PeerHostName != x.Tunnel.HostName:
			return x.Tunnel.Name + ": the wrong peer: " + x.PeerHostName + " and " + y.PeerHostName
		}
	}
	as, bs := a.e.Sessions(), b.e.Sessions()
	if len(as) != len(bs) {
		return "not the same sessions"
	}
	for i := range as {
		if s := differ(a, as[i], b, bs[i]); s != "" {
			return as[i].Session.Tunnel + " " + as[i].Session.Name + ": " + s
		}
	}
	return ""
}

// differ says what two ends of one session do not agree on.
func differ(a *host, x SessionStatus, b *host, y SessionStatus) string {
	switch {
	case x.State != SessionEstablished || y.State != SessionEstablished:
		return fmt.Sprintf("%v (%s) and %v (%s)", x.State, x.Reason, y.State, y.Reason)
	case x.LocalID != y.RemoteID || x.RemoteID != y.LocalID:
		return "IDs"
	case string(x.LocalCookie) != string(y.RemoteCookie) || string(x.RemoteCookie) != string(y.LocalCookie):
		return "cookies"
	case x.Initiator == y.Initiator:
		return "both ends have the same role"
	case x.Local != y.Remote || y.Local != x.Remote:
		return "circuit status"
	}
	i, okI := a.data[x.LocalID]
	j, okJ := b.data[y.LocalID]
	switch {
	case !okI || !okJ:
		return "not in the data plane"
	case i.RemoteID != j.LocalID || j.RemoteID != i.LocalID || string(i.RemoteCookie) != string(j.LocalCookie) || string(j.RemoteCookie) != string(i.LocalCookie):
		return "the data planes differ"
	// Section 5.4.5: the peer's circuit decides, not our own.
	case i.Transmit != (x.Remote&l2tpv3.CircuitActive != 0) || j.Transmit != (y.Remote&l2tpv3.CircuitActive != 0):
		return fmt.Sprintf("transmit %v and %v", i.Transmit, j.Transmit)
	}
	return ""
}
