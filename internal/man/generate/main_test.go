package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// All that is installed is written, and the shells that are there can read it.
func TestGenerate(t *testing.T) {
	dir := t.TempDir()
	if err := generate(dir, "1.2.3"); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"man1/pwctl.1": ".TH", "man1/pwctl-apply.1": "confirm", "bash-completion/pwctl": "complete", "zsh/_pwctl": "#compdef pwctl", "fish/pwctl.fish": "complete -c pwctl",
	} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !bytes.Contains(b, []byte(want)) {
			t.Errorf("%s: %v, or no %q in it", name, err, want)
		}
	}
	for shell, file := range map[string]string{"bash": "bash-completion/pwctl", "zsh": "zsh/_pwctl", "fish": "fish/pwctl.fish"} {
		path, err := exec.LookPath(shell)
		if err != nil {
			continue
		}
		if out, err := exec.Command(path, "-n", filepath.Join(dir, file)).CombinedOutput(); err != nil {
			t.Errorf("%s -n: %v\n%s", shell, err, out)
		}
	}
}
