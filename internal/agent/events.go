package agent

import (
	"context"
	"sync"

	"github.com/pwd-project/pwd/internal/api"
)

// eventsKept is how far back `pwctl events` can look.
const eventsKept = 1000

// eventLog keeps the last events and wakes those that follow.
type eventLog struct {
	mu     sync.Mutex
	next   uint64
	events []api.Event
	// changed is closed, and replaced, when an event comes in.
	changed chan struct{}
}

func newEventLog() *eventLog {
	return &eventLog{next: 1, changed: make(chan struct{})}
}

// put keeps an event, with the next sequence number.
func (l *eventLog) put(e api.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e.Sequence = l.next
	l.events = append(l.events, e)
	l.next++
	if len(l.events) > 2*eventsKept {
		l.events = append(l.events[:0:0], l.events[len(l.events)-eventsKept:]...)
	}
	close(l.changed)
	l.changed = make(chan struct{})
}

// since returns the kept events after a sequence number, and what will be
// closed at the next one.
func (l *eventLog) since(seq uint64) ([]api.Event, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	first := max(0, len(l.events)-eventsKept)
	for first < len(l.events) && l.events[first].Sequence <= seq {
		first++
	}
	return append([]api.Event(nil), l.events[first:]...), l.changed
}

// stream gives the events after seq to emit, and with follow those to come.
func (l *eventLog) stream(ctx context.Context, seq uint64, follow bool, emit func(api.Event) error) error {
	for {
		events, changed := l.since(seq)
		for _, e := range events {
			if err := emit(e); err != nil {
				return err
			}
			seq = e.Sequence
		}
		if !follow {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}
