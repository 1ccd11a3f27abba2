package cli_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/api/apitest"
)

func TestDrain(t *testing.T) {
	var requests []api.DrainRequest
	socket, _ := serve(t, apitest.Answers{Drain: func(r api.DrainRequest) ([]api.Drained, error) {
		r.By = ""
		requests = append(requests, r)
		switch {
		case r.Undo:
			return []api.Drained{{Pseudowire: "trunk", Peer: "dc2", State: "up", Tunnel: "gold"}}, nil
		case r.Names[0] == "both":
			return nil, &api.Error{Code: api.CodeBadRequest, Title: "not clear", Detail: "both is the name of a site and of a tunnel: say which, with --kind"}
		}
		return []api.Drained{
			{Pseudowire: "office/dc2", Peer: "dc2", State: "standby", Tunnel: "gold", Reason: "drained by uid 0 since 12:00:00"},
			{Pseudowire: "trunk", Peer: "dc2", State: "up", Tunnel: "silver", Reason: "silver stands in for gold"},
		}, nil
	}})
	const header = "PSEUDOWIRE  PEER  STATE    TUNNEL  REASON\n"
	for _, tt := range []struct {
		args string
		want
		request api.DrainRequest
	}{
		{args: "drain gold --reason switch --kind tunnel", request: api.DrainRequest{Names: []string{"gold"}, Kind: "tunnel", Reason: "switch"},
			want: want{stdout: header + "office/dc2  dc2   standby  gold    drained by uid 0 since 12:00:00\ntrunk       dc2   up       silver  silver stands in for gold\n"}},
		{args: "undrain gold -o json", request: api.DrainRequest{Names: []string{"gold"}, Undo: true},
			want: want{stdout: "{\n  \"items\": [\n    {\n      \"pseudowire\": \"trunk\",\n      \"peer\": \"dc2\",\n      \"state\": \"up\",\n      \"tunnel\": \"gold\"\n    }\n  ]\n}\n"}},
		{args: "drain both", request: api.DrainRequest{Names: []string{"both"}},
			want: want{code: 1, stderr: "pwctl: not clear: both is the name of a site and of a tunnel: say which, with --kind\n"}},
		{args: "drain", want: want{code: 2, stderr: "pwctl: what? Name a pseudowire, a network, a tunnel or a site\n  help: see `pwctl drain --help`\n"}},
	} {
		requests = nil
		check(t, socket, command{args: tt.args}, tt.want)
		if tt.request.Names == nil {
			continue
		}
		if diff := cmp.Diff([]api.DrainRequest{tt.request}, requests); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", tt.args, diff)
		}
	}
}
