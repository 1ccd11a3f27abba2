package bridge

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestNote: an alias says whose a netdev is and what it uses.
func TestNote(t *testing.T) {
	for _, c := range []struct {
		alias string
		want  note
		ours  bool
		// canonical is what is written back, if it differs.
		canonical string
	}{
		{alias: "pwd:bridge:br-lan", ours: true, want: note{prefix: bridgePrefix, name: "br-lan"}},
		{alias: "pwd:vlan:eth2.30 uses=4d1", ours: true,
			want: note{prefix: vlanPrefix, name: "eth2.30", uses: []use{{index: 4, down: true, addrGen: 1}}}},
		{alias: "pwd:bridge:br-lan uses=3,4d0,2147483647", ours: true,
			want: note{prefix: bridgePrefix, name: "br-lan", uses: []use{{index: 3}, {index: 4, down: true}, {index: 1<<31 - 1}}}},
		// What is not understood is left out, and the rest holds.
		{alias: "pwd:bridge:br-lan  later=x uses=3,,x,0,-1,4d,5d256,2147483648,7d2,3d1", ours: true, canonical: "pwd:bridge:br-lan uses=3,7d2",
			want: note{prefix: bridgePrefix, name: "br-lan", uses: []use{{index: 3}, {index: 7, down: true, addrGen: 2}}}},
		{alias: ""}, {alias: "uplink to the provider"}, {alias: "pwd"}, {alias: "pwd:"}, {alias: "pwd:bridge:"}, {alias: "pwd:bridge: uses=3"[:12]},
		{alias: "pwd:pseudowire:a"}, {alias: "PWD:bridge:br-lan"},
	} {
		got, ours := parseNote(c.alias)
		if diff := cmp.Diff(c.want, got, cmp.AllowUnexported(note{}, use{})); diff != "" || ours != c.ours {
			t.Errorf("%q: ours %v (-want +got):\n%s", c.alias, ours, diff)
		}
		canonical := c.alias
		if c.canonical != "" {
			canonical = c.canonical
		}
		if ours && got.String() != canonical {
			t.Errorf("%q is written %q, want %q", c.alias, got.String(), canonical)
		}
	}
}

// TestNoteChanges: notes are values; adding and dropping leaves the old one as it was.
func TestNoteChanges(t *testing.T) {
	empty := note{prefix: bridgePrefix, name: "b"}
	both := empty.with(use{index: 7}).with(use{index: 3, down: true})
	one := both.without(7)
	again := both.with(use{index: 7, down: true, addrGen: 3})
	for _, c := range []struct {
		note
		want string
	}{
		{empty, "pwd:bridge:b"},
		{both, "pwd:bridge:b uses=3d0,7"},
		{one, "pwd:bridge:b uses=3d0"},
		{again, "pwd:bridge:b uses=3d0,7d3"},
	} {
		if c.String() != c.want {
			t.Errorf("%q, want %q", c.String(), c.want)
		}
	}
}

// FuzzNote: what is read and written is read as the same again.
func FuzzNote(f *testing.F) {
	f.Add("pwd:bridge:br-lan uses=3,4d0")
	f.Add("pwd:vlan:eth2.30 uses=4d1,,d")
	f.Fuzz(func(t *testing.T, alias string) {
		n, ours := parseNote(alias)
		if !ours {
			return
		}
		again, ours := parseNote(n.String())
		if diff := cmp.Diff(n, again, cmp.AllowUnexported(note{}, use{})); !ours || diff != "" {
			t.Errorf("%q, written %q (-first +second):\n%s", alias, n.String(), diff)
		}
	})
}

// TestNames: names made up are deterministic, fit the kernel's 15 octets, and
// long ones that begin alike differ.
func TestNames(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{PrivateBridge("eth2"), "pwb-eth2"},
		{PrivateBridge("enp130s0f1n"), "pwb-enp130s0f1n"},
		{PrivateBridge("enp130s0f1np"), "pwb-enp130-2bef"},
		{PrivateBridge("enp130s0f1np1"), "pwb-enp130-hb4u"},
		{VLANDevice("eth2", 30), "eth2.30"},
		{VLANDevice("enp130s0f1", 4000), "enp130s0f1.4000"},
		{VLANDevice("enp130s0f1n", 4000), "enp130s0f1-vuhz"},
		{VLANDevice("enp130s0f1n", 4001), "enp130s0f1-az74"},
	} {
		if c.got != c.want || len(c.got) > maxName {
			t.Errorf("%q, want %q", c.got, c.want)
		}
	}
	if strings.ToLower(fit("PWB-"+strings.Repeat("X", 20))) == fit("pwb-"+strings.Repeat("x", 20)) {
		t.Error("names that differ in case alone are shortened to the same")
	}
}
