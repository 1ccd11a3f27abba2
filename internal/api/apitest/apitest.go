// Package apitest has a Backend of given answers, served on a real socket, for
// tests of what talks to the daemon.
package apitest

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/pwd-project/pwd/internal/api"
)

// Backend answers with its fields. What Set changes may be changed while it is
// served.
type Backend struct {
	mu     sync.Mutex
	answer Answers
	events []api.Event
	news   chan struct{} // closed and replaced when an event is added

	// StreamEnded receives once for every call of Events that ends.
	StreamEnded chan struct{}
}

// Answers are what a Backend answers with.
type Answers struct {
	Status      api.Status
	Tunnels     []api.Tunnel
	Sessions    []api.Session
	Pseudowires []api.Pseudowire
	Attachments []api.Attachment
	Classes     []api.Class
	MACs        []api.MAC
	// Drain answers a request to drain something.
	Drain func(api.DrainRequest) ([]api.Drained, error)
	// Classify answers what would become of frames.
	Classify func(api.ClassifyRequest) ([]api.Classification, error)
	// Drift is what others have changed.
	Drift []api.Drift
	// Announcements answer an announcement.
	Announcements []api.Announcement
	// Err is the answer to every question, if set.
	Err error
	// Apply answers an apply.
	Apply func(context.Context, api.ApplyRequest) (*api.ApplyResult, error)
	// History answers what is kept, Confirm and Rollback what they are named after.
	History  []api.Generation
	Confirm  func(by string) (*api.Generation, error)
	Rollback func(api.RollbackRequest) (*api.ApplyResult, error)
	// Rotate answers a rotation of cookies.
	Rotate func(api.RotateRequest) ([]api.Rotation, error)
	// Capture answers a capture.
	Capture func(context.Context, api.CaptureRequest, io.Writer) error
	// EventsErr ends a stream after the events kept.
	EventsErr error
}

// New returns a Backend that answers with a.
func New(a Answers) *Backend {
	return &Backend{answer: a, news: make(chan struct{}), StreamEnded: make(chan struct{}, 64)}
}

// Set changes the answers.
func (b *Backend) Set(change func(*Answers)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change(&b.answer)
}

// Add makes an event happen; its sequence number is its place, from 1.
func (b *Backend) Add(e api.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e.Sequence = uint64(len(b.events)) + 1
	b.events = append(b.events, e)
	close(b.news)
	b.news = make(chan struct{})
}

func (b *Backend) now() Answers {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.answer
}

// Pulse is part of api.Backend, as the methods below.
func (b *Backend) Pulse(context.Context) (api.Pulse, error) {
	a := b.now()
	return api.Pulse{Site: a.Status.Site, Generation: a.Status.Generation}, a.Err
}

// Status gives the Status of the Answers.
func (b *Backend) Status(context.Context) (*api.Status, error) {
	a := b.now()
	return &a.Status, a.Err
}

// Tunnels gives the Tunnels of the Answers.
func (b *Backend) Tunnels(context.Context) ([]api.Tunnel, error) {
	a := b.now()
	return a.Tunnels, a.Err
}

// Sessions gives the Sessions of the Answers.
func (b *Backend) Sessions(context.Context) ([]api.Session, error) {
	a := b.now()
	return a.Sessions, a.Err
}

// Pseudowires gives the Pseudowires of the Answers.
func (b *Backend) Pseudowires(context.Context) ([]api.Pseudowire, error) {
	a := b.now()
	return a.Pseudowires, a.Err
}

// Attachments gives the Attachments of the Answers.
func (b *Backend) Attachments(context.Context) ([]api.Attachment, error) {
	a := b.now()
	return a.Attachments, a.Err
}

// Classes gives the Classes of the Answers.
func (b *Backend) Classes(context.Context) ([]api.Class, error) {
	a := b.now()
	return a.Classes, a.Err
}

// Apply calls the Apply of the Answers.
func (b *Backend) Apply(ctx context.Context, req api.ApplyRequest) (*api.ApplyResult, error) {
	a := b.now()
	if a.Apply == nil {
		return nil, errors.New("this test expects no apply")
	}
	return a.Apply(ctx, req)
}

// History gives the History of the Answers.
func (b *Backend) History(context.Context) ([]api.Generation, error) {
	a := b.now()
	return a.History, a.Err
}

// Confirm calls the Confirm of the Answers.
func (b *Backend) Confirm(_ context.Context, by string) (*api.Generation, error) {
	a := b.now()
	if a.Confirm == nil {
		return nil, errors.New("this test expects nothing to be confirmed")
	}
	return a.Confirm(by)
}

// Rollback calls the Rollback of the Answers.
func (b *Backend) Rollback(_ context.Context, r api.RollbackRequest) (*api.ApplyResult, error) {
	a := b.now()
	if a.Rollback == nil {
		return nil, errors.New("this test expects no rollback")
	}
	return a.Rollback(r)
}

// MACs gives the MACs of the Answers.
func (b *Backend) MACs(context.Context) ([]api.MAC, error) {
	a := b.now()
	return a.MACs, a.Err
}

// Announce gives the Announcements of the Answers.
func (b *Backend) Announce(context.Context, api.AnnounceRequest) ([]api.Announcement, error) {
	a := b.now()
	return a.Announcements, a.Err
}

// Drift gives the Drift of the Answers.
func (b *Backend) Drift(context.Context) ([]api.Drift, error) {
	a := b.now()
	return a.Drift, a.Err
}

// Drain calls the Drain of the Answers.
func (b *Backend) Drain(_ context.Context, req api.DrainRequest) ([]api.Drained, error) {
	a := b.now()
	if a.Drain == nil {
		return nil, errors.New("this test expects no drain")
	}
	return a.Drain(req)
}

// RotateCookies calls the Rotate of the Answers.
func (b *Backend) RotateCookies(_ context.Context, req api.RotateRequest) ([]api.Rotation, error) {
	a := b.now()
	if a.Rotate == nil {
		return nil, errors.New("this test expects no rotation")
	}
	return a.Rotate(req)
}

// Capture calls the Capture of the Answers.
func (b *Backend) Capture(ctx context.Context, req api.CaptureRequest, w io.Writer) error {
	a := b.now()
	if a.Capture == nil {
		return errors.New("this test expects no capture")
	}
	return a.Capture(ctx, req, w)
}

// Events emits what was added.
func (b *Backend) Events(ctx context.Context, since uint64, follow bool, emit func(api.Event) error) error {
	defer func() { b.StreamEnded <- struct{}{} }()
	for {
		b.mu.Lock()
		kept, news, err := b.events, b.news, b.answer.EventsErr
		b.mu.Unlock()
		for _, e := range kept[min(since, uint64(len(kept))):] {
			if err := emit(e); err != nil {
				return err
			}
			since = e.Sequence
		}
		if err != nil || !follow {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-news:
		}
	}
}

// Serve serves b until the test ends or stop is called, and returns the socket's
// path. A server that does not end within ten seconds fails the test.
func Serve(t testing.TB, b api.Backend, o api.Options) (socket string, stop func()) {
	t.Helper()
	dir := Dir(t)
	ln, err := api.Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, api.SocketName), ServeOn(t, ln, b, o)
}

// ServeOn is Serve on a listener.
func ServeOn(t testing.TB, ln net.Listener, b api.Backend, o api.Options) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- api.NewServer(b, o).Serve(ctx, ln) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("the server ended with: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("the server did not end within 10 s")
		}
	})
	t.Cleanup(stop)
	return stop
}

// Dir is a temporary directory whose path leaves room for a socket's name, as
// that of t.TempDir may not.
func Dir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "pwd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// Classify gives what Answers.Classify says.
func (b *Backend) Classify(_ context.Context, r api.ClassifyRequest) ([]api.Classification, error) {
	a := b.now()
	if a.Classify == nil {
		return nil, a.Err
	}
	return a.Classify(r)
}
