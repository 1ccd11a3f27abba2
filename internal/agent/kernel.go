package agent

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
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
	// left are addresses that are on one of the host's links no more.
	left map[netip.Addr]bool
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

// take gives what has been collected, and begins anew.
func (w *watcher) take() news {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := w.news
	w.news = news{devices: n.devices}
	n.devices = nil
	return n
}

// takeLeft gives the addresses that have gone since the last call.
func (w *watcher) takeLeft() map[netip.Addr]bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	left := w.news.left
	w.news.left = nil
	return left
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
			w.news.lost, known = true, true
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
	case unix.RTM_DELADDR:
		n.underlay = true
		n.leaves(m)
	default:
		n.underlay = true
	}
	return true
}

// leaves notes an address that goes (struct ifaddrmsg).
func (n *news) leaves(m netlink.Message) {
	if len(m.Data) < unix.SizeofIfAddrmsg {
		return
	}
	attrs, err := netlink.NewAttributeDecoder(m.Data[unix.SizeofIfAddrmsg:])
	if err != nil {
		return
	}
	var own netip.Addr
	for attrs.Next() {
		// Where a link has a peer, IFA_ADDRESS is the peer's.
		if kind := attrs.Type(); kind == unix.IFA_LOCAL || kind == unix.IFA_ADDRESS && !own.IsValid() {
			own, _ = netip.AddrFromSlice(attrs.Bytes())
		}
	}
	if own.IsValid() {
		if n.left == nil {
			n.left = make(map[netip.Addr]bool)
		}
		n.left[own] = true
	}
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
	index, alias := binary.NativeEndian.Uint32(m.Data[4:]), ""
	// Of a bridge's family it is the port that goes.
	gone := m.Header.Type == unix.RTM_DELLINK && m.Data[0] != unix.AF_BRIDGE
	for attrs.Next() {
		switch attrs.Type() {
		case unix.IFLA_IFNAME:
			note(&n.links, attrs.String())
			if gone {
				note(&n.gone, attrs.String())
			}
		case unix.IFLA_IFALIAS:
			alias = attrs.String()
		case unix.IFLA_MASTER:
			n.ports = true
		}
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
	// since is when something came that has not been looked at yet.
	since time.Time
}

func newLook() *look {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return &look{Timer: t}
}

// after sets the timer, if it does not run, to some time from now and not before rest.
func (l *look) after(wait time.Duration, rest time.Time) {
	if !l.due {
		l.due = true
		l.Reset(max(wait, time.Until(rest)))
	}
	if l.since.IsZero() {
		l.since = time.Now()
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
