package e2e

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/netlab"
)

// kills is small, for the suite; 100 shows that it was not luck.
var kills = flag.Int("kills", 5, "how often TestNothingIsLostWhile kills each daemon")

// otherFlag is for versions that differ in more than their number, in both directions with PWD_BIN.
var otherFlag = flag.String("other", "", "the folder of the programs that TestNothingIsLostWhile upgrades to, and downgrades from")

// patience is for applies of many pseudowires beside flows that take much of a small machine.
const patience = 2 * time.Minute

// managed is a world whose tunnels have a secret, and room for other pseudowires.
type managed struct {
	*world
	file string
	// others is how many more pseudowires there are, of what MTU.
	others, mtu int
	secrets     string
}

func (m *managed) text() string {
	var others strings.Builder
	for i := range m.others {
		fmt.Fprintf(&others, "  other-%d: {tunnel: silver, mtu: %d, attach: {dc1: {bridge: br-other, vlan: %d}, dc2: {bridge: br-other, vlan: %d}}}\n", i, m.mtu, 1000+i, 2000+i)
	}
	return strings.NewReplacer(
		"{br-lan: {ports: [eth1]}}", "{br-lan: {ports: [eth1]}, br-other: {}}",
		"sites: [dc1, dc2]", "sites: [dc1, dc2], secret-file: "+m.secrets,
	).Replace(m.world.text("")) + others.String()
}

// apply puts what m says in force at both sites, and waits until all of it is up.
func (m *managed) apply(t *testing.T) {
	t.Helper()
	if err := os.WriteFile(m.file, []byte(m.text()), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, s := range m.sites {
		if out, err := s.Pwctl(within(t, patience), "apply", "-y", "-f", m.file); err != nil {
			t.Fatalf("%s: %v\n%s", s.Name, err, out)
		}
	}
	for _, s := range m.sites {
		if err := s.AwaitUp(within(t, patience), 2, 2+m.others); err != nil {
			t.Fatal(err)
		}
	}
}

// again starts the daemon of each site again after it has ended, from another folder if one is given.
func (m *managed) again(t *testing.T, how syscall.Signal, bin string) {
	t.Helper()
	for _, s := range m.sites {
		if err := s.Daemon.Signal(how); err != nil {
			t.Fatal(err)
		}
		<-s.Daemon.Exited()
		s.Bin = bin
		if err := s.Start(); err != nil {
			t.Fatal(err)
		}
		if err := s.AwaitUp(within(t, patience), 2, 2+m.others); err != nil {
			t.Fatal(err)
		}
	}
}

// Whatever is done to the site, the traffic of a pseudowire that it is not about loses nothing.
func TestNothingIsLostWhile(t *testing.T) {
	w := build(t, network{})
	dir := filepath.Dir(w.topology)
	m := &managed{world: w, file: filepath.Join(dir, "managed.yaml"), secrets: "old.secret"}
	for _, name := range []string{"old.secret", "new.secret"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("the "+name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	upgraded, next := *otherFlag, ""
	if upgraded == "" {
		upgraded, next = filepath.Join(dir, "upgraded"), "v9.9.9"
		compile := exec.Command("go", "build", "-ldflags", "-X github.com/pwd-project/pwd/internal/build.version="+next,
			"-o", upgraded+"/", "../../cmd/pwd", "../../cmd/pwctl")
		compile.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := compile.CombinedOutput(); err != nil {
			t.Fatalf("build another version: %v\n%s", err, out)
		}
	}
	w.write(m.text())
	w.start()
	version := func() string {
		st, err := w.sites[0].Client().Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return st.Version
	}

	for _, c := range []struct {
		name string
		do   func(*testing.T)
	}{
		{"cookies rotate", func(t *testing.T) {
			for _, s := range w.sites {
				// One that has just rotated keeps its old cookie for a while.
				ctx := within(t, patience)
				if err := netlab.Poll(ctx, "other cookies at "+s.Name, func() error {
					all, err := s.Client().RotateCookies(ctx, api.RotateRequest{})
					if err != nil || len(all) != 2 || all[0].Result != "done" || all[1].Result != "done" {
						return fmt.Errorf("%+v, %v", all, err)
					}
					return nil
				}); err != nil {
					t.Fatal(err)
				}
			}
		}},
		{"secrets rotate", func(t *testing.T) {
			for _, m.secrets = range []string{"[old.secret, new.secret]", "new.secret"} {
				m.apply(t)
			}
		}},
		{"50 other pseudowires come, change and go", func(t *testing.T) {
			m.others, m.mtu = 50, 1400
			m.apply(t)
			m.mtu = 1300
			m.apply(t)
			m.others = 0
			m.apply(t)
		}},
		{"the daemon is upgraded, and downgraded", func(t *testing.T) {
			was := version()
			m.again(t, syscall.SIGTERM, upgraded)
			if v := version(); next != "" && v != next {
				t.Errorf("upgraded to %s", v)
			}
			m.again(t, syscall.SIGTERM, bin)
			if v := version(); v != was {
				t.Errorf("downgraded to %s", v)
			}
		}},
		{"the daemon is killed again and again", func(t *testing.T) {
			for range *kills {
				m.again(t, syscall.SIGKILL, bin)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := w.flows(w.a, netlab.FlowOptions{Rate: rate, Size: 200})
			f.await(t, rate/5)
			c.do(t)
			f.await(t, rate/5)
			f.stop(t)
		})
	}
}
