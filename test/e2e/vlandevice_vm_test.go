//go:build vm

package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/pwd-project/pwd/internal/netlab"
)

// A VLAN device of the host's on an attached interface has its frames, as it would have if
// a bridge carried the rest: an underlay may be there.
func TestVLANDevicesKeepTheirFrames(t *testing.T) {
	w := build(t, network{datapaths: [2]string{"ebpf", "ebpf"}}).start()
	s := w.sites[0]
	if !w.crossConnected(s.Client(), "tenant-b") {
		t.Fatal("not cross-connected")
	}
	crossed := func(want bool) {
		t.Helper()
		if err := netlab.Poll(within(t, upWithin), fmt.Sprintf("cross-connected is %v", want), func() error {
			if w.crossConnected(s.Client(), "tenant-b") != want {
				return errors.New("not yet")
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	run := func(ns *netlab.Namespace, args ...string) {
		t.Helper()
		if out, err := ns.Run(t.Context(), "ip", args...); err != nil {
			t.Fatalf("ip %q: %v\n%s", args, err, out)
		}
	}
	for _, at := range []struct {
		ns         *netlab.Namespace
		port, addr string
	}{{s.NS, "eth2", "10.50.0.1/24"}, {w.b.hosts[0].NS, "eth0", "10.50.0.2/24"}} {
		device := at.port + ".50"
		run(at.ns, "link", "add", "link", at.port, "name", device, "type", "vlan", "id", "50")
		run(at.ns, "addr", "add", at.addr, "dev", device)
		run(at.ns, "link", "set", device, "up")
	}
	crossed(false)
	r, err := w.b.hosts[0].NS.Ping(within(t, upWithin), netip.MustParseAddr("10.50.0.1"), netlab.PingOptions{Timeout: 5 * time.Second})
	if err != nil || r.Lost() > 0 {
		t.Errorf("the VLAN device: %d of %d lost, %v", r.Lost(), r.Sent, err)
	}
	w.ping(w.b, netlab.PingOptions{})
	run(s.NS, "link", "del", "eth2.50")
	crossed(true)
	w.ping(w.b, netlab.PingOptions{})
}
