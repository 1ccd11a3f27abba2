package agent

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/pkg/pseudowire"
)

const (
	// quiet is how long kernel events are collected before they are looked at: one
	// change of a link is a handful of messages.
	quiet = 50 * time.Millisecond
	// moment is how long a new address is waited for where the old one of a connection has gone, and a way where
	// there was none: what takes an old address away often brings the new one.
	moment = 10 * time.Millisecond
	// longest is how long a look waits for sessions that are being set up: what they change on devices of ours
	// is most of what there is to see then, and looking at it would hold them up.
	longest = 10 * quiet
	// share is what part of the time may go into looking at the kernel: one in share.
	share = 5
	// eventBuffer is asked for, in octets: what is lost costs a look at everything.
	eventBuffer = 4 << 20
	// deviceAlias is that of the datapaths' devices, before the pseudowire's name; all that is ours begins as
	// ourAlias does.
	deviceAlias = ourAlias + "pseudowire:"
	ourAlias    = "pwd:"
)

// news is what changed in the kernel since the last look.
type news struct {
	// links are the names of those that changed, gone of those that went away.
	links, gone map[string]bool
	// ports says that a link changed that belongs to a bridge or the like.
	ports bool
	// wires are the pseudowires whose devices changed, as their aliases name them.
	wires map[string]bool
	// parts are those of which something that has a device of its own did (pseudowire.Wholes).
	parts map[string]bool
	// underlay says that links, addresses, routes, neighbours or what is attached to links did.
	underlay bool
	// attached says that something of the datapaths did, or what is attached to links, that cannot be told to
	// be in wires: all of it is to be looked at.
	attached bool
	// devices are the pseudowires of devices, by their numbers: that is kept from look to look.
	devices map[uint32]string
	// lost says that events were: anything may have changed.
	lost bool
	ways ways
	// seen are the links by their numbers, as they were last: that is kept from look to look.
	seen map[uint32]link
}

// link is what is known of one.
type link struct {
	name string
	up   bool
}

// watcher collects kernel events.
type watcher struct {
	conn *netlink.Conn
	log  *slog.Logger
	// end is closed to end the collecting, done when that has ended.
	end, done chan struct{}
	// wake holds a token when there are news.
	wake chan struct{}

	mu   sync.Mutex
	news news
}

// watchKernel collects, from now on, what happens to links, addresses, routes, the
// rules for them, neighbours, qdiscs and filters in the calling thread's network namespace.
func watchKernel(log *slog.Logger) (*watcher, error) {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, fmt.Errorf("open netlink for kernel events: %w", err)
	}
	// Beyond the system's limit where we may; less is no failure.
	_ = conn.SetReadBuffer(eventBuffer)
	for _, group := range []uint32{
		unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH, unix.RTNLGRP_TC,
		unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE,
		unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE,
	} {
		if err := conn.JoinGroup(group); err != nil {
			conn.Close()
			return nil, fmt.Errorf("subscribe to kernel events: %w", err)
		}
	}
	w := &watcher{conn: conn, log: log, end: make(chan struct{}), done: make(chan struct{}), wake: make(chan struct{}, 1)}
	go w.read()
	return w, nil
}

// close ends the collecting.
func (w *watcher) close() {
	if w.conn == nil {
		return // a kernel that tells nothing
	}
	close(w.end)
	w.conn.Close()
	<-w.done
}

// take gives what has been collected, but for what takeWays does, and begins anew.
func (w *watcher) take() news {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := w.news
	w.news = news{devices: n.devices, seen: n.seen, ways: n.ways}
	n.devices, n.seen, n.ways = nil, nil, ways{}
	return n
}

// takeWays gives what matters to calls, since the last time.
func (w *watcher) takeWays() ways {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := w.news.ways
	w.news.ways = ways{}
	return n
}

func (w *watcher) read() {
	defer close(w.done)
	for {
		messages, err := w.conn.Receive()
		if w.ended() {
			return
		}
		if err != nil && !errors.Is(err, unix.ENOBUFS) {
			w.log.Warn("cannot read kernel events", "err", err)
			select {
			case <-time.After(time.Second):
			case <-w.end:
			}
		}
		w.mu.Lock()
		known := false
		if err != nil {
			w.news.lose()
			known = true
		}
		for _, m := range messages {
			known = w.news.add(m) || known
		}
		w.mu.Unlock()
		if !known {
			continue
		}
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

func (w *watcher) ended() bool {
	select {
	case <-w.end:
		return true
	default:
		return false
	}
}

// lose notes that events were lost: what is known of links may be of others that have their numbers now.
func (n *news) lose() {
	n.lost, n.ways.others = true, true
	n.devices, n.seen = nil, nil
}

// add takes one message in, and reports whether it is of interest.
func (n *news) add(m netlink.Message) bool {
	if len(m.Data) == 0 {
		return false
	}
	switch m.Header.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		n.underlay = true
		n.addLink(m)
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		// What bridges learn in customers' LANs is none of our business.
		if m.Data[0] == unix.AF_BRIDGE {
			return false
		}
		n.underlay = true
	case unix.RTM_NEWQDISC, unix.RTM_DELQDISC, unix.RTM_NEWTFILTER, unix.RTM_DELTFILTER:
		n.underlay = true
		n.addAttached(m)
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		n.underlay = true
		n.ways.addAddress(m)
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		n.underlay = true
		n.ways.addRoute(m)
	default:
		n.underlay, n.ways.others = true, true
	}
	return true
}

func (n *news) addLink(m netlink.Message) {
	if len(m.Data) < unix.SizeofIfInfomsg {
		n.attached = true
		return
	}
	attrs, err := netlink.NewAttributeDecoder(m.Data[unix.SizeofIfInfomsg:])
	if err != nil {
		n.attached = true
		return
	}
	index, name, alias := binary.NativeEndian.Uint32(m.Data[4:]), "", ""
	// Of a bridge's family it is the port that goes.
	gone := m.Header.Type == unix.RTM_DELLINK && m.Data[0] != unix.AF_BRIDGE
	for attrs.Next() {
		switch attrs.Type() {
		case unix.IFLA_IFNAME:
			name = attrs.String()
			note(&n.links, name)
			if gone {
				note(&n.gone, name)
			}
		case unix.IFLA_IFALIAS:
			alias = attrs.String()
		case unix.IFLA_MASTER:
			n.ports = true
		}
	}
	if m.Data[0] != unix.AF_BRIDGE {
		n.see(index, link{name, up(m)}, gone, strings.HasPrefix(alias, ourAlias))
	}
	name, wire := strings.CutPrefix(alias, deviceAlias)
	if wire {
		note(&n.wires, name)
		for _, whole := range pseudowire.Wholes(name) {
			note(&n.parts, whole)
		}
	}
	switch {
	case !strings.HasPrefix(alias, ourAlias):
	// One that a pseudowire has besides its own has these in its name, and is not looked at with that.
	case !wire, gone, strings.ContainsAny(name, "+~"):
		n.attached = true
	default:
		if n.devices == nil {
			n.devices = make(map[uint32]string)
		}
		n.devices[index] = name
	}
	if gone {
		delete(n.devices, index)
	}
}

// see notes how a link is: one that has another name than before is missed under that.
func (n *news) see(index uint32, now link, gone, ours bool) {
	before, known := n.seen[index]
	if known && before.name != now.name {
		note(&n.links, before.name)
	}
	if now.up && !before.up && !ours {
		n.ways.others = true
	}
	if gone {
		delete(n.seen, index)
		return
	}
	if n.seen == nil {
		n.seen = make(map[uint32]link)
	}
	n.seen[index] = now
}

// addAttached takes in that a qdisc or a filter came or went.
func (n *news) addAttached(m netlink.Message) {
	const index = 4 // in struct tcmsg
	if len(m.Data) < index+4 {
		n.attached = true
	} else if name, ours := n.devices[binary.NativeEndian.Uint32(m.Data[index:])]; ours {
		note(&n.wires, name)
	} else {
		n.attached = true
	}
}

func note(set *map[string]bool, name string) {
	if *set == nil {
		*set = make(map[string]bool)
	}
	(*set)[name] = true
}

// look is the timer that lets events gather.
type look struct {
	*time.Timer
	due bool
	// at is when it is, if it is due.
	at time.Time
	// since is when something came that has not been looked at yet.
	since time.Time
}

func newLook() *look {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return &look{Timer: t}
}

// after sets the timer to some time from now and not before rest, if it does not run to an earlier one.
func (l *look) after(wait time.Duration, rest time.Time) {
	now := time.Now()
	wait = max(wait, rest.Sub(now))
	if at := now.Add(wait); !l.due || at.Before(l.at) {
		l.due, l.at = true, at
		l.Reset(wait)
	}
	if l.since.IsZero() {
		l.since = now
	}
}

// begin says that the look is taken, unless it waits for what others are at, which it does not for long.
func (l *look) begin(now time.Time, busy bool) bool {
	l.due = false
	if busy && now.Sub(l.since) < longest {
		l.after(quiet, time.Time{})
		return false
	}
	l.since = time.Time{}
	return true
}
