package cli_test

import (
	"testing"
	"time"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/api/apitest"
)

func TestDrift(t *testing.T) {
	at := time.Date(2026, 5, 1, 12, 4, 11, 0, time.UTC)
	socket, backend := serve(t, apitest.Answers{Drift: []api.Drift{
		{Time: at, First: at, Times: 1, Object: "bridge br-lan", Found: "eth1 was moved from br-lan into another bridge", Done: "put back", Error: "it is in br-x"},
		{Time: at, First: at.Add(-time.Minute), Times: 3, Object: "pseudowire a", Found: "the MTU of pw-a was changed to 1400", Done: "set to 1500 again", Repaired: true},
		{Time: at, First: at.Add(-time.Minute), Times: 30, Object: "interface eth0", Found: "the qdisc that shapes it was removed", Done: "made again", Repaired: true, WaitSeconds: 20},
	}})
	check(t, socket, command{args: "drift"}, want{stdout: "" +
		"STATE      FOUND AT                 TIMES  OBJECT          WHAT                                            DONE\n" +
		"failed     2026-05-01 12:04:11.000  1      bridge br-lan   eth1 was moved from br-lan into another bridge  put back: it is in br-x\n" +
		"repaired   2026-05-01 12:04:11.000  3      pseudowire a    the MTU of pw-a was changed to 1400             set to 1500 again\n" +
		"contested  2026-05-01 12:04:11.000  30     interface eth0  the qdisc that shapes it was removed            made again, at most every 20s\n"})
	backend.Set(func(a *apitest.Answers) { a.Drift = a.Drift[:1] })
	check(t, socket, command{args: "drift -o json"}, want{stdout: `{
  "items": [
    {
      "time": "2026-05-01T12:04:11Z",
      "first": "2026-05-01T12:04:11Z",
      "times": 1,
      "object": "bridge br-lan",
      "found": "eth1 was moved from br-lan into another bridge",
      "done": "put back",
      "repaired": false,
      "error": "it is in br-x"
    }
  ]
}
`})
	backend.Set(func(a *apitest.Answers) { a.Drift = nil })
	check(t, socket, command{args: "drift"}, want{stdout: "nothing was changed by others\n"})
}
