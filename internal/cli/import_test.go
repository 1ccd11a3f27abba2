package cli_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestImport(t *testing.T) {
	for _, from := range []string{"ip-l2tp ../importer/testdata/ip.txt", "vyos ../importer/testdata/vyos.set", "vyos ../importer/testdata/vyos.boot"} {
		_, file, _ := strings.Cut(from, " ")
		golden, err := os.ReadFile(file + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		code, stdout, stderr := run(t, "/no/socket", command{args: "import " + from})
		if code != 0 || stdout != string(golden) || !strings.Contains(stderr, "note: remove what is there before the daemon starts") {
			t.Errorf("import %s: %d\n%s%s", from, code, stdout, stderr)
		}
	}
	file := filepath.Join(t.TempDir(), "topology.yaml")
	if code, stdout, stderr := run(t, "/no/socket", command{args: "import ip-l2tp ../importer/testdata/ip.txt --site dc1 -w " + file}); code != 0 || stdout != "" {
		t.Errorf("%d %s%s", code, stdout, stderr)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	for args, want := range map[string]string{
		"import":                    "import what? There are ip-l2tp and vyos",
		"import junos":              `"junos" cannot be imported; there are ip-l2tp and vyos`,
		"import vyos":               "accepts 1 arg(s), received 0",
		"import vyos /no/such/file": "no such file",
		"import ip-l2tp ../importer/testdata/ip.txt -w " + file:          "file exists",
		"import ip-l2tp ../importer/testdata/vyos.set":                   "is not what `ip l2tp show` says",
		"import ip-l2tp ../importer/testdata/ip.txt --sublayer sideways": "use default or none",
	} {
		if code, _, stderr := run(t, "/no/socket", command{args: args}); code == 0 || !strings.Contains(stderr, want) {
			t.Errorf("%s: %d %s, want %s", args, code, stderr, want)
		}
	}
}
