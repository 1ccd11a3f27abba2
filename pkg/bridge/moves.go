package bridge

import (
	"errors"
	"fmt"
	"sync"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Move is news of where an address is: it was learned behind a port, has moved
// there, or was forgotten. Links are told by their index.
type Move struct {
	Address      Address
	VLAN         uint16
	Bridge, Port int
	Forgotten    bool
}

// movesBuffer is asked for, in octets; maxMoves is how many are kept for Take.
const (
	movesBuffer = 4 << 20
	maxMoves    = 4096
)

// Moves follows what the bridges of a network namespace learn. Only Take and Close
// may be called after OpenMoves, by one goroutine.
type Moves struct {
	conn *netlink.Conn
	done chan struct{}
	// Wake holds a token when there is something to take.
	Wake chan struct{}

	mu   sync.Mutex
	news []Move
	lost bool
}

// OpenMoves begins to follow, in the calling thread's network namespace.
func OpenMoves() (*Moves, error) {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, fmt.Errorf("open netlink for what bridges learn: %w", err)
	}
	// Beyond the system's limit where we may; less is no failure.
	_ = conn.SetReadBuffer(movesBuffer)
	if err := conn.JoinGroup(unix.RTNLGRP_NEIGH); err != nil {
		conn.Close()
		return nil, fmt.Errorf("subscribe to what bridges learn: %w", err)
	}
	w := &Moves{conn: conn, done: make(chan struct{}), Wake: make(chan struct{}, 1)}
	go w.read()
	return w, nil
}

// Close ends it.
func (w *Moves) Close() {
	w.conn.Close()
	<-w.done
}

// Take gives what has happened since the last call, in order. With lost, some of
// it is missing: more happened than could be taken in.
func (w *Moves) Take() (moves []Move, lost bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	moves, lost = w.news, w.lost
	w.news, w.lost = nil, false
	return moves, lost
}

func (w *Moves) read() {
	defer close(w.done)
	for {
		messages, err := w.conn.Receive()
		overrun := errors.Is(err, unix.ENOBUFS)
		if err != nil && !overrun {
			return // closed
		}
		if w.keep(messages, overrun) {
			select {
			case w.Wake <- struct{}{}:
			default:
			}
		}
	}
}

// keep adds messages to the news, and reports whether there are some.
func (w *Moves) keep(messages []netlink.Message, overrun bool) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lost = w.lost || overrun
	for _, m := range messages {
		e, ok := parseLearned(m.Data)
		switch {
		case !ok:
		case len(w.news) >= maxMoves:
			w.lost = true
		default:
			w.news = append(w.news, Move{
				Address: e.address, VLAN: e.vlan, Bridge: e.bridge, Port: e.port,
				Forgotten: m.Header.Type == unix.RTM_DELNEIGH,
			})
		}
	}
	return w.lost || len(w.news) > 0
}
