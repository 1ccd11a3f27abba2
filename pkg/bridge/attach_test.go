//go:build !vm

package bridge

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/internal/netlab"
)

// A device that comes into a bridge which filters VLANs is down until its own are set. Where that fails it is put out
// again, and up: whose affair its state is would take it for somebody else's doing.
func TestFailedAttachmentLeavesTheDeviceUp(t *testing.T) {
	for what, n := range map[string]int{"to put it into the bridge": 2, "to set its VLANs": 3} {
		lab := netlab.New(t)
		ns := lab.Namespace("site")
		port, _ := lab.Veth(ns, "eth1", lab.Namespace("host"), "eth0")
		br := ns.Bridge("br", port.Up())
		device, outer := lab.Veth(ns, "pw-a", ns, "pwo-a")
		outer.Up()
		device.Up()
		if err := ns.Do(func() error {
			m, err := Open(Options{})
			if err != nil {
				return err
			}
			defer m.Close()
			changes := 0
			m.nl.refuse = func() error {
				if changes++; changes == n {
					return unix.EIO
				}
				return nil
			}
			a := Attachment{Pseudowire: "a", Device: "pw-a", Bridge: "br", VLAN: 100, StateOfOthers: true}
			b := &target{name: "br", index: br.Index, shape: shape{aware: true}, attachments: map[string]Attachment{"a": a}}
			if err := m.attach(b, a); err == nil {
				t.Errorf("%s does not fail", what)
			}
			l, err := m.nl.link("pw-a")
			if err == nil && (!l.up() || l.master != 0) {
				t.Errorf("%s fails: the device is up: %v, in bridge %d", what, l.up(), l.master)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
}
