// Package packaging tests what is put into packages, as far as that goes without building one.
package packaging

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// The scripts are sh's.
func TestScripts(t *testing.T) {
	for _, script := range []string{"postinstall", "preremove", "postremove"} {
		if out, err := exec.Command("sh", "-n", script).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", script, err, out)
		}
	}
}

// Packages have all that make install installs, and from nowhere else.
func TestContents(t *testing.T) {
	nfpm, err := os.ReadFile("nfpm.yaml")
	if err != nil {
		t.Fatal(err)
	}
	makefile, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	packaged := map[string]bool{}
	for _, found := range regexp.MustCompile(`src: out/package(/[^,]*), dst: ([^,}]*)`).FindAllSubmatch(nfpm, -1) {
		if string(found[1]) != string(found[2]) {
			t.Errorf("%s is to be packaged as %s", found[1], found[2])
		}
		packaged[string(found[1])] = true
	}
	unit := strings.NewReplacer("$(PREFIX)", "/usr", "$(UNITDIR)", "/usr/lib/systemd/system", "$(SYSTEMD)", "/usr/lib")
	installed := map[string]bool{}
	for _, found := range regexp.MustCompile(`(?m)^\t(?:install|sed) .*\$\(DESTDIR\)(\S+)$`).FindAllSubmatch(makefile, -1) {
		installed[unit.Replace(string(found[1]))] = true
	}
	if len(installed) < 10 {
		t.Fatalf("make install installs %v only", installed)
	}
	for path := range installed {
		if !packaged[path] && !strings.HasPrefix(path, "/usr/share/") {
			t.Errorf("%s is installed, and not packaged", path)
		}
	}
	for path := range packaged {
		if !installed[path] && path != "/usr/share/" {
			t.Errorf("%s is packaged, and not installed", path)
		}
	}
}
