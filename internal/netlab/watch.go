package netlab

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// watcher learns when namespaces are gone. It has a namespace of its own, in
// which each of the lab's has an ID; when the kernel takes one of these apart it
// reports the ID as deleted. (A namespace's life cannot be asked for: references to
// it hide in sockets.)
type watcher struct {
	ns   *Namespace
	conn *netlink.Conn

	mu    sync.Mutex
	names map[int32]string // by ID, those that live
	next  int32
	gone  chan struct{} // one token is enough: the reader looks again
	done  chan struct{}
}

func newWatcher() (*watcher, error) {
	ns, err := newNamespace("watcher", nil)
	if err != nil {
		return nil, err
	}
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{NetNS: ns.fd, Groups: 1 << (unix.RTNLGRP_NSID - 1)})
	if err != nil {
		ns.release()
		return nil, fmt.Errorf("netlab: watch namespaces: %w", err)
	}
	w := &watcher{ns: ns, conn: conn, names: map[int32]string{}, gone: make(chan struct{}, 1), done: make(chan struct{})}
	go w.receive()
	return w, nil
}

// add starts to watch a namespace.
func (w *watcher) add(ns *Namespace) error {
	w.mu.Lock()
	id := w.next
	w.next++
	w.names[id] = ns.Name
	w.mu.Unlock()

	// Requests have a socket of their own: the watching one is in the reader's hands.
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{NetNS: w.ns.fd})
	if err != nil {
		return err
	}
	defer conn.Close()
	e := netlink.NewAttributeEncoder()
	e.Uint32(unix.NETNSA_FD, uint32(ns.fd))
	e.Int32(unix.NETNSA_NSID, id)
	attributes, err := e.Encode()
	if err != nil {
		return err
	}
	// struct rtgenmsg is one octet, padded to the attributes' alignment.
	_, err = conn.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_NEWNSID, Flags: netlink.Request | netlink.Acknowledge},
		Data:   append(make([]byte, 4), attributes...),
	})
	return err
}

func (w *watcher) receive() {
	defer close(w.done)
	for {
		messages, err := w.conn.Receive()
		if err != nil {
			if errors.Is(err, os.ErrClosed) || errors.Is(err, unix.EBADF) {
				return
			}
			continue // ENOBUFS: what was lost shows when the wait ends
		}
		for _, m := range messages {
			if m.Header.Type != unix.RTM_DELNSID || len(m.Data) < 4 {
				continue
			}
			d, err := netlink.NewAttributeDecoder(m.Data[4:])
			if err != nil {
				continue
			}
			for d.Next() {
				if d.Type() == unix.NETNSA_NSID {
					w.mu.Lock()
					delete(w.names, d.Int32())
					w.mu.Unlock()
				}
			}
			select {
			case w.gone <- struct{}{}:
			default:
			}
		}
	}
}

// wait returns when all watched namespaces are gone, or with the names of those that are not.
func (w *watcher) wait(limit time.Duration) (left []string) {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	for {
		w.mu.Lock()
		left = left[:0]
		for _, name := range w.names {
			left = append(left, name)
		}
		w.mu.Unlock()
		if len(left) == 0 {
			return nil
		}
		select {
		case <-w.gone:
		case <-deadline.C:
			return left
		}
	}
}

func (w *watcher) close() {
	w.conn.Close()
	<-w.done
	w.ns.release()
}
