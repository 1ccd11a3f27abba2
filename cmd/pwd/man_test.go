package main

import (
	"bytes"
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"
)

// The manual page has the flags that there are, and no others.
func TestManualPageHasTheFlags(t *testing.T) {
	page, err := os.ReadFile("../../configs/man/pwd.8")
	if err != nil {
		t.Fatal(err)
	}
	inPage := map[string]bool{}
	for _, found := range regexp.MustCompile(`(?m)^\.TP\n\.B \\-\\-([a-z\\-]+)`).FindAllSubmatch(page, -1) {
		inPage[strings.ReplaceAll(string(found[1]), `\`, "")] = true
	}
	var help bytes.Buffer
	if _, err := parseFlags([]string{"--help"}, &help); !errors.Is(err, errHelp) {
		t.Fatal(err)
	}
	for _, found := range regexp.MustCompile(`(?m)^  -([a-z-]+)`).FindAllSubmatch(help.Bytes(), -1) {
		name := string(found[1])
		if !inPage[name] {
			t.Errorf("no --%s in the page", name)
		}
		delete(inPage, name)
	}
	for name := range inPage {
		t.Errorf("--%s is in the page, and is no flag", name)
	}
}
