package main

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pwd-project/pwd/internal/topology"
	"github.com/pwd-project/pwd/pkg/l2tpv3/control"
	"github.com/pwd-project/pwd/pkg/pseudowire"
)

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const config = `apiVersion: pwd/v1
kind: Config
`

// A flag goes before the configuration, that before what is built in.
func TestPrecedence(t *testing.T) {
	full := write(t, "pwd.yaml", config+`site: dc2
topology: /etc/pwd/other.yaml
on-stop: teardown
datapath: kernel
log-level: warn
run-dir: /run/other
state-dir: /var/lib/other
bpf-dir: /sys/fs/bpf/other
metrics: 127.0.0.1:9705
timers: {retransmit: 2s, max-retransmits: 5}
`)
	empty := write(t, "pwd.yaml", config)
	builtIn := settings{
		site: "dc1", runDir: "/run/pwd", stateDir: "/var/lib/pwd", bpfDir: "/sys/fs/bpf/pwd",
		datapath: "auto", logLevel: "info",
	}
	configured := settings{
		site: "dc2", topology: "/etc/pwd/other.yaml", config: full,
		runDir: "/run/other", stateDir: "/var/lib/other", bpfDir: "/sys/fs/bpf/other",
		datapath: "kernel", logLevel: "warn", level: slog.LevelWarn, metrics: "127.0.0.1:9705",
		timers: control.Timers{Retransmit: 2 * time.Second, MaxRetransmits: 5}, onStopTeardown: true,
	}
	with := func(s settings, f func(*settings)) settings { f(&s); return s }
	for _, tt := range []struct {
		name string
		args []string
		want settings
	}{
		{"no configuration", []string{"--site", "dc1"}, builtIn},
		{"an empty one", []string{"--site", "dc1", "--config", empty}, with(builtIn, func(s *settings) { s.config = empty })},
		{"a full one", []string{"--config", full}, configured},
		{"every flag before it", []string{"--config", full, "--site", "dc1", "--topology", "t.yaml", "--run-dir", "/r", "--state-dir", "/s", "--bpf-dir", "/b", "--datapath", "ebpf", "--log-level", "debug", "--metrics", "[::]:1"},
			with(configured, func(s *settings) {
				s.site, s.topology, s.runDir, s.stateDir, s.bpfDir = "dc1", "t.yaml", "/r", "/s", "/b"
				s.datapath, s.logLevel, s.level, s.metrics = "ebpf", "debug", slog.LevelDebug, "[::]:1"
			})},
		{"a flag that says what is built in", []string{"--config", full, "--datapath", "auto", "--run-dir", "/run/pwd"},
			with(configured, func(s *settings) { s.datapath, s.runDir = "auto", "/run/pwd" })},
		{"a flag that is empty", []string{"--config", full, "--topology", "", "--bpf-dir", ""},
			with(configured, func(s *settings) { s.topology, s.bpfDir = "", "" })},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseFlags(tt.args, io.Discard)
			if err != nil {
				t.Fatal(err)
			}
			if *got != tt.want {
				t.Errorf("settings\n%+v, want\n%+v", *got, tt.want)
			}
		})
	}
}

func TestDatapathFlag(t *testing.T) {
	for arg, want := range map[string]pseudowire.Kind{"auto": "", "ebpf": pseudowire.EBPF, "kernel": pseudowire.Kernel} {
		s, err := parseFlags([]string{"--site", "dc1", "--datapath", arg}, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		o := s.agent(slog.New(slog.DiscardHandler))
		// Both are there, whatever the flag says: a pseudowire may ask for the other.
		if o.Datapath != want || len(o.Datapaths) != 2 || o.Datapaths[0].Kind != pseudowire.EBPF {
			t.Errorf("%s: datapath %q of %+v", arg, o.Datapath, o.Datapaths)
		}
	}
}

// What is wrong with the command line or the files is told on standard error, with an
// exit code that says what kind of fault it is, before anything is touched.
func TestExitCodes(t *testing.T) {
	good := write(t, "good.yaml", `apiVersion: pwd/v1
kind: Topology
metadata: {name: t}
sites:
  dc1: {address: 192.0.2.1}
  dc2: {address: 192.0.2.2}
tunnels: {gold: {sites: [dc1, dc2]}}
pseudowires: {a: {tunnel: gold, attach: {dc1: {interface: eth1}, dc2: {interface: eth1}}}}
`)
	warned := write(t, "warned.yaml", strings.Replace(readFile(t, good), "tunnel: gold, attach", "tunnel: gold, mtu: 1200, attach", 1))
	bad := write(t, "bad.yaml", strings.NewReplacer("tunnel: gold", "tunel: gold", "192.0.2.2", "192.0.2.256").Replace(readFile(t, good)))
	badConfig := write(t, "pwd.yaml", config+"datapath: fast\non-stop: never\n")
	configured := write(t, "pwd.yaml", config+"site: dc1\ntopology: "+good+"\n")
	noTopology := write(t, "pwd.yaml", config+"site: dc1\n")
	missing := filepath.Join(t.TempDir(), "missing.yaml")
	for _, tt := range []struct {
		name   string
		args   []string
		code   int
		stdout string
		stderr []string
	}{
		{"help", []string{"--help"}, 0, "", []string{"pwd --site NAME --topology FILE", "-bpf-dir"}},
		{"version", []string{"--version"}, 0, "pwd ", nil},
		{"no site", nil, 2, "", []string{"pwd: --site NAME is required"}},
		{"unknown flag", []string{"--sit", "dc1"}, 2, "", []string{"flag provided but not defined: -sit"}},
		{"an argument", []string{"--site", "dc1", "topology.yaml"}, 2, "", []string{`pwd: unexpected argument "topology.yaml"`}},
		{"unknown datapath", []string{"--site", "dc1", "--datapath", "fast"}, 2, "", []string{`--datapath "fast": use auto, kernel or ebpf`}},
		{"unknown level", []string{"--site", "dc1", "--log-level", "loud"}, 2, "", []string{`--log-level "loud": use debug`}},
		{"metrics without a port", []string{"--site", "dc1", "--metrics", "127.0.0.1"}, 2, "", []string{`--metrics "127.0.0.1": use an address and a port`}},
		{"check and cleanup", []string{"--site", "dc1", "--check", "--cleanup"}, 2, "", []string{"--check and --cleanup"}},
		{"no configuration file", []string{"--site", "dc1", "--config", missing}, 2, "", []string{"read configuration", missing}},
		{"invalid configuration", []string{"--site", "dc1", "--config", badConfig}, 4, "", []string{badConfig + ":3:11: error", badConfig + ":4:10: error"}},

		{"check", []string{"--site", "dc1", "--topology", good, "--check"}, 0, good + ": valid for site dc1\n", nil},
		{"check what the configuration names", []string{"--config", configured, "--check"}, 0, good + ": valid for site dc1\n", nil},
		{"check with a warning", []string{"--site", "dc1", "--topology", warned, "--check"}, 0, warned + ": valid for site dc1\n", []string{"warning: ", "[PW0303]"}},
		{"check a configuration without a topology", []string{"--config", noTopology, "--check"}, 0, noTopology + ": valid; it names no topology\n", nil},
		{"check an invalid one", []string{"--site", "dc1", "--topology", bad, "--check"}, 4, "", []string{bad + ":6:", "192.0.2.256", bad + ":8:", "tunel"}},
		{"check for another site", []string{"--site", "dc9", "--topology", good, "--check"}, 4, "", []string{"there is no site dc9"}},
		{"check nothing", []string{"--site", "dc1", "--check"}, 2, "", []string{"--check needs --topology"}},
		{"check no file", []string{"--site", "dc1", "--topology", missing, "--check"}, 1, "", []string{"read topology", missing}},

		{"start with an invalid topology", []string{"--site", "dc1", "--topology", bad}, 4, "", []string{bad + ":6:", "192.0.2.256", bad + ":8:", "tunel"}},
		{"start without the file", []string{"--site", "dc1", "--topology", missing}, 1, "", []string{"read topology", missing}},
		{"start as another site", []string{"--site", "dc9", "--topology", good}, 4, "", []string{"there is no site dc9"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			args := append([]string{}, tt.args...)
			if len(args) > 2 {
				args = append([]string{"--run-dir", filepath.Join(dir, "run"), "--state-dir", filepath.Join(dir, "state")}, args...)
			}
			var stdout, stderr bytes.Buffer
			if code := run(args, &stdout, &stderr); code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			if got := stdout.String(); !strings.HasPrefix(got, tt.stdout) || tt.stdout == "" && got != "" {
				t.Errorf("standard output %q, want %q", got, tt.stdout)
			}
			for _, want := range tt.stderr {
				if !strings.Contains(stderr.String(), want) {
					t.Errorf("standard error\n%s\nwant %q", &stderr, want)
				}
			}
			if tt.stderr == nil && stderr.Len() > 0 {
				t.Errorf("standard error %q, want nothing", &stderr)
			}
		})
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// The socket and the state directory of a daemon that runs are refused, to a second
// one and to --cleanup alike.
func TestASecondDaemonIsTurnedAway(t *testing.T) {
	dir := t.TempDir()
	runDir, stateDir := filepath.Join(dir, "run"), filepath.Join(dir, "state")
	occupy(t, runDir, "")
	occupy(t, stateDir, "lock")
	for name, args := range map[string][]string{
		"the same socket": {"--state-dir", filepath.Join(dir, "other")},
		"the same state":  {"--run-dir", filepath.Join(dir, "other"), "--state-dir", stateDir},
		"cleanup":         {"--state-dir", stateDir, "--cleanup"},
	} {
		t.Run(name, func(t *testing.T) {
			var stderr bytes.Buffer
			code := run(append([]string{"--site", "dc1", "--run-dir", runDir}, args...), io.Discard, &stderr)
			if code != 1 || !strings.Contains(stderr.String(), "another") || !strings.Contains(stderr.String(), "stop") {
				t.Errorf("exit code %d: %s", code, &stderr)
			}
		})
	}
}

func TestWrappedDiagnosticsKeepTheirReason(t *testing.T) {
	_, diags := topology.Parse("t.yaml", []byte("sites: ["))
	var plain, wrapped bytes.Buffer
	if code := report(&plain, diags.Err()); code != 4 || strings.Contains(plain.String(), "pwd:") {
		t.Errorf("%d: %s", code, &plain)
	}
	if code := report(&wrapped, errors.Join(errors.New("a reason"), diags.Err())); code != 4 || !strings.HasPrefix(wrapped.String(), "pwd: a reason") || !strings.HasSuffix(wrapped.String(), plain.String()) {
		t.Errorf("%d: %s", code, &wrapped)
	}
}
