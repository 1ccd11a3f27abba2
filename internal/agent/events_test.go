package agent

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pwd-project/pwd/internal/api"
)

func TestEventsAreKeptInOrderAndBounded(t *testing.T) {
	l := newEventLog()
	for i := range 3 * eventsKept {
		l.put(api.Event{Time: time.Unix(int64(i), 0), Severity: "info", Object: "x", Message: fmt.Sprint(i)})
	}
	events, _ := l.since(0)
	if len(events) != eventsKept {
		t.Fatalf("%d events kept, want %d", len(events), eventsKept)
	}
	for i, e := range events {
		if want := uint64(2*eventsKept + i + 1); e.Sequence != want {
			t.Fatalf("event %d has sequence %d, want %d", i, e.Sequence, want)
		}
	}
	if events, _ := l.since(3*eventsKept - 2); len(events) != 2 {
		t.Errorf("%d events after the last but two, want 2", len(events))
	}
}

func TestFollowersSeeWhatComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newEventLog()
		l.put(api.Event{Time: time.Now(), Severity: "info", Object: "x", Message: "before"})
		ctx, cancel := context.WithCancel(t.Context())
		var seen []string
		ended := make(chan error)
		go func() {
			ended <- l.stream(ctx, 0, true, func(e api.Event) error { seen = append(seen, e.Message); return nil })
		}()
		synctest.Wait()
		l.put(api.Event{Time: time.Now(), Severity: "info", Object: "x", Message: "after"})
		synctest.Wait()
		cancel()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		if want := "[before after]"; fmt.Sprint(seen) != want {
			t.Errorf("seen %v, want %s", seen, want)
		}
	})
}

func TestAStreamEndsWithItsReader(t *testing.T) {
	l := newEventLog()
	l.put(api.Event{Time: time.Now(), Severity: "info", Object: "x", Message: "one"})
	gone := errors.New("the reader has gone")
	if err := l.stream(t.Context(), 0, true, func(api.Event) error { return gone }); !errors.Is(err, gone) {
		t.Errorf("stream: %v, want the reader's error", err)
	}
}
