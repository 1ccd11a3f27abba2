package topology

import (
	"errors"
	"strings"
	"testing"
)

// Every key is explained, and its example is one.
func TestExplainEveryKey(t *testing.T) {
	for _, config := range []bool{false, true} {
		for _, path := range Paths(config) {
			e, err := Explain(config, path)
			if err != nil {
				t.Errorf("%s: %v", path, err)
				continue
			}
			if e.About == "" || e.Type == "" || e.Example == "" {
				t.Errorf("%s: %+v", path, e)
			}
			header := "apiVersion: pwd/v1\nkind: Topology\n"
			if config {
				header = "apiVersion: pwd/v1\nkind: Config\n"
			}
			if path == "apiVersion" || path == "kind" {
				header = ""
			}
			var found Diagnostics
			if config {
				_, found = ParseConfig("x", []byte(header+e.Example))
			} else {
				_, found = Parse("x", []byte(header+e.Example))
			}
			// What else the file needs is not in the example, nor are things that it names.
			for _, d := range found {
				switch {
				case d.Code < "PW0100", d.Code > "PW0101" && d.Code < "PW0200" && d.Code != CodeMissingKey && d.Code != CodeVersion:
					t.Errorf("%s:\n%s%s", path, e.Example, d)
				case d.Code == CodeUnknownKey:
					t.Errorf("%s:\n%s%s", path, e.Example, d)
				}
			}
		}
	}
}

func TestExplain(t *testing.T) {
	for path, want := range map[string]string{
		"":                                   "",
		"pseudowires":                        "pseudowires",
		"pseudowires.attach.vlan":            "pseudowires.PSEUDOWIRE.attach.SITE.vlan",
		"pseudowires.tenant-a.attach.x.vlan": "pseudowires.PSEUDOWIRE.attach.SITE.vlan",
		"pseudowires.PSEUDOWIRE.attach":      "pseudowires.PSEUDOWIRE.attach",
		"pseudowires.tenant-a":               "pseudowires.PSEUDOWIRE",
		"sites.dc1.bridges.br-lan.ports":     "sites.SITE.bridges.BRIDGE.ports",
		"tunnels.underlay":                   "tunnels.TUNNEL.underlay",
		"tunnels.static.port":                "tunnels.TUNNEL.static.SITE.port",
		"sites.address.":                     "sites.SITE.address",
	} {
		e, err := Explain(false, path)
		if err != nil || e.Path != want {
			t.Errorf("%s: %+v, %v", path, e, err)
		}
	}
	for path, want := range map[string]string{
		"pseudowire":                 "did you mean pseudowires?",
		"pseudowires.cokie":          "did you mean pseudowires.PSEUDOWIRE.cookie?",
		"pseudowires.attach.vlam":    "did you mean pseudowires.PSEUDOWIRE.attach.SITE.vlan?",
		"hello":                      "did you mean tunnels.TUNNEL.hello?",
		"pseudowires.FOO!":           "keys there: tunnel",
		"metadata.name.x":            "there is nothing below metadata.name",
		"metadata.colour":            "keys there: name",
		"tunnels.gold.hello.seconds": "there is nothing below tunnels.TUNNEL.hello",
	} {
		_, err := Explain(false, path)
		var unknown *UnknownPathError
		if !errors.As(err, &unknown) || !strings.HasPrefix(unknown.Help(), want) {
			t.Errorf("%s: %v, %+v", path, err, unknown)
		}
	}
	if e, err := Explain(true, "access.change.users"); err != nil || e.Example != "access:\n  change:\n    users: [alice]\n" {
		t.Errorf("%+v, %v", e, err)
	}
}
