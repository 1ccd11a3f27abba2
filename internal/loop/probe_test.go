package loop

import (
	"maps"
	"strings"
	"testing"
)

// What is sent is what is received: in the network that it is about, with peers that are known there.
func TestProbe(t *testing.T) {
	p := Probe{Network: "office", Site: "dc1", Reaches: map[string]bool{"dc2": true, "dc3": true, "dc4": false}}
	for _, vlan := range []uint16{0, 7} {
		b := p.Frame(vlan)
		header := 14
		if vlan != 0 {
			header = 18
			if string(b[12:18]) != "\x81\x00\x00\x07\x88\xb6" {
				t.Errorf("with a tag: % x", b[12:18])
			}
		}
		if len(b) < 60 || [6]byte(b) != Destination || [6]byte(b[6:]) != sourceOf("office", "dc1") || b[6]&3 != 2 {
			t.Errorf("% x", b)
		}
		h, err := Parse(b[header:])
		if err != nil {
			t.Fatal(err)
		}
		got, is := h.In("office", []string{"dc2", "dc4", "dc5"})
		if want := map[string]bool{"dc2": true}; !is || got.Site != "dc1" || got.Network != "office" || !maps.Equal(got.Reaches, want) {
			t.Errorf("received %+v, %v", got, is)
		}
		if _, is := h.In("backup", nil); is {
			t.Error("it is taken for another network's")
		}
	}
	many := Probe{Network: "office", Site: strings.Repeat("x", 63), Reaches: map[string]bool{}}
	for i := range 1000 {
		many.Reaches[strings.Repeat("y", i)] = true
	}
	if n := len(many.Frame(0)); n > 14+1500 {
		t.Errorf("a probe of a large network has %d octets", n)
	}
}

// No frame makes trouble, and what is no probe is not taken for one.
func FuzzParse(f *testing.F) {
	f.Add(Probe{Network: "office", Site: "dc1", Reaches: map[string]bool{"dc2": true}}.Frame(0)[14:])
	f.Add([]byte(magic))
	f.Add(Probe{Network: "office", Site: "\x1b[2J"}.Frame(0)[14:])
	f.Add(append([]byte(magic), make([]byte, 60)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := Parse(b)
		if err != nil {
			return
		}
		if h.Site == "" || len(h.Site) > 63 || len(h.reaches) > 255 || strings.ContainsAny(h.Site, "\x1b\n ") || !strings.HasPrefix(string(b), magic) {
			t.Errorf("%+v of % x", h, b)
		}
		h.In("office", []string{"dc2"})
	})
}
