package cli_test

import (
	"testing"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/api/apitest"
)

// What was announced on each pseudowire; one on which it could not be done is a failure.
func TestAnnounce(t *testing.T) {
	socket, b := serve(t, apitest.Answers{Announcements: []api.Announcement{{Pseudowire: "office/dc2", Peer: "dc2", Addresses: 3}}})
	check(t, socket, command{args: "announce office/dc2"}, want{stdout: "PSEUDOWIRE  PEER  ADDRESSES  REASON\noffice/dc2  dc2   3          -\n"})
	b.Set(func(a *apitest.Answers) {
		a.Announcements = append(a.Announcements, api.Announcement{Pseudowire: "office/dc3", Peer: "dc3", Reason: "it is not up"})
	})
	check(t, socket, command{args: "announce --all"}, want{
		code:   1,
		stdout: "PSEUDOWIRE  PEER  ADDRESSES  REASON\noffice/dc2  dc2   3          -\noffice/dc3  dc3   0          it is not up\n",
		stderr: "pwctl: 1 pseudowire of 2 without an announcement\n",
	})
	check(t, socket, command{args: "announce"}, want{
		code:   2,
		stderr: "pwctl: on which pseudowires? Name them, or give --all\n  help: see `pwctl announce --help`\n",
	})
}
