package cli_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/api/apitest"
)

func TestConfirmRollbackHistory(t *testing.T) {
	day := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	soon := now.Add(90 * time.Second)
	var asked []api.RollbackRequest
	socket, _ := serve(t, apitest.Answers{
		History: []api.Generation{
			{Number: 7, InForce: true, Applied: day, File: "new.yaml", By: "uid 0", Cause: "applied", ConfirmBy: &soon, Before: 6},
			{Number: 6, Applied: day.Add(-time.Hour), File: "old.yaml", Cause: "topology file"},
		},
		Confirm: func(string) (*api.Generation, error) { return &api.Generation{Number: 7}, nil },
		Rollback: func(r api.RollbackRequest) (*api.ApplyResult, error) {
			asked = append(asked, api.RollbackRequest{Generation: r.Generation})
			if r.Generation == 99 {
				return nil, &api.Error{Code: api.CodeNotFound, Title: "not found", Detail: "generation 99 is not kept"}
			}
			return &api.ApplyResult{Generation: 8, Changes: plan, Seconds: 0.5, Waiting: []string{"tenant-a: waiting for dc2"}}, nil
		},
	})
	check(t, socket, command{args: "confirm"}, want{stdout: "generation 7 stays in force\n"})
	check(t, socket, command{args: "history"}, want{stdout: `
GENERATION  STATE               APPLIED              FILE      CAUSE          BY
7           in force for 1m30s  2026-03-04 05:06:07  new.yaml  applied        uid 0
6           -                   2026-03-04 04:06:07  old.yaml  topology file  -
`})
	const rolled = planTable + "applied as generation 8 in 0.50s: 1 added, 1 changed, 1 removed\nnot up yet: tenant-a: waiting for dc2\n"
	check(t, socket, command{args: "rollback"}, want{stdout: rolled})
	check(t, socket, command{args: "rollback 3"}, want{stdout: rolled})
	check(t, socket, command{args: "rollback 99"}, want{code: 1, stderr: "pwctl: not found: generation 99 is not kept\n"})
	if diff := cmp.Diff([]api.RollbackRequest{{}, {Generation: 3}, {Generation: 99}}, asked); diff != "" {
		t.Error(diff)
	}
}

// With --wait the end of the probation is waited for.
func TestApplyIsConfirmedOrNot(t *testing.T) {
	by := now.Add(2*time.Minute - 20*time.Millisecond) // some time has passed
	for _, tt := range []struct {
		name  string
		after api.Status
		want
	}{
		{"confirmed", api.Status{Generation: 5}, want{stderr: "generation 5 is confirmed\n"}},
		{"not confirmed", api.Status{Generation: 6}, want{code: 7, stderr: "pwctl: generation 5 was not confirmed: it is no longer in force\n  help: see `pwctl history`\n"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var seconds float64
			answers := apitest.Answers{Status: tt.after, Apply: func(_ context.Context, r api.ApplyRequest) (*api.ApplyResult, error) {
				seconds = r.ConfirmSeconds
				return &api.ApplyResult{Generation: 5, Changes: plan[:1], Seconds: 0.2, ConfirmBy: &by}, nil
			}}
			socket, _ := serve(t, answers)
			tt.want.stdout = "\n+ tunnel  gold/dc2\napplied as generation 5 in 0.20s: 1 added, 0 changed, 0 removed\nrun `pwctl confirm` within 2m to keep it\n"
			check(t, socket, command{args: "apply -f - --confirm 2m --wait", stdin: "new"}, tt.want)
			if seconds != 120 {
				t.Errorf("asked for %v s", seconds)
			}
		})
	}
}
