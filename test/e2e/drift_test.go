package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pwd-project/pwd/internal/netlab"
)

// What somebody changes by hand about what is the daemon's is found, put back and
// reported; traffic passes again.
func TestDrift(t *testing.T) {
	beside(t)
	w := build(t, network{}).start()
	s := w.sites[0]
	kinds := []struct {
		name string
		do   []string
		// object and found are in what is reported.
		object, found string
	}{
		{"the MTU", words("ip link set pw-tenant-a mtu 1400"), "pseudowire tenant-a", "the MTU of pw-tenant-a was changed to 1400"},
		{"out of the bridge", words("ip link set pw-tenant-a nomaster"), "pseudowire tenant-a", "pw-tenant-a was taken out of br-lan"},
		{"a port", words("ip link set eth1 nomaster"), "bridge br-lan", "eth1 was taken out of br-lan"},
		{"the bridge", words("ip link del br-lan"), "bridge br-lan", "it was removed"},
	}
	if inVM {
		kinds = append(kinds, []struct {
			name          string
			do            []string
			object, found string
		}{
			{"a VLAN", words("bridge vlan del dev eth1 vid 100"), "bridge br-lan", "VLAN 100 was taken off eth1"},
			{"another VLAN", words("bridge vlan add dev pw-tenant-a vid 300"), "pseudowire tenant-a", "VLAN 300 was added to pw-tenant-a"},
			{"VLAN filtering", words("ip link set br-lan type bridge vlan_filtering 0"), "bridge br-lan", "VLAN filtering was turned off"},
			{"the session", deleteSession(t, w), "pseudowire tenant-a", "the kernel's session"},
			{"the tunnel", []string{"sh", "-c", "ip l2tp show tunnel | sed -n 's/^Tunnel \\([0-9]*\\),.*/\\1/p' | while read id; do ip l2tp del tunnel tunnel_id $id; done"}, "tunnel gold/dc2", "the kernel's tunnel"},
		}...)
	} else {
		kinds = append(kinds, []struct {
			name          string
			do            []string
			object, found string
		}{
			{"down", words("ip link set pw-tenant-a down"), "pseudowire tenant-a", "pw-tenant-a was taken down"},
			{"the other end", words("ip link set pwo-tenant-a mtu 1000"), "pseudowire tenant-a", "the MTU of pwo-tenant-a was changed to 1000"},
			{"a name", words("ip link set pw-tenant-a name lost"), "pseudowire tenant-a", "pw-tenant-a was renamed lost"},
			{"the device", words("ip link del pw-tenant-a"), "pseudowire tenant-a", "its device pw-tenant-a was removed"},
			{"the slow lane", words("ip link del pwd-lane-in"), "slow lane", "its device pwd-lane-in was removed"},
			// Nobody is told of that: the daemon looks by itself, and when anything else happens.
			{"programs", []string{"sh", "-c", "tc filter del dev pwo-tenant-a ingress && find /sys/fs/bpf/pwd -path '*/links/*' -delete && ip link set pw-tenant-a mtu 1300"},
				"pseudowire tenant-a", "the program pwd_encap was detached from pwo-tenant-a"},
			{"programs of the underlay", words("true"), "interface eth0", "the program pwd_decap was detached from eth0"},
			{"programs of ports", words("true"), "pseudowire tenant-b", "the program pwd_port was detached from eth2"},
		}...)
	}
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			begin := time.Now()
			if out, err := s.NS.Run(t.Context(), k.do[0], k.do[1:]...); err != nil {
				t.Fatalf("%v: %v\n%s", k.do, err, out)
			}
			w.repaired(t, k.object, k.found)
			t.Logf("repaired and told after %v", time.Since(begin))
			w.awaitUp()
			w.echoes(t, w.a)
			w.echoes(t, w.b)
		})
	}
	told, err := s.Client().Status(t.Context())
	if err != nil || told.Drift.Repaired < uint64(len(kinds)) || told.Drift.Failed > 0 || !strings.Contains(strings.Join(told.Notes, "\n"), "pwctl drift") {
		t.Errorf("counted %+v, notes %q, %v", told.Drift, told.Notes, err)
	}
	table, err := s.Pwctl(t.Context(), "drift")
	if err != nil || !strings.Contains(table, "repaired") || !strings.Contains(table, "eth1 was taken out of br-lan") {
		t.Errorf("pwctl drift: %v\n%s", err, table)
	}
	events, err := s.Pwctl(t.Context(), "events")
	if err != nil || !strings.Contains(events, "bridge br-lan: drift: eth1 was taken out of br-lan (put back)") {
		t.Errorf("pwctl events: %v\n%s", err, events)
	}
	if other, err := w.sites[1].Client().Drift(t.Context()); err != nil || len(other) > 0 {
		t.Errorf("the other site, where nobody did anything: %+v, %v", other, err)
	}
}

func words(command string) []string { return strings.Fields(command) }

// deleteSession is the command that takes tenant-a's session out of the first site's kernel.
func deleteSession(t *testing.T, w *world) []string {
	t.Helper()
	c := w.sites[0].Client()
	sessions, err := c.Sessions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	tunnels, err := c.Tunnels(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range sessions {
		for _, y := range tunnels {
			if x.Pseudowire == "tenant-a" && x.Tunnel == y.Name {
				return words(fmt.Sprintf("ip l2tp del session tunnel_id %d session_id %d", y.LocalControlConnectionID, x.LocalSessionID))
			}
		}
	}
	t.Fatal("tenant-a has no session")
	return nil
}

// repaired waits until that drift is reported, and as repaired.
func (w *world) repaired(t *testing.T, object, found string) {
	t.Helper()
	ctx := within(t, 60*time.Second)
	err := netlab.Poll(ctx, "reported: "+object+": "+found, func() error {
		all, err := w.sites[0].Client().Drift(ctx)
		for _, d := range all {
			if d.Object == object && strings.Contains(d.Found, found) && d.Repaired {
				return nil
			}
		}
		return errors.Join(err, fmt.Errorf("%+v", all))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// echoes waits until hosts reach each other.
func (w *world) echoes(t *testing.T, l *lan) {
	t.Helper()
	ctx := within(t, 60*time.Second)
	err := netlab.Poll(ctx, l.name+" reaches the other site", func() error {
		return echo(ctx, w, l)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func echo(ctx context.Context, w *world, l *lan) error {
	r, err := l.hosts[0].NS.Ping(ctx, l.addr[1], netlab.PingOptions{Count: 2})
	if err == nil && r.Lost() > 0 {
		err = fmt.Errorf("%d of %d lost", r.Lost(), r.Sent)
	}
	return err
}

// What the daemon does itself, and what happens to interfaces of others, is no drift.
func TestOwnChangesAreNoDrift(t *testing.T) {
	beside(t)
	if inVM {
		t.Skip("machines are slow; what they have beyond this is in TestDrift")
	}
	w := build(t, network{}).start()
	s := w.sites[0]
	apply := func(old, next string) {
		t.Helper()
		w.write(strings.ReplaceAll(w.text(""), old, next))
		for _, s := range w.sites {
			if out, err := s.Pwctl(t.Context(), "apply", "-y", "-f", w.topology); err != nil {
				t.Fatalf("apply: %v\n%s", err, out)
			}
		}
		w.awaitUp()
	}
	apply("dc1: {bridge: br-lan, vlan: 100}", "dc1: {bridge: br-lan, vlan: 100, pcp: keep}")
	apply("tunnel: gold", "tunnel: gold\n    mtu: 1400")
	apply("tunnel: gold", "tunnel: gold\n    storm-control: {broadcast: 1000pps}")
	apply("dc1: {interface: eth2}", "dc1: {interface: eth2, link-local: [lldp]}")
	apply("", "")
	if out, err := s.Pwctl(t.Context(), "rotate", "cookies", "--all"); err != nil {
		t.Fatalf("rotate: %v\n%s", err, out)
	}
	for _, link := range []string{"eth1", "eth2", "eth0"} {
		for _, state := range []string{"down", "up"} {
			if out, err := s.NS.Run(t.Context(), "ip", "link", "set", link, state); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
		}
	}
	w.awaitUp()
	w.echoes(t, w.a)
	w.echoes(t, w.b)
	none := func(when string) {
		t.Helper()
		for _, s := range w.sites {
			if all, err := s.Client().Drift(t.Context()); err != nil || len(all) > 0 {
				t.Errorf("%s, %s: %+v, %v", when, s.Name, all, err)
			}
		}
	}
	none("before a restart")
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	w.awaitUp()
	w.echoes(t, w.a)
	none("after it")
}
