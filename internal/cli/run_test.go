package cli_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/api/apitest"
	"github.com/pwd-project/pwd/internal/cli"
	"github.com/pwd-project/pwd/internal/doctor"
)

// now is when every test takes place.
var now = time.Date(2026, 11, 22, 13, 30, 0, 0, time.UTC)

// site is dc1 of three sites: gold is up to dc2 and tries dc3, silver is up.
func site() apitest.Answers {
	first := now.Add(-2 * time.Minute)
	gold := api.Tunnel{
		Name: "gold", Peer: "dc2", State: "established", LocalControlConnectionID: 3735928559, RemoteControlConnectionID: 12648430,
		Local: "192.0.2.1:40001", Remote: "198.51.100.1:1701", Encapsulation: "udp", SinceSeconds: 192, Reason: "SCCRP received",
		HostName: "gold.dc1", PeerHostName: "gold.dc2", RouterID: "10.0.0.1", PeerRouterID: "10.0.0.2", PeerVendor: "pwd 0.1.0",
		PathMTU: 1400, RTTSeconds: 0.00123, HeardSeconds: 4, Role: "initiator", Authenticated: true, PeerCapabilities: []string{"Ethernet", "Ethernet VLAN"},
		CongestionWindow: 4, Queued: 2, Tries: 1, RetransmitSeconds: 1.25, HelloSeconds: 10, Ns: 17, Nr: 16, PeerWindow: 8, Unacknowledged: 1, Retransmits: 2, Sessions: 1,
		History: []api.Transition{
			{Time: now.Add(-194 * time.Second), From: "down", To: "connecting", Reason: "the topology wants it"},
			{Time: now.Add(-192*time.Second - 250*time.Millisecond), From: "connecting", Event: "SCCRP, acceptable", To: "established", Reason: "SCCRP received"},
			{Time: now.Add(-time.Minute), From: "established", To: "established", Reason: "dc2 does not answer", Times: 2, First: &first},
		},
		ReceivedFrames: 1201, ReceivedOctets: 1258291, TransmittedFrames: 1100, TransmittedOctets: 800,
	}
	goldThird := api.Tunnel{Name: "gold", Peer: "dc3", State: "connecting", LocalControlConnectionID: 4711,
		Local: "192.0.2.1:40002", Remote: "203.0.113.1:1701", Encapsulation: "udp", SinceSeconds: 7, Reason: "no answer from 203.0.113.1:1701",
		HostName: "gold.dc1", RouterID: "10.0.0.1", HelloSeconds: 10, Retransmits: 3}
	silver := api.Tunnel{Name: "silver", Peer: "dc2", State: "established", LocalControlConnectionID: 5, RemoteControlConnectionID: 6,
		Local: "[2001:db8::1]:1701", Remote: "[2001:db8::2]:1701", Encapsulation: "udp", SinceSeconds: 97200, Sessions: 0}
	tenant := api.Pseudowire{Name: "tenant-a", Peer: "dc2", State: "up", Device: "pw-tenant-a", Datapath: "ebpf", Type: "ethernet",
		Tunnel: "gold", MTU: 1500, Attachment: "br-lan vlan 100", SinceSeconds: 190,
		ReceivedFrames: 1201, ReceivedOctets: 1258291, TransmittedFrames: 1100, TransmittedOctets: 800,
		Drops: map[string]uint64{"mtu": 3, "cookie": 1, "unknown": 0}}
	storage := api.Pseudowire{Name: "storage/dc3", Peer: "dc3", State: "down", Device: "pw-storage-x7ka", Datapath: "kernel",
		Reason: "waiting for dc3", Type: "ethernet", Tunnel: "gold", Attachment: "eth4", SinceSeconds: 7}
	return apitest.Answers{
		Status: api.Status{
			Site: "dc1", Topology: "three-sites", Version: "0.1.0", Health: "degraded",
			Problems: []api.Problem{{Object: "tunnel gold/dc3", What: "no answer from 203.0.113.1:1701 for 7s",
				Fix: "see whether pwd runs at dc3, and that UDP port 1701 reaches it"}},
			Started: now.Add(-28 * time.Hour), Generation: 4, Applied: now.Add(-194 * time.Second),
			AppliedHash: strings.Repeat("ab", 32), FileHash: strings.Repeat("cd", 32), Datapath: "ebpf",
			Tunnels: []api.Tunnel{gold, goldThird, silver}, Pseudowires: []api.Pseudowire{tenant, storage},
			Counters: map[string]uint64{"unknownSessions": 12, "garbage": 3},
		},
		Tunnels: []api.Tunnel{gold, goldThird, silver},
		Sessions: []api.Session{
			{Tunnel: "gold", Pseudowire: "tenant-a", Peer: "dc2", State: "established", LocalSessionID: 1001, RemoteSessionID: 2002,
				SinceSeconds: 190, LocalCircuit: "active", RemoteCircuit: "active", CookieOctets: 8,
				RemoteErrors:   map[string]uint64{"crc": 3, "hardware-overruns": 2},
				ReceivedFrames: 1201, ReceivedOctets: 1258291, TransmittedFrames: 1100, TransmittedOctets: 800,
				Drops:   map[string]uint64{"cookie": 1},
				History: []api.Transition{{Time: now.Add(-190 * time.Second), From: "signalling", To: "established", Reason: "ICCN received"}}},
			{Tunnel: "gold", Pseudowire: "storage/dc3", Peer: "dc3", State: "down", Reason: "the tunnel is connecting", SinceSeconds: 7},
		},
		Pseudowires: []api.Pseudowire{tenant, storage},
		Attachments: []api.Attachment{
			{Pseudowire: "tenant-a", Bridge: "br-lan", VLAN: 100, Device: "pw-tenant-a", State: "up"},
			{Pseudowire: "storage/dc3", Interface: "eth4", Device: "eth4", State: "down", Reason: "no carrier on eth4"},
		},
		Classes: []api.Class{{Name: "voice"}, {Name: "bulk"}},
		MACs:    []api.MAC{{Address: "02:00:00:00:00:09", Bridge: "br-lan", Port: "pw-office-s5ke", Pseudowire: "office/dc2", Peer: "dc2", SinceSeconds: 190, IdleSeconds: 2}},
	}
}

// command is one run of pwctl.
type command struct {
	args  string // split at spaces
	stdin string
	// terminal makes standard input and output terminals.
	terminal bool
	env      map[string]string
	now      func() time.Time
	after    func(time.Duration) <-chan time.Time
	validate func(name string, document []byte) []api.Diagnostic
	stdout   io.Writer // beside what is returned
	ctx      context.Context
	host     doctor.Host
}

// run runs pwctl against socket.
func run(t *testing.T, socket string, c command) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	e := cli.System("0.1.0")
	e.Stdin, e.Stdout, e.Stderr = strings.NewReader(c.stdin), &out, &errs
	if c.stdout != nil {
		e.Stdout = io.MultiWriter(&out, c.stdout)
	}
	e.StdinTerminal, e.StdoutTerminal, e.StderrTerminal = c.terminal, c.terminal, c.terminal
	e.Getenv = func(name string) string {
		if v, ok := c.env[name]; ok {
			return v
		}
		if name == cli.SocketVariable {
			return socket
		}
		return ""
	}
	e.Now = func() time.Time { return now }
	e.Host = c.host
	if c.now != nil {
		e.Now = c.now
	}
	e.After = c.after
	if c.validate != nil {
		e.Validate = c.validate
	}
	e.Location = time.UTC
	e.Command = func(_ context.Context, args ...string) ([]byte, error) {
		if args[0] == "nft" {
			return nil, errors.New("not installed")
		}
		return []byte("said by " + strings.Join(args, " ") + "\n"), nil
	}
	ctx := c.ctx
	if ctx == nil {
		ctx = t.Context()
	}
	code = cli.Run(ctx, e, strings.Fields(c.args))
	return code, out.String(), errs.String()
}

// want is what a command has to print and how it has to end.
type want struct {
	code           int
	stdout, stderr string
}

// check runs a command and compares everything it did. SOCKET in what is wanted
// stands for the socket's path.
func check(t *testing.T, socket string, c command, w want) {
	t.Helper()
	code, stdout, stderr := run(t, socket, c)
	got := want{code, strings.ReplaceAll(stdout, socket, "SOCKET"), strings.ReplaceAll(stderr, socket, "SOCKET")}
	w.stdout, w.stderr = strings.TrimPrefix(w.stdout, "\n"), strings.TrimPrefix(w.stderr, "\n")
	if diff := cmp.Diff(w, got, cmp.AllowUnexported(want{})); diff != "" {
		t.Errorf("pwctl %s (-want +got):\n%s", c.args, diff)
	}
}

func serve(t *testing.T, a apitest.Answers) (socket string, b *apitest.Backend) {
	b = apitest.New(a)
	socket, _ = apitest.Serve(t, b, api.Options{})
	return socket, b
}
