package cli_test

import (
	"os"
	"strings"
	"testing"
)

// A wrong command line ends with 2 and one line that says what would be right.
func TestUsage(t *testing.T) {
	const commands = "there are announce, apply, capture, classify, completion, confirm, describe, diff, doctor, drain, drift, events, explain, get, graph, history, import, rollback, rotate, schema, status, sysdump, top, undrain, validate, version"
	const kinds = "tunnels, sessions, pseudowires, attachments, classes, macs"
	for args, message := range map[string]string{
		"undo":                      `unknown command "undo"; ` + commands + "\n  help: see `pwctl --help`",
		"staus":                     `unknown command "staus"; ` + commands + "; did you mean status?\n  help: see `pwctl --help`",
		"help undo":                 `unknown command "undo"; ` + commands + "\n  help: see `pwctl --help`",
		"--color":                   "unknown flag: --color\n  help: see `pwctl --help`",
		"apply -f x --confirm 2s":   "--confirm 2s is too short: give at least 5s\n  help: see `pwctl apply --help`",
		"rollback first":            "\"first\" is no generation: a number from `pwctl history`\n  help: see `pwctl rollback --help`",
		"apply -f x --colour":       "unknown flag: --colour\n  help: see `pwctl apply --help`",
		"apply":                     "which file? -f FILE, or -f - for standard input\n  help: see `pwctl apply --help`",
		"diff":                      "which file? -f FILE, or -f - for standard input\n  help: see `pwctl diff --help`",
		"validate":                  "which file? -f FILE, or -f - for standard input\n  help: see `pwctl validate --help`",
		"apply two.yaml":            "unknown command \"two.yaml\" for \"pwctl apply\"\n  help: see `pwctl apply --help`",
		"get":                       "which kind? There are " + kinds + "\n  help: see `pwctl get --help`",
		"get bridges":               `unknown kind "bridges"; there are ` + kinds + "\n  help: see `pwctl get --help`",
		"get tunnels -o xml":        "invalid argument \"xml\" for \"-o, --output\" flag: there are text, wide, json, yaml\n  help: see `pwctl get --help`",
		"describe tunnel":           "want a kind and one name, got 1 argument\n  help: see `pwctl describe --help`",
		"describe tunnel a b":       "want a kind and one name, got 3 arguments\n  help: see `pwctl describe --help`",
		"events --since yesterday":  "--since \"yesterday\" is neither a duration, as 10m, nor an event's sequence number\n  help: see `pwctl events --help`",
		"events --since -5m":        "--since \"-5m\" is neither a duration, as 10m, nor an event's sequence number\n  help: see `pwctl events --help`",
		"sysdump":                   "which file? -w FILE, or -w - for standard output\n  help: see `pwctl sysdump --help`",
		"capture":                   "accepts 1 arg(s), received 0\n  help: see `pwctl capture --help`",
		"capture gold -c -1":        "--count -1 is less than one message\n  help: see `pwctl capture --help`",
		"capture gold --duration x": "invalid argument \"x\" for \"--duration\" flag: time: invalid duration \"x\"\n  help: see `pwctl capture --help`",
		"graph":                     "which file? -f FILE, or -f - for standard input\n  help: see `pwctl graph --help`",
		"schema tunnels":            "invalid argument \"tunnels\" for \"pwctl schema\"\n  help: see `pwctl schema --help`",
		"completion tcsh":           "invalid argument \"tcsh\" for \"pwctl completion\"\n  help: see `pwctl completion --help`",
	} {
		check(t, "/nonexistent/pwd.sock", command{args: args}, want{code: 2, stderr: "pwctl: " + message + "\n"})
	}
}

func TestVersion(t *testing.T) {
	check(t, "/nonexistent/pwd.sock", command{args: "version"}, want{stdout: "pwctl 0.1.0\n"})
	check(t, "/nonexistent/pwd.sock", command{args: "version -o json"}, want{stdout: "{\n  \"version\": \"0.1.0\"\n}\n"})
}

func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		code, stdout, stderr := run(t, "", command{args: "completion " + shell})
		if code != 0 || stderr != "" || !strings.Contains(stdout, "__complete") {
			t.Errorf("%s: %d %q %.60q", shell, code, stderr, stdout)
		}
	}
	socket, _ := serve(t, site())
	for args, want := range map[string]string{
		"__complete get tunnels":            "tunnels sessions pseudowires attachments classes macs", // the word itself
		"__complete get tunnels x":          "gold/dc2 gold/dc3 silver/dc2",
		"__complete get tunnels gold/dc2 x": "gold/dc3 silver/dc2",
		"__complete describe pw x":          "storage/dc3 tenant-a",
		"__complete capture x":              "gold/dc2 gold/dc3 silver/dc2",
		"__complete get t":                  "tunnels sessions pseudowires attachments classes macs",
		"__complete get bridges x":          "",
		"__complete get tunnels -o x":       "text wide json yaml",
	} {
		_, stdout, _ := run(t, socket, command{args: args})
		got := strings.Fields(stdout[:max(0, strings.LastIndex(stdout, ":"))])
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %q, want %q", args, got, want)
		}
	}
	// No daemon, no names, no noise.
	_, stdout, _ := run(t, "/nonexistent/pwd.sock", command{args: "__complete get tunnels x"})
	if !strings.HasPrefix(stdout, ":") {
		t.Errorf("without a daemon: %q", stdout)
	}
}

// The reference describes what there is: every command, flag and exit code.
func TestReference(t *testing.T) {
	doc, err := os.ReadFile("../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	_, help, _ := run(t, "", command{args: "--help"})
	for line := range strings.Lines(help[strings.Index(help, "Available Commands:"):strings.Index(help, "\nFlags:")]) {
		name, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		if name == "" || name == "Available" || name == "help" {
			continue
		}
		if !strings.Contains(string(doc), "`pwctl "+name) {
			t.Errorf("docs/cli.md does not tell of `pwctl %s`", name)
		}
		_, flags, _ := run(t, "", command{args: name + " --help"})
		for _, word := range strings.Fields(flags) {
			if strings.HasPrefix(word, "--") && len(word) > 2 && !strings.Contains(string(doc), strings.Trim(word, ".,)\"`")) {
				t.Errorf("docs/cli.md does not tell of %s of pwctl %s", word, name)
			}
		}
	}
	for _, code := range []string{"0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10"} {
		if !strings.Contains(string(doc), "\n| "+code+" |") {
			t.Errorf("docs/cli.md does not tell of exit code %s", code)
		}
	}
	for _, path := range []string{"/v1/status", "/v1/tunnels", "/v1/sessions", "/v1/pseudowires", "/v1/attachments", "/v1/classes", "/v1/apply", "/v1/rotate-cookies", "/v1/macs", "/v1/announce", "/v1/drain", "/v1/drift", "/v1/events", "/healthz", "/readyz", "/metrics"} {
		if !strings.Contains(string(doc), "`"+path) {
			t.Errorf("docs/cli.md does not tell of %s", path)
		}
	}
}
