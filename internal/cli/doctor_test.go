package cli_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/api/apitest"
	"github.com/pwd-project/pwd/internal/doctor"
)

func TestDoctor(t *testing.T) {
	host := doctor.Host{
		Files: fstest.MapFS{"proc/sys/kernel/osrelease": &fstest.MapFile{Data: []byte("6.12.1\n")}},
		Run: func(context.Context, ...string) ([]byte, error) {
			return nil, errors.New("not\x1b[31m found")
		},
		LoadProgram:       func() error { return errors.ErrUnsupported },
		ClockSynchronised: func() (bool, error) { return true, nil },
		Addresses:         func(string) ([]netip.Addr, error) { return nil, errors.New("no such interface") },
		Attached:          func() ([]doctor.Attached, error) { return nil, errors.New("not permitted") },
		Aliases:           func() (map[string]string, error) { return map[string]string{}, nil },
	}
	a := site()
	socket, _ := apitest.Serve(t, apitest.New(a), api.Options{})
	code, out, errs := run(t, socket, command{args: "doctor", host: host})
	for _, part := range []string{
		"ok       daemon: pwd 0.1.0 serves site dc1, generation 4\n",
		"fault    site: tunnel gold/dc3: no answer from 203.0.113.1:1701 for 7s\n         do: see whether pwd runs at dc3",
		"ok       kernel: Linux 6.12.1\n",
		"warning  ebpf: eBPF programs do not load: unsupported operation\n",
		"\n2 faults, ", // the module of the pseudowire on the kernel's datapath, too
	} {
		if !strings.Contains(out, part) {
			t.Errorf("no %q in\n%s", part, out)
		}
	}
	if code != 9 || errs != "" || strings.Contains(out, "\x1b") {
		t.Errorf("exit code %d, %q", code, errs)
	}

	code, out, _ = run(t, socket+"-none", command{args: "doctor -o json", host: host})
	var list struct{ Items []doctor.Finding }
	if err := json.Unmarshal([]byte(out), &list); err != nil || code != 9 || len(list.Items) < 4 || list.Items[0].Level != doctor.Fault {
		t.Errorf("without a daemon: exit code %d, %v in %s", code, err, out)
	}
}

// The standard state directory is not that of a daemon with another socket, unless it is said to be.
func TestDoctorLooksAtTheDaemonsState(t *testing.T) {
	host := doctor.Host{
		Files:             fstest.MapFS{"var/lib/pwd/generation.json": &fstest.MapFile{Data: []byte(`{"site": "dc9", "number": 12}`)}},
		Run:               func(context.Context, ...string) ([]byte, error) { return nil, errors.New("not found") },
		LoadProgram:       func() error { return nil },
		ClockSynchronised: func() (bool, error) { return true, nil },
		Attached:          func() ([]doctor.Attached, error) { return nil, nil },
		Aliases:           func() (map[string]string, error) { return map[string]string{}, nil },
	}
	other := t.TempDir() + "/other.sock"
	for args, looks := range map[string]bool{"doctor": false, "doctor --state-dir /var/lib/pwd": true, "doctor --state-dir /srv": false} {
		_, out, _ := run(t, other, command{args: args, host: host})
		if got := strings.Contains(out, "the state of site dc9 in /var/lib/pwd"); got != looks || strings.Contains(out, "--cleanup") {
			t.Errorf("%s: %s", args, out)
		}
	}
}
