package cli_test

import (
	"context"
	"strings"
	"testing"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/api/apitest"
)

// Who waits at a terminal sees what happens; programs and pipes get the result alone.
func TestProgress(t *testing.T) {
	var socket string
	var backend *apitest.Backend
	socket, backend = serve(t, apitest.Answers{Apply: func(context.Context, api.ApplyRequest) (*api.ApplyResult, error) {
		backend.Add(api.Event{Severity: "info", Object: "tunnel gold/dc2", Message: "established"})
		backend.Add(api.Event{Severity: "warning", Object: "pseudowire a", Message: "down", Reason: "waiting\x1b for dc2"})
		return &api.ApplyResult{Generation: 2, Changes: []api.Change{{Action: "add", Kind: "tunnel", Name: "gold"}}}, nil
	}})
	backend.Add(api.Event{Severity: "info", Object: "topology t", Message: "of before"})
	const lines = "  tunnel gold/dc2: established\n  pseudowire a: down (waiting\\x1B for dc2)\n"
	for _, tt := range []struct {
		args     string
		terminal bool
		shown    bool
	}{
		{"apply -f -", true, true},
		{"apply -f -", false, false},
		{"apply -f - -o json", true, false},
	} {
		code, stdout, stderr := run(t, socket, command{args: tt.args, stdin: "x", terminal: tt.terminal, env: map[string]string{"NO_COLOR": "1"}})
		if code != 0 || stdout == "" || strings.Contains(stderr, lines) != tt.shown || strings.Contains(stderr, "of before") {
			t.Errorf("%s, terminal %v: %d\n%s%s", tt.args, tt.terminal, code, stdout, stderr)
		}
		if colours := strings.Contains(stdout+stderr, "\x1b"); colours {
			t.Errorf("%s: colours in spite of NO_COLOR", tt.args)
		}
	}
	code, stdout, _ := run(t, socket, command{args: "apply -f -", stdin: "x", terminal: true})
	_, plain, _ := run(t, socket, command{args: "apply -f -", stdin: "x"})
	if code != 0 || strings.Contains(plain, "\x1b") {
		t.Errorf("%d %q, without a terminal %q", code, stdout, plain)
	}
}
