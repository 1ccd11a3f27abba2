package topology

import (
	"strings"
	"testing"
)

// Who writes the secret itself into the file is told, and neither that nor any other fault of
// the line shows it: diagnostics are logged.
func TestSecretsInTheFileAreNotShown(t *testing.T) {
	for _, line := range []string{
		`secret: hunter2 and more`, `secret: "hunter2, }# 'and' more"`, `secret: 'hunter2, and more'`, `"secret": hunter2`,
		`Password: hunter2`, `shared-secret: hunter2`, `secret: "hunter2`, `secret: hünter2`,
	} {
		text := "apiVersion: pwd/v1\nkind: Topology\nmetadata: {name: t}\nsites: {a: {address: 192.0.2.1}, b: {address: 192.0.2.2}}\n" +
			"tunnels:\n  gold: {sites: [a, b], hellos: 1s, " + line + "}\n"
		_, found := Parse("t.yaml", []byte(text))
		if shown := found.String(); len(found) == 0 || strings.Contains(shown, "nter2") || strings.Contains(shown, "more") {
			t.Errorf("%s: %s", line, shown)
		}
	}
	line := `  secret: {sites: [a, b], secret-file: a.secret, hello: 1s}`
	if shown := withoutSecrets(line); shown != line {
		t.Errorf("there is no secret in %q, which shows as %q", line, shown)
	}
}
