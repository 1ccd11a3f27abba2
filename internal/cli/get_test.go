package cli_test

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/api/apitest"
)

func TestGet(t *testing.T) {
	socket, _ := serve(t, site())
	for args, w := range map[string]want{
		"get tunnels": {stdout: `
NAME    PEER  STATE        SINCE  SESSIONS  REASON
gold    dc2   established  3m12s  1         SCCRP received
gold    dc3   connecting   7s     0         no answer from 203.0.113.1:1701
silver  dc2   established  1d3h   0         -
`},
		"get tunnels -o wide": {stdout: `
NAME    PEER  STATE        SINCE  SESSIONS  ENCAPSULATION  LOCAL               REMOTE              LOCAL-CCID  REMOTE-CCID  RETRANSMITS  RECEIVED  TRANSMITTED  REASON
gold    dc2   established  3m12s  1         udp            192.0.2.1:40001     198.51.100.1:1701   3735928559  12648430     2            1.2 MiB   800 B        SCCRP received
gold    dc3   connecting   7s     0         udp            192.0.2.1:40002     203.0.113.1:1701    4711        -            3            0 B       0 B          no answer from 203.0.113.1:1701
silver  dc2   established  1d3h   0         udp            [2001:db8::1]:1701  [2001:db8::2]:1701  5           6            0            0 B       0 B          -
`},
		"get tunnel gold/dc3": {stdout: `
NAME  PEER  STATE       SINCE  SESSIONS  REASON
gold  dc3   connecting  7s     0         no answer from 203.0.113.1:1701
`},
		"get sessions": {stdout: `
PSEUDOWIRE   TUNNEL  PEER  STATE        SINCE  LOCAL-ID  REMOTE-ID  REASON
storage/dc3  gold    dc3   down         7s     -         -          the tunnel is connecting
tenant-a     gold    dc2   established  3m10s  1001      2002       -
`},
		"get session 1001 -o wide": {stdout: `
PSEUDOWIRE  TUNNEL  PEER  STATE        SINCE  LOCAL-ID  REMOTE-ID  COOKIE  LOCAL-CIRCUIT  REMOTE-CIRCUIT  RECEIVED  TRANSMITTED  DROPS     REASON
tenant-a    gold    dc2   established  3m10s  1001      2002       8       active         active          1.2 MiB   800 B        cookie 1  -
`},
		"get pseudowires": {stdout: `
NAME         PEER  STATE  SINCE  DEVICE           DATAPATH  TUNNEL  REASON
storage/dc3  dc3   down   7s     pw-storage-x7ka  kernel    gold    waiting for dc3
tenant-a     dc2   up     3m10s  pw-tenant-a      ebpf      gold    -
`},
		"get pw storage -o wide": {stdout: `
NAME         PEER  STATE  SINCE  DEVICE           DATAPATH  TUNNEL  TYPE      MTU  ATTACHMENT  RECEIVED  TRANSMITTED  DROPS  REASON
storage/dc3  dc3   down   7s     pw-storage-x7ka  kernel    gold    ethernet  -    eth4        0 B       0 B          -      waiting for dc3
`},
		"get attachments": {stdout: `
PSEUDOWIRE   STATE  BRIDGE  INTERFACE  VLAN  DEVICE       REASON
storage/dc3  down   -       eth4       -     eth4         no carrier on eth4
tenant-a     up     br-lan  -          100   pw-tenant-a  -
`},
		"get macs":    {stdout: "ADDRESS            BRIDGE  VLAN  PORT            PEER  PSEUDOWIRE  SINCE  IDLE\n02:00:00:00:00:09  br-lan  -     pw-office-s5ke  dc2   office/dc2  3m10s  2s\n"},
		"get classes": {stdout: "NAME   DSCP  RATE  CEILING  OCTETS  FRAMES  DROPS  BACKLOG\nbulk   0     -     -        -       -       -      -\nvoice  0     -     -        -       -       -      -\n"},
		"get attachments storage/dc3 -o json": {stdout: `
{
  "items": [
    {
      "pseudowire": "storage/dc3",
      "interface": "eth4",
      "device": "eth4",
      "state": "down",
      "reason": "no carrier on eth4"
    }
  ]
}
`},
		"get ac tenant-a -o yaml": {stdout: `
items:
  - pseudowire: tenant-a
    bridge: br-lan
    vlan: 100
    device: pw-tenant-a
    state: up
`},
		"get pseudowires tenant-a tenant-b tenant-c": {code: 1, stdout: `
NAME      PEER  STATE  SINCE  DEVICE       DATAPATH  TUNNEL  REASON
tenant-a  dc2   up     3m10s  pw-tenant-a  ebpf      gold    -
`, stderr: `
pwctl: this site has no pseudowire "tenant-b", "tenant-c"
  help: there are storage/dc3, tenant-a
`},
		"get tunnels lead -o json": {code: 1, stdout: "{\n  \"items\": []\n}\n", stderr: `
pwctl: this site has no tunnel "lead"
  help: there are gold/dc2, gold/dc3, silver/dc2
`},
	} {
		check(t, socket, command{args: args}, w)
	}
}

func TestGetOfNothing(t *testing.T) {
	socket, _ := serve(t, apitest.Answers{})
	for _, kind := range []string{"tunnels", "sessions", "pseudowires", "attachments", "classes", "macs"} {
		check(t, socket, command{args: "get " + kind}, want{stderr: "no " + kind + "\n"})
		check(t, socket, command{args: "get " + kind + " -o json"}, want{stdout: "{\n  \"items\": []\n}\n"})
		check(t, socket, command{args: "get " + kind + " -o yaml"}, want{stdout: "items: []\n"})
	}
}

// The members that programs rely on, by name.
func TestJSONContract(t *testing.T) {
	socket, _ := serve(t, site())
	for kind, members := range map[string]string{
		"tunnels":     "name peer state localControlConnectionID remoteControlConnectionID",
		"sessions":    "tunnel pseudowire peer state localSessionID remoteSessionID",
		"pseudowires": "name peer state device datapath reason",
	} {
		_, stdout, _ := run(t, socket, command{args: "get " + kind + " -o json"})
		var list struct{ Items []map[string]any }
		if err := json.Unmarshal([]byte(stdout), &list); err != nil || len(list.Items) == 0 {
			t.Fatalf("%s: %v in %s", kind, err, stdout)
		}
		for _, it := range list.Items {
			for _, m := range strings.Fields(members) {
				if _, ok := it[m]; !ok {
					t.Errorf("%s: no %s in %v", kind, m, it)
				}
			}
		}
	}
}

// looks is a clock that says when a command begins to wait, and ends the wait
// when the test wants.
type looks struct {
	waiting chan struct{}
	tick    chan time.Time
}

func newLooks() looks { return looks{make(chan struct{}), make(chan time.Time)} }

func (l looks) after(time.Duration) <-chan time.Time {
	l.waiting <- struct{}{}
	return l.tick
}

// again ends the wait and returns when the next one has begun.
func (l looks) again(t *testing.T) {
	t.Helper()
	l.tick <- now
	l.settled(t)
}

// settled returns when the command waits.
func (l looks) settled(t *testing.T) {
	t.Helper()
	select {
	case <-l.waiting:
	case <-time.After(10 * time.Second):
		t.Fatal("the command does something else than wait")
	}
}

// printed tells the test what is written, as it is written.
type printed chan string

func (p printed) Write(b []byte) (int, error) {
	p <- string(b)
	return len(b), nil
}

// expect takes what is written until it is want.
func (p printed) expect(t *testing.T, want string) {
	t.Helper()
	got := ""
	for len(got) < len(want) {
		select {
		case s := <-p:
			got += s
		case <-time.After(10 * time.Second):
			t.Fatalf("got only %q, want %q", got, want)
		}
	}
	if got != want {
		t.Fatalf("got %q, want %q", got, want)
	}
}

// -w prints again when a state changes, not when counters and times alone do.
func TestGetWatch(t *testing.T) {
	one := func(state string, since int64, frames uint64) []api.Pseudowire {
		return []api.Pseudowire{{Name: "a", Peer: "dc2", State: state, SinceSeconds: since, ReceivedFrames: frames}}
	}
	const head = "NAME  PEER  STATE  SINCE  DEVICE  DATAPATH  TUNNEL  REASON\n"
	for _, tt := range []struct{ format, first, second string }{
		{"text", head + "a     dc2   down   1s     -       -         -       -\n", "\n" + head + "a     dc2   up     0s     -       -         -       -\n"},
		{"json",
			`{"items":[{"name":"a","peer":"dc2","state":"down","device":"","datapath":"","reason":"","type":"","tunnel":"","mtu":0,"attachment":"","sinceSeconds":1,"receivedFrames":5,"receivedOctets":0,"transmittedFrames":0,"transmittedOctets":0}]}` + "\n",
			`{"items":[{"name":"a","peer":"dc2","state":"up","device":"","datapath":"","reason":"","type":"","tunnel":"","mtu":0,"attachment":"","sinceSeconds":0,"receivedFrames":9,"receivedOctets":0,"transmittedFrames":0,"transmittedOctets":0}]}` + "\n"},
	} {
		t.Run(tt.format, func(t *testing.T) {
			socket, b := serve(t, apitest.Answers{Pseudowires: one("down", 1, 5)})
			clock, out := newLooks(), make(printed)
			ctx, cancel := context.WithCancel(t.Context())
			args := "get pseudowires -w"
			if tt.format == "json" {
				args += " -o json"
			}
			done := make(chan string, 1)
			go func() {
				code, _, stderr := run(t, socket, command{args: args, ctx: ctx, after: clock.after, stdout: out})
				done <- fmt.Sprintf("%d %s", code, stderr)
			}()
			out.expect(t, tt.first)
			clock.settled(t)
			b.Set(func(a *apitest.Answers) { a.Pseudowires = one("down", 2, 9) })
			clock.again(t) // it looked, and printed nothing, which would block
			b.Set(func(a *apitest.Answers) { a.Pseudowires = one("up", 0, 9) })
			clock.tick <- now
			out.expect(t, tt.second)
			clock.settled(t)
			cancel()
			if got := <-done; got != "0 " {
				t.Errorf("ended with %q, want 0 and no word", got)
			}
		})
	}
}

func TestGetWatchEndsWithTheDaemon(t *testing.T) {
	b := apitest.New(site())
	socket, stop := apitest.Serve(t, b, api.Options{})
	clock := newLooks()
	done := make(chan int, 1)
	go func() {
		code, _, _ := run(t, socket, command{args: "get classes -w", after: clock.after})
		done <- code
	}()
	clock.settled(t)
	stop()
	clock.tick <- now
	if code := <-done; code != 3 {
		t.Errorf("exit code %d, want 3", code)
	}
}

// fill sets every field of a struct to a value that is found again in a text:
// strings to their path, numbers to something odd.
func fill(v reflect.Value, path string, next *uint64) {
	*next += 13
	switch v.Kind() {
	case reflect.Struct:
		if _, ok := v.Interface().(time.Time); ok {
			v.Set(reflect.ValueOf(now.Add(time.Duration(*next) * time.Minute)))
			return
		}
		for i := range v.NumField() {
			fill(v.Field(i), path+"-"+v.Type().Field(i).Name, next)
		}
	case reflect.String:
		v.SetString(path)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), path, next)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), path, next)
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf(path), reflect.ValueOf(*next))
	case reflect.Float64:
		v.SetFloat(float64(*next) + 0.5)
	case reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(*next)
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(*next))
	}
}

// leaves are what fill put into v, as people see it.
func leaves(v reflect.Value, name string, out map[string]string) {
	switch v.Kind() {
	case reflect.Struct:
		if at, ok := v.Interface().(time.Time); ok {
			out[name] = at.Format("2006-01-02 15:04:05.000")
			return
		}
		for i := range v.NumField() {
			if field := name + "." + v.Type().Field(i).Name; !strings.HasSuffix(field, ".History.Cause") { // the reason says it
				leaves(v.Field(i), field, out)
			}
		}
	case reflect.Pointer:
		leaves(v.Elem(), name, out)
	case reflect.Slice:
		leaves(v.Index(0), name, out)
	case reflect.Map:
		for it := v.MapRange(); it.Next(); {
			out[name] = it.Key().String() + "  " + fmt.Sprint(it.Value())
		}
	default:
		out[name] = fmt.Sprint(v.Interface())
		switch {
		case strings.HasSuffix(name, ".Redundancy.SinceSeconds"):
			out[name] = lasted(v.Int())
		case strings.HasSuffix(name, ".Redundancy.Revertive"):
			out[name] = "Revertive                     no"
		case strings.HasSuffix(name, ".HoldSeconds"):
			delete(out, name) // that of one that is not revertive is of no use
		case strings.HasSuffix(name, ".SinceSeconds"):
			out[name] = "for " + lasted(v.Int())
		case strings.HasSuffix(name, ".HeardSeconds"):
			out[name] = lasted(v.Int())
		case strings.HasSuffix(name, ".RTTSeconds"):
			out[name] = time.Duration(v.Float() * float64(time.Second)).String()
		case v.Kind() == reflect.Bool:
			out[name] = map[bool]string{true: "yes", false: "no"}[v.Bool()]
		}
	}
}

// lasted is a time from a minute on, as people see it.
func lasted(seconds int64) string {
	h, m := seconds/3600, seconds%3600/60
	switch {
	case h == 0:
		return fmt.Sprintf("%dm", m)
	case m == 0:
		return fmt.Sprintf("%dh", h)
	}
	return fmt.Sprintf("%dh%dm", h, m)
}

// describe leaves nothing out.
func TestDescribeShowsEverything(t *testing.T) {
	var next uint64 = 1000
	var tun api.Tunnel
	var ses api.Session
	var pw api.Pseudowire
	var ac api.Attachment
	var class api.Class
	for kind, v := range map[string]any{"tun": &tun, "ses": &ses, "pw": &pw, "ac": &ac, "class": &class} {
		fill(reflect.ValueOf(v).Elem(), kind, &next)
	}
	ses.Pseudowire, ses.Peer, ac.Pseudowire = pw.Name, pw.Peer, pw.Name
	socket, _ := serve(t, apitest.Answers{Tunnels: []api.Tunnel{tun}, Sessions: []api.Session{ses},
		Pseudowires: []api.Pseudowire{pw}, Attachments: []api.Attachment{ac}, Classes: []api.Class{class}})
	for _, tt := range []struct {
		args string
		v    any
	}{
		{"describe tunnel " + tun.Name, tun},
		{"describe session " + pw.Name, ses},
		{"describe pseudowire " + pw.Name, pw},
		{"describe attachment " + ac.Pseudowire, ac},
		{"describe class " + class.Name, class},
	} {
		code, stdout, stderr := run(t, socket, command{args: tt.args})
		if code != 0 || stderr != "" {
			t.Errorf("%s: %d %s", tt.args, code, stderr)
		}
		shown := make(map[string]string)
		leaves(reflect.ValueOf(tt.v), reflect.TypeOf(tt.v).Name(), shown)
		for field, value := range shown {
			if !regexp.MustCompile(`(^|\W)` + regexp.QuoteMeta(value)).MatchString(stdout) {
				t.Errorf("%s does not show %s, %q:\n%s", tt.args, field, value, stdout)
			}
		}
	}
}

func TestDescribe(t *testing.T) {
	socket, _ := serve(t, site())
	for args, w := range map[string]want{
		"describe tunnel gold/dc2": {stdout: `
Tunnel gold to dc2: established for 3m12s, SCCRP received
  Encapsulation  udp
  Path MTU       1400
  Hello          10s
  Authenticated  yes
  ECN            no

This end
  Address                192.0.2.1:40001
  Host name              gold.dc1
  Router ID              10.0.0.1
  Control connection ID  3735928559
  Role                   initiator

Peer
  Address                198.51.100.1:1701
  Host name              gold.dc2
  Router ID              10.0.0.2
  Vendor                 pwd 0.1.0
  Capabilities           Ethernet, Ethernet VLAN
  Control connection ID  12648430

Control messages
  Next to send (Ns)      17
  Next expected (Nr)     16
  Peer's receive window  8
  Congestion window      4
  Round trip             1.23ms
  Last heard             4s ago
  Unacknowledged         1, repeats: 1, again in 1.2s
  Queued                 2
  Retransmitted          2

Traffic
  Received     1201 frames, 1258291 octets (1.2 MiB)
  Transmitted  1100 frames, 800 octets

Sessions: 1
  tenant-a  established  for 3m10s

History
  2026-11-22 13:26:46.000  down to connecting         -                  the topology wants it
  2026-11-22 13:26:47.750  connecting to established  SCCRP, acceptable  SCCRP received
  2026-11-22 13:29:00.000  established                -                  dc2 does not answer (2 times since 2026-11-22 13:28:00.000)
`},
		"describe pw tenant-a": {stdout: `
Pseudowire tenant-a to dc2: up for 3m10s
  Type        ethernet
  Tunnel      gold
  Device      pw-tenant-a
  Datapath    ebpf
  MTU         1500
  Attachment  br-lan vlan 100

Attachment circuit: up
  Bridge           br-lan
  Interface        -
  VLAN             100
  Device           pw-tenant-a
  Cross-connected  no
  Reason           -

Traffic
  Received          1201 frames, 1258291 octets (1.2 MiB)
  Transmitted       1100 frames, 800 octets
  Dropped, cookie   1
  Dropped, mtu      3
  Dropped, unknown  0

Session on gold: established for 3m10s
  Tunnel             gold
  Local session ID   1001
  Remote session ID  2002
  Cookie             8 octets
  Local circuit      active
  Remote circuit     active

Errors of the remote circuit
  crc                3
  hardware-overruns  2

History of the session on gold
  2026-11-22 13:26:50.000  signalling to established  -  ICCN received
`},
		"describe session storage": {stdout: `
Session of storage/dc3 to dc3: down for 7s, the tunnel is connecting
  Tunnel             gold
  Local session ID   -
  Remote session ID  -
  Cookie             0 octets
  Local circuit      -
  Remote circuit     -

Traffic
  Received     0 frames, 0 octets
  Transmitted  0 frames, 0 octets
`},
		"describe attachment storage/dc3": {stdout: `
Attachment of storage/dc3
  State            down
  Bridge           -
  Interface        eth4
  VLAN             -
  Device           eth4
  Cross-connected  no
  Reason           no carrier on eth4
`},
		"describe class bulk": {stdout: "Class bulk\n  DSCP  0\n"},
		"describe tunnel lead": {code: 1, stderr: `
pwctl: this site has no tunnel "lead"
  help: there are gold/dc2, gold/dc3, silver/dc2
`},
	} {
		check(t, socket, command{args: args}, w)
	}
	// Both ends of a tunnel of three sites.
	_, stdout, _ := run(t, socket, command{args: "describe tunnel gold"})
	if !strings.Contains(stdout, "Tunnel gold to dc2: established") || !strings.Contains(stdout, "\n\nTunnel gold to dc3: connecting for 7s, no answer") {
		t.Errorf("describe tunnel gold:\n%s", stdout)
	}
}
