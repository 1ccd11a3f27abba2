package api_test

import (
	"bufio"
	"context"
	"errors"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/api/apitest"
)

// numbers is what the numbers of events are.
func numbers(list []api.Event) []uint64 {
	var out []uint64
	for _, e := range list {
		out = append(out, e.Sequence)
	}
	return out
}

func TestEventsKept(t *testing.T) {
	b := apitest.New(apitest.Answers{})
	socket, _ := apitest.Serve(t, b, api.Options{})
	for _, m := range []string{"started", "up", "down"} {
		b.Add(api.Event{Message: m})
	}
	c := api.Dial(socket)
	defer c.Close()
	for since, want := range map[uint64][]uint64{0: {1, 2, 3}, 2: {3}, 3: nil, 99: nil} {
		var got []api.Event
		err := c.Events(t.Context(), since, false, func(e api.Event) error { got = append(got, e); return nil })
		if diff := cmp.Diff(want, numbers(got)); diff != "" || err != nil {
			t.Errorf("since %d: %v (-want +got):\n%s", since, err, diff)
		}
	}
}

// What curl shows: one JSON object a line, nothing else.
func TestEventsOnTheWire(t *testing.T) {
	b := apitest.New(apitest.Answers{})
	socket, _ := apitest.Serve(t, b, api.Options{})
	b.Add(api.Event{Time: time.Date(2026, 11, 22, 13, 0, 0, 0, time.UTC), Severity: "info", Object: "tunnel gold/dc2", Message: "is <up>"})
	res, body := ask(t, socket, "GET", "/v1/events", "")
	want := `{"sequence":1,"time":"2026-11-22T13:00:00Z","severity":"info","object":"tunnel gold/dc2","message":"is <up>"}` + "\n"
	if got := res.Header.Get("Content-Type"); got != "application/x-ndjson" || body != want {
		t.Errorf("%s %s, want %s", got, body, want)
	}
}

// A follower knows that it listens before anything happens, hears of each event
// when it happens, and sees a whole stream when the daemon stops.
func TestEventsFollowed(t *testing.T) {
	b := apitest.New(apitest.Answers{})
	socket, stop := apitest.Serve(t, b, api.Options{})
	req, _ := http.NewRequestWithContext(t.Context(), "GET", "http://pwd/v1/events?follow=true", nil)
	res, err := httpClient(t, socket).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	for _, message := range []string{"first", "second"} {
		b.Add(api.Event{Message: message})
		if !lines.Scan() || !strings.Contains(lines.Text(), message) {
			t.Fatalf("got %q (%v), want %s", lines.Text(), lines.Err(), message)
		}
	}
	stop()
	if lines.Scan() || lines.Err() != nil {
		t.Errorf("then %q (%v), want the end", lines.Text(), lines.Err())
	}
}

// However a stream ends, the Backend's side of it ends and nothing is left.
func TestEventStreamsEnd(t *testing.T) {
	stopped := errors.New("seen enough")
	for _, tt := range []struct {
		name string
		end  func(cancel, stop func())
		emit func(api.Event) error
		want error
	}{
		{"the client goes", func(cancel, _ func()) { cancel() }, nil, nil},
		{"the daemon stops", func(_, stop func()) { stop() }, nil, api.ErrUnreachable},
		{"the client has seen enough", func(func(), func()) {}, func(api.Event) error { return stopped }, stopped},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := runtime.NumGoroutine()
			b := apitest.New(apitest.Answers{})
			socket, stop := apitest.Serve(t, b, api.Options{})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			c := api.Dial(socket)
			listening, done := make(chan struct{}, 1), make(chan error, 1)
			go func() {
				done <- c.Events(ctx, 0, true, func(e api.Event) error {
					listening <- struct{}{}
					if tt.emit != nil {
						return tt.emit(e)
					}
					return nil
				})
			}()
			b.Add(api.Event{Message: "hello"})
			<-listening
			tt.end(cancel, stop)
			if err := <-done; !errors.Is(err, tt.want) {
				t.Errorf("the client got %v, want %v", err, tt.want)
			}
			select {
			case <-b.StreamEnded:
			case <-time.After(10 * time.Second):
				t.Fatal("the Backend still streams")
			}
			stop()
			c.Close()
			for deadline := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; {
				if time.Now().After(deadline) {
					stacks := make([]byte, 1<<16)
					t.Fatalf("goroutines are left:\n%s", stacks[:runtime.Stack(stacks, true)])
				}
				runtime.Gosched()
			}
		})
	}
}

// A stream that breaks must not look like one that is over.
func TestEventStreamFails(t *testing.T) {
	refused := &api.Error{Code: api.CodeInternal, Title: "the journal is gone"}
	t.Run("before its first event", func(t *testing.T) {
		b := apitest.New(apitest.Answers{EventsErr: refused})
		socket, _ := apitest.Serve(t, b, api.Options{})
		err := api.Dial(socket).Events(t.Context(), 0, false, func(api.Event) error { return nil })
		var got *api.Error
		if !errors.As(err, &got) || got.Title != refused.Title {
			t.Errorf("got %v", err)
		}
	})
	t.Run("after", func(t *testing.T) {
		b := apitest.New(apitest.Answers{EventsErr: refused})
		socket, _ := apitest.Serve(t, b, api.Options{})
		b.Add(api.Event{Message: "hello"})
		n := 0
		err := api.Dial(socket).Events(t.Context(), 0, false, func(api.Event) error { n++; return nil })
		if n != 1 || !errors.Is(err, api.ErrUnreachable) {
			t.Errorf("%d events, then %v, want 1 and a broken connection", n, err)
		}
	})
}
