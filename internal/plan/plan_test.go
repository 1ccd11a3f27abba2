package plan

import (
	"fmt"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/pwd-project/pwd/internal/topology"
	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

func TestStepsReadAsAPlan(t *testing.T) {
	addr := netip.MustParseAddr
	base := &topology.Local{
		Bridges:     []topology.Bridge{{Name: "br-lan", Ports: []string{"eth1"}}},
		Tunnels:     []topology.Tunnel{{Key: "gold/dc2", Name: "gold", Remote: addr("192.0.2.2")}},
		Pseudowires: []topology.Pseudowire{{Name: "a", Device: "pw-a", Tunnel: "gold/dc2", Attachment: topology.Attachment{Bridge: "br-lan", VLAN: 100}}},
	}
	with := func(f func(*topology.Local)) *topology.Local {
		l := &topology.Local{
			Bridges:     append([]topology.Bridge(nil), base.Bridges...),
			Tunnels:     append([]topology.Tunnel(nil), base.Tunnels...),
			Pseudowires: append([]topology.Pseudowire(nil), base.Pseudowires...),
		}
		f(l)
		return l
	}
	authentic := func(secrets ...string) *topology.Local {
		return with(func(l *topology.Local) {
			for i, s := range secrets {
				l.Tunnels[0].SecretFiles = append(l.Tunnels[0].SecretFiles, fmt.Sprintf("%d.secret", i))
				l.Tunnels[0].Secrets = append(l.Tunnels[0].Secrets, topology.Secret(s))
			}
		})
	}
	for _, tt := range []struct {
		name     string
		from, to *topology.Local
		want     []string
	}{
		{"nothing to nothing", nil, nil, nil},
		{"no change", base, base, nil},
		{"from nothing: what is used comes first", nil, base, []string{
			"add bridge br-lan  ", "add tunnel gold/dc2  ", "add pseudowire a  ",
		}},
		{"to nothing: users go first", base, nil, []string{
			"remove pseudowire a recreates ", "remove tunnel gold/dc2 recreates ", "remove bridge br-lan recreates ",
		}},
		{"a VLAN is moved live", base, with(func(l *topology.Local) { l.Pseudowires[0].Attachment.VLAN = 200 }), []string{
			"change pseudowire a live vlan 100 -> 200",
		}},
		{"a cookie and a VLAN: the worse impact counts", base, with(func(l *topology.Local) {
			l.Pseudowires[0].Attachment.VLAN = 0
			l.Pseudowires[0].CookieLength = 8
		}), []string{
			"change pseudowire a resets-session cookie - -> 8, vlan 100 -> -",
		}},
		{"a hello interval is live, an address is not", base, with(func(l *topology.Local) { l.Tunnels[0].Hello = 10 * time.Second }), []string{
			"change tunnel gold/dc2 live hello 0s -> 10s",
		}},
		{"UDP checksums are live", base, with(func(l *topology.Local) { l.Tunnels[0].Checksum = true }), []string{
			"change tunnel gold/dc2 live udp-checksum off -> on",
		}},
		{"whether packets are fragmented is live", base, with(func(l *topology.Local) { l.Tunnels[0].DF = true }), []string{
			"change tunnel gold/dc2 live df false -> true",
		}},
		{"another peer address", base, with(func(l *topology.Local) { l.Tunnels[0].Remote = addr("192.0.2.3") }), []string{
			"change tunnel gold/dc2 resets-session remote address 192.0.2.2 -> 192.0.2.3",
		}},
		{"a secret is replaced live, and not shown", authentic("old"), authentic("new"), []string{
			"change tunnel gold/dc2 live secret changed",
		}},
		{"while it is replaced there are two", authentic("old"), authentic("new", "old"), []string{
			"change tunnel gold/dc2 live secret-file [0.secret] -> [0.secret 1.secret], secret changed",
		}},
		{"authentication is turned on", base, authentic("new"), []string{
			"change tunnel gold/dc2 resets-session authentication off -> on",
		}},
		{"how messages are signed and what they hide is live", authentic("a"), with(func(l *topology.Local) {
			l.Tunnels[0] = authentic("a").Tunnels[0]
			l.Tunnels[0].Digest, l.Tunnels[0].Hide = l2tpv3.HMACSHA1, true
		}), []string{
			"change tunnel gold/dc2 live digest HMAC-MD5 -> HMAC-SHA-1, hide false -> true",
		}},
		{"another encapsulation", base, with(func(l *topology.Local) { l.Tunnels[0].Encapsulation = l2tpv3.IP }), []string{
			"change tunnel gold/dc2 resets-session encapsulation udp -> ip",
		}},
		{"another datapath", base, with(func(l *topology.Local) { l.Pseudowires[0].Datapath = "kernel" }), []string{
			"change pseudowire a recreates datapath - -> kernel",
		}},
		{"a renamed pseudowire frees its VLAN before the new one takes it", base, with(func(l *topology.Local) {
			l.Pseudowires[0].Name, l.Pseudowires[0].Device = "b", "pw-b"
		}), []string{
			"remove pseudowire a recreates ", "add pseudowire b  ",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, s := range Between(tt.from, tt.to) {
				got = append(got, fmt.Sprintf("%s %s %s %s %s", s.Action, s.Kind, s.Name, s.Impact, s.Detail))
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("steps:\n got %q\nwant %q", got, tt.want)
			}
		})
	}
}

// world is a site as the steps leave it.
type world map[string]any

func (w world) carryOut(s Step) {
	id := string(s.Kind) + " " + s.Name
	if s.Action == Remove {
		delete(w, id)
		return
	}
	w[id] = reflect.ValueOf(s.After).Elem().Interface()
}

func worldOf(l *topology.Local) world {
	w := world{}
	for _, s := range Between(nil, l) {
		w.carryOut(s)
	}
	return w
}

func locals(t *rapid.T, label string) *topology.Local {
	name := rapid.SampledFrom([]string{"a", "b", "c", "d"})
	l := &topology.Local{}
	for _, n := range rapid.SliceOfNDistinct(name, 0, 4, rapid.ID).Draw(t, label+" bridges") {
		l.Bridges = append(l.Bridges, topology.Bridge{Name: n, External: rapid.Bool().Draw(t, "external")})
	}
	for _, n := range rapid.SliceOfNDistinct(name, 0, 4, rapid.ID).Draw(t, label+" tunnels") {
		l.Tunnels = append(l.Tunnels, topology.Tunnel{Key: n, RouterID: rapid.Uint32Range(0, 2).Draw(t, "router ID"), Secrets: []topology.Secret{rapid.SliceOfN(rapid.Byte(), 1, 1).Draw(t, "secret")}})
	}
	for _, n := range rapid.SliceOfNDistinct(name, 0, 4, rapid.ID).Draw(t, label+" pseudowires") {
		l.Pseudowires = append(l.Pseudowires, topology.Pseudowire{Name: n, MTU: rapid.IntRange(0, 1).Draw(t, "mtu"), CookieLength: 4 * rapid.IntRange(0, 2).Draw(t, "cookie")})
	}
	return l
}

// Carrying the steps out leads from one state to the other, undoing any prefix
// of them leads back, and there are none exactly where nothing differs.
func TestStepsLeadThereAndBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		from, to := locals(t, "from"), locals(t, "to")
		steps := Between(from, to)
		w := worldOf(from)
		failAt := rapid.IntRange(0, len(steps)).Draw(t, "fails at")
		for _, s := range steps[:failAt] {
			w.carryOut(s)
		}
		for i := failAt - 1; i >= 0; i-- {
			w.carryOut(steps[i].Undo())
		}
		if want := worldOf(from); !reflect.DeepEqual(w, want) {
			t.Fatalf("undone after %d steps: %v, want %v", failAt, w, want)
		}
		for _, s := range steps {
			w.carryOut(s)
		}
		if want := worldOf(to); !reflect.DeepEqual(w, want) {
			t.Fatalf("carried out: %v, want %v", w, want)
		}
		if same := reflect.DeepEqual(worldOf(from), worldOf(to)); same != (len(steps) == 0) {
			t.Fatalf("%d steps, but same is %v", len(steps), same)
		}
	})
}
