package topology

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// secrets are files as a site has them.
func secrets(name string) (SecretText, error) {
	files := map[string]struct {
		text string
		mode fs.FileMode
	}{
		"good.secret":    {"shared by dc1 and dc2\n", 0o600},
		"old.secret":     {"of before, without a newline", 0o640},
		"spaced.secret":  {" two newlines \n\n", 0o600},
		"longest.secret": {strings.Repeat("x", MaxSecret) + "\n", 0o600},
		"long.secret":    {strings.Repeat("x", MaxSecret+1), 0o600},
		"empty.secret":   {"\n", 0o600},
		"nothing.secret": {"", 0o600},
		"open.secret":    {"known to everybody\n", 0o644},
	}
	text := SecretText{Path: "/etc/pwd/" + name}
	if name == "a-directory" {
		return text, errors.New("it is no regular file")
	}
	f, ok := files[name]
	if !ok {
		return text, fs.ErrNotExist
	}
	text.Text, text.Mode = []byte(f.text), f.mode
	return text, nil
}

// A secret that cannot be had is said at the name of its file; a site's daemon cannot
// go on, somebody who only validates can.
func TestFaultySecrets(t *testing.T) {
	for _, file := range glob(t, "testdata/secrets/*.yaml") {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			topology, diagnostics := parseFile(t, file)
			if len(diagnostics) > 0 {
				t.Fatalf("%s", diagnostics)
			}
			local, _ := topology.Local("dc1")
			next, atSite := local.WithSecrets(secrets)
			elsewhere := topology.CheckSecrets(secrets)
			if has := len(next.Tunnels[0].Secrets) > 0; has == atSite.HasErrors() {
				t.Errorf("secrets: %v, with\n%s", has, atSite)
			}
			text := "at the site:\n" + atSite.String() + "\nelsewhere:\n" + elsewhere.String()
			golden(t, strings.TrimSuffix(file, ".yaml")+".txt", text)
		})
	}
}

func TestSecretsAreRead(t *testing.T) {
	for files, want := range map[string][]string{
		"good.secret":               {"shared by dc1 and dc2"},
		"old.secret":                {"of before, without a newline"},
		"spaced.secret":             {" two newlines \n"},
		"longest.secret":            {strings.Repeat("x", 1024)},
		"[good.secret, old.secret]": {"shared by dc1 and dc2", "of before, without a newline"},
	} {
		text, err := os.ReadFile("testdata/good/plain.yaml")
		if err != nil {
			t.Fatal(err)
		}
		topology, diagnostics := Parse("t.yaml", []byte(strings.Replace(string(text), "hello: 10s", "hello: 10s, secret-file: "+files, 1)))
		if len(diagnostics) > 0 {
			t.Fatalf("%s", diagnostics)
		}
		local, _ := topology.Local("dc1")
		next, diagnostics := local.WithSecrets(secrets)
		if len(diagnostics) > 0 {
			t.Errorf("%s:\n%s", files, diagnostics)
		}
		var got []string
		for _, s := range next.Tunnels[0].Secrets {
			got = append(got, string(s))
		}
		if diff := cmp.Diff(want, got); diff != "" || local.Tunnels[0].Secrets != nil {
			t.Errorf("%s (-want +got):\n%s", files, diff)
		}
	}
}

// A secret does not get out by being printed.
func TestSecretsAreNotShown(t *testing.T) {
	tunnel := Tunnel{Secrets: []Secret{Secret("hunter2")}}
	var shown strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q", "%d"} {
		fmt.Fprintf(&shown, verb, tunnel)
	}
	text, err := json.Marshal(tunnel)
	if err != nil {
		t.Fatal(err)
	}
	for _, octets := range []string{"hunter2", "68756e746572", "104 117", "0x68", "aHVudGVyMg"} {
		if strings.Contains(shown.String()+string(text), octets) {
			t.Errorf("%s in %s %s", octets, &shown, text)
		}
	}
}
