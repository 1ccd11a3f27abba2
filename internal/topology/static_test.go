package topology

import (
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const staticFile = `apiVersion: pwd/v1
kind: Topology
metadata: {name: t}
sites:
  dc1: {address: 192.0.2.1}
  old: {address: 192.0.2.9, managed: false}
tunnels:
  plain:
    sites: [dc1, old]
    static: {dc1: {connection-id: 10, port: 5000}, old: {connection-id: 4294967295}}
pseudowires:
  lan:
    tunnel: plain
    sublayer: default
    static:
      dc1: {session-id: 100, cookie-file: here}
      old: {session-id: 200, cookie: "0xA1a2A3a4"}
    attach: {dc1: {interface: eth1}, old: {}}
`

// What is said of an end is the remote one at the other.
func TestStatic(t *testing.T) {
	parsed, diagnostics := Parse("t.yaml", []byte(staticFile))
	if parsed == nil || len(diagnostics) > 0 {
		t.Fatal(diagnostics)
	}
	local, _ := parsed.Local("dc1")
	if diff := cmp.Diff(&StaticTunnel{LocalID: 10, RemoteID: 1<<32 - 1, LocalPort: 5000, RemotePort: 1701}, local.Tunnels[0].Static); diff != "" {
		t.Errorf("tunnel (-want +got):\n%s", diff)
	}
	if x := local.Pseudowires[0].Static; !x.Lacks() || local.Tunnels[0].ECN {
		t.Errorf("before the file is read: %+v", x)
	}
	for text, want := range map[string]string{
		"0123456789ABCDEF\n": "", "0x01234567": "", "": "there is nothing in", "secret": "is no cookie", "0x0123456789": "is no cookie",
	} {
		read := func(name string) (SecretText, error) {
			if name != "here" {
				return SecretText{}, fs.ErrNotExist
			}
			return SecretText{Path: "/etc/pwd/here", Text: []byte(text), Mode: 0o600}, nil
		}
		with, found := local.WithSecrets(read)
		x := with.Pseudowires[0].Static
		if want != "" {
			if !strings.Contains(found.String(), want) || !x.Lacks() {
				t.Errorf("file %q: %v", text, found)
			}
			if text != "" && strings.Contains(found.String(), text) {
				t.Errorf("shown: %s", found)
			}
			continue
		}
		if len(found) > 0 || x.Lacks() || len(x.LocalCookie) != len(strings.TrimPrefix(strings.TrimSpace(text), "0x"))/2 || x.RemoteCookie[3] != 0xa4 {
			t.Errorf("file %q: %v", text, found)
		}
		if shown := fmt.Sprintf("%v %+v", *x, x.LocalCookie); strings.Contains(shown, "161 162") || !strings.Contains(shown, "(secret)") {
			t.Errorf("shown: %s", shown)
		}
	}
}
