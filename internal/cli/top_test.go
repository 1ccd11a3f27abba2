package cli_test

import (
	"strings"
	"testing"
	"time"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/api/apitest"
)

func TestTop(t *testing.T) {
	look := func(seconds uint64) ([]api.Class, api.Status) {
		return []api.Class{
				{Name: "bulk"},
				{Name: "voice", Rate: 1e6, Ceiling: 20e6, Tunnels: []api.ClassTunnel{{
					Tunnel: "gold", Peer: "dc2", Interface: "eth0", Octets: 1e6 * seconds, Frames: 700 * seconds, Drops: seconds, BacklogOctets: 100_000,
				}, {Tunnel: "gold", Peer: "dc3", Interface: "eth1"}}},
			}, api.Status{Site: "dc1", Pseudowires: []api.Pseudowire{{
				Name: "phones", Peer: "dc2", State: "up", TransmittedOctets: 900_000 * seconds, TransmittedFrames: 700 * seconds,
				ReceivedOctets: 125 * seconds, ReceivedFrames: seconds, Drops: map[string]uint64{"policed": 40 * seconds},
			}}}
	}
	socket, backend := serve(t, apitest.Answers{})
	seconds := uint64(10)
	set := func() {
		backend.Set(func(a *apitest.Answers) { a.Classes, a.Status = look(seconds) })
	}
	set()
	c := command{
		args: "top",
		now:  func() time.Time { return time.Unix(int64(seconds), 0) },
		after: func(d time.Duration) <-chan time.Time {
			seconds += uint64(d / time.Second)
			set()
			tick := make(chan time.Time, 1)
			tick <- now
			return tick
		},
	}
	table := func(clock string) string {
		return "site dc1, 00:00:" + clock + `, over 2.0 s

CLASS  TUNNEL    INTERFACE  RATE   CEILING  SENT      PACKETS/S  DROPS/S  BACKLOG  DELAY
voice  gold/dc2  eth0       1mbit  20mbit   8.00mbit  700        1.0      100000   100ms
voice  gold/dc3  eth1       1mbit  20mbit   0bit      0          0        0        -

PSEUDOWIRE  PEER  STATE  TX        FRAMES/S  RX        FRAMES/S  DROPS/S
phones      dc2   up     7.20mbit  700       1.00kbit  1.0       40
`
	}
	// Where nobody looks on it ends by itself.
	check(t, socket, c, want{stdout: table("12")})
	c.args = "top -n 2"
	check(t, socket, c, want{stdout: table("14") + "\n" + table("16")})
	c.terminal, c.args, c.env = true, "top -n 2", map[string]string{"NO_COLOR": "1"}
	const clear = "\x1b[H\x1b[2J"
	check(t, socket, c, want{stdout: clear + table("18") + clear + table("20")})
	c.args = "top -n -1"
	if code, _, stderr := run(t, socket, c); code != 2 || !strings.Contains(stderr, "-n is 0 or more") {
		t.Errorf("%d, %s", code, stderr)
	}
}
