package interop

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/l2tpv3/control"
)

// ciscoCapture has the control messages of two Cisco routers over IP (from the openrpd
// project, Apache-2.0). It is not part of this tree, but lies beside it.
const ciscoCapture = "../../../shared/reference/captures/cisco-ubr10k-rfgw10-control.pcap"

// The routers of the capture.
var (
	ubr10k = netip.MustParseAddr("4.6.13.2") // calls
	rfgw10 = netip.MustParseAddr("4.6.13.1") // answers
)

// captured is a control message of the capture.
type captured struct {
	at      time.Time
	from    netip.Addr
	payload []byte
}

// readCapture reads an Ethernet pcap file of L2TPv3 over IPv4.
func readCapture(t *testing.T) (all []captured) {
	t.Helper()
	b, err := os.ReadFile(ciscoCapture)
	netlab.Missing(t, "the capture of Cisco routers", err)
	if all, err = parseCapture(b); err != nil {
		t.Fatal(err)
	}
	return all
}

func parseCapture(b []byte) (all []captured, err error) {
	order := binary.LittleEndian
	if len(b) < 24 || order.Uint32(b) != 0xa1b2c3d4 || order.Uint32(b[20:]) != 1 {
		return nil, errors.New("no pcap file of Ethernet frames, little end first")
	}
	for b = b[24:]; len(b) > 0; {
		if len(b) < 16 || len(b)-16 < int(order.Uint32(b[8:])) {
			return nil, errors.New("it ends within a packet")
		}
		at, n := time.Unix(int64(order.Uint32(b)), int64(order.Uint32(b[4:]))*1000), int(order.Uint32(b[8:]))
		frame := b[16 : 16+n]
		b = b[16+n:]
		const ip, l2tp = 14, 14 + 20 + 4 // behind the Session ID, which is 0
		if n < l2tp+12 || frame[ip] != 0x45 || frame[ip+9] != l2tpv3.Protocol || binary.BigEndian.Uint32(frame[l2tp-4:]) != 0 {
			return nil, fmt.Errorf("packet %d is no control message over IPv4", len(all)+1)
		}
		end := ip + int(binary.BigEndian.Uint16(frame[ip+2:]))
		from, _ := netip.AddrFromSlice(frame[ip+12 : ip+16])
		all = append(all, captured{at, from, frame[l2tp:end]})
	}
	return all, nil
}

// Every message of two Cisco routers is read, and written again octet for octet.
func TestCiscoMessages(t *testing.T) {
	all := readCapture(t)
	if len(all) != 121 {
		t.Errorf("%d messages, want 121", len(all))
	}
	for i, c := range all {
		m, err := l2tpv3.Parse(c.payload)
		if err != nil {
			t.Errorf("message %d: %v", i+1, err)
			continue
		}
		if again, err := m.Append(nil); err != nil || !bytes.Equal(again, c.payload) {
			t.Errorf("message %d: written again %x, %v; it was %x", i+1, again, err, c.payload)
		}
		if err := l2tpv3.Validate(m); err != nil {
			t.Errorf("message %d: %v", i+1, err)
		}
	}
}

// tiesLost gives what is random, and tie breakers that lose.
type tiesLost struct{ *rand.ChaCha8 }

func (r tiesLost) Read(b []byte) (int, error) {
	if len(b) == len(l2tpv3.TieBreaker{}) {
		for i := range b {
			b[i] = 0xff
		}
		return len(b), nil
	}
	return r.ChaCha8.Read(b)
}

// replay is the control machine in the place of the router that answers.
type replay struct {
	t    *testing.T
	e    *control.Endpoint
	now  time.Time
	path control.Path
	// id is the machine's control connection ID, nr the next of its messages.
	id uint32
	nr uint16
	// sessions are its session IDs, by those of the router.
	sessions map[uint32]uint32
	sent     map[l2tpv3.MessageType]int
	// old has the router speak no number that it has Cisco's own for.
	old bool
}

// The router that calls comes up with the control machine, with all of its 24 sessions. What it sends is
// as it was captured but for what the other router had a say in: IDs that it assigned, and Nr.
func TestCiscoReplay(t *testing.T) { testCiscoReplay(t, l2tpv3.StandardNumbers) }

// So does one that speaks only the numbers of before RFC 3931, which the captured router has beside the others.
func TestCiscoReplayOldNumbers(t *testing.T) { testCiscoReplay(t, l2tpv3.CiscoNumbers) }

func testCiscoReplay(t *testing.T, numbers l2tpv3.Numbers) {
	all := readCapture(t)
	calls := slices.DeleteFunc(all, func(c captured) bool { return c.from != ubr10k })
	r := &replay{t: t, now: calls[0].at, sessions: map[uint32]uint32{}, sent: map[l2tpv3.MessageType]int{}, old: numbers == l2tpv3.CiscoNumbers}
	r.path = control.Path{Encapsulation: l2tpv3.IP, Local: netip.AddrPortFrom(rfgw10, 0), Remote: netip.AddrPortFrom(ubr10k, 0)}
	r.e = control.New(control.Config{Random: tiesLost{rand.NewChaCha8([32]byte{})}, VendorName: "pwd"})
	r.configure(calls)
	for _, c := range calls {
		r.advance(c.at)
		r.receive(c.payload)
	}
	r.advance(r.now.Add(time.Minute))

	c := r.e.Connections()[0]
	if c.State != control.ConnectionEstablished || c.Initiator || c.PeerHostName != "CST-Wuhan-ubr10k" || c.PeerNumbers != numbers {
		t.Errorf("the connection is %v as with %q (%s), numbers %v", c.State, c.PeerHostName, c.Reason, c.PeerNumbers)
	}
	if c.Unacknowledged+c.Queued > 0 || c.Closing > 0 {
		t.Errorf("%d messages unacknowledged, %d queued, %d connections closing", c.Unacknowledged, c.Queued, c.Closing)
	}
	sessions := r.e.Sessions()
	if len(sessions) != 24 {
		t.Errorf("%d sessions, want 24", len(sessions))
	}
	for _, s := range sessions {
		if s.State != control.SessionEstablished || s.TransmitSublayer != mptSublayer || s.TransmitSequencing != l2tpv3.SequencingAll || r.sessions[s.RemoteID] != s.LocalID {
			t.Errorf("session %s, %d/%d: %v (%s), sublayer %d, sequencing %d", s.Session.Name, s.LocalID, s.RemoteID, s.State, s.Reason, s.TransmitSublayer, s.TransmitSequencing)
		}
	}
	if r.sent[l2tpv3.CDN]+r.sent[l2tpv3.StopCCN] > 0 || r.sent[l2tpv3.ICRP] != 24 {
		t.Errorf("sent %v", r.sent)
	}
	// Its first message came twice; the rest made sense, all of it.
	for name, n := range c.Counters {
		if n != 0 && !slices.Contains([]string{"received", "transmitted", "retransmitted", "duplicate"}, name) {
			t.Errorf("counted %s: %d", name, n)
		}
	}
}

// The pseudowires of the capture carry MPEG transport streams, with a sublayer of their own.
const (
	mptPseudowire = l2tpv3.PseudowireType(12)
	mptSublayer   = l2tpv3.L2SpecificSublayer(3)
)

// configure wants the connection, and a session for each that the router asks for.
func (r *replay) configure(calls []captured) {
	r.t.Helper()
	err := r.e.SetTunnel(r.now, control.Tunnel{
		Name: "cisco", Encapsulation: l2tpv3.IP, Local: rfgw10, Remote: ubr10k, HostName: "cisco.dc1", RouterID: 1,
		Capabilities: []l2tpv3.PseudowireType{mptPseudowire}, Hello: time.Hour, Foreign: true,
	})
	for _, c := range calls {
		m, _ := l2tpv3.Parse(c.payload)
		if kind, _ := m.Type(); kind != l2tpv3.ICRQ {
			continue
		}
		end, _ := l2tpv3.Find[l2tpv3.RemoteEndID](m)
		err = errors.Join(err, r.e.SetSession(r.now, control.Session{
			Tunnel: "cisco", Name: fmt.Sprintf("%x", end), Type: mptPseudowire, RemoteEndID: end,
			Circuit: l2tpv3.CircuitActive, Specific: mptSublayer, CanSequence: true, CanSublayer: true,
		}))
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// advance lets time pass.
func (r *replay) advance(to time.Time) {
	r.now = to
	r.e.Advance(to)
	r.takeOutputs()
}

// receive gives the machine a message of the router, which has heard all that was said.
func (r *replay) receive(captured []byte) {
	m, err := l2tpv3.Parse(captured)
	if err != nil {
		r.t.Fatal(err)
	}
	if m.ControlConnectionID != 0 {
		m.ControlConnectionID, m.Nr = r.id, r.nr
	}
	own, _ := l2tpv3.Find[l2tpv3.LocalSessionID](m)
	for i, a := range m.AVPs {
		id := r.sessions[uint32(own)]
		switch a := a.(type) {
		case l2tpv3.RemoteSessionID:
			if a != 0 {
				m.AVPs[i] = l2tpv3.RemoteSessionID(id)
			}
		case l2tpv3.RawAVP: // Cisco's Remote Session ID
			if a.Vendor == l2tpv3.VendorCisco && a.Type == 4 && binary.BigEndian.Uint32(a.Value) != 0 {
				a.Value = binary.BigEndian.AppendUint32(nil, id)
				m.AVPs[i] = a
			}
		}
	}
	if r.old {
		m = onlyCisco(m)
	}
	b, err := m.Append(nil)
	if err != nil {
		r.t.Fatal(err)
	}
	r.e.Receive(r.now, control.Datagram{Path: r.path, Payload: b})
	r.takeOutputs()
}

// onlyCisco leaves out attributes that are there under Cisco's number, too.
func onlyCisco(m *l2tpv3.Message) *l2tpv3.Message {
	var theirs []l2tpv3.AVPType
	for _, a := range m.AVPs {
		if r, ok := a.(l2tpv3.RawAVP); ok && r.Vendor == l2tpv3.VendorCisco {
			one := l2tpv3.Message{AVPs: []l2tpv3.AVP{r}}
			one.Standardize()
			theirs = append(theirs, one.AVPs[0].AVPType())
		}
	}
	kept := *m
	kept.AVPs, kept.Flags = nil, nil
	var flags []l2tpv3.AVPFlags
	for i, a := range m.AVPs {
		if _, raw := a.(l2tpv3.RawAVP); raw || !slices.Contains(theirs, a.AVPType()) {
			kept.AVPs, flags = append(kept.AVPs, a), append(flags, m.FlagsAt(i))
		}
	}
	for i, f := range flags {
		kept.SetFlags(i, f)
	}
	return &kept
}

// takeOutputs hears what the machine says.
func (r *replay) takeOutputs() {
	for {
		out, ok := r.e.Next()
		if !ok {
			return
		}
		sent, ok := out.(*control.Transmit)
		if !ok {
			continue
		}
		m, err := l2tpv3.Parse(sent.Payload)
		if err != nil {
			r.t.Fatal(err)
		}
		m.Standardize()
		kind, _ := m.Type()
		if named := kind != l2tpv3.SCCCN && kind != l2tpv3.ACK; named && (m.Numbers == l2tpv3.CiscoNumbers) != r.old {
			r.t.Errorf("sent %v with numbers %v", kind, m.Numbers)
		}
		r.sent[kind]++
		if m.Ns == r.nr && kind != l2tpv3.ACK {
			r.nr++
		}
		if id, ok := l2tpv3.Find[l2tpv3.AssignedControlConnectionID](m); ok {
			r.id = uint32(id)
		}
		if kind == l2tpv3.ICRP {
			local, _ := l2tpv3.Find[l2tpv3.LocalSessionID](m)
			remote, _ := l2tpv3.Find[l2tpv3.RemoteSessionID](m)
			r.sessions[uint32(remote)] = uint32(local)
		}
	}
}
