package man_test

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/pwd-project/pwd/internal/cli"
	"github.com/pwd-project/pwd/internal/man"
)

func commands() *cobra.Command {
	return cli.Commands(cli.Env{Getenv: func(string) string { return "" }, Location: time.UTC})
}

func pages() map[string][]byte {
	return man.Page{Section: 1, Version: "pwd 1.2.3", SeeAlso: []string{"pwd(8)"}}.Pages(commands())
}

// Every command that help shows has a page, with all its flags.
func TestEveryCommandHasAPage(t *testing.T) {
	all := pages()
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		file := strings.ReplaceAll(c.CommandPath(), " ", "-") + ".1"
		page, ok := all[file]
		if !ok {
			t.Errorf("no %s", file)
		}
		for line := range strings.Lines(c.Flags().FlagUsages()) {
			for word := range strings.FieldsSeq(line) {
				if strings.HasPrefix(word, "--") && !bytes.Contains(page, []byte(man.Escape(word))) {
					t.Errorf("%s: no %s", file, word)
				}
				if strings.HasPrefix(word, "--") {
					break
				}
			}
		}
		for _, sub := range c.Commands() {
			if sub.IsAvailableCommand() && sub.Name() != "help" {
				walk(sub)
			}
		}
	}
	walk(commands())
	if len(all) < 10 {
		t.Errorf("%d pages only", len(all))
	}
}

// The formatter has nothing to say against any page.
func TestPagesAreWellFormed(t *testing.T) {
	groff, err := exec.LookPath("groff")
	if err != nil {
		t.Skip("groff is not installed")
	}
	for file, page := range pages() {
		cmd := exec.Command(groff, "-man", "-Tutf8", "-ww", "-z")
		cmd.Stdin = bytes.NewReader(page)
		if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: %v\n%s", file, err, out)
		}
	}
}

func TestEscape(t *testing.T) {
	for in, want := range map[string]string{
		"plain": "plain", "-o wide": `\-o wide`, `a\b`: `a\eb`, ".TH": `\&.TH`, "'quoted'": `\&'quoted'`, "a…": "a...", "ü": `\[u00FC]`,
	} {
		if got := man.Escape(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
