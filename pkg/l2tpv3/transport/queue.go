package transport

import "sync"

// class orders what was received: a lower one is handed out first.
type class uint8

const (
	peerControl     class = iota // control, from the peer of the connection whose socket it reached
	knownControl                 // control, from an address that SetPeers has named
	strangerControl              // control, from anybody else
	peerData                     // data, from the peer of the connection whose socket it reached
	strangerData                 // data, from anybody else
	classes
)

// limits bound what waits in each class. The control limits are many times the
// largest receive window; the data limits are some milliseconds of traffic.
var limits = [classes]struct{ packets, octets int }{
	peerControl:     {4096, 4 << 20},
	knownControl:    {1024, 1 << 20},
	strangerControl: {1024, 1 << 20},
	peerData:        {4096, 8 << 20},
	strangerData:    {256, 1 << 19},
}

// queue holds received packets until the owner takes them. Each class has its
// own bounds, so that a flood of one cannot push out another, and classes are
// served in strict order.
type queue struct {
	mu      sync.Mutex
	waiting [classes]ring
	octets  [classes]int
	// wake holds a token when something may be waiting; it is closed with the queue.
	wake   chan struct{}
	closed bool
}

func newQueue() *queue { return &queue{wake: make(chan struct{}, 1)} }

// put appends a packet with a copy of the payload. It returns false if the
// class is full.
func (q *queue) put(c class, p Packet, payload []byte) bool {
	q.mu.Lock()
	if q.closed || q.waiting[c].len() >= limits[c].packets || q.octets[c]+len(payload) > limits[c].octets {
		q.mu.Unlock()
		return false
	}
	p.Payload = append(make([]byte, 0, len(payload)), payload...)
	q.waiting[c].push(p)
	q.octets[c] += len(payload)
	q.signal()
	q.mu.Unlock()
	return true
}

// close wakes who waits, for good. What is in the queue is gone.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return
	}
	q.closed, q.waiting, q.octets = true, [classes]ring{}, [classes]int{}
	close(q.wake)
}

// signal leaves a token, if there is none. It needs the lock.
func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// get takes the first packet of the first class that has one. If that is not the
// last, there is a token afterwards.
func (q *queue) get() (Packet, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	c, ok := q.first()
	if !ok {
		return Packet{}, false
	}
	p := q.waiting[c].pop()
	q.octets[c] -= len(p.Payload)
	if _, more := q.first(); more {
		q.signal()
	}
	return p, true
}

// first is the first class that has a packet. It needs the lock.
func (q *queue) first() (class, bool) {
	for c := range q.waiting {
		if q.waiting[c].len() > 0 {
			return class(c), true
		}
	}
	return 0, false
}

// ring is a FIFO that keeps its memory.
type ring struct {
	items       []Packet
	first, used int
}

func (r *ring) len() int { return r.used }

func (r *ring) push(p Packet) {
	if r.used == len(r.items) {
		grown := make([]Packet, max(16, 2*len(r.items)))
		n := copy(grown, r.items[r.first:])
		copy(grown[n:], r.items[:r.first])
		r.items, r.first = grown, 0
	}
	r.items[(r.first+r.used)%len(r.items)] = p
	r.used++
}

func (r *ring) pop() Packet {
	p := r.items[r.first]
	r.items[r.first] = Packet{}
	r.first = (r.first + 1) % len(r.items)
	r.used--
	return p
}
