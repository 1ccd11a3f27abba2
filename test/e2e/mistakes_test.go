package e2e

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/test/site"
)

var writeMistakes = flag.Bool("write-mistakes", false, "write what TestMistakes saw into docs/troubleshooting.md")

// mistake is what somebody got wrong, and where they look.
type mistake struct {
	name string
	// make makes it; it may start daemons, and returns where to look: a program and its
	// arguments, asked again until all of leads are in its answer.
	make  func(*setting) (at *site.Site, look []string)
	leads []string
}

// setting is a world that is not started, with a file for each site.
type setting struct {
	*world
	t *testing.T
}

// file gives a site a topology of its own, with pairs of what is to be replaced in it.
func (s *setting) file(at int, replace ...string) string {
	s.t.Helper()
	text := s.text("")
	for i := 0; i < len(replace); i += 2 {
		if !strings.Contains(text, replace[i]) {
			s.t.Fatalf("the topology has no %q", replace[i])
		}
		text = strings.ReplaceAll(text, replace[i], replace[i+1])
	}
	name := filepath.Join(filepath.Dir(s.topology), fmt.Sprintf("topology-%d.yaml", at+1))
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
	s.sites[at].Topology = name
	return name
}

// secret makes a file of that mode beside the topologies.
func (s *setting) secret(name, text string, mode os.FileMode) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(filepath.Dir(s.topology), name), []byte(text), mode); err != nil {
		s.t.Fatal(err)
	}
}

// firewall has a site drop what comes for UDP port 1701 from others, without a word. The rules are
// those of routing: not every host has a firewall's.
func (s *setting) firewall(at *site.Site) {
	s.t.Helper()
	for _, rule := range []string{"add pref 10 lookup local", "del pref 0", "add pref 5 iif eth0 ipproto udp dport 1701 blackhole"} {
		if out, err := at.NS.Run(s.t.Context(), "ip", append([]string{"rule"}, strings.Fields(rule)...)...); err != nil {
			s.t.Fatal(err, out)
		}
	}
}

// freeClock has the kernel know that nothing keeps its clock, which runs as before.
func (s *setting) freeClock() {
	s.t.Helper()
	var was unix.Timex
	if _, err := unix.Adjtimex(&was); err != nil || was.Status&unix.STA_UNSYNC != 0 {
		netlab.Missing(s.t, "the clock's state", err)
		return
	}
	set := func(status int32) error {
		_, err := unix.Adjtimex(&unix.Timex{Modes: unix.ADJ_STATUS, Status: status})
		return err
	}
	netlab.Missing(s.t, "a clock that may be set", set(was.Status|unix.STA_UNSYNC))
	s.t.Cleanup(func() { _ = set(was.Status) })
}

func (s *setting) start(sites ...int) {
	s.t.Helper()
	for _, i := range sites {
		if err := s.sites[i].Start(); err != nil {
			s.t.Fatal(err)
		}
	}
}

func pwctl(s *setting, at int, args ...string) (*site.Site, []string) {
	return s.sites[at], append([]string{"pwctl", "--socket", s.sites[at].Socket()}, args...)
}

func daemon(s *setting, at int, args ...string) (*site.Site, []string) {
	dir := s.sites[at].Dir
	return s.sites[at], append([]string{"pwd", "--run-dir", dir + "/run", "--state-dir", dir + "/state", "--bpf-dir", dir + "/bpf"}, args...)
}

const gold = "gold: {sites: [dc1, dc2]}"

// withSecret is a topology's tunnel gold with a secret.
func withSecret(name string) string {
	return "gold: {sites: [dc1, dc2], secret-file: " + name + "}"
}

var mistakes = []mistake{
	{"The site's name is not in the topology", func(s *setting) (*site.Site, []string) {
		return daemon(s, 0, "--site", "dc9", "--topology", s.topology, "--check")
	}, []string{"no site dc9", "dc1", "dc2"}},
	{"The topology file is not there", func(s *setting) (*site.Site, []string) {
		return daemon(s, 0, "--site", "dc1", "--topology", filepath.Join(filepath.Dir(s.topology), "topolgy.yaml"), "--check")
	}, []string{"topolgy.yaml", "no such file"}},
	{"A key is misspelt", func(s *setting) (*site.Site, []string) {
		return daemon(s, 0, "--site", "dc1", "--topology", s.file(0, "tunnel: gold", "tunel: gold"), "--check")
	}, []string{"unknown key tunel", "did you mean tunnel?"}},
	{"Two pseudowires want the same VLAN", func(s *setting) (*site.Site, []string) {
		return daemon(s, 0, "--site", "dc1", "--topology", s.file(0, "dc1: {interface: eth2}", "dc1: {bridge: br-lan, vlan: 100}"), "--check")
	}, []string{"error", "tenant-a", "tenant-b"}},
	{"No daemon runs here", func(s *setting) (*site.Site, []string) {
		return pwctl(s, 0, "status")
	}, []string{"pwd is not running", "help:"}},
	{"Two daemons for one site", func(s *setting) (*site.Site, []string) {
		s.start(0)
		_, look := daemon(s, 0, "--site", "dc1", "--topology", s.topology)
		if err := netlab.Poll(within(s.t, upWithin), "the first one serves", func() error {
			_, err := s.sites[0].Client().Status(s.t.Context())
			return err
		}); err != nil {
			s.t.Fatal(err)
		}
		return s.sites[0], look
	}, []string{"another daemon serves", "stop it first"}},
	{"The kernel's datapath where the kernel has none", func(s *setting) (*site.Site, []string) {
		return daemon(s, 0, "--site", "dc1", "--topology", s.topology, "--datapath", "kernel")
	}, []string{"l2tp_eth"}},
	{"The other site's daemon does not run", func(s *setting) (*site.Site, []string) {
		s.start(0)
		return pwctl(s, 0, "status")
	}, []string{"no answer from 192.0.2.2:1701", "start pwd at dc2", "nothing listens on UDP port 1701"}},
	{"The other site has no way back", func(s *setting) (*site.Site, []string) {
		if out, err := s.sites[1].NS.Run(s.t.Context(), "ip", "route", "add", "blackhole", "192.0.2.1/32"); err != nil {
			s.t.Fatal(err, out)
		}
		s.start(0, 1)
		return pwctl(s, 0, "status")
	}, []string{"tunnel gold to dc2: connecting: no answer from 192.0.2.2:1701"}},
	{"Firewalls do not let UDP port 1701 in", func(s *setting) (*site.Site, []string) {
		for _, at := range s.sites {
			s.firewall(at)
		}
		s.start(0, 1)
		return pwctl(s, 0, "status")
	}, []string{"tunnel gold to dc2: connecting: no answer from 192.0.2.2:1701", "does UDP port 1701 get through to 192.0.2.2?"}},
	{"The other site's address is wrong", func(s *setting) (*site.Site, []string) {
		s.file(0, `"192.0.2.2"`, `"192.0.2.22"`)
		s.start(0, 1)
		return pwctl(s, 0, "status")
	}, []string{"no answer from 192.0.2.22:1701", "is pwd running at dc2"}},
	{"This site's address is not this host's", func(s *setting) (*site.Site, []string) {
		s.file(0, `"192.0.2.1"`, `"192.0.2.11"`)
		s.start(0)
		return pwctl(s, 0, "status")
	}, []string{"192.0.2.11", "is not an address of this host"}},
	{"Both hosts believe to be the same site", func(s *setting) (*site.Site, []string) {
		s.sites[1].Name = "dc1"
		s.start(0, 1)
		return pwctl(s, 1, "status")
	}, []string{"192.0.2.1", "is not an address of this host"}},
	{"The secrets differ", func(s *setting) (*site.Site, []string) {
		s.secret("one.secret", "one", 0o600)
		s.secret("two.secret", "two", 0o600)
		s.file(0, gold, withSecret("one.secret"))
		s.file(1, gold, withSecret("two.secret"))
		s.start(0, 1)
		return pwctl(s, 0, "status")
	}, []string{"tunnel gold to dc2", "secret"}},
	{"One end has a secret, the other has none", func(s *setting) (*site.Site, []string) {
		s.secret("one.secret", "one", 0o600)
		s.file(0, gold, withSecret("one.secret"))
		s.file(1)
		s.start(0, 1)
		return pwctl(s, 0, "status")
	}, []string{"tunnel gold to dc2", "secret"}},
	{"The secret's file is not there", func(s *setting) (*site.Site, []string) {
		return daemon(s, 0, "--site", "dc1", "--topology", s.file(0, gold, withSecret("none.secret")), "--check")
	}, []string{"there is no file", "none.secret", "openssl rand"}},
	{"Everybody can read the secret", func(s *setting) (*site.Site, []string) {
		s.secret("open.secret", "one", 0o644)
		return daemon(s, 0, "--site", "dc1", "--topology", s.file(0, gold, withSecret("open.secret")), "--check")
	}, []string{"open.secret", "chmod"}},
	{"The attached interface is not there", func(s *setting) (*site.Site, []string) {
		s.file(0, "dc1: {interface: eth2}", "dc1: {interface: eth9}")
		s.start(0, 1)
		return pwctl(s, 0, "status")
	}, []string{"gold                 dc2   established", "pseudowire tenant-b: down: bridge: interface eth9", "not there"}},
	{"Only one site has the new file", func(s *setting) (*site.Site, []string) {
		text := s.file(1)
		if err := os.WriteFile(text, []byte(strings.Split(s.text(""), "  tenant-b:")[0]), 0o644); err != nil {
			s.t.Fatal(err)
		}
		s.file(0)
		s.start(0, 1)
		return pwctl(s, 0, "status")
	}, []string{"pseudowire tenant-b: down: waiting for dc2\n"}},
	{"The MTUs differ", func(s *setting) (*site.Site, []string) {
		s.file(0, "tunnel: gold", "tunnel: gold\n    mtu: 1400")
		s.file(1, "tunnel: gold", "tunnel: gold\n    mtu: 1300")
		s.start(0, 1)
		return pwctl(s, 0, "status")
	}, []string{"pseudowire tenant-a", "1400", "1300"}},
	{"The types differ", func(s *setting) (*site.Site, []string) {
		s.file(0, "tunnel: gold", "tunnel: gold\n    type: ethernet-vlan")
		s.file(1)
		s.start(0, 1)
		return pwctl(s, 0, "status")
	}, []string{"pseudowire tenant-a", "Ethernet VLAN"}},
	{"Another program has UDP port 1701", func(s *setting) (*site.Site, []string) {
		var c net.PacketConn
		if err := s.sites[0].NS.Do(func() (err error) {
			c, err = net.ListenPacket("udp4", "192.0.2.1:1701")
			return err
		}); err != nil {
			s.t.Fatal(err)
		}
		s.t.Cleanup(func() { c.Close() })
		s.start(0, 1)
		return pwctl(s, 0, "status")
	}, []string{"1701", "in use"}},
	{"Nothing keeps the clock", func(s *setting) (*site.Site, []string) {
		s.freeClock()
		s.start(0, 1)
		s.awaitUp()
		return pwctl(s, 0, "doctor")
	}, []string{"warning  clock: nothing keeps the clock", "run chrony or systemd-timesyncd"}},
	{"Frames do not fit the path", func(s *setting) (*site.Site, []string) {
		for _, l := range s.underlay {
			l.MTU(1400)
		}
		s.start(0, 1)
		s.awaitUp()
		return pwctl(s, 0, "doctor")
	}, []string{"travel in fragments", "raise the underlay's MTU to 1558"}},
}

// What users get wrong leads them to what is wrong.
func TestMistakes(t *testing.T) {
	beside(t)
	if len(mistakes) < 20 {
		t.Errorf("%d mistakes", len(mistakes))
	}
	seen := make([]string, len(mistakes))
	t.Run("each", func(t *testing.T) {
		for i, m := range mistakes {
			t.Run(m.name, func(t *testing.T) {
				t.Parallel()
				s := &setting{world: build(t, network{}), t: t}
				at, look := m.make(s)
				err := netlab.Poll(within(t, upWithin), "a lead", func() error {
					answer := ask(t, at, look)
					for _, lead := range m.leads {
						if !strings.Contains(answer, lead) {
							return fmt.Errorf("no %q in what %s says:\n%s", lead, look[0], answer)
						}
					}
					seen[i] = s.shown(look, answer)
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
	})
	if *writeMistakes {
		document(t, seen)
	}
}

// ask runs a program at a site and returns all that it says. What it ends with is its own affair.
func ask(t *testing.T, at *site.Site, look []string) string {
	t.Helper()
	p, err := at.NS.Start(look[0], exec.Command(filepath.Join(bin, look[0]), look[1:]...))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Kill()
	if err := p.Wait(within(t, upWithin)); err != nil && !errors.As(err, new(*exec.ExitError)) {
		t.Fatal(err)
	}
	return p.Output()
}

// shown is a look and its answer without what is the test's alone.
func (s *setting) shown(look []string, answer string) string {
	var line []string
	for i := 0; i < len(look); i++ {
		switch look[i] {
		case "--run-dir", "--state-dir", "--bpf-dir", "--socket":
			i++
		default:
			line = append(line, look[i])
		}
	}
	text := "$ " + strings.Join(line, " ") + "\n" + answer
	text = strings.ReplaceAll(text, filepath.Dir(s.topology)+"/", "")
	text = regexp.MustCompile(`topology-[12]\.yaml`).ReplaceAllString(text, "topology.yaml")
	return regexp.MustCompile(`(?m)[ \t]+$`).ReplaceAllString(text, "")
}

// document writes what was seen between the marks of the page.
func document(t *testing.T, seen []string) {
	const page, begin, end = "../../docs/troubleshooting.md", "<!-- mistakes -->\n", "<!-- end -->\n"
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, _ := strings.Cut(string(b), begin)
	_, after, _ := strings.Cut(rest, end)
	var text strings.Builder
	for i, m := range mistakes {
		fmt.Fprintf(&text, "\n### %s\n\n```\n%s```\n", m.name, seen[i])
	}
	if err := os.WriteFile(page, []byte(before+begin+text.String()+"\n"+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}
