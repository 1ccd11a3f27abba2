package control

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

// What the control machine sends, read by another implementation: tshark has to find
// in each message what the codec finds, digests included. This goes for every message
// of exchanges between two Endpoints, with all that one can want of the other, and of
// every transcript.

const tsharkSecret, tsharkOther = "s3cret", "another"

// exchanges are between two Endpoints, over each encapsulation and family of addresses.
func exchanges(t *testing.T, secrets [][]byte, change ...func(*Tunnel)) (all []sentPacket) {
	for i, over := range []l2tpv3.Encapsulation{l2tpv3.UDP, l2tpv3.IP} {
		for j, six := range []bool{false, true} {
			for k, change := range change {
				with := func(t *Tunnel) { t.Encapsulation, t.Secrets = over, secrets; change(t) }
				all = append(all, exchange(t, byte(100*i+10*j+k), six, with)...)
			}
		}
	}
	return all
}

// exchange has two Endpoints of one network go through all that they can.
func exchange(t *testing.T, number byte, six bool, change func(*Tunnel)) (all []sentPacket) {
	n := newNetwork(t, uint64(number)+1)
	for k, h := range n.hosts {
		h.started = func(e *Endpoint) { e.cfg.VendorName = implementation }
		h.addr = netip.AddrFrom4([4]byte{10, 0, number, byte(k + 1)})
		if six {
			h.addr = netip.AddrFrom16([16]byte{0xfd, 13: number, 15: byte(k + 1)})
		}
	}
	n.trace = func(_ *host, d Datagram) {
		all = append(all, sentPacket{at: n.now, from: d.Remote, to: d.Local, over: d.Encapsulation, payload: d.Payload})
	}
	n.tunnel("gold", func(t *Tunnel) { t.ECN, t.Language = true, "en" }, change)
	can := func(s *Session) { s.CanSequence, s.CanSublayer, s.CanChangeCookies = true, true, true }
	n.session("gold", "plain", can)
	n.session("gold", "small", can, func(s *Session) { s.CookieLength = 4 })
	n.session("gold", "none", can, func(s *Session) { s.CookieLength = 0 })
	n.session("gold", "full", can, func(s *Session) {
		s.Type, s.AGI, s.LocalEndID = l2tpv3.EthernetVLAN, []byte("group"), []byte("full")
		s.Sublayer, s.Sequencing, s.MTU, s.DSCP = l2tpv3.SublayerDefault, l2tpv3.SequencingAll, 1500, 46
	})
	n.start()
	if !n.until(time.Minute, n.up) {
		t.Fatal(n.disagreement())
	}
	a, b := n.hosts[0], n.hosts[1]
	tunnel := a.tunnels[0].Name
	for _, status := range []l2tpv3.CircuitStatus{0, l2tpv3.CircuitStandby, l2tpv3.CircuitActive} {
		a.sessions[0].Circuit = status
		a.apply()
		a.drain()
		n.run(time.Second)
	}
	if err := a.e.ChangeCookie(n.now, tunnel, "plain"); err != nil && !a.tunnels[0].Foreign {
		t.Fatal(err)
	}
	a.e.CountErrors(n.now, tunnel, "plain", l2tpv3.CircuitErrors{CRC: 1, Framing: 2, HardwareOverruns: 3, BufferOverruns: 4, Timeouts: 5, Alignment: 6})
	a.drain()
	n.run(30 * time.Second) // some HELLOs
	a.e.RemoveSession(n.now, tunnel, "plain", l2tpv3.ResultCode{Result: 3})
	a.drain()
	n.run(time.Second)
	b.e.RemoveTunnel(n.now, b.tunnels[0].Name, l2tpv3.ResultCode{Result: 6})
	b.drain()
	n.run(time.Second)
	return all
}

// transcribed is what is sent in all transcripts. Those begin anew often, with the
// same IDs: each time has addresses of its own, so that tshark does not confuse them.
func transcribed(t *testing.T) (all []sentPacket) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no transcripts: ", err)
	}
	for i, file := range files {
		script, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		replay(t, string(script), func(s *stage, o *Transmit) {
			from, to := o.Path.Local.Port(), o.Path.Remote.Port()
			if o.Path.Encapsulation == l2tpv3.UDP && from == 0 {
				from = 40000 // the transport's choice
			}
			place := func(host byte) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(i), byte(s.begun), host}) }
			all = append(all, sentPacket{
				at: s.now, over: o.Path.Encapsulation, payload: slices.Clone(o.Payload),
				from: netip.AddrPortFrom(place(1), from), to: netip.AddrPortFrom(place(2), to),
			})
		})
	}
	return all
}

// TestTsharkAgrees on all of it.
func TestTsharkAgrees(t *testing.T) {
	md5, sha1 := func(*Tunnel) {}, func(t *Tunnel) { t.Digest = l2tpv3.HMACSHA1 }
	hide := func(t *Tunnel) { t.Hide = true }
	cisco := func(t *Tunnel) { t.Numbers, t.Foreign = l2tpv3.CiscoNumbers, true }
	one, two := [][]byte{[]byte(tsharkSecret)}, [][]byte{[]byte(tsharkSecret), []byte(tsharkOther)}
	plain, signed, rotating := exchanges(t, nil, md5, cisco), exchanges(t, one, md5, sha1, hide, cisco), exchanges(t, two, md5, sha1)
	scripts := transcribed(t)
	for _, run := range []struct {
		name, secret string
		sent         []sentPacket
		// wrong is how many of a message's digests have to be incorrect: those that
		// are by another secret. Nil is not to look: nobody has signed the peer's side.
		// Those under Cisco's number are compared, but not verified by tshark.
		wrong func(digests int) int
	}{
		{"without a secret", "", plain, func(int) int { return 0 }},
		{"with a secret", tsharkSecret, signed, func(int) int { return 0 }},
		{"with another secret", tsharkOther, signed, func(n int) int { return n }},
		{"with the first of two secrets", tsharkSecret, rotating, func(n int) int { return n / 2 }},
		{"with the second of two secrets", tsharkOther, rotating, func(n int) int { return n / 2 }},
		{"transcripts", "", scripts, nil},
	} {
		t.Run(run.name, func(t *testing.T) {
			digests := 0
			for i, got := range dissect(t, run.secret, run.sent) {
				m, err := l2tpv3.Parse(run.sent[i].payload)
				if err != nil {
					t.Fatalf("%x: %v", run.sent[i].payload, err)
				}
				if d := cmp.Diff(expected(m, run.sent[i].payload), got.fields); d != "" {
					t.Errorf("%v (-codec +tshark)\n%s", m, d)
				}
				n := 0
				for _, a := range m.AVPs {
					if _, ok := a.(l2tpv3.MessageDigest); ok {
						n++
					}
				}
				digests += n
				if run.wrong != nil && got.incorrect != run.wrong(n) {
					t.Errorf("%v: tshark finds %d of %d digests incorrect, want %d", m, got.incorrect, n, run.wrong(n))
				}
				for _, complaint := range got.complaints {
					t.Errorf("%v: tshark says %s", m, complaint)
				}
				if t.Failed() {
					t.FailNow()
				}
			}
			if run.secret != "" && digests < len(run.sent)/2 {
				t.Errorf("%d digests in %d messages", digests, len(run.sent))
			}
			t.Logf("%d messages, %d digests", len(run.sent), digests)
		})
	}
	complete(t, slices.Concat(plain, signed, rotating, scripts))
}

// neverSent is what the RFCs have in L2TPv3 and the control machine does not send, and why.
var neverSent = []struct {
	why      string
	messages []l2tpv3.MessageType
	avps     []l2tpv3.AVPType
	// in are the only messages that do not have the AVPs; nil is all.
	in []l2tpv3.MessageType
}{
	{why: "there is nobody to call out for (docs/protocol.md)", messages: []l2tpv3.MessageType{l2tpv3.OCRQ, l2tpv3.OCRP, l2tpv3.OCCN}},
	{why: "a modem's, PPPoE relay's, access line's or multicast's affair", messages: []l2tpv3.MessageType{l2tpv3.MDMST, l2tpv3.SRRQ, l2tpv3.SRRP,
		l2tpv3.MSRQ, l2tpv3.MSRP, l2tpv3.MSE, l2tpv3.MSI, l2tpv3.MSEN, l2tpv3.CSUN, l2tpv3.CSURQ}},
	{why: "RFC 4951 is not implemented", messages: []l2tpv3.MessageType{l2tpv3.FSQ, l2tpv3.FSR},
		avps: []l2tpv3.AVPType{l2tpv3.AVPFailoverCapability, l2tpv3.AVPTunnelRecovery, l2tpv3.AVPSuggestedControlSequence}},
	{why: "an Ethernet pseudowire has no speed, channel, cells or clock, and is not switched", avps: []l2tpv3.AVPType{
		l2tpv3.AVPTxConnectSpeed, l2tpv3.AVPRxConnectSpeed, l2tpv3.AVPPhysicalChannelID, l2tpv3.AVPFrameRelayHeaderLength,
		l2tpv3.AVPATMMaximumConcatenatedCells, l2tpv3.AVPOAMEmulationRequired, l2tpv3.AVPATMAlarmStatus, l2tpv3.AVPConnectSpeedUpdateEnable,
		l2tpv3.AVPTDMPseudowire, l2tpv3.AVPRTP, l2tpv3.AVPPseudowireSwitchingPoint}},
	{why: "RFCs 4623, 5085 and 7886 are not implemented", avps: []l2tpv3.AVPType{l2tpv3.AVPMaximumReceiveUnit, l2tpv3.AVPMaximumReassembledReceiveUnit,
		l2tpv3.AVPVCCVCapability, l2tpv3.AVPSBFDTargetDiscriminator}},
	{why: "no FCS is kept (RFC 4720)", avps: []l2tpv3.AVPType{l2tpv3.AVPFCSRetention}},
	{why: "RFC 3308: a class of the control connection is only answered", avps: []l2tpv3.AVPType{l2tpv3.AVPControlConnectionDS}, in: []l2tpv3.MessageType{l2tpv3.SCCRQ}},
	{why: "how it is to be sequenced is known with the request", avps: []l2tpv3.AVPType{l2tpv3.AVPDataSequencing}, in: []l2tpv3.MessageType{l2tpv3.ICCN}},
}

// complete checks that every message was there that the RFCs have, with every AVP
// that they have in it, or is among neverSent; and that nothing of that was.
func complete(t *testing.T, all []sentPacket) {
	type part struct {
		message l2tpv3.MessageType
		avp     l2tpv3.AVPType
	}
	sent, cisco := map[part]bool{}, map[l2tpv3.AVPType]bool{}
	for _, s := range all {
		m, err := l2tpv3.Parse(s.payload)
		if err != nil {
			t.Fatal(err)
		}
		kind, _ := m.Type()
		for _, a := range m.AVPs {
			if raw, ok := a.(l2tpv3.RawAVP); ok && raw.Vendor == l2tpv3.VendorCisco {
				cisco[raw.Type] = true
			} else {
				sent[part{kind, a.AVPType()}] = true
			}
		}
	}
	for number := range l2tpv3.AVPType(15) {
		if number != 0 && number != 11 && !cisco[number] { // which have no meaning
			t.Errorf("Cisco's attribute %d was never sent", number)
		}
	}
	why := func(p part) string {
		for _, n := range neverSent {
			if slices.Contains(n.messages, p.message) || slices.Contains(n.avps, p.avp) && (n.in == nil || slices.Contains(n.in, p.message)) {
				return n.why
			}
		}
		return ""
	}
	for info := range l2tpv3.KnownMessages() {
		avps := slices.Concat(info.Mandatory, info.Optional, []l2tpv3.AVPType{l2tpv3.AVPMessageType, l2tpv3.AVPMessageDigest})
		for _, avp := range avps {
			p := part{info.Type, avp}
			switch never := why(p); {
			case never == "" && !sent[p]:
				t.Errorf("%v with %v was never sent, and nothing says why not", p.message, p.avp)
			case never != "" && sent[p]:
				t.Errorf("%v with %v was sent, although %s", p.message, p.avp, never)
			}
			delete(sent, p)
		}
	}
	// In any message (Section 6), or only between two of us (ChangeCookie).
	for p := range sent {
		if p.avp != l2tpv3.AVPRandomVector && p != (part{l2tpv3.SLI, l2tpv3.AVPAssignedCookie}) {
			t.Errorf("%v with %v was sent, which the RFCs do not have", p.message, p.avp)
		}
	}
}

// shown are the fields in which tshark shows an AVP's value, and what they say; or
// the octets, where it knows the AVP's name or number only.
func shown(a l2tpv3.AVP, value []byte) []string {
	one := func(field string, v any) []string { return []string{fmt.Sprintf("l2tp.%s=%v", field, v)} }
	octets := func(field string) []string { return one(field, colons(value)) }
	switch v := a.(type) {
	case l2tpv3.MessageType:
		return one("avp.message_type", uint16(v))
	case l2tpv3.ResultCode:
		all := one("result_code", v.Result)
		if v.HasError || v.Message != "" {
			all = append(all, one("avp.error_code", uint16(v.Error))...)
		}
		if v.Message != "" {
			all = append(all, one("avp.error_message", v.Message)...)
		}
		return all
	case l2tpv3.HostName:
		return one("avp.host_name", string(v))
	case l2tpv3.VendorName:
		return one("avp.vendor_name", string(v))
	case l2tpv3.PreferredLanguage:
		return one("avp.preferred_language", string(v))
	case l2tpv3.RemoteEndID:
		return one("avp.remote_end_id", string(v))
	case l2tpv3.RouterID:
		return one("avp.router_id", uint32(v))
	case l2tpv3.AssignedControlConnectionID:
		return one("avp.assigned_control_conn_id", uint32(v))
	case l2tpv3.PseudowireCapabilities:
		var all []string
		for _, p := range v {
			all = append(all, one("avp.pw_type", uint16(p))...)
		}
		return all
	case l2tpv3.ReceiveWindowSize:
		return one("avp.receive_window_size", uint16(v))
	case l2tpv3.TieBreaker:
		return one("tie_breaker", fmt.Sprintf("0x%x", v[:]))
	case l2tpv3.Nonce:
		return octets("avp.nonce")
	case l2tpv3.RandomVector:
		return octets("avp.random_vector")
	case l2tpv3.MessageDigest:
		return octets("avp.message_digest")
	case l2tpv3.LocalSessionID:
		return one("avp.local_session_id", uint32(v))
	case l2tpv3.RemoteSessionID:
		return one("avp.remote_session_id", uint32(v))
	case l2tpv3.SerialNumber:
		return one("avp.call_serial_number", uint32(v))
	case l2tpv3.PseudowireType:
		return one("avp.pseudowire_type", uint16(v))
	case l2tpv3.CircuitStatus:
		// RFC 3931's bits; it does not know those of RFC 5641.
		return append(one("avp.circuit_status", uint16(v)&1), one("avp.circuit_type", uint16(v)>>1&1)...)
	case l2tpv3.AssignedCookie:
		return octets("avp.assigned_cookie")
	case l2tpv3.L2SpecificSublayer:
		return one("avp.layer2_specific_sublayer", uint16(v))
	case l2tpv3.DataSequencing:
		return one("avp.data_sequencing", uint16(v))
	case l2tpv3.CircuitErrors:
		return slices.Concat(one("avp.crc_errors", v.CRC), one("avp.framing_errors", v.Framing), one("avp.hardware_overruns", v.HardwareOverruns),
			one("avp.buffer_overruns", v.BufferOverruns), one("avp.time_out_errors", v.Timeouts), one("avp.alignment_errors", v.Alignment))
	case l2tpv3.RawAVP:
		if draft := l2tpv3.DraftVersion(); v.Vendor == draft.Vendor && v.Type == draft.Type {
			return one("cisco.draft_avp_version", 1)
		}
	}
	if len(value) == 0 {
		return nil
	}
	return []string{fmt.Sprintf("octets=%x", value)}
}

// shownCisco is shown for an AVP under Cisco's number.
func shownCisco(a l2tpv3.AVP, value []byte) []string {
	if mtu, ok := a.(l2tpv3.InterfaceMTU); ok {
		return []string{fmt.Sprintf("l2tp.cisco.interface_mtu=%d", mtu)} // which it does not know under the standard one
	}
	all := shown(a, value)
	if v, ok := a.(l2tpv3.CircuitStatus); ok {
		all[1] = fmt.Sprintf("circuit_type=%d", uint16(v)&1) // of the same bit, to tshark
	}
	for i, s := range all {
		s = strings.TrimPrefix(strings.TrimPrefix(strings.TrimPrefix(s, "l2tp."), "avp."), "cisco.")
		all[i] = "l2tp.cisco." + strings.Replace(s, "control_conn_id", "control_connection_id", 1)
	}
	return all
}

// colons are octets as tshark shows them.
func colons(b []byte) string {
	s := make([]string, len(b))
	for i, v := range b {
		s[i] = fmt.Sprintf("%02x", v)
	}
	return strings.Join(s, ":")
}

// expected is what tshark has to find in a message: the header, and of each AVP the
// octets, the flags, the length and, if it is not hidden, what it is.
func expected(m *l2tpv3.Message, payload []byte) (all []string) {
	meant := &l2tpv3.Message{AVPs: slices.Clone(m.AVPs)}
	meant.Standardize()
	say := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	say("l2tp.version=%d", m.Version)
	say("l2tp.length=%d", len(payload))
	say("l2tp.ccid=0x%08x", m.ControlConnectionID)
	say("l2tp.Ns=%d", m.Ns)
	say("l2tp.Nr=%d", m.Nr)
	rest := payload[12:]
	for i, a := range m.AVPs {
		length := int(rest[0]&3)<<8 | int(rest[1])
		octets := rest[:length]
		rest = rest[length:]
		raw, _ := a.(l2tpv3.RawAVP)
		say("AVP=%x", octets)
		say("l2tp.avp.mandatory=%d", bit(m.FlagsAt(i).Mandatory))
		say("l2tp.avp.hidden=%d", bit(raw.Hidden))
		say("l2tp.avp.length=%d", length)
		if raw.Hidden {
			continue
		}
		say("l2tp.avp.vendor_id=%d", raw.Vendor)
		if raw.Vendor == l2tpv3.VendorCisco {
			say("l2tp.avp.ciscotype=%d", raw.Type)
			all = append(all, shownCisco(meant.AVPs[i], octets[6:])...)
		} else {
			say("l2tp.avp.type=%d", a.AVPType())
			all = append(all, shown(a, octets[6:])...)
		}
	}
	return all
}

func bit(set bool) int {
	if set {
		return 1
	}
	return 0
}
