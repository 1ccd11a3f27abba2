package topology

import (
	"bytes"
	"io/fs"
	"testing"
)

// FuzzSecret: whatever a secret's file has, it is the secret to the octet or an error,
// and what is said about it has nothing of it.
func FuzzSecret(f *testing.F) {
	f.Add([]byte("shared by dc1 and dc2\n"), uint32(0o600))
	f.Add([]byte(" two newlines \n\n"), uint32(0o644))
	f.Add([]byte("\n"), uint32(0o600))
	f.Add(bytes.Repeat([]byte{0xff}, MaxSecret+1), uint32(0))
	f.Fuzz(func(t *testing.T, text []byte, mode uint32) {
		read := func(string) (SecretText, error) {
			return SecretText{Path: "/etc/pwd/a.secret", Text: text, Mode: fs.FileMode(mode)}, nil
		}
		secret, found := SecretFile{Name: "a.secret"}.read(read)
		want := bytes.TrimSuffix(text, []byte("\n"))
		if good := len(want) > 0 && len(want) <= MaxSecret; good == found.HasErrors() {
			t.Fatalf("%d octets: %s", len(want), found)
		} else if good && !bytes.Equal(secret, want) {
			t.Errorf("%d octets of %d", len(secret), len(want))
		} else if !good && secret != nil {
			t.Error("a secret and an error")
		}
		if _, without := (SecretFile{Name: "a.secret"}).read(func(string) (SecretText, error) {
			return SecretText{Path: "/etc/pwd/a.secret", Text: bytes.Repeat([]byte{'x'}, len(want)), Mode: fs.FileMode(mode)}, nil
		}); without.String() != found.String() {
			t.Errorf("what is said depends on the secret:\n%s\n%s", found, without)
		}
	})
}
