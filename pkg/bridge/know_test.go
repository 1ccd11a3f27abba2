//go:build !vm

package bridge

import (
	"errors"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/pwd-project/pwd/internal/netlab"
)

// A port that somebody takes out of its bridge while it is being changed is known to have been in it, so
// that the next look tells; of any other that could not be changed nothing is known.
func TestPortTakenOutMeanwhile(t *testing.T) {
	lab := netlab.New(t)
	ns := lab.Namespace("site")
	port, _ := lab.Veth(ns, "eth1", lab.Namespace("host"), "eth0")
	br := ns.Bridge("br", port.Up())
	if err := ns.Do(func() error {
		m, err := Open(Options{})
		if err != nil {
			return err
		}
		defer m.Close()
		was := portState{index: port.Index, master: br.Index}
		failed := errors.New("no")
		m.known["eth1"] = was
		m.know("eth1", was, failed)
		if _, known := m.known["eth1"]; known {
			t.Error("a port that could not be changed is known")
		}
		m.known["eth1"] = was
		if err := ns.Netlink().LinkSetNoMaster(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: port.Index}}); err != nil {
			return err
		}
		m.know("eth1", was, failed)
		m.settled = true
		now, err := m.nl.linkByIndex(port.Index)
		if err == nil && !m.strayed(now, br.Index) {
			t.Error("that it was taken out is forgotten")
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}
