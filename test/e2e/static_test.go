package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/test/site"
)

// staticText is a topology of tenant-b as static pseudowire between dc1 and dc2.
func (w *world) staticText(encapsulation, cookies string, foreign bool) string {
	ports := [2]string{", port: 5000", ", port: 6000"}
	if encapsulation == "ip" {
		ports = [2]string{}
	}
	far, attach := "{address: %q}", "{interface: eth2}"
	if foreign {
		far, attach = "{address: %q, managed: false}", "{}"
	}
	return fmt.Sprintf(`apiVersion: pwd/v1
kind: Topology
metadata: {name: static}
sites:
  dc1: {address: %q}
  dc2: `+far+`
tunnels:
  plain:
    sites: [dc1, dc2]
    encapsulation: %s
    static:
      dc1: {connection-id: 10%s}
      dc2: {connection-id: 20%s}
pseudowires:
  tenant-b:
    tunnel: plain
    static:
      dc1: {session-id: 100, cookie%s}
      dc2: {session-id: 200, cookie: "a1a2a3a4"}
    attach: {dc1: {interface: eth2}, dc2: %s}
`, w.address[0], w.address[1], encapsulation, ports[0], ports[1], cookies, attach)
}

// Two daemons that are told everything carry frames without a control message.
func TestStatic(t *testing.T) {
	beside(t)
	pairs, encapsulations := datapaths(), []string{"udp", "ip"}
	for i, pair := range pairs {
		for k, encapsulation := range encapsulations {
			if inVM && i != k {
				continue // machines are slow; TestStaticAgainstTheKernel has the others
			}
			t.Run(fmt.Sprintf("%s-%s over %s", pair[0], pair[1], encapsulation), func(t *testing.T) {
				w := build(t, network{datapaths: pair})
				file := filepath.Join(filepath.Dir(w.topology), "here.cookie")
				if err := os.WriteFile(file, []byte("0x0123456789abcdef\n"), 0o600); err != nil {
					t.Fatal(err)
				}
				w.write(w.staticText(encapsulation, "-file: here.cookie", false))
				for _, s := range w.sites {
					if err := s.Start(); err != nil {
						t.Fatal(err)
					}
				}
				for _, s := range w.sites {
					if err := s.AwaitUp(within(t, upWithin), 1, 1); err != nil {
						t.Fatal(err)
					}
				}
				w.ping(w.b, netlab.PingOptions{})
				s := w.sites[0]
				w.toldStatic(s)

				// Another cookie, which both read.
				if err := os.WriteFile(file, []byte("fedcba9876543210"), 0o600); err != nil {
					t.Fatal(err)
				}
				diff, err := s.Pwctl(t.Context(), "diff", "-f", w.topology)
				if err == nil || !strings.Contains(diff, "cookies changed") || strings.Contains(diff, "fedcba") {
					t.Errorf("diff: %v\n%s", err, diff)
				}
				for _, s := range w.sites {
					if out, err := s.Pwctl(t.Context(), "apply", "-y", "-f", w.topology); err != nil {
						t.Fatalf("apply: %v\n%s", err, out)
					}
				}
				w.echoes(t, w.b)

				// A daemon that comes back finds all as it was.
				if err := s.Stop(t.Context()); err != nil {
					t.Fatal(err)
				}
				if err := s.Start(); err != nil {
					t.Fatal(err)
				}
				if err := s.AwaitUp(within(t, upWithin), 1, 1); err != nil {
					t.Fatal(err)
				}
				w.echoes(t, w.b)
				sessions, err := s.Client().Sessions(t.Context())
				if err != nil || len(sessions) != 1 || sessions[0].ReceivedFrames == 0 || sessions[0].LocalSessionID != 100 || sessions[0].CookieOctets != 8 {
					t.Errorf("sessions: %+v, %v", sessions, err)
				}
			})
		}
	}
}

// toldStatic wants to be told what a static pseudowire is worth, and not its cookies.
func (w *world) toldStatic(s *site.Site) {
	w.t.Helper()
	for _, command := range []string{"status", "describe pseudowire tenant-b", "describe tunnel plain", "get sessions -o json", "events"} {
		out, err := s.Pwctl(w.t.Context(), strings.Fields(command)...)
		if err != nil || !strings.Contains(out, "static") {
			w.t.Errorf("pwctl %s: %v\n%s", command, err, out)
		}
		for _, cookie := range []string{"0123456789abcdef", "a1a2a3a4", "AAECA"} {
			if strings.Contains(out, cookie) {
				w.t.Errorf("pwctl %s shows a cookie:\n%s", command, out)
			}
		}
	}
}

// A tunnel becomes static and signalled again under a daemon that runs.
func TestStaticComesAndGoes(t *testing.T) {
	beside(t)
	if inVM {
		t.Skip("the same on every kernel")
	}
	w := build(t, network{}).start()
	apply := func(text string, tunnels, pseudowires int) {
		t.Helper()
		w.write(text)
		// Both at once: what was up has to be up again.
		errs := make(chan error, len(w.sites))
		for _, s := range w.sites {
			go func() {
				out, err := s.Pwctl(t.Context(), "apply", "-y", "-f", w.topology)
				if err != nil {
					err = fmt.Errorf("apply at %s: %w\n%s", s.Name, err, out)
				}
				errs <- err
			}()
		}
		for range w.sites {
			if err := <-errs; err != nil {
				t.Fatal(err)
			}
		}
		for _, s := range w.sites {
			if err := s.AwaitUp(within(t, upWithin), tunnels, pseudowires); err != nil {
				t.Fatal(err)
			}
		}
		w.echoes(t, w.b)
	}
	static := w.staticText("udp", `: "0123456789abcdef"`, false)
	apply(static, 1, 1)
	apply(strings.ReplaceAll(static, "session-id: 100", "session-id: 101"), 1, 1)
	apply(strings.ReplaceAll(static, "port: 5000", "port: 5001"), 1, 1)
	signalled := strings.ReplaceAll(w.text(""), "silver", "plain")
	apply(signalled, 2, 2)
	apply(static, 1, 1)
}

// At a start a static tunnel leaves the sessions of signalled ones alone: no frame of either is lost.
func TestStaticBesideSignalledRestarts(t *testing.T) {
	beside(t)
	w := build(t, network{})
	w.write(strings.NewReplacer(
		"gold: {sites: [dc1, dc2]}", "gold: {sites: [dc1, dc2], static: {dc1: {connection-id: 10, port: 5000}, dc2: {connection-id: 20, port: 6000}}}",
		"    tunnel: gold\n", "    tunnel: gold\n    static: {dc1: {session-id: 100, cookie: \"a1a2a3a4\"}, dc2: {session-id: 200}}\n",
	).Replace(w.text("")))
	w.start()
	all := []flows{w.flows(w.a, netlab.FlowOptions{Rate: steady, Size: 200}), w.flows(w.b, netlab.FlowOptions{Rate: steady, Size: 200})}
	for _, s := range w.sites {
		s.Daemon.Kill()
		if err := s.Start(); err != nil {
			t.Fatal(err)
		}
		w.awaitUp()
		for _, f := range all {
			f.await(t, steady/5)
		}
	}
	for _, f := range all {
		f.stop(t)
	}
}
