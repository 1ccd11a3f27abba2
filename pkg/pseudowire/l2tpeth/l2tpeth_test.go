package l2tpeth

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/genetlink/genltest"
	"github.com/mdlayher/netlink"
	"github.com/mdlayher/netlink/nltest"
	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/pseudowire"
)

var (
	gold = pseudowire.Tunnel{
		Name: "gold/dc2", LocalID: 11, RemoteID: 22, Encapsulation: l2tpv3.UDP, Socket: 7,
		Local: netip.MustParseAddrPort("192.0.2.1:1701"), Remote: netip.MustParseAddrPort("192.0.2.2:1701"),
	}
	lan      = pseudowire.Pseudowire{Name: "lan", Device: "pw-lan"}
	session1 = pseudowire.Session{
		Tunnel: "gold/dc2", Pseudowire: "lan", LocalID: 0x01020304, RemoteID: 0x0a0b0c0d,
		LocalCookie: []byte{1, 2, 3, 4, 5, 6, 7, 8}, RemoteCookie: []byte{0xa1, 0xa2, 0xa3, 0xa4},
		Transmit: true,
	}
)

// ready is a datapath with the session set, and the fake's record empty.
func ready(t *testing.T) (*fakeKernel, *Datapath) {
	t.Helper()
	k, d := newFake(t)
	set(t, d, lan, gold, session1)
	k.changed()
	return k, d
}

// set calls the setter of each object.
func set(t *testing.T, d *Datapath, objects ...any) {
	t.Helper()
	if err := trySet(d, objects...); err != nil {
		t.Fatal(err)
	}
}

func trySet(d *Datapath, objects ...any) error {
	for _, o := range objects {
		var err error
		switch o := o.(type) {
		case pseudowire.Pseudowire:
			err = d.SetPseudowire(o)
		case pseudowire.Tunnel:
			err = d.SetTunnel(o)
		case pseudowire.Session:
			err = d.SetSession(o)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func wantChanges(t *testing.T, k *fakeKernel, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, k.changed()); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

// Attributes are: length and type, 16 bits each in the machine's order, the value, padding
// to 4 octets (netlink(7)). Rows are for a machine that is little-endian.
func TestRequestBytes(t *testing.T) {
	k, d := newFake(t)
	long := pseudowire.Pseudowire{Name: "a-name-too-long", Device: "pw-a-name-x7k2", MTU: 9000}
	s := session1
	s.Pseudowire, s.ReceiveSublayer, s.TransmitSublayer = long.Name, l2tpv3.SublayerDefault, l2tpv3.SublayerDefault
	set(t, d, long, gold, s)
	s.ReceiveSequencing, s.TransmitSequencing = l2tpv3.SequencingAll, l2tpv3.SequencingNonIP
	set(t, d, s)
	if err := d.RemoveTunnel(gold.Name); err != nil {
		t.Fatal(err)
	}
	want := []struct {
		what string
		data []string
	}{
		{"create tunnel", []string{
			"08000900 0b000000", // CONN_ID
			"08000a00 16000000", // PEER_CONN_ID
			"05000700 03000000", // PROTO_VERSION
			"06000200 00000000", // ENCAP_TYPE: UDP
			"08001700 07000000", // FD
		}},
		{"create session", []string{
			"08000900 0b000000",          // CONN_ID
			"08000b00 04030201",          // SESSION_ID
			"08000c00 0d0c0b0a",          // PEER_SESSION_ID
			"06000100 05000000",          // PW_TYPE: Ethernet
			"05000500 01000000",          // L2SPEC_TYPE: default
			"08000f00 a1a2a3a4",          // COOKIE: what packets sent carry
			"0c001000 0102030405060708",  // PEER_COOKIE: what packets received carry
			"05001400 01000000",          // LNS_MODE
			"05001300 00000000",          // SEND_SEQ
			"05001200 00000000",          // RECV_SEQ
			"13000800 70772d61 2d6e616d", // IFNAME: pw-a-name-x7k2
			"652d7837 6b320000",
		}},
		{"set pw-a-name-x7k2 mtu 9000 alias addrgenmode", []string{
			"00000000 29000000 00000000 00000000", // ifinfomsg: index 41
			"08000400 28230000",                   // MTU
			"22001400",                            // IFALIAS, without a NUL
			hex.EncodeToString([]byte("pwd:pseudowire:a-name-too-long")) + "0000",
			"10001a80",          // AF_SPEC, nested
			"0c000a80",          // AF_INET6, nested
			"05000800 01000000", // ADDR_GEN_MODE: none
		}},
		{"add name to pw-a-name-x7k2", []string{
			"00000000 29000000 00000000 00000000",
			"1c003480", // PROP_LIST, nested
			"17003500", // ALT_IFNAME
			hex.EncodeToString([]byte("pw-a-name-too-long\x00")) + "00",
		}},
		{"set pw-a-name-x7k2 up", []string{
			"00000000 29000000 01000000 01000000", // flags and mask: IFF_UP
		}},
		{"modify session", []string{
			"08000900 0b000000", "08000b00 04030201",
			"05001400 01000000", // LNS_MODE
			"05001300 01000000", // SEND_SEQ
			"05001200 01000000", // RECV_SEQ
		}},
		{"delete session", []string{"08000900 0b000000", "08000b00 04030201"}},
		{"delete tunnel", []string{"08000900 0b000000"}},
	}
	if len(want) != len(k.requests) {
		t.Fatalf("%d requests, want %d: %v", len(k.requests), len(want), k.changed())
	}
	for i, w := range want {
		got := k.requests[i]
		if w.what != got.what {
			t.Errorf("request %d: %q, want %q", i, got.what, w.what)
		}
		if diff := cmp.Diff(strings.ReplaceAll(strings.Join(w.data, ""), " ", ""), hex.EncodeToString(got.data)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", w.what, diff)
		}
	}
}

func TestSetIsIdempotent(t *testing.T) {
	k, d := ready(t)
	set(t, d, lan, gold, session1, lan, gold, session1)
	wantChanges(t, k)
}

func TestSetChangesWhatDiffers(t *testing.T) {
	with := func(change func(*pseudowire.Session)) pseudowire.Session {
		s := session1
		change(&s)
		return s
	}
	anew := []string{
		"delete session", "create session",
		"set pw-lan mtu 1500 alias addrgenmode", "set pw-lan up",
	}
	for _, tt := range []struct {
		name string
		set  any
		want []string
	}{
		{"MTU", pseudowire.Pseudowire{Name: "lan", Device: "pw-lan", MTU: 1400}, []string{"set pw-lan mtu 1400 alias"}},
		{"transmit", with(func(s *pseudowire.Session) { s.Transmit = false }), []string{"set pw-lan down"}},
		{"remote ID", with(func(s *pseudowire.Session) { s.RemoteID++ }), anew},
		{"local cookie", with(func(s *pseudowire.Session) { s.LocalCookie = []byte("abcd") }), anew},
		{"remote cookie", with(func(s *pseudowire.Session) { s.RemoteCookie = nil }), anew},
		{"sublayer", with(func(s *pseudowire.Session) { s.ReceiveSublayer, s.TransmitSublayer = 1, 1 }), anew},
		{"DSCP", with(func(s *pseudowire.Session) { s.DSCP = 46 }), []string{"mark 7 with DSCP 46, IPv6 false"}},
		{"priority", with(func(s *pseudowire.Session) { s.Priority = 0x70640010 }), []string{"give 7 priority 0x70640010"}},
		{"DSCP and priority", with(func(s *pseudowire.Session) { s.DSCP, s.Priority = 46, 0x70640010 }), []string{"mark 7 with DSCP 46, IPv6 false", "give 7 priority 0x70640010"}},
		{"local ID", with(func(s *pseudowire.Session) { s.LocalID++ }), anew},
		{"device", pseudowire.Pseudowire{Name: "lan", Device: "pw-other"}, []string{
			"delete session", "create session",
			"set pw-other mtu 1500 alias addrgenmode", "add name to pw-other", "set pw-other up",
		}},
		{"socket", func() pseudowire.Tunnel { t := gold; t.Socket = 8; return t }(), append([]string{
			"delete session", "delete tunnel", "create tunnel"}, anew[1:]...)},
		{"encapsulation", func() pseudowire.Tunnel { t := gold; t.Encapsulation = l2tpv3.IP; return t }(), append([]string{
			"delete session", "delete tunnel", "create tunnel"}, anew[1:]...)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k, d := ready(t)
			set(t, d, tt.set)
			wantChanges(t, k, tt.want...)
			if len(k.sessions) != 1 || len(k.links) != 1 || len(k.tunnels) != 1 {
				t.Errorf("the kernel has %d tunnels, %d sessions and %d links", len(k.tunnels), len(k.sessions), len(k.links))
			}
		})
	}
}

// The kernel takes tunnel, sessions and devices away with the socket.
func TestSetAfterTheSocketWasClosed(t *testing.T) {
	k, d := ready(t)
	k.tunnels, k.sessions, k.links = nil, nil, nil
	again := gold
	again.Socket = 9
	set(t, d, again)
	wantChanges(t, k, "delete session", "delete tunnel", "create tunnel", "create session",
		"set pw-lan mtu 1500 alias addrgenmode", "set pw-lan up")
}

// The kernel sequences all packets or none, and drops what has no number where it
// numbers itself.
func TestSequencing(t *testing.T) {
	const none, nonIP, all = l2tpv3.SequencingNone, l2tpv3.SequencingNonIP, l2tpv3.SequencingAll
	refused := errors.ErrUnsupported
	for _, tt := range []struct {
		transmit, receive l2tpv3.DataSequencing
		want              sequencing
		err               error
	}{
		{none, none, sequencing{send: false, receive: false}, nil},
		{none, nonIP, sequencing{send: false, receive: false}, nil},
		{none, all, sequencing{send: false, receive: true}, nil},
		{nonIP, all, sequencing{send: true, receive: true}, nil},
		{all, all, sequencing{send: true, receive: true}, nil},
		{nonIP, nonIP, sequencing{}, refused},
		{nonIP, none, sequencing{}, refused},
		{all, nonIP, sequencing{}, refused},
		{all, none, sequencing{}, refused},
	} {
		s := session1
		s.ReceiveSublayer, s.TransmitSublayer = l2tpv3.SublayerDefault, l2tpv3.SublayerDefault
		s.TransmitSequencing, s.ReceiveSequencing = tt.transmit, tt.receive
		got, err := sequencingOf(s)
		_, unsupported := errors.AsType[*UnsupportedError](err)
		if got != tt.want || unsupported != (tt.err != nil) {
			t.Errorf("transmit %s, receive %s: %+v, %v", tt.transmit, tt.receive, got, err)
		}
	}
}

// A change of sequencing leaves session and device as they are.
func TestSequencingChanges(t *testing.T) {
	k, d := newFake(t)
	s := session1
	s.ReceiveSublayer, s.TransmitSublayer = l2tpv3.SublayerDefault, l2tpv3.SublayerDefault
	set(t, d, lan, gold, s)
	k.changed()
	s.ReceiveSequencing, s.TransmitSequencing = l2tpv3.SequencingAll, l2tpv3.SequencingAll
	set(t, d, s, s)
	wantChanges(t, k, "modify session")
	s.ReceiveSequencing, s.TransmitSequencing = l2tpv3.SequencingNone, l2tpv3.SequencingNone
	set(t, d, s, s)
	wantChanges(t, k, "modify session")
}

func TestTunnelOverIP(t *testing.T) {
	k, d := newFake(t)
	for _, addrs := range [][2]string{{"192.0.2.1:0", "192.0.2.2:0"}, {"[2001:db8::1]:0", "[2001:db8::2]:0"}} {
		tunnel := gold
		tunnel.Name, tunnel.Encapsulation, tunnel.Socket = addrs[0], l2tpv3.IP, 9
		tunnel.Local, tunnel.Remote = netip.MustParseAddrPort(addrs[0]), netip.MustParseAddrPort(addrs[1])
		set(t, d, tunnel)
		if want, got := "0600020001000000", hex.EncodeToString(k.requests[0].data); !strings.Contains(got, want) {
			t.Errorf("%s: no ENCAP_TYPE of IP (%s) in %s", addrs[0], want, got)
		}
		wantChanges(t, k, "create tunnel")
		if err := d.RemoveTunnel(tunnel.Name); err != nil {
			t.Fatal(err)
		}
		k.changed()
	}
}

// The descriptor is marked only while it is the tunnel's socket.
func TestDSCPOfAnotherSocket(t *testing.T) {
	k, d := ready(t)
	k.reused = gold.Socket
	s := session1
	s.DSCP = 46
	err := trySet(d, s)
	want := "l2tpeth: set the DSCP of tunnel gold/dc2 (11): descriptor 7 is another socket's: set the tunnel anew"
	if err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	wantChanges(t, k)
}

func TestIPv6SocketTakesNoChecksum(t *testing.T) {
	k, d := newFake(t)
	six := gold
	six.Local, six.Remote = netip.MustParseAddrPort("[2001:db8::1]:1701"), netip.MustParseAddrPort("[2001:db8::2]:1701")
	set(t, d, six)
	wantChanges(t, k, "accept no checksum on 7", "create tunnel")
}

func TestNewDeviceIsSilentBeforeItIsUp(t *testing.T) {
	k, d := newFake(t)
	dir := filepath.Join(d.sysctl, "pw-lan")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	set(t, d, lan, gold, session1)
	wantChanges(t, k, "create tunnel", "create session", "set pw-lan mtu 1500 alias addrgenmode", "set pw-lan up")
	if b, err := os.ReadFile(filepath.Join(dir, "disable_ipv6")); err != nil || string(b) != "1\n" {
		t.Errorf("disable_ipv6: %q, %v", b, err)
	}
}

func TestKernelWithoutIPv6(t *testing.T) {
	k, d := newFake(t)
	k.noIPv6 = true
	set(t, d, lan, gold, session1)
	if !k.links[0].up {
		t.Error("the device is not up")
	}
}

// Deletion goes on in the background; what follows has to wait for it.
func TestWaitsForWhatIsOnItsWayOut(t *testing.T) {
	t.Run("device", func(t *testing.T) {
		k, d := ready(t)
		k.lingering = 3
		if err := d.RemoveSession(session1.LocalID); err != nil {
			t.Fatal(err)
		}
		if len(k.links) != 0 || k.paused == 0 {
			t.Errorf("returned with %d links after a wait of %v", len(k.links), k.paused)
		}
	})
	t.Run("many devices, all at once", func(t *testing.T) {
		k, d := ready(t)
		other, s := lan, session1
		other.Name, other.Device = "other", "pw-other"
		s.Pseudowire, s.LocalID, s.RemoteID = other.Name, 77, 78
		set(t, d, other, s)
		k.changed()
		k.lingering = 3
		if err := d.RemovePseudowires(lan.Name, other.Name); err != nil {
			t.Fatal(err)
		}
		wantChanges(t, k, "delete session", "delete session")
		if len(k.links) != 0 || k.paused > 10*time.Millisecond {
			t.Errorf("returned with %d links after a wait of %v", len(k.links), k.paused)
		}
	})
	t.Run("tunnel", func(t *testing.T) {
		k, d := ready(t)
		k.lingering = 4
		if err := d.RemoveTunnel(gold.Name); err != nil {
			t.Fatal(err)
		}
		if len(k.tunnels) != 0 {
			t.Error("returned with a tunnel")
		}
	})
	t.Run("tunnel of the run before", func(t *testing.T) {
		k, d := newFake(t)
		k.tunnels = []kernelTunnel{{id: gold.LocalID}}
		k.lingering = 5
		k.dying = []func(){func() { k.tunnels = nil }}
		set(t, d, gold)
	})
	t.Run("behind others", func(t *testing.T) {
		k, d := ready(t)
		for i := range 10 {
			k.links = append(k.links, link{index: uint32(100 + i), name: fmt.Sprint("pw-", i), alias: alias(fmt.Sprint(i))})
		}
		k.lingering = 1 << 30
		paused := time.Duration(0)
		d.pause = func(p time.Duration) {
			const each = patience / 3
			if before := paused / each; (paused+p)/each > before {
				k.links = k.links[:len(k.links)-1]
			}
			paused += p
		}
		if err := d.RemoveSession(session1.LocalID); err != nil || paused < 3*patience {
			t.Errorf("%v, after %v", err, paused)
		}
	})
	t.Run("for ever", func(t *testing.T) {
		k, d := ready(t)
		k.lingering = 1 << 30
		err := d.RemoveSession(session1.LocalID)
		if _, ok := errors.AsType[*OpError](err); !ok || k.paused < patience || k.paused > 2*patience {
			t.Errorf("%v after %v", err, k.paused)
		}
	})
}

func TestOthersAreLeftAlone(t *testing.T) {
	foreign := kernelSession{connID: 99, id: 5, ifName: "l2tpeth0"}
	k, d := newFake(t)
	k.tunnels = []kernelTunnel{{id: 99}, {id: 98}}
	k.sessions = []kernelSession{foreign, {connID: 98, id: 6, ifName: "pw-old"}}
	k.links = []link{{index: 3, name: "l2tpeth0"}, {index: 4, name: "pw-old", alias: "pwd:pseudowire:old"}}
	set(t, d, lan, gold, session1)
	k.changed()
	if err := d.Prune(); err != nil {
		t.Fatal(err)
	}
	wantChanges(t, k, "delete session", "delete tunnel")
	if taken, err := d.SessionTaken(5); !taken || err != nil {
		t.Errorf("SessionTaken(5) = %v, %v", taken, err)
	}
	if taken, err := d.SessionTaken(6); taken || err != nil {
		t.Errorf("SessionTaken(6) = %v, %v", taken, err)
	}
	if err := d.Cleanup(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]kernelSession{foreign}, k.sessions, cmp.AllowUnexported(kernelSession{}, stats{}, sequencing{})); diff != "" {
		t.Errorf("sessions left (-want +got):\n%s", diff)
	}
	if len(k.tunnels) != 1 || k.tunnels[0].id != 99 || len(k.links) != 1 {
		t.Errorf("left: tunnels %v, links %v", k.tunnels, k.links)
	}
}

// A session of ours that an earlier run left on the same ID or device gives way.
func TestLeftoverGivesWay(t *testing.T) {
	k, d := newFake(t)
	k.tunnels = []kernelTunnel{{id: 98}}
	k.sessions = []kernelSession{{connID: 98, id: 6, ifName: "pw-lan"}}
	k.links = []link{{index: 4, name: "pw-lan", alias: "pwd:pseudowire:lan"}}
	set(t, d, lan, gold, session1)
	if len(k.tunnels) != 1 || len(k.sessions) != 1 || k.sessions[0].id != session1.LocalID {
		t.Errorf("tunnels %v, sessions %v", k.tunnels, k.sessions)
	}
}

func TestRefusals(t *testing.T) {
	session := func(change func(*pseudowire.Session)) []any {
		s := session1
		change(&s)
		return []any{lan, gold, s}
	}
	tunnel := func(change func(*pseudowire.Tunnel)) []any {
		t := gold
		change(&t)
		return []any{t}
	}
	for _, tt := range []struct {
		name   string
		set    []any
		kernel func(*fakeKernel)
		want   string
	}{
		{"no tunnel", []any{lan, session1}, nil,
			"l2tpeth: session 16909060 of lan in tunnel gold/dc2: its tunnel was not set"},
		{"no pseudowire", []any{gold, session1}, nil,
			"l2tpeth: session 16909060 of lan in tunnel gold/dc2: its pseudowire was not set"},
		{"ID 0", session(func(s *pseudowire.Session) { s.RemoteID = 0 }), nil,
			"l2tpeth: session 16909060 of lan in tunnel gold/dc2: a session ID is 0"},
		{"cookie", session(func(s *pseudowire.Session) { s.LocalCookie = []byte{1, 2} }), nil,
			"l2tpeth: session 16909060 of lan in tunnel gold/dc2: a cookie is not of 0, 4 or 8 octets"},
		{"sublayers", session(func(s *pseudowire.Session) { s.TransmitSublayer = l2tpv3.SublayerDefault }), nil,
			"l2tpeth: a sublayer in one direction only (session 16909060 of lan in tunnel gold/dc2) is not supported; " +
				"give both ends the same `sublayer`, or use `datapath: ebpf`"},
		{"beside another", session(func(s *pseudowire.Session) { s.Beside = 7 }), nil,
			"l2tpeth: a session beside another one's (session 16909060 of lan in tunnel gold/dc2) is not supported; " +
				"have package succession around this datapath, which takes eBPF programs"},
		{"tag", []any{pseudowire.Pseudowire{Name: "lan", Device: "pw-lan", VLAN: 5}}, nil,
			"l2tpeth: rewriting VLAN tags is not supported; leave the tag to the bridge or to a VLAN device"},
		{"device name", []any{pseudowire.Pseudowire{Name: "lan", Device: "pw-much-too-long"}}, nil,
			`l2tpeth: pseudowire lan: "pw-much-too-long" cannot be a device's name`},
		{"MTU", []any{pseudowire.Pseudowire{Name: "lan", Device: "pw-lan", MTU: 65536}}, nil,
			"l2tpeth: pseudowire lan: MTU 65536 is not within 68 and 65535"},
		{"no socket", tunnel(func(t *pseudowire.Tunnel) { t.Socket = -1 }), nil,
			"l2tpeth: tunnel gold/dc2 (11): no socket: the kernel makes a tunnel of the control connection's"},
		{"encapsulation", tunnel(func(t *pseudowire.Tunnel) { t.Encapsulation = 9 }), nil,
			"l2tpeth: encapsulation 9 is not supported; use `encapsulation: udp` or `encapsulation: ip`"},
		{"ECN", tunnel(func(t *pseudowire.Tunnel) { t.ECN = true }), nil,
			"l2tpeth: ECN (tunnel gold/dc2 (11)) is not supported; do not announce it to the peer, or use `datapath: ebpf`"},
		{"sequencing one way", session(func(s *pseudowire.Session) {
			s.ReceiveSublayer, s.TransmitSublayer, s.TransmitSequencing = 1, 1, l2tpv3.SequencingAll
		}), nil,
			"l2tpeth: sequencing all of what is sent and none of what is received (session 16909060 of lan in tunnel gold/dc2) " +
				"is not supported; give both ends `sequencing: all`, or use `datapath: ebpf`"},
		{"sequencing without a sublayer", session(func(s *pseudowire.Session) { s.ReceiveSequencing = l2tpv3.SequencingAll }), nil,
			"l2tpeth: session 16909060 of lan in tunnel gold/dc2: sequencing without a default sublayer"},
		{"tunnel ID taken", []any{gold}, func(k *fakeKernel) { k.tunnels = []kernelTunnel{{id: 11}} },
			"l2tpeth: tunnel ID 11 is taken; see `ip l2tp show tunnel tunnel_id 11`"},
		{"socket taken", []any{gold}, func(k *fakeKernel) { k.refuse[cmdTunnelCreate] = unix.EBUSY },
			"l2tpeth: the socket of tunnel gold/dc2 (11) is taken; it carries a tunnel, or did: give the control connection a new one"},
		{"device taken", []any{lan, gold, session1}, func(k *fakeKernel) { k.links = []link{{index: 2, name: "pw-lan"}} },
			"l2tpeth: create session 16909060 of lan in tunnel gold/dc2: l2tpeth: device pw-lan is taken; it is not ours: rename or remove it"},
		{"no permission", []any{gold}, func(k *fakeKernel) { k.refuse[cmdTunnelCreate] = unix.EPERM },
			"l2tpeth: create tunnel gold/dc2 (11): netlink receive: operation not permitted"},
		{"no l2tp_eth", []any{lan, gold, session1}, func(k *fakeKernel) { k.refuse[cmdSessionCreate] = unix.EPROTONOSUPPORT },
			"l2tpeth: create session 16909060 of lan in tunnel gold/dc2: l2tpeth: the kernel's Ethernet over L2TP (module l2tp_eth) " +
				"is not supported: netlink receive: protocol not supported; " + moduleHint},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k, d := newFake(t)
			if tt.kernel != nil {
				tt.kernel(k)
			}
			err := trySet(d, tt.set...)
			if err == nil {
				t.Fatal("not refused")
			}
			if diff := cmp.Diff(tt.want, err.Error()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestNoFamily(t *testing.T) {
	g := genltest.Dial(func(genetlink.Message, netlink.Message) ([]genetlink.Message, error) {
		return nil, genltest.Error(int(unix.ENOENT))
	})
	_, err := open(Options{}, g, nltest.Dial(nil))
	if u, ok := errors.AsType[*UnsupportedError](err); !ok || !strings.Contains(u.Hint, "modprobe l2tp_eth") {
		t.Errorf("open = %v", err)
	}
}

func TestCounters(t *testing.T) {
	k, d := ready(t)
	// 10 frames of 100 octets each way: 12 octets of header sent (4 of cookie), 16 received.
	k.sessions[0].stats = stats{
		txPackets: 10, txBytes: 10 * (100 + 12), txErrors: 1,
		rxPackets: 10, rxBytes: 10 * (100 + 16), rxErrors: 5, rxCookieDiscards: 3,
	}
	k.tunnels[0].stats = stats{rxInvalid: 6}
	k.sessions = append(k.sessions, kernelSession{connID: 99, id: 5, ifName: "l2tpeth0"})
	got, err := d.Counters()
	if err != nil {
		t.Fatal(err)
	}
	want := map[uint32]pseudowire.Counters{session1.LocalID: {
		ReceivedFrames: 10, ReceivedOctets: 1000, TransmittedFrames: 10, TransmittedOctets: 1000,
		Drops: map[string]uint64{
			pseudowire.DropWrongCookie: 3, pseudowire.DropOutOfSequence: 0, pseudowire.DropError: 1 + 5 - 3,
		},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if d.Deliver(gold.Remote, make([]byte, 64)) {
		t.Error("a packet was taken")
	}
	global, err := d.Global()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]uint64{pseudowire.DropUnknownSession: 1, pseudowire.DropError: 6}, global); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// What the kernel counts as errors of a packet received, apart from wrong cookies,
// is its sequence number where it can have one. Over IP the header is 4 octets
// shorter than over UDP.
func TestCountersOfSequencedSession(t *testing.T) {
	k, d := newFake(t)
	tunnel, s := gold, session1
	tunnel.Encapsulation = l2tpv3.IP
	s.ReceiveSublayer, s.TransmitSublayer = l2tpv3.SublayerDefault, l2tpv3.SublayerDefault
	set(t, d, lan, tunnel, s)
	k.sessions[0].stats = stats{
		txPackets: 10, txBytes: 10 * (100 + 12), txErrors: 1,
		rxPackets: 10, rxBytes: 10 * (100 + 16), rxErrors: 9, rxCookieDiscards: 3, rxSeqDiscards: 4,
	}
	got, err := d.Counters()
	if err != nil {
		t.Fatal(err)
	}
	want := map[uint32]pseudowire.Counters{s.LocalID: {
		ReceivedFrames: 10, ReceivedOctets: 1000, TransmittedFrames: 10, TransmittedOctets: 1000,
		Drops: map[string]uint64{
			pseudowire.DropWrongCookie: 3, pseudowire.DropOutOfSequence: 4 + 2, pseudowire.DropError: 1,
		},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Nothing that a kernel could send makes the decoders fail other than by an error.
func FuzzDecode(f *testing.F) {
	f.Add(encodeLink(nil, link{index: 3, name: "pw-lan", mtu: 1500}))
	f.Add([]byte{8, 0, 9, 0, 11, 0, 0, 0, 12, 0, 30, 128, 12, 0, 4, 0, 1, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		decodeLink(b)
		decodeAll(messages(b), decodeTunnel)
		decodeAll(messages(b), decodeSession)
	})
}

// Over IPv4 a tunnel's socket does not heed what routers say of the path, as long as the route has no MTU of its own
// below the link's, which the kernel would pass over with it.
func TestRoutersAreNotHeeded(t *testing.T) {
	k, d := newFake(t)
	expect := func(what string, want int) {
		t.Helper()
		if got := k.discoveries[gold.Socket]; got != want {
			t.Errorf("%s: IP_MTU_DISCOVER is %d, want %d", what, got, want)
		}
	}
	refresh := func(lower bool, err error) {
		t.Helper()
		k.lowerRoute, k.noRoute = lower, err
		if err := d.Refresh(); err != nil {
			t.Fatal(err)
		}
	}
	set(t, d, lan, gold, session1)
	expect("a new tunnel", unix.IP_PMTUDISC_OMIT)
	set(t, d, gold)
	refresh(true, nil)
	expect("the route has an MTU", unix.IP_PMTUDISC_DONT)
	refresh(false, unix.ENETUNREACH)
	expect("without a route", unix.IP_PMTUDISC_DONT)
	refresh(false, nil)
	expect("the route has none", unix.IP_PMTUDISC_OMIT)
	d = k.datapath()
	set(t, d, lan, gold, session1)
	expect("taken over", unix.IP_PMTUDISC_OMIT)

	k.reused = gold.Socket
	k.lowerRoute = true
	if err := d.Refresh(); err == nil || k.discoveries[gold.Socket] != unix.IP_PMTUDISC_OMIT {
		t.Errorf("on another's socket: %v, IP_MTU_DISCOVER is %d", err, k.discoveries[gold.Socket])
	}

	six := gold
	six.Name, six.LocalID, six.Socket = "gold/dc3", 33, 9
	six.Local, six.Remote = netip.MustParseAddrPort("[2001:db8::1]:1701"), netip.MustParseAddrPort("[2001:db8::3]:1701")
	set(t, d, six)
	if got, told := k.discoveries[six.Socket]; told {
		t.Errorf("over IPv6: IP_MTU_DISCOVER is %d", got)
	}
}

// Whether a tunnel's socket heeds routers is looked at again with every Refresh: a tunnel is set, with its sessions, also
// where that cannot be found out.
func TestATunnelIsSetThoughItsRouteIsUnknown(t *testing.T) {
	k, d := ready(t)
	k.noRoute = unix.ENOBUFS
	again := gold
	again.Socket = 9
	set(t, d, again)
	if len(k.sessions) != 1 {
		t.Errorf("the kernel has %d sessions, want that of before", len(k.sessions))
	}
	set(t, d, again)
	if err := d.Refresh(); !errors.Is(err, unix.ENOBUFS) {
		t.Errorf("refresh: %v, want what is the matter", err)
	}
	for _, none := range []error{unix.EACCES, unix.EPERM, unix.ENETUNREACH} {
		k.noRoute = none
		if err := d.Refresh(); err != nil {
			t.Errorf("where the route is prohibited, %v: %v", none, err)
		}
	}
	k.noRoute = nil
	if err := d.Refresh(); err != nil || k.discoveries[again.Socket] != unix.IP_PMTUDISC_OMIT {
		t.Errorf("then: %v, IP_MTU_DISCOVER is %d", err, k.discoveries[again.Socket])
	}
}
