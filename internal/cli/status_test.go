package cli_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/api/apitest"
)

const degradedScreen = `
site dc1, topology three-sites: degraded
pwd 0.1.0, up 1d4h, datapath ebpf, generation 4 applied 3m14s ago

Problems
  tunnel gold/dc3: no answer from 203.0.113.1:1701 for 7s
    do: see whether pwd runs at dc3, and that UDP port 1701 reaches it

TUNNEL / PSEUDOWIRE  PEER  STATE        SINCE  DETAIL
gold                 dc2   established  3m12s  udp 192.0.2.1:40001 to 198.51.100.1:1701
  tenant-a           dc2   up           3m10s  pw-tenant-a, ebpf, br-lan vlan 100
gold                 dc3   connecting   7s     no answer from 203.0.113.1:1701
  storage/dc3        dc3   down         7s     waiting for dc3
silver               dc2   established  1d3h   udp [2001:db8::1]:1701 to [2001:db8::2]:1701
`

func TestStatus(t *testing.T) {
	a := site()
	socket, b := serve(t, a)
	check(t, socket, command{args: "status"}, want{code: 9, stdout: degradedScreen})
	check(t, socket, command{args: ""}, want{code: 9, stdout: degradedScreen})
	check(t, socket, command{args: "status -o wide"}, want{code: 9, stdout: degradedScreen + `
Counters
  garbage          3
  unknownSessions  12
`})

	b.Set(func(a *apitest.Answers) { a.Status.Health, a.Status.Problems = "healthy", nil })
	healthy := strings.Replace(degradedScreen, "degraded", "healthy", 1)
	from, to := strings.Index(healthy, "Problems"), strings.Index(healthy, "TUNNEL")
	healthy = healthy[:from] + healthy[to:]
	check(t, socket, command{args: "status"}, want{stdout: healthy})
}

func TestStatusOfADaemonWithoutTopology(t *testing.T) {
	socket, _ := serve(t, apitest.Answers{Status: api.Status{Site: "dc1", Version: "0.1.0", Health: "healthy", Datapath: "kernel",
		Started: now.Add(-5 * time.Second), Notes: []string{"no bpffs at /sys/fs/bpf: attachments outlive the process, pins do not"}}})
	check(t, socket, command{args: "status"}, want{stdout: `
site dc1, topology -: healthy
pwd 0.1.0, up 5s, datapath kernel, no topology applied yet
note: no bpffs at /sys/fs/bpf: attachments outlive the process, pins do not

no tunnels and no pseudowires
`})
}

func TestStatusOfAFileThatDiffers(t *testing.T) {
	a := site()
	a.Status.FileDiffers, a.Status.Tunnels, a.Status.Problems = true, nil, nil
	a.Status.Pseudowires = a.Status.Pseudowires[:1]
	a.Status.Pseudowires[0].Reason = "the peer's circuit is down"
	socket, _ := serve(t, a)
	check(t, socket, command{args: "status"}, want{code: 9, stdout: `
site dc1, topology three-sites: degraded
pwd 0.1.0, up 1d4h, datapath ebpf, generation 4 applied 3m14s ago
the topology file (cdcdcdcdcdcd) differs from what is in force (abababababab); ` + "`pwctl apply -f FILE`" + ` applies it

TUNNEL / PSEUDOWIRE  PEER  STATE  SINCE  DETAIL
tenant-a             dc2   up     3m10s  pw-tenant-a, ebpf, br-lan vlan 100; the peer's circuit is down
`})
}

// An established tunnel whose peer does not answer says so, and strangers are summed.
func TestStatusOfSilenceAndStrangers(t *testing.T) {
	socket, _ := serve(t, apitest.Answers{Status: api.Status{Site: "dc1", Health: "degraded",
		Tunnels: []api.Tunnel{{Name: "gold", Peer: "dc2", State: "established", SinceSeconds: 60, Reason: "dc2 does not answer", Cause: &api.Cause{Kind: "peer-silent"}}},
		Strangers: []api.Stranger{
			{Prefix: "203.0.113.0/24", Last: "203.0.113.7", Seen: now.Add(-5 * time.Second), Reasons: map[string]uint64{"unknown-peer": 12, "malformed": 1}},
			{Seen: now.Add(-90 * time.Second), Reasons: map[string]uint64{"unknown-peer": 4711}},
		}}})
	_, stdout, _ := run(t, socket, command{args: "status -o wide"})
	for _, want := range []string{
		"gold                 dc2   established  1m     dc2 does not answer\n",
		"\nControl messages of strangers, dropped\n" +
			"  FROM            LAST         AGO    COUNTED\n" +
			"  203.0.113.0/24  203.0.113.7  5s     malformed 1, unknown-peer 12\n" +
			"  elsewhere       -            1m30s  unknown-peer 4711\n",
	} {
		if !strings.Contains(stdout, want) {
			t.Errorf("no %q in\n%s", want, stdout)
		}
	}
}

// What is wrong comes first and is never left out, however many are well.
func TestStatusStaysOnOneScreen(t *testing.T) {
	a := apitest.Answers{Status: api.Status{Site: "dc1", Health: "degraded", Tunnels: []api.Tunnel{{Name: "gold", Peer: "dc2", State: "established"}}}}
	for i := range 50 {
		pw := api.Pseudowire{Name: fmt.Sprintf("pw%02d", i), Peer: "dc2", Tunnel: "gold", State: "up"}
		if i%20 == 15 {
			pw.State, pw.Reason = "down", "waiting for dc2"
		}
		a.Status.Pseudowires = append(a.Status.Pseudowires, pw)
	}
	socket, _ := serve(t, a)
	_, stdout, _ := run(t, socket, command{args: "status"})
	want := `
gold                 dc2   established  0s     - - to -
  pw15               dc2   down         0s     waiting for dc2
  pw35               dc2   down         0s     waiting for dc2
  pw00               dc2   up           0s     -, -, -
  pw01               dc2   up           0s     -, -, -
  pw02               dc2   up           0s     -, -, -
  pw03               dc2   up           0s     -, -, -
  pw04               dc2   up           0s     -, -, -
  pw05               dc2   up           0s     -, -, -
  pw06               dc2   up           0s     -, -, -
  pw07               dc2   up           0s     -, -, -
  and 40 more              up                  see ` + "`pwctl status -o wide`\n"
	if !strings.HasSuffix(stdout, want) {
		t.Errorf("got:\n%s\nwant at its end:%s", stdout, want)
	}
	_, stdout, _ = run(t, socket, command{args: "status -o wide"})
	if n := strings.Count(stdout, "\n  pw"); n != 50 {
		t.Errorf("-o wide shows %d pseudowires, want 50", n)
	}
}

// Colours are for terminals whose user wants them, and change nothing else.
func TestColours(t *testing.T) {
	socket, _ := serve(t, site())
	_, plain, _ := run(t, socket, command{args: "status"})
	_, coloured, _ := run(t, socket, command{args: "status", terminal: true})
	for _, want := range []string{"three-sites: \x1b[31mdegraded\x1b[0m\n", "\x1b[32mestablished\x1b[0m", "\x1b[33mconnecting\x1b[0m", "\x1b[31mdown\x1b[0m"} {
		if !strings.Contains(coloured, want) {
			t.Errorf("no %q in %q", want, coloured)
		}
	}
	if got := regexp.MustCompile("\x1b\\[[0-9]+m").ReplaceAllString(coloured, ""); got != plain {
		t.Errorf("without its colours it is\n%s\nwant\n%s", got, plain)
	}
	for _, env := range []map[string]string{{"NO_COLOR": "1"}, {"TERM": "dumb"}} {
		if _, got, _ := run(t, socket, command{args: "status", terminal: true, env: env}); got != plain && env["NO_COLOR"] == "" {
			t.Errorf("with %v: %q", env, got)
		} else if strings.Contains(got, "\x1b") {
			t.Errorf("with %v there are colours: %q", env, got)
		}
	}
}

// A peer's text cannot drive the terminal.
func TestControlCharactersAreMadeVisible(t *testing.T) {
	a := site()
	a.Tunnels[1].Reason = "bye\x1b[2J\nNAME\u202egpj.\t\u009b1m\x7f"
	a.Tunnels[1].PeerHostName = "h\x00st"
	socket, _ := serve(t, a)
	for _, args := range []string{"get tunnels", "describe tunnel gold"} {
		_, stdout, _ := run(t, socket, command{args: args})
		if !strings.Contains(stdout, `bye\x1B[2J\x0ANAME\u202Egpj.\x09\u009B1m\x7F`) || strings.ContainsAny(stdout, "\x1b\u202e\u009b\x7f\x00") {
			t.Errorf("%s: %q", args, stdout)
		}
	}
}

// clock moves by itself: every wait passes at once.
type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }
func (c *clock) after(d time.Duration) <-chan time.Time {
	c.at = c.at.Add(d)
	out := make(chan time.Time, 1)
	out <- c.at
	return out
}

func TestStatusWait(t *testing.T) {
	t.Run("healthy in time", func(t *testing.T) {
		socket, b := serve(t, site())
		c := &clock{at: now}
		polls := 0
		code, stdout, stderr := run(t, socket, command{args: "status --wait --timeout 10s", now: c.now, after: func(d time.Duration) <-chan time.Time {
			if polls++; polls == 3 {
				b.Set(func(a *apitest.Answers) { a.Status.Health = "healthy" })
			}
			return c.after(d)
		}})
		if code != 0 || stderr != "" || polls != 3 || !strings.HasPrefix(stdout, "site dc1, topology three-sites: healthy\n") {
			t.Errorf("%d after %d polls, %q %q", code, polls, stdout, stderr)
		}
	})
	t.Run("degraded for too long", func(t *testing.T) {
		socket, _ := serve(t, site())
		c := &clock{at: now}
		code, stdout, stderr := run(t, socket, command{args: "status --wait --timeout 2500ms", now: c.now, after: c.after})
		if code != 8 || stderr != "pwctl: not healthy after 2.5s\n" || !strings.HasPrefix(stdout, "site dc1, topology three-sites: degraded\n") {
			t.Errorf("%d %q %q", code, stdout, stderr)
		}
		if waited := c.at.Sub(now); waited != 2500*time.Millisecond {
			t.Errorf("waited %v, want 2.5s", waited)
		}
	})
	t.Run("no daemon for too long", func(t *testing.T) {
		c := &clock{at: now}
		code, stdout, stderr := run(t, "/nonexistent/pwd.sock", command{args: "status --wait --timeout 3s", now: c.now, after: c.after})
		if code != 8 || stdout != "" || !strings.HasPrefix(stderr, "pwctl: not healthy after 3s: pwd is not running: there is no socket /nonexistent/pwd.sock\n") {
			t.Errorf("%d %q %q", code, stdout, stderr)
		}
	})
}
