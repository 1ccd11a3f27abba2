package qos_test

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/pkg/qos"
)

// tc runs it, and says what of the interface's qdiscs it shows without what counts.
func (h *host) tc(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(h.t.Context(), 30*time.Second)
	defer cancel()
	return h.ns.Run(ctx, "tc", args...)
}

func (h *host) qdiscs() string {
	h.t.Helper()
	text, err := h.tc("-d", "qdisc", "show", "dev", "eth0")
	h.must(err)
	return counted.ReplaceAllString(text, "")
}

// counted is what changes with every packet of the host's own.
var counted = regexp.MustCompile(` (refcnt|direct_packets_stat) \d+`)

// Others' root qdiscs give way where that is asked for, and come back as they were: with
// the next Manager too, and at once when it is asked for no longer.
func TestReplace(t *testing.T) {
	for _, theirs := range []string{
		"pfifo limit 123", "bfifo limit 45678", "tbf rate 12mbit burst 4321 limit 54321", "pfifo_fast",
		"fq_codel limit 1234 flows 512 target 7ms noecn", "fq limit 1234 maxrate 80mbit", "sfq perturb 11 limit 99", "codel limit 77", "cake bandwidth 50mbit",
	} {
		t.Run(theirs, func(t *testing.T) {
			h := newHost(t)
			if _, err := h.tc(append([]string{"qdisc", "replace", "dev", "eth0", "root", "handle", "8:"}, strings.Fields(theirs)...)...); err != nil {
				t.Log("this kernel does not have it: ", err)
				return
			}
			before := h.qdiscs()
			shaped := h.shaped(qos.Class{Number: 1, Rate: 1e6})
			if err := h.set(shaped); !errors.As(err, new(*qos.OccupiedError)) || h.qdiscs() != before {
				t.Fatalf("replaced without being told to: %v\n%s", err, h.qdiscs())
			}
			shaped.Replace = true
			for range 2 {
				h.must(h.set(shaped))
				if got := h.root(); got != "htb" {
					t.Fatalf("the root qdisc is %s", got)
				}
				h.open() // another process
			}
			h.must(h.ns.Do(h.Cleanup))
			if got := h.qdiscs(); got != before {
				t.Errorf("it was\n%sand is\n%s", before, got)
			}
			h.must(h.set(shaped))
			shaped.Replace = false
			if err := h.set(shaped); !errors.As(err, new(*qos.OccupiedError)) || h.qdiscs() != before {
				t.Errorf("not asked for any more: %v\n%s", err, h.qdiscs())
			}
			if list, _ := h.memory.Replaced(); len(list) > 0 {
				t.Errorf("still in memory: %v", list)
			}
		})
	}
}

// What the kernel would not take back as it was stays.
func TestNotReplaced(t *testing.T) {
	for name, commands := range map[string][]string{
		"classes":           {"qdisc add dev eth0 root handle 8: htb", "class add dev eth0 parent 8: classid 8:1 htb rate 1mbit"},
		"a qdisc in it":     {"qdisc add dev eth0 root handle 8: tbf rate 1mbit burst 4000 limit 9999", "qdisc add dev eth0 parent 8:1 handle 9: pfifo limit 7"},
		"another's classes": {"qdisc add dev eth0 root handle 8: drr"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			for _, c := range commands {
				if _, err := h.tc(strings.Fields(c)...); err != nil {
					t.Log("this kernel does not have it: ", err)
					return
				}
			}
			before := h.qdiscs()
			shaped := h.shaped()
			shaped.Replace = true
			var occupied *qos.OccupiedError
			if err := h.set(shaped); !errors.As(err, &occupied) || occupied.Why == "" || h.qdiscs() != before {
				t.Errorf("%v\n%s", err, h.qdiscs())
			}
			h.must(h.ns.Do(h.Cleanup))
			if h.qdiscs() != before {
				t.Errorf("it was\n%sand is\n%s", before, h.qdiscs())
			}
		})
	}
}

// newHostOf is a host whose interface has that many queues.
func newHostOf(t *testing.T, queues string) *host {
	t.Helper()
	lab := netlab.New(t)
	ns := lab.Namespace("host")
	h := &host{t: t, ns: ns, memory: &memory{}}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := ns.Run(ctx, "ip", "link", "add", "eth0", "numtxqueues", queues, "numrxqueues", queues, "type", "veth", "peer", "name", "far"); err != nil {
		t.Fatal(err)
	}
	ns.Link("eth0").Addr("192.0.2.1/24")
	ns.Link("far").Up()
	ns.Link("eth0").Up()
	l, err := ns.Netlink().LinkByName("eth0")
	h.must(err)
	h.link, h.index = l, l.Attrs().Index
	h.open()
	return h
}

// A qdisc of many queues comes back with those that were set in it.
func TestReplaceManyQueues(t *testing.T) {
	h := newHostOf(t, "4")
	for _, c := range []string{"qdisc replace dev eth0 root handle 8: mq", "qdisc replace dev eth0 parent 8:2 handle 9: pfifo limit 7"} {
		if _, err := h.tc(strings.Fields(c)...); err != nil {
			netlab.Missing(t, "mq", err)
		}
	}
	before := h.qdiscs()
	shaped := h.shaped()
	shaped.Replace = true
	h.must(h.set(shaped))
	h.must(h.ns.Do(h.Cleanup))
	if got := h.qdiscs(); got != before {
		t.Errorf("it was\n%sand is\n%s", before, got)
	}
}

// An interface that gets another name gets its qdisc back all the same, whether the name
// changed under this process or under none.
func TestReplaceThenRename(t *testing.T) {
	for name, restarts := range map[string]bool{"with the same process": false, "with another": true} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			if _, err := h.tc("qdisc", "replace", "dev", "eth0", "root", "handle", "8:", "pfifo", "limit", "123"); err != nil {
				t.Fatal(err)
			}
			before := h.qdiscs()
			shaped := h.shaped(qos.Class{Number: 1, Rate: 1e6})
			shaped.Replace = true
			h.must(h.set(shaped))
			h.rename("wan0")
			if restarts {
				h.open()
			} else {
				h.must(h.set(shaped))
			}
			h.must(h.ns.Do(h.Cleanup))
			h.rename("eth0")
			if got := h.qdiscs(); got != before {
				t.Errorf("it was\n%sand is\n%s", before, got)
			}
		})
	}
}

func (h *host) rename(name string) {
	h.t.Helper()
	nl := h.ns.Netlink()
	h.must(errors.Join(nl.LinkSetDown(h.link), nl.LinkSetName(h.link, name), nl.LinkSetUp(h.link)))
}

// Another interface that has got the number does not get what the one before it had.
func TestReplacedInterfaceGoes(t *testing.T) {
	h := newHost(t)
	h.memory = &memory{[]qos.Replaced{{Interface: "wan7", Index: h.index, Qdiscs: []qos.Qdisc{{Kind: "pfifo", Handle: 8 << 16, Parent: 1<<32 - 1, Options: []byte{7, 0, 0, 0}}}}}}
	before := h.qdiscs()
	h.open()
	h.must(h.set(h.shaped(qos.Class{Number: 1, Rate: 1e6})))
	h.must(h.ns.Do(h.Cleanup))
	if got := h.qdiscs(); got != before {
		t.Errorf("it was\n%sand is\n%s", before, got)
	}
}

// What the kernel does not take back is told once, and not tried for ever.
func TestNotGivenBack(t *testing.T) {
	mq := qos.Qdisc{Kind: "mq", Handle: 8 << 16, Parent: 1<<32 - 1}
	for name, c := range map[string]struct {
		queues, kind string
		noted        []qos.Qdisc
	}{
		"of many queues, and one is left":  {"1", "", []qos.Qdisc{mq}},
		"in a queue that is there no more": {"4", "mq", []qos.Qdisc{mq, {Kind: "pfifo", Handle: 9 << 16, Parent: 8<<16 | 7, Options: []byte{7, 0, 0, 0}}, {Kind: "pfifo", Handle: 10 << 16, Parent: 8<<16 | 2, Options: []byte{7, 0, 0, 0}}}},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHostOf(t, c.queues)
			before := h.root()
			h.must(h.set(h.shaped(qos.Class{Number: 1, Rate: 1e6})))
			h.memory.(*memory).list = []qos.Replaced{{Interface: "eth0", Index: h.index, Qdiscs: c.noted}}
			h.open()
			var lost *qos.NotGivenBackError
			if err := h.ns.Do(h.Cleanup); !errors.As(err, &lost) || lost.Interface != "eth0" {
				t.Errorf("the first time: %v", err)
			}
			h.must(h.ns.Do(h.Cleanup))
			if c.kind == "" {
				c.kind = before
			}
			if got := h.root(); got != c.kind {
				t.Errorf("the root qdisc is %s, want %s", got, c.kind)
			}
			if kept := strings.Contains(h.qdiscs(), "pfifo a: parent 8:2 limit 7p"); kept != (len(c.noted) > 1) {
				t.Errorf("what can be given back beside it: %v\n%s", kept, h.qdiscs())
			}
			if list, _ := h.memory.Replaced(); len(list) > 0 {
				t.Errorf("still in memory: %v", list)
			}
		})
	}
}
