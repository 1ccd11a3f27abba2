package cli_test

import (
	"strings"
	"testing"
)

func TestExplain(t *testing.T) {
	check(t, "/no/socket", command{args: "explain pseudowires.attach.inner-vlan"}, want{stdout: `
KEY      pseudowires.PSEUDOWIRE.attach.SITE.inner-vlan
TYPE     a number from 1 to 4094
DEFAULT  any, or none

  The second of two tags. With ` + "`vlan` both are popped and pushed; with `vlans`" + `, or without either,
  both stay on.

EXAMPLE
  pseudowires:
    tenant-a:
      attach:
        dc1:
          inner-vlan: 10
`})
	check(t, "/no/socket", command{args: "explain pseudowires.cokie"}, want{code: 1, stderr: `
pwctl: pseudowires.PSEUDOWIRE has no key cokie
  help: did you mean pseudowires.PSEUDOWIRE.cookie?
`})
	check(t, "/no/socket", command{args: "explain a b"}, want{code: 2, stderr: `
pwctl: accepts at most 1 arg(s), received 2
  help: see ` + "`pwctl explain --help`" + `
`})
	_, json, _ := run(t, "/no/socket", command{args: "explain --config access -o json"})
	if !strings.Contains(json, `"path": "access"`) || !strings.Contains(json, `"key": "change"`) {
		t.Error(json)
	}
	for word, want := range map[string]string{
		"s":            "sites\n",
		"pseudowires.": "pseudowires.attach\n",
		"tunnels.h":    "tunnels.hello\ntunnels.hide\n",
	} {
		_, got, _ := run(t, "/no/socket", command{args: "__complete explain " + word})
		if !strings.Contains(got, want) {
			t.Errorf("after %q: %s", word, got)
		}
	}
}
