// Generate writes pwctl's manual pages and completions into a folder: man1,
// bash-completion, zsh and fish.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/pwd-project/pwd/internal/cli"
	"github.com/pwd-project/pwd/internal/man"
)

func main() {
	dir := flag.String("o", "out/man", "`folder` to write to")
	version := flag.String("version", "", "`version` that the pages are about")
	flag.Parse()
	if err := generate(*dir, *version); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func generate(dir, version string) error {
	env := cli.Env{Getenv: func(string) string { return "" }, Now: time.Now, After: time.After, Location: time.UTC, Version: version}
	files := map[string][]byte{}
	for name, page := range (man.Page{Section: 1, Version: "pwd " + version, SeeAlso: []string{"pwd(8)"}}).Pages(cli.Commands(env)) {
		files["man1/"+name] = page
	}
	for shell, file := range map[string]string{"bash": "bash-completion/pwctl", "zsh": "zsh/_pwctl", "fish": "fish/pwctl.fish"} {
		var out, errs bytes.Buffer
		env.Stdout, env.Stderr = &out, &errs
		if code := cli.Run(context.Background(), env, []string{"completion", shell}); code != 0 {
			return fmt.Errorf("pwctl completion %s: exit code %d: %s", shell, code, &errs)
		}
		files[file] = out.Bytes()
	}
	for name, text := range files {
		if err := write(filepath.Join(dir, name), text); err != nil {
			return err
		}
	}
	return nil
}

func write(path string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), fs.FileMode(0o755)); err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o644)
}
