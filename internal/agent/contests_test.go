package agent

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/pkg/drift"
)

// A port that something keeps taking out of its bridge is put back a bounded number of
// times, and left alone then; what is done to another port is put back as ever. It is told,
// as a problem too, until nothing was to be put back for a while; an apply ends it.
func TestContestsAreLeftAlone(t *testing.T) {
	p := lone(t)
	p.write(strings.Replace(docA, "ports: [eth1]", "ports: [eth1, eth3]", 1))
	p.start()
	p.looked()
	takeOut := func(name string) {
		t.Helper()
		if err := p.ns.Netlink().LinkSetNoMaster(p.linkBy(name)); err != nil {
			t.Fatal(err)
		}
	}
	in := func(name string) bool { return p.linkBy(name).Attrs().MasterIndex != 0 }
	repairs := 0
	for end := time.Now().Add(soon); p.status().Drift.Contested == 0; {
		if time.Now().After(end) {
			t.Fatalf("%d repairs, and no contest", repairs)
		}
		takeOut("eth1")
		p.poll("put back", func() error {
			if !in("eth1") {
				return fmt.Errorf("it is out")
			}
			return nil
		})
		repairs++
	}
	if repairs > 11 {
		t.Errorf("%d repairs before it was left alone", repairs)
	}
	takeOut("eth1")
	takeOut("eth3")
	p.poll("the other port is put back", func() error {
		if !in("eth3") {
			return fmt.Errorf("it is out")
		}
		return nil
	})
	p.looked()
	if in("eth1") {
		t.Error("what is contested is put back at once")
	}
	var problem string
	for _, x := range p.status().Problems {
		if x.Object == "bridge br-lan" {
			problem = x.What + "; " + x.Fix
		}
	}
	if !strings.Contains(problem, "something else keeps changing it: last change at ") || !strings.Contains(problem, "eth1 was taken out of br-lan; it is put back at most every 10s") ||
		!strings.Contains(problem, "stop what does that") {
		t.Errorf("the problem is %q", problem)
	}
	if all, err := p.a.Drift(t.Context()); err != nil || !slices.ContainsFunc(all, func(d api.Drift) bool { return d.WaitSeconds == 10 }) {
		t.Errorf("drift %+v, %v", all, err)
	}
	p.do(func() {
		past := p.a.contests.Damper
		p.a.contests.Forget() // its time has come
		p.a.lookAtContests(time.Now())
		p.a.contests.Damper = past
	})
	if !in("eth1") {
		t.Error("it is not put back when its time has come")
	}
	p.do(func() { p.a.lookAtContests(time.Now().Add(5 * time.Minute)) })
	told := strings.Join(p.told("bridge br-lan"), "\n")
	if strings.Count(told, "warning something else keeps changing it: last change: eth1 was taken out of br-lan") != 1 || !strings.Contains(told, "info nothing else changes it any more") {
		t.Errorf("told\n%s", told)
	}
	if st := p.status(); st.Drift.Contested != 0 {
		t.Errorf("%d contests after the end", st.Drift.Contested)
	}
	takeOut("eth1")
	p.poll("put back at once again", func() error {
		if !in("eth1") {
			return fmt.Errorf("it is out")
		}
		return nil
	})
}

// So is a device of a pseudowire's.
func TestContestedDevicesAreLeftAlone(t *testing.T) {
	p := lone(t)
	p.write(docA)
	p.start()
	p.looked()
	p.do(func() {
		for i := range 20 {
			p.a.contests.Repaired(time.Now().Add(time.Duration(i)), "pseudowire a")
		}
	})
	p.turns.reset(0)
	if err := p.ns.Netlink().LinkSetMTU(p.linkBy("pw-a"), 1400); err != nil {
		t.Fatal(err)
	}
	p.looked()
	if len(p.turns.calls) > 0 {
		t.Errorf("set again: %q", p.turns.calls)
	}
	if _, err := p.apply(strings.Replace(docA, "gold: {", "gold: {hello: 7s, ", 1)); err != nil {
		t.Fatal(err)
	}
	p.turns.reset(0)
	if err := p.ns.Netlink().LinkSetMTU(p.linkBy("pw-a"), 1300); err != nil {
		t.Fatal(err)
	}
	p.looked()
	if !slices.Contains(p.turns.calls, "set pseudowire a vlan 7") {
		t.Errorf("after an apply not set again: %q", p.turns.calls)
	}
}

// An apply has everything put back at once again, and says so of what was contested.
func TestAnApplyEndsContests(t *testing.T) {
	v := newVirtual(t, newEther(), "dc1", "192.0.2.1", t.TempDir())
	a := v.begun(nil)
	now := time.Now()
	for i := range 10 {
		a.contend(now.Add(time.Duration(i)), drift.Repair{Object: "bridge br-lan", Thing: "port eth1", Found: "eth1 was taken out of it"})
	}
	a.contend(now, drift.Repair{Object: "bridge br-lan", Thing: "port eth2", Found: "eth2 was taken out of it"})
	if _, err := a.change(mustParse(t, topo(gold, wireTo("a", "gold", 7)))); err != nil {
		t.Fatal(err)
	}
	var told []string
	events, _ := a.events.since(0)
	for _, e := range events {
		if e.Object == "bridge br-lan" {
			told = append(told, e.Message+": "+e.Reason)
		}
	}
	if len(told) != 2 || told[1] != "it is put back at once again: a topology is applied" {
		t.Errorf("told %q", told)
	}
	if a.held("port eth1") || len(a.contestProblems(now)) > 0 {
		t.Error("it is contested")
	}
}
