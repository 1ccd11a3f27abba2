package cli_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/api/apitest"
)

// plan is what the daemon of these tests would do, and does.
var plan = []api.Change{
	{Action: "add", Kind: "tunnel", Name: "gold/dc2"},
	{Action: "change", Kind: "pseudowire", Name: "tenant-a", Impact: "resets-session", Detail: "cookie 4 to 8"},
	{Action: "remove", Kind: "bridge", Name: "br-old", Impact: "recreates"},
}

const (
	planTable = `
+ tunnel      gold/dc2
~ pseudowire  tenant-a  resets the session  cookie 4 to 8
- bridge      br-old    recreates
`
	interrupts = `
This interrupts traffic:
  + tunnel      gold/dc2
  ~ pseudowire  tenant-a  resets the session  cookie 4 to 8
  - bridge      br-old    recreates
`
)

// site with an apply that notes its requests, refuses disruption without leave,
// and fails as the document says.
func applied(t *testing.T) (socket string, requests *[]api.ApplyRequest) {
	requests = new([]api.ApplyRequest)
	socket, _ = serve(t, apitest.Answers{Apply: func(_ context.Context, r api.ApplyRequest) (*api.ApplyResult, error) {
		if here, _ := os.Getwd(); r.Name == "<stdin>" && r.Directory != here || r.Name != "<stdin>" && r.Directory != filepath.Dir(r.Name) {
			t.Errorf("%s is sent with the directory %q", r.Name, r.Directory)
		}
		if asks := fmt.Sprintf("uid %d", os.Getuid()); !r.DryRun && r.By != asks {
			t.Errorf("asked by %q, want %q", r.By, asks)
		}
		r.Directory, r.By = "", ""
		*requests = append(*requests, r)
		switch code := strings.TrimPrefix(r.Document, "fail: "); {
		case code != r.Document:
			return nil, &api.Error{Code: code, Title: "as asked"}
		case r.Document == "same":
			return &api.ApplyResult{Generation: 4}, nil
		case !r.Disruptive:
			return nil, &api.Error{Code: api.CodeNeedsConfirmation, Title: "the change interrupts traffic", Changes: plan}
		}
		if r.DryRun {
			result := &api.ApplyResult{Generation: 5, Changes: plan, Untouched: []api.Object{{Kind: "tunnel", Name: "silver/dc2"}}}
			for n := range 10 {
				result.Untouched = append(result.Untouched, api.Object{Kind: "pseudowire", Name: fmt.Sprintf("x%d", n)})
			}
			return result, nil
		}
		return &api.ApplyResult{Generation: 5, Changes: plan, Seconds: 0.214, Waiting: []string{"tenant-a: waiting for dc2"}}, nil
	}})
	return socket, requests
}

func write(t *testing.T, document string) string {
	t.Helper()
	path := filepath.Join(apitest.Dir(t), "two.yaml")
	if err := os.WriteFile(path, []byte(document), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestApply(t *testing.T) {
	const done = planTable + "applied as generation 5 in 0.21s: 1 added, 1 changed, 1 removed\nnot up yet: tenant-a: waiting for dc2\n"
	const dry = planTable + "1 to add, 1 to change, 1 to remove\n" +
		"untouched: 1 tunnel (silver/dc2), 10 pseudowires (x0, x1, x2, x3, x4, x5, x6, x7, 2 more)\n"
	asked := api.ApplyRequest{Name: "<stdin>", Document: "new"}
	allowed := api.ApplyRequest{Name: "<stdin>", Document: "new", Disruptive: true}
	for _, tt := range []struct {
		name string
		command
		want
		requests []api.ApplyRequest
	}{
		{"with leave", command{args: "apply -f - -y", stdin: "new"}, want{stdout: done}, []api.ApplyRequest{allowed}},
		{"without leave, nobody to ask", command{args: "apply -f -", stdin: "new"},
			want{code: 1, stderr: interrupts + "pwctl: nothing was changed: there is no terminal to ask on\n  help: repeat with --yes if the interruption is fine\n"},
			[]api.ApplyRequest{asked}},
		{"no changes", command{args: "apply -f -", stdin: "same"}, want{stdout: "no changes: generation 4 is what the file says\n"},
			[]api.ApplyRequest{{Name: "<stdin>", Document: "same"}}},
		{"with peers, and waiting", command{args: "apply -f - --yes --require-peers --wait", stdin: "new"}, want{stdout: done},
			[]api.ApplyRequest{{Name: "<stdin>", Document: "new", Disruptive: true, RequirePeers: true}}},
		{"dry run", command{args: "apply -f - --dry-run", stdin: "new"}, want{stdout: dry},
			[]api.ApplyRequest{{Name: "<stdin>", Document: "new", Disruptive: true, DryRun: true}}},
		{"dry run of no changes", command{args: "apply -f - --dry-run", stdin: "same"}, want{stdout: "no changes\n"},
			[]api.ApplyRequest{{Name: "<stdin>", Document: "same", Disruptive: true, DryRun: true}}},
		{"diff", command{args: "diff -f -", stdin: "new"}, want{code: 1, stdout: dry},
			[]api.ApplyRequest{{Name: "<stdin>", Document: "new", Disruptive: true, DryRun: true}}},
		{"diff of no changes", command{args: "diff -f -", stdin: "same"}, want{stdout: "no changes\n"},
			[]api.ApplyRequest{{Name: "<stdin>", Document: "same", Disruptive: true, DryRun: true}}},
		{"for programs", command{args: "apply -f - -o yaml", stdin: "same"}, want{stdout: "generation: 4\nchanges: []\nseconds: 0\n"},
			[]api.ApplyRequest{{Name: "<stdin>", Document: "same"}}},
		{"diff for programs", command{args: "diff -f - -o json", stdin: "same"},
			want{stdout: "{\n  \"generation\": 4,\n  \"changes\": [],\n  \"seconds\": 0\n}\n"},
			[]api.ApplyRequest{{Name: "<stdin>", Document: "same", Disruptive: true, DryRun: true}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			socket, requests := applied(t)
			check(t, socket, tt.command, tt.want)
			if diff := cmp.Diff(tt.requests, *requests); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
		})
	}
}

// On a terminal somebody is asked, and only yes is yes.
func TestApplyAsks(t *testing.T) {
	file := write(t, "new")
	for answer, yes := range map[string]bool{"y\n": true, " YES \n": true, "n\n": false, "\n": false, "": false, "yep\n": false} {
		socket, requests := applied(t)
		w := want{code: 1, stderr: interrupts + "Apply them? [y/N] pwctl: nothing was changed\n"}
		n := 1
		if yes {
			n = 2
			w = want{stdout: planTable + "applied as generation 5 in 0.21s: 1 added, 1 changed, 1 removed\nnot up yet: tenant-a: waiting for dc2\n",
				stderr: interrupts + "Apply them? [y/N] "}
		}
		check(t, socket, command{args: "apply -f " + file, stdin: answer, terminal: true}, w)
		if len(*requests) != n || (*requests)[n-1].Disruptive != yes || (*requests)[0].Name != file {
			t.Errorf("answer %q: requests %+v", answer, *requests)
		}
	}
}

// Every way an apply or a diff fails, by the code that the daemon gives.
func TestExitCodesOfRefusals(t *testing.T) {
	for _, tt := range []struct {
		code        string
		apply, diff int
	}{
		{api.CodeInvalidTopology, 4, 4},
		{api.CodeApplyFailed, 5, 5},
		{api.CodeRollbackFailed, 6, 6},
		{api.CodeTimeout, 8, 8},
		{api.CodeNotPermitted, 10, 10},
		{api.CodeNotFound, 1, 2},
		{api.CodeBadRequest, 1, 2},
		{api.CodeInternal, 1, 2},
		{"from-the-future", 1, 2},
	} {
		socket, _ := applied(t)
		stderr := "pwctl: as asked\n"
		if tt.code == api.CodeNotPermitted {
			stderr += "  help: run pwctl as root, or have yourself named under `access:` of the daemon's configuration\n"
		}
		check(t, socket, command{args: "apply -f - -y", stdin: "fail: " + tt.code}, want{code: tt.apply, stderr: stderr})
		check(t, socket, command{args: "diff -f -", stdin: "fail: " + tt.code}, want{code: tt.diff, stderr: stderr})
	}
}

// me is who the kernel says that the tests are.
func me() string { return api.Peer{UID: uint32(os.Geteuid())}.String() }

func TestPermission(t *testing.T) {
	b := apitest.New(site())
	socket, _ := apitest.Serve(t, b, api.Options{MayChange: func(api.Peer) bool { return false }})
	check(t, socket, command{args: "apply -f - -y", stdin: "x"}, want{code: 10, stderr: "pwctl: not permitted: only root and the daemon's own user may change this site; you are " + me() +
		"\n  help: run pwctl as root, or have yourself named under `access:` of the daemon's configuration\n"})
	check(t, socket, command{args: "get classes"}, want{stdout: "NAME   DSCP  RATE  CEILING  OCTETS  FRAMES  DROPS  BACKLOG\nbulk   0     -     -        -       -       -      -\nvoice  0     -     -        -       -       -      -\n"})
}

func TestUnreachable(t *testing.T) {
	socket := filepath.Join(apitest.Dir(t), "pwd.sock")
	stderr := "pwctl: pwd is not running: there is no socket SOCKET\n  help: start it with `bin/pwd --site SITE --topology FILE --run-dir " +
		filepath.Dir(socket) + "`; the socket of another daemon is named by --socket or PWCTL_SOCKET\n"
	for _, args := range []string{"", "status", "get tunnels", "get pw -w", "describe tunnel gold", "events", "events -f", "apply -f -", "diff -f -"} {
		check(t, socket, command{args: args}, want{code: 3, stderr: stderr})
	}
	// --socket is stronger than the environment.
	other := filepath.Join(apitest.Dir(t), "pwd.sock")
	code, _, got := run(t, socket, command{args: "status --socket " + other})
	if code != 3 || !strings.Contains(got, other) {
		t.Errorf("%d %s", code, got)
	}
}

// Validation needs no daemon and tells every fault at once.
func TestValidate(t *testing.T) {
	const valid = `apiVersion: pwd/v1
kind: Topology
metadata: {name: two}
sites:
  dc1: {address: 192.0.2.1}
  dc2: {address: 192.0.2.2}
tunnels:
  gold: {sites: [dc1, dc2]}
pseudowires:
  a:
    tunnel: gold
    attach:
      dc1: {interface: eth1}
      dc2: {interface: eth1}
`
	file := write(t, valid)
	const nowhere = "/nonexistent/pwd.sock"
	check(t, nowhere, command{args: "validate -f " + file}, want{stdout: file + ": valid\n"})
	check(t, nowhere, command{args: "validate -f -", stdin: valid}, want{stdout: "<stdin>: valid\n"})
	check(t, nowhere, command{args: "validate -f - -o json", stdin: valid}, want{stdout: "{\n  \"items\": []\n}\n"})

	broken := strings.Replace(strings.Replace(valid, "address: 192.0.2.2", "adress: 192.0.2.2", 1), "tunnel: gold", "tunnel: gild", 1)
	code, stdout, stderr := run(t, nowhere, command{args: "validate -f -", stdin: broken})
	if code != 4 || stdout != "" {
		t.Errorf("%d %q", code, stdout)
	}
	for _, want := range []string{"<stdin>:6:9: error: ", "\n  dc2: {adress: 192.0.2.2}\n        ^\n", "<stdin>:11:13: error: ", "\n    tunnel: gild\n            ^\n", "\npwctl: <stdin> is invalid: "} {
		if !strings.Contains(stderr, want) {
			t.Errorf("no %q in\n%s", want, stderr)
		}
	}
	code, stdout, stderr = run(t, nowhere, command{args: "validate -f - -o yaml", stdin: broken})
	if code != 4 || !strings.HasPrefix(stdout, "items:\n  - file: \"<stdin>\"\n    line: 6\n    column: 9\n    severity: error\n    code: PW") || !strings.HasPrefix(stderr, "pwctl: <stdin> is invalid: ") {
		t.Errorf("%d %q %q", code, stdout, stderr)
	}
}

// faults are an error about two places, and a warning.
var faults = []api.Diagnostic{
	{File: "two.yaml", Line: 9, Column: 12, Severity: "error", Code: "PW0204", Path: "pseudowires.b.attach.dc1.vlan", Message: "VLAN 100 is taken",
		Help: "choose another", Source: "    vlan: 100", Caret: 11,
		Other: &api.OtherPlace{File: "two.yaml", Line: 4, Column: 5, Message: "first used here", Source: "\tvlan: 100", Caret: 2}},
	{File: "two.yaml", Line: 12, Column: 3, Severity: "warning", Code: "PW0301", Message: "site dc3 is in no tunnel"},
}

const shownFaults = "two.yaml:9:12: error: pseudowires.b.attach.dc1.vlan: VLAN 100 is taken [PW0204]\n" +
	"    vlan: 100\n" +
	"          ^\n" +
	"two.yaml:4:5: note: first used here\n" +
	"\tvlan: 100\n" +
	"\t^\n" +
	"help: choose another\n" +
	"\n" +
	"two.yaml:12:3: warning: site dc3 is in no tunnel [PW0301]\n"

// The daemon's diagnostics look as those of the offline validation do.
func TestDiagnostics(t *testing.T) {
	b := apitest.New(apitest.Answers{Apply: func(context.Context, api.ApplyRequest) (*api.ApplyResult, error) {
		return nil, &api.Error{Code: api.CodeInvalidTopology, Title: "the topology is invalid, nothing was changed", Diagnostics: faults}
	}})
	socket, _ := apitest.Serve(t, b, api.Options{})
	file := write(t, "x")
	check(t, socket, command{args: "apply -y -f " + file}, want{code: 4,
		stderr: shownFaults + "pwctl: " + file + " is invalid: 1 error, 1 warning; nothing was changed\n"})
	validate := func(string, []byte) []api.Diagnostic { return faults }
	check(t, socket, command{args: "validate -f " + file, validate: validate}, want{code: 4,
		stderr: shownFaults + "pwctl: " + file + " is invalid: 1 error, 1 warning\n"})
	warned := func(string, []byte) []api.Diagnostic { return faults[1:] }
	check(t, socket, command{args: "validate -f " + file, validate: warned}, want{
		stdout: file + ": valid, 1 warning\n", stderr: "two.yaml:12:3: warning: site dc3 is in no tunnel [PW0301]\n"})
}

// What is no text never reaches the daemon, which would see another.
func TestApplyOfNoText(t *testing.T) {
	socket, requests := applied(t)
	for _, document := range []string{"a: \xff", strings.Repeat("# x\n", 1<<20)} {
		for _, args := range []string{"apply -y -f -", "diff -f -", "validate -f -"} {
			code, stdout, stderr := run(t, socket, command{args: args, stdin: document})
			if code != 4 || stdout != "" || !strings.Contains(stderr, "<stdin>:1:") {
				t.Errorf("%s: %d %q %q", args, code, stdout, stderr)
			}
		}
	}
	if len(*requests) != 0 {
		t.Errorf("%d requests were sent", len(*requests))
	}
}

func TestFilesThatCannotBeRead(t *testing.T) {
	socket, requests := applied(t)
	check(t, socket, command{args: "apply -f /nonexistent.yaml"}, want{code: 1, stderr: "pwctl: reading the topology: open /nonexistent.yaml: no such file or directory\n"})
	check(t, socket, command{args: "diff -f /nonexistent.yaml"}, want{code: 2, stderr: "pwctl: reading the topology: open /nonexistent.yaml: no such file or directory\n"})
	check(t, socket, command{args: "validate -f /"}, want{code: 1, stderr: "pwctl: reading the topology: read /: is a directory\n"})
	if len(*requests) != 0 {
		t.Errorf("%d requests were sent", len(*requests))
	}
}

// An interrupted apply says that it may well go on.
func TestApplyInterrupted(t *testing.T) {
	begun, proceed := make(chan struct{}), make(chan struct{})
	b := apitest.New(apitest.Answers{Apply: func(context.Context, api.ApplyRequest) (*api.ApplyResult, error) {
		close(begun)
		<-proceed
		return &api.ApplyResult{}, nil
	}})
	socket, _ := apitest.Serve(t, b, api.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-begun; cancel() }()
	check(t, socket, command{args: "apply -f -", stdin: "x", ctx: ctx}, want{code: 1,
		stderr: "pwctl: interrupted; what the daemon has begun it finishes\n  help: see `pwctl status`\n"})
	close(proceed)
}
