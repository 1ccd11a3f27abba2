package conformance

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/pwd-project/pwd/internal/netlab"
)

func TestRule36_4_5_SessionIDsAndCookies(t *testing.T) {
	for _, own := range []int{0, 4, 8} {
		t.Run(fmt.Sprintf("daemon's cookie of %d", own), func(t *testing.T) {
			t.Parallel()
			d := start(t, options{pseudowires: []pseudowire{
				{name: "a", cookie: own, circuit: "eth1"}, {name: "b", cookie: own, circuit: "eth2"},
			}})
			n := d.client.open("gold", d.socket)
			n.decline(2)
			n.aside = []messageType{icrq}
			a, b := d.host("eth1"), d.host("eth2")
			other := n.open("b", octets(avpCookie, 8, 7, 6, 5, 4, 3, 2, 1))
			for _, cookie := range [][]byte{nil, {1, 2, 3, 4}, {0xf1, 2, 3, 4, 5, 6, 7, 0xf8}} {
				s := n.open("a", octets(avpCookie, cookie...))
				if len(s.peerCookie) != own {
					t.Fatalf("the daemon assigned the cookie %x, configured are %d octets", s.peerCookie, own)
				}
				a.receives(s, fmt.Sprintf("with a cookie of %d", len(cookie)))
				s.receives(a, fmt.Sprintf("to a cookie of %d", len(cookie)))
				for name, b := range forged(s, other) {
					if d.overIP && name == "Ver 2" {
						continue // there is no version over IP
					}
					t.Log(name)
					n.socket.send(n.port, b)
				}
				a.receives(s, "the last")
				b.receives(other, "to the other host")
				s.send(cdn, u16(avpResultCode, resultAdministered))
				n.delivered()
			}
		})
	}
}

// forged are data messages that have to be dropped, each with a good frame in it.
func forged(s, other *session) map[string][]byte {
	f := frame("forged")
	all := map[string][]byte{
		"unknown session":                  dataMessage(s.peer+1, s.peerCookie, f),
		"session 0":                        dataMessage(0, s.peerCookie, f),
		"the client's own session":         dataMessage(s.local, s.peerCookie, f),
		"session in the other byte order":  dataMessage(binary.LittleEndian.Uint32(binary.BigEndian.AppendUint32(nil, s.peer)), s.peerCookie, f),
		"Ver 2":                            append([]byte{0, 2}, dataMessage(s.peer, s.peerCookie, f)[2:]...),
		"header cut off in the session ID": dataMessage(s.peer, nil, nil)[:6],
		"header without a session ID":      []byte(dataWord),
		"three octets":                     []byte(dataWord)[:3],
	}
	// What is the session's own by chance is no forgery: an ID that reads the same both
	// ways, a cookie that ends as the frame begins and is cut there.
	defer maps.DeleteFunc(all, func(_ string, b []byte) bool {
		return bytes.HasPrefix(b, dataMessage(s.peer, s.peerCookie, nil))
	})
	k := len(s.peerCookie)
	if k == 0 {
		return all
	}
	for bit := range 8 * k {
		cookie := bytes.Clone(s.peerCookie)
		cookie[bit/8] ^= 0x80 >> (bit % 8)
		all[fmt.Sprintf("cookie with bit %d inverted", bit)] = dataMessage(s.peer, cookie, f)
	}
	for n := range k {
		all[fmt.Sprintf("%d octets of the cookie", n)] = dataMessage(s.peer, s.peerCookie[:n], f)
		all[fmt.Sprintf("%d octets of the cookie and no more", n)] = dataMessage(s.peer, s.peerCookie[:n], nil)
	}
	all["cookie of the other session"] = dataMessage(s.peer, other.peerCookie, f)
	all["the client's own cookie"] = dataMessage(s.peer, append(bytes.Clone(s.cookie), make([]byte, k)...)[:k], f)
	reversed := bytes.Clone(s.peerCookie)
	slices.Reverse(reversed)
	all["cookie in the other byte order"] = dataMessage(s.peer, reversed, f)
	return all
}

// A cookie that ends as frames begin, and IDs that read the same both ways, are not taken
// for forged ones: what is left has no header that is the session's.
func TestForgedPacketsAreForged(t *testing.T) {
	for _, tt := range []struct {
		peer   uint32
		cookie []byte
		want   int // as many as are left
	}{
		{0x12345678, []byte{1, 2, 3, 4, 5, 6, 7, 8}, 8 + 64 + 16 + 3},
		{0x12345678, []byte{1, 2, 3, 4, 5, 6, 7, 0xff}, 8 + 64 + 16 + 3 - 1},
		{0x12345678, []byte{1, 2, 3, 4, 5, 6, 0xff, 0xff}, 8 + 64 + 16 + 3 - 2},
		{0x12344321, []byte{1, 2, 3, 4}, 8 + 32 + 8 + 3},
		{0x12343412, nil, 8 - 1},
	} {
		s := &session{local: 7, peer: tt.peer, peerCookie: tt.cookie, cookie: []byte{9}}
		all := forged(s, &session{peerCookie: bytes.Repeat([]byte{0xaa}, len(tt.cookie))})
		for name, b := range all {
			if bytes.HasPrefix(b, dataMessage(s.peer, s.peerCookie, nil)) {
				t.Errorf("session %x, cookie %x: %s is the session's own", tt.peer, tt.cookie, name)
			}
		}
		if len(all) != tt.want {
			t.Errorf("session %x, cookie %x: %d forged packets, want %d", tt.peer, tt.cookie, len(all), tt.want)
		}
	}
}

func TestRule36_4_1_2_1_ReservedBitsOfDataAreIgnored(t *testing.T) {
	t.Parallel()
	d := start(t, options{pseudowires: []pseudowire{{name: "a", cookie: 8, circuit: "eth1"}}})
	n := d.client.open("gold", d.socket)
	a := n.accept()
	h := d.host("eth1")
	h.receives(a, "without")
	f := frame("with")
	b := dataMessage(a.peer, a.peerCookie, f)
	copy(b, "\x7f\xf3\xff\xff") // every bit but T and Ver
	h.arrives(f, func() { n.socket.send(n.port, b) })
}

func TestRule38_5_4_5_CircuitOfTheClient(t *testing.T) {
	for _, initiator := range []string{"client", "daemon"} {
		t.Run("asked for by the "+initiator, func(t *testing.T) {
			t.Parallel()
			d := start(t, options{pseudowires: []pseudowire{{name: "a", cookie: 4, circuit: "eth1"}}})
			n := d.client.open("gold", d.socket)
			h := d.host("eth1")
			inactive, active := u16(avpCircuitStatus, 0), u16(avpCircuitStatus, circuitActive)
			var a *session
			if initiator == "client" {
				n.decline(1)
				a = n.open("a", inactive)
			} else {
				a = n.accept(inactive)
			}
			// "all data traffic for that session MUST cease (or not begin)"
			h.floods("not begun")
			for _, status := range []avp{inactive, u16(avpCircuitStatus, 0x0004), u16(avpCircuitStatus, circuitFaults)} {
				a.send(sli, active)
				n.acked()
				a.receives(h, "active")
				a.send(sli, status)
				n.acked()
				h.floods("ceased")
			}
			a.send(sli, active)
			n.acked()
			a.receives(h, "active once more")
			h.receives(a, "to the host")
		})
	}
}

func TestRule38_4719_2_3_2_CircuitOfTheDaemon(t *testing.T) {
	t.Parallel()
	d := start(t, options{pseudowires: []pseudowire{
		{name: "a", circuit: "eth1"}, {name: "b", circuit: missing}, {name: "c", circuit: "eth2"},
	}})
	d.circuits["eth2"].Down()
	d.noticed("c", "down")
	n := d.client.open("gold", d.socket)
	want := map[string]bool{"a": true, "b": false, "c": false}
	sessions := map[string]*session{}
	requests := []message{n.expect(icrq), n.expect(icrq), n.expect(icrq)}
	for _, m := range requests {
		end := string(m.value(avpRemoteEndID))
		if got := m.number(avpCircuitStatus)&circuitActive != 0; !m.has(avpCircuitStatus) || got != want[end] {
			t.Errorf("the circuit of %s is active: %v, want %v: %v", end, got, want[end], m)
		}
		sessions[end] = n.answer(m)
		n.expect(iccn)
	}
	changes := func(end, circuit string, up bool) {
		t.Helper()
		if up {
			d.circuits[circuit].Up()
		} else {
			d.circuits[circuit].Down()
		}
		m := n.expect(sli)
		sessions[end].isFor(m)
		if got := m.number(avpCircuitStatus)&circuitActive != 0; !m.has(avpCircuitStatus) || got != up {
			t.Errorf("the circuit of %s is active: %v, want %v: %v", end, got, up, m)
		}
	}
	changes("a", "eth1", false)
	changes("c", "eth2", true)
	changes("a", "eth1", true)
	changes("c", "eth2", false)
	n.alive()
	// The ICRP has it too.
	for _, c := range []struct {
		end    string
		active bool
	}{{"a", true}, {"c", false}} {
		sessions[c.end].send(cdn, u16(avpResultCode, resultAdministered))
		n.aside = []messageType{icrq}
		s, call := n.call(c.end, tieBreaker)
		n.transmit(n.stamp(call))
		m := n.expect(icrp)
		s.isFor(m)
		if got := m.number(avpCircuitStatus)&circuitActive != 0; !m.has(avpCircuitStatus) || got != c.active {
			t.Errorf("the circuit of %s is active: %v, want %v: %v", c.end, got, c.active, m)
		}
	}
}

// noticed waits until the daemon knows the state of a circuit.
func (d *dut) noticed(pseudowire, state string) {
	d.t.Helper()
	ctx := d.within()
	err := netlab.Poll(ctx, "the circuit of "+pseudowire+" is "+state, func() error {
		circuits, err := d.site.Client().Attachments(ctx)
		if err != nil {
			return err
		}
		for _, c := range circuits {
			if c.Pseudowire == pseudowire && c.State == state {
				return nil
			}
		}
		return fmt.Errorf("%+v", circuits)
	})
	if err != nil {
		d.t.Fatal(err)
	}
}

// Without AVP 103 from the client the daemon's packets are not ECN capable,
// whatever is in them (RFC 9601, Section 6.1.1).
func TestRule40_9601_6_1_1_OuterECN(t *testing.T) {
	t.Parallel()
	d := start(t, options{pseudowires: []pseudowire{{name: "a", cookie: 8, circuit: "eth1"}}})
	n := d.client.open("gold", d.socket)
	a := n.accept()
	h := d.host("eth1")
	a.receives(h, "the way is free")
	capture, err := d.underlay.Capture(netlab.CaptureOptions{Keep: func(f *netlab.Frame) bool {
		return !d.overIP && isUDP(f.Data) && len(f.Data) > 14+28 && f.Data[14+28]&0x80 == 0 ||
			d.overIP && len(f.Data) > 14+24 && f.Data[14+9] == 115 && binary.BigEndian.Uint32(f.Data[14+20:]) != 0
	}})
	if err != nil {
		t.Fatal(err)
	}
	var sent [][]byte
	for ecn := range byte(4) {
		f := []byte("\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x99\x08\x00")
		f = append(f, 0x45, 0xb8|ecn, 0, 46, 0, ecn, 0x40, 0, 64, 253, 0, 0, 198, 51, 100, 1, 198, 51, 100, 2)
		sum := sum16(f[14:])
		binary.BigEndian.PutUint16(f[14+10:], ^uint16(sum>>16+sum&0xffff))
		f = append(f, make([]byte, 26)...)
		d.client.frames = append(d.client.frames, f)
		sent = append(sent, f)
		h.send(f)
	}
	frames, err := capture.Wait(d.within(), "the four packets", func(got []netlab.Frame) bool {
		return !slices.ContainsFunc(sent, func(f []byte) bool {
			return !slices.ContainsFunc(got, func(g netlab.Frame) bool { return bytes.HasSuffix(g.Data, f) })
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range frames {
		if f.Data[15]&3 != 0 {
			t.Errorf("the outer ECN field is %d: %x", f.Data[15]&3, f.Data)
		}
	}
}
