package control

// outputs is the queue of what is to be done. The storage of each kind is used
// again when all of it has been taken, so that what happens all the time leaves no garbage.
type outputs struct {
	queue []Output
	taken int

	transmit   []Transmit
	connected  []Connected
	released   []Released
	install    []InstallSession
	remove     []RemoveSession
	connection []ConnectionChanged
	session    []SessionChanged
	unknown    []SessionUnknown

	// payloads are for messages to come, see Recycle.
	payloads [][]byte
}

// maxPayloads bounds the payloads that are kept.
const maxPayloads = 256

// emit puts o into the queue. Where the storage of its kind has to grow, those
// before it stay where they are.
func emit[T any, P interface {
	*T
	Output
}](q *outputs, kind *[]T, o T) {
	*kind = append(*kind, o)
	q.queue = append(q.queue, P(&(*kind)[len(*kind)-1]))
}

// Next takes the first of what is to be done; false if there is nothing. All of
// it is to be carried out in this order. Acknowledgments that nothing else carries
// come last: an owner who has several datagrams gives them all before it asks, and
// the peer gets one for all of them.
func (e *Endpoint) Next() (Output, bool) {
	q := &e.outputs
	if q.taken == len(q.queue) && len(e.owing) > 0 {
		e.acknowledge()
	}
	if q.taken == len(q.queue) {
		q.reset()
		return nil, false
	}
	o := q.queue[q.taken]
	q.taken++
	return o, true
}

// reset has the storage used from the beginning. Pointers in it are left to be
// overwritten.
func (q *outputs) reset() {
	q.queue, q.taken = emptied(q.queue), 0
	q.transmit, q.connected, q.released = emptied(q.transmit), emptied(q.connected), emptied(q.released)
	q.install, q.remove = emptied(q.install), emptied(q.remove)
	q.connection, q.session, q.unknown = emptied(q.connection), emptied(q.session), emptied(q.unknown)
}

// maxStorage is of how many outputs of a kind the storage is kept. More come at once
// when many sessions are set, and rarely.
const maxStorage = 256

func emptied[T any](s []T) []T {
	if cap(s) > maxStorage {
		return nil
	}
	return s[:0]
}

// Recycle gives back the Payload of a Transmit that has been carried out: the
// Endpoint will write another message into it. Nobody has to.
func (e *Endpoint) Recycle(payload []byte) {
	if q := &e.outputs; len(q.payloads) < maxPayloads && cap(payload) > 0 {
		q.payloads = append(q.payloads, payload[:0])
	}
}

// payload is an empty slice with room for n octets.
func (q *outputs) payload(n int) []byte {
	if last := len(q.payloads) - 1; last >= 0 {
		b := q.payloads[last]
		q.payloads[last], q.payloads = nil, q.payloads[:last]
		if cap(b) >= n {
			return b
		}
	}
	return make([]byte, 0, max(n, 128))
}
