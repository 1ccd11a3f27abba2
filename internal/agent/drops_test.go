package agent

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/pkg/l2tpv3/control"
)

// logged collects what a logger writes, a line each.
type logged struct{ strings.Builder }

func (l *logged) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(&l.Builder, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}

// take gives the lines since it was last called.
func (l *logged) take() (lines []string) {
	for line := range strings.Lines(l.String()) {
		lines = append(lines, strings.TrimSpace(line))
	}
	l.Reset()
	return lines
}

func droppedFrom(addr netip.Addr, tunnel, reason string) control.Discard {
	return control.Discard{Reason: reason, Tunnel: tunnel, Datagram: control.Datagram{Path: control.Path{Remote: netip.AddrPortFrom(addr, 1701)}}}
}

// Every reason has words.
func TestDropsHaveWords(t *testing.T) {
	for _, reason := range control.DiscardReasons() {
		if dropWords[reason] == "" {
			t.Errorf("nothing is said of %s", reason)
		}
	}
}

// A peer whose messages are dropped without end gives a line for each reason, and
// another a minute with the number of those between.
func TestDropsOfAPeerAreLoggedByTheMinute(t *testing.T) {
	var log logged
	a := newAgent(Options{Logger: log.logger()})
	a.tunnels["gold/dc2"] = &tunnel{}
	a.tunnels["gold/dc2"].Remote = netip.MustParseAddr("192.0.2.2")
	log.take()
	peer := netip.MustParseAddr("192.0.2.2")
	for range 1000 {
		a.discarded(droppedFrom(peer, "gold/dc2", "unauthenticated"))
		a.discarded(droppedFrom(peer, "gold/dc2", "wrong-nr"))
		a.discarded(droppedFrom(peer, "", "unexpected"))
	}
	first := log.take()
	if len(first) != 3 || !strings.Contains(first[0], "reason=unauthenticated") || !strings.Contains(first[2], `object="peer 192.0.2.2"`) {
		t.Errorf("logged at once: %q", first)
	}
	now := time.Now()
	a.drops.tick(now)
	if early := log.take(); len(early) != 0 {
		t.Errorf("logged within the minute: %q", early)
	}
	a.drops.tick(now.Add(dropInterval))
	later := log.take()
	for _, line := range later {
		if !strings.Contains(line, " more=999 ") {
			t.Errorf("a minute later: %s", line)
		}
	}
	if len(later) != 3 {
		t.Errorf("a minute later: %q", later)
	}
	// When it has been quiet for a minute the next is news.
	a.drops.tick(now.Add(2 * dropInterval))
	if len(a.drops.counts) != 0 {
		t.Errorf("%d reasons are remembered", len(a.drops.counts))
	}
	if views := a.drops.views(); len(views) != 0 {
		t.Errorf("a peer is taken for a stranger: %v", views)
	}
}

// Of a flood from everywhere a handful of lines is logged, a bounded number of prefixes
// remembered, and every message counted.
func TestDropsOfStrangersAreSummed(t *testing.T) {
	var log logged
	d := newDrops(log.logger())
	begin := time.Date(2026, 3, 5, 14, 0, 0, 0, time.UTC)
	const flood = 100_000
	now := begin
	var lines int
	for i := range flood {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], 198<<24|uint32(i)<<4)
		now = begin.Add(time.Duration(i) * 3 * time.Millisecond) // five minutes
		d.stranger(now, droppedFrom(netip.AddrFrom4(b), "", "unknown-peer"))
		if i%1000 == 0 {
			d.tick(now)
			lines += len(log.take())
		}
	}
	if most := 6 * (loudStrangers + 1); lines > most {
		t.Errorf("%d lines, %d at most are to be", lines, most)
	}
	if len(d.strangers) > maxStrangers {
		t.Errorf("%d prefixes are remembered", len(d.strangers))
	}
	var sum uint64
	for _, s := range d.views() {
		sum += s.Reasons["unknown-peer"]
	}
	if sum != flood {
		t.Errorf("%d counted, %d came", sum, flood)
	}
	// One that goes on is seen beside all of them.
	last := netip.MustParseAddr("2001:db8:1:2::3")
	now = now.Add(dropInterval)
	d.stranger(now, droppedFrom(last, "", "unknown-peer"))
	if got, ok := d.suspect(now.Add(-time.Second)); !ok || got != last {
		t.Errorf("suspect %v %v", got, ok)
	}
	if v := d.views()[0]; v.Prefix != "2001:db8:1::/48" || v.Last != last.String() {
		t.Errorf("%+v", v)
	}
	if _, ok := d.suspect(now); ok {
		t.Error("an old request is suspected")
	}
}

// An object that changes without end leaves room for the events of the others, and
// its last state is told.
func TestEventsOfOneObjectAreBounded(t *testing.T) {
	a := newAgent(Options{})
	for i := range 1000 {
		a.event("warning", "tunnel gold/dc2", fmt.Sprintf("change %d", i), "")
	}
	a.event("info", "tunnel silver/dc2", "established", "")
	told := func() (all []api.Event) {
		events, _ := a.events.since(0)
		return events
	}
	if n := len(told()); n != burstEvents+1 {
		t.Errorf("%d events", n)
	}
	a.tellRest(time.Now())
	if n := len(told()); n != burstEvents+1 {
		t.Errorf("%d events after a while", n)
	}
	a.tellRest(time.Now().Add(burstInterval))
	all := told()
	if last := all[len(all)-1]; len(all) != burstEvents+2 || !strings.HasPrefix(last.Message, fmt.Sprintf("change 999, the last of %d more changes in ", 1000-burstEvents)) {
		t.Errorf("%d events, the last %+v", len(all), last)
	}
	if len(a.bursts) != 0 {
		t.Errorf("%d objects are remembered", len(a.bursts))
	}
}
