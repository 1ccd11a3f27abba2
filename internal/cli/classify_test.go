package cli_test

import (
	"encoding/hex"
	"strings"
	"testing"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/api/apitest"
)

// Frames are what the flags say, and the answer is a line for each.
func TestClassify(t *testing.T) {
	var asked api.ClassifyRequest
	socket, _ := serve(t, apitest.Answers{Classify: func(r api.ClassifyRequest) ([]api.Classification, error) {
		asked = r
		return []api.Classification{{Rule: 2, RuleWords: "dscp 46 -> gold", Tunnel: "gold", SessionID: 7, Class: "voice", DSCP: 46, Queue: "1:2"}}, nil
	}})
	for args, want := range map[string]string{
		"--pcp 5 --dscp ef --protocol udp --destination-port 5060": "020000000002020000000001 8100a000 0800 45b8005000004000401100000a0000010a000002 c00013c4",
		"--vlan 7 --destination 2001:db8::1 --protocol tcp":        "020000000002020000000001 81000007 86dd 60000000003c0640 fd000000000000000000000000000001 20010db8000000000000000000000001",
		"--ethertype arp": "020000000002020000000001 0806",
		"--frame 02:00:5e:00:00:02:02:00:00:00:00:01:08:00:45": "02005e0000020200000000010800 45",
	} {
		code, stdout, stderr := run(t, socket, command{args: "classify tenant-a " + args})
		if code != 0 || !strings.Contains(stdout, "2: dscp 46 -> gold") || !strings.Contains(stdout, "voice") {
			t.Errorf("%s: %d, %s%s", args, code, stdout, stderr)
			continue
		}
		if got := hex.EncodeToString(asked.Frames[0]); asked.Pseudowire != "tenant-a" || !strings.HasPrefix(got, strings.ReplaceAll(want, " ", "")) {
			t.Errorf("%s: %s, not %s", args, got, want)
		}
	}
	for _, args := range []string{"--pcp 8", "--dscp none", "--frame 0102", "--frame 0102 --pcp 3", "--source 10.0.0.1 --destination ::1", "--protocol utp"} {
		if code, stdout, stderr := run(t, socket, command{args: "classify tenant-a " + args}); code != 2 || stderr == "" {
			t.Errorf("%s: %d, %s%s", args, code, stdout, stderr)
		}
	}
}
