package cli_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/api/apitest"
)

func TestRotateCookies(t *testing.T) {
	var requests []api.RotateRequest
	socket, _ := serve(t, apitest.Answers{Rotate: func(r api.RotateRequest) ([]api.Rotation, error) {
		requests = append(requests, r)
		done := api.Rotation{Pseudowire: "tenant-a", Peer: "dc2", Result: "done"}
		switch {
		case len(r.Pseudowires) == 0:
			return []api.Rotation{done, {Pseudowire: "tenant-b", Peer: "dc3", Result: "failed", Reason: "it has no cookie (`cookie: 0`)"}}, nil
		case r.Pseudowires[0] == "none":
			return nil, &api.Error{Code: api.CodeNotFound, Title: "not found", Detail: "this site has no pseudowire none"}
		}
		return []api.Rotation{done}, nil
	}})
	const usage = "\n  help: see `pwctl rotate cookies --help`\n"
	for _, tt := range []struct {
		args string
		want
		request []string
		asked   bool
	}{
		{args: "rotate cookies tenant-a", want: want{stdout: "PSEUDOWIRE  PEER  RESULT  REASON\ntenant-a    dc2   done    -\n"}, request: []string{"tenant-a"}, asked: true},
		{args: "rotate cookies --all", want: want{code: 1,
			stdout: "PSEUDOWIRE  PEER  RESULT  REASON\ntenant-a    dc2   done    -\ntenant-b    dc3   failed  it has no cookie (`cookie: 0`)\n",
			stderr: "pwctl: 1 cookie of 2 not changed\n"}, asked: true},
		{args: "rotate cookies tenant-a -o json", want: want{stdout: "{\n  \"items\": [\n    {\n      \"pseudowire\": \"tenant-a\",\n      \"peer\": \"dc2\",\n      \"result\": \"done\"\n    }\n  ]\n}\n"},
			request: []string{"tenant-a"}, asked: true},
		{args: "rotate cookies none", want: want{code: 1, stderr: "pwctl: not found: this site has no pseudowire none\n"}, request: []string{"none"}, asked: true},
		{args: "rotate cookies", want: want{code: 2, stderr: "pwctl: of which pseudowires? Name them, or give --all" + usage}},
		{args: "rotate cookies tenant-a --all", want: want{code: 2, stderr: "pwctl: of which pseudowires? Name them, or give --all" + usage}},
		{args: "rotate", want: want{code: 2, stderr: "pwctl: rotate what? There is `rotate cookies`; secrets are replaced in their files\n  help: see `pwctl rotate --help`\n"}},
	} {
		t.Run(tt.args, func(t *testing.T) {
			requests = nil
			check(t, socket, command{args: tt.args}, tt.want)
			var asked []api.RotateRequest
			if tt.asked {
				asked = []api.RotateRequest{{Pseudowires: tt.request}}
			}
			if diff := cmp.Diff(asked, requests); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
		})
	}
}
