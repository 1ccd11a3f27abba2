package qos_test

import (
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/pwd-project/pwd/pkg/qos"
)

// Qdiscs and classes that others remove are made again and told; while they are held they
// stay as others left them.
func TestDrift(t *testing.T) {
	h := newHost(t)
	shaped := h.shaped(qos.Class{Number: 1, Rate: 1e6, Ceiling: 2e6})
	h.must(h.set(shaped))
	class := netlink.HandleStr(qos.Handle(1))
	whole := len(h.classes())
	for _, c := range []struct {
		found string
		do    []string
	}{
		{"the qdisc that shapes it was removed", []string{"qdisc", "del", "dev", "eth0", "root"}},
		{"class " + class + " was removed", []string{"class", "del", "dev", "eth0", "classid", class}},
	} {
		do := func() {
			t.Helper()
			if out, err := h.tc(c.do...); err != nil {
				t.Fatalf("tc %v: %v\n%s", c.do, err, out)
			}
		}
		again := func() {
			t.Helper()
			h.must(h.set(shaped))
			if r := h.Repairs(); len(r) != 1 || r[0].Object != "interface eth0" || r[0].Thing != r[0].Object || r[0].Found != c.found || r[0].Err != nil {
				t.Errorf("%v: repairs %+v", c.do, r)
			}
			if n := len(h.classes()); n != whole {
				t.Errorf("%v: %d classes, want %d", c.do, n, whole)
			}
		}
		do()
		again()
		do()
		h.Heed(func(thing string) bool { return thing == "interface eth0" })
		h.must(h.set(shaped))
		if r := h.Repairs(); len(r) > 0 || len(h.classes()) == whole {
			t.Errorf("%v: held, and made again: %+v", c.do, r)
		}
		h.Heed(nil)
		again()
	}
}
