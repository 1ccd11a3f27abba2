package cli_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/api/apitest"
)

// story is what happened to gold, the first of it 20 minutes ago.
func story(b *apitest.Backend) {
	b.Add(api.Event{Time: now.Add(-20 * time.Minute), Severity: "info", Object: "tunnel gold/dc2", Message: "is established", Reason: "SCCRP received"})
	b.Add(api.Event{Time: now.Add(-5*time.Minute + 1500*time.Millisecond), Severity: "warning", Object: "tunnel gold/dc2", Message: "does not answer", Reason: "3 retransmissions",
		Cause: &api.Cause{Kind: "peer-silent", By: "here", Message: "HELLO", Sent: 4}, Next: "is pwd running at dc2?"})
	b.Add(api.Event{Time: now.Add(-time.Minute), Severity: "error", Object: "pseudowire a", Message: "is down\x07"})
}

func TestEvents(t *testing.T) {
	socket, b := serve(t, apitest.Answers{})
	story(b)
	const first = "2026-11-22 13:10:00.000  info     tunnel gold/dc2: is established (SCCRP received)\n"
	const rest = "2026-11-22 13:25:01.500  warning  tunnel gold/dc2: does not answer (3 retransmissions)\n" +
		"                                  do: is pwd running at dc2?\n" +
		"2026-11-22 13:29:00.000  error    pseudowire a: is down\\x07\n"
	check(t, socket, command{args: "events"}, want{stdout: first + rest})
	check(t, socket, command{args: "events --since 1"}, want{stdout: rest})
	check(t, socket, command{args: "events --since 10m"}, want{stdout: rest})
	check(t, socket, command{args: "events --since 99"}, want{})
	check(t, socket, command{args: "events --since 2 -o json"}, want{
		stdout: `{"sequence":3,"time":"2026-11-22T13:29:00Z","severity":"error","object":"pseudowire a","message":"is down\u0007"}` + "\n"})
	check(t, socket, command{args: "events --since 1 -o json"}, want{
		stdout: `{"sequence":2,"time":"2026-11-22T13:25:01.5Z","severity":"warning","object":"tunnel gold/dc2","message":"does not answer","reason":"3 retransmissions",` +
			`"cause":{"kind":"peer-silent","by":"here","message":"HELLO","sent":4},"next":"is pwd running at dc2?"}` + "\n" +
			`{"sequence":3,"time":"2026-11-22T13:29:00Z","severity":"error","object":"pseudowire a","message":"is down\u0007"}` + "\n"})
	check(t, socket, command{args: "events --since 1", terminal: true}, want{
		stdout: strings.NewReplacer("warning", "\x1b[33mwarning\x1b[0m", "error  ", "\x1b[31merror  \x1b[0m").Replace(rest)})
}

// -f goes on until it is interrupted, which is how it is meant to end, or until
// the daemon ends, which is not.
func TestEventsFollow(t *testing.T) {
	for _, tt := range []struct {
		name   string
		end    func(cancel, stop func())
		code   int
		stderr string
	}{
		{"interrupted", func(cancel, _ func()) { cancel() }, 0, ""},
		{"the daemon stops", func(_, stop func()) { stop() }, 3,
			"pwctl: pwd ended the connection to SOCKET\n  help: it stopped or restarts: try again, or look at its log (journalctl -u pwd)\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := apitest.New(apitest.Answers{})
			socket, stop := apitest.Serve(t, b, api.Options{})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			out := make(printed)
			type end struct {
				code   int
				stderr string
			}
			done := make(chan end, 1)
			go func() {
				code, _, stderr := run(t, socket, command{args: "events -f", ctx: ctx, stdout: out})
				done <- end{code, strings.ReplaceAll(stderr, socket, "SOCKET")}
			}()
			b.Add(api.Event{Time: now, Severity: "info", Object: "a", Message: "one"})
			out.expect(t, "2026-11-22 13:30:00.000  info     a: one\n")
			b.Add(api.Event{Time: now, Severity: "info", Object: "b", Message: "two"})
			out.expect(t, "2026-11-22 13:30:00.000  info     b: two\n")
			tt.end(cancel, stop)
			if got := <-done; got != (end{tt.code, tt.stderr}) {
				t.Errorf("ended with %+v", got)
			}
		})
	}
}
