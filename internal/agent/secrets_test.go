package agent

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

const guarded = "gold: {sites: [dc1, dc2], secret-file: gold.secret}\n"

// secret writes a secret's file beside the topology file, for everybody but others.
func (p *place) secret(name, text string) {
	p.t.Helper()
	if err := os.WriteFile(filepath.Join(filepath.Dir(p.file), name), []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// connections are the IDs of the control connections, by tunnel.
func (p *place) connections() map[string]uint32 {
	ids := make(map[string]uint32)
	p.do(func() {
		for _, c := range p.a.control.Connections() {
			ids[c.Tunnel.Name] = c.LocalID
		}
	})
	return ids
}

// A secret is replaced at both sites, first by two of which either will do, with
// SIGHUP alone; connections and sessions stay. Nothing of it gets into the state.
func TestSecretIsReplacedLive(t *testing.T) {
	dc1, dc2 := places(t)
	both := []*place{dc1, dc2}
	doc := topo("gold: {sites: [dc1, dc2], secret-file: [gold.secret, other.secret]}\n", wireTo("a", "gold", 7))
	for _, p := range both {
		p.secret("gold.secret", "before-the-change\n")
		p.secret("other.secret", "before-the-change\n")
		p.write(doc)
		p.start()
	}
	for _, p := range both {
		p.awaitUp()
	}
	connections, sessions := dc1.connections(), dc1.sessionIDs()
	for _, step := range [][2]string{{"other.secret", "after-the-change\n"}, {"gold.secret", "after-the-change\n"}} {
		for _, p := range both {
			p.secret(step[0], step[1])
			if notes := strings.Join(p.status().Notes, "\n"); !strings.Contains(notes, "SIGHUP has it read again") {
				t.Errorf("%s: notes %q", p.site, notes)
			}
			p.hangUp()
			if told := p.told("topology"); !slices.Contains(told, "info secrets replaced: gold/"+map[string]string{"dc1": "dc2", "dc2": "dc1"}[p.site]) {
				t.Errorf("%s: told %q", p.site, told)
			}
			// A message each way: the circuit's status (SLI), which the peer has to acknowledge.
			p.linkDown("eth1")
			p.await("the circuit is down", func(a *Agent) error {
				if a.wires["a"].ready {
					return errors.New("still up")
				}
				return nil
			})
			p.linkUp("eth1")
			for _, p := range both {
				p.awaitUp()
			}
		}
	}
	if got := dc1.connections(); got["gold/dc2"] != connections["gold/dc2"] {
		t.Errorf("connection %v before, %v after", connections, got)
	}
	if got := dc1.sessionIDs(); got["a"] != sessions["a"] {
		t.Errorf("session %v before, %v after", sessions, got)
	}
	for _, p := range both {
		p.noSecret("before-the-change", "after-the-change")
	}
}

func (p *place) linkDown(name string) {
	p.t.Helper()
	if err := p.ns.Netlink().LinkSetDown(p.linkBy(name)); err != nil {
		p.t.Fatal(err)
	}
}

func (p *place) linkUp(name string) {
	p.t.Helper()
	if err := p.ns.Netlink().LinkSetUp(p.linkBy(name)); err != nil {
		p.t.Fatal(err)
	}
}

// noSecret looks for secrets in the state directory.
func (p *place) noSecret(secrets ...string) {
	p.t.Helper()
	err := filepath.WalkDir(p.opt.StateDir, func(path string, e os.DirEntry, err error) error {
		if err != nil && !errors.Is(err, fs.ErrNotExist) || err == nil && !e.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it is just being replaced
		}
		for _, s := range secrets {
			if strings.Contains(string(text), s) {
				p.t.Errorf("%s has a secret in it", path)
			}
		}
		return err
	})
	if err != nil {
		p.t.Error(err)
	}
}

// Peers whose secrets differ do not come together, and say why.
func TestSecretsThatDiffer(t *testing.T) {
	dc1, dc2 := places(t)
	for _, p := range []*place{dc1, dc2} {
		p.secret("gold.secret", "of "+p.site)
		p.write(topo(guarded, wireTo("a", "gold", 7)))
		p.start()
	}
	dc1.await("the peer is not trusted", func(a *Agent) error {
		if why := a.tunnels["gold/dc2"].reason; !strings.Contains(why, "does not fit the secret") {
			return errors.New(why)
		}
		return nil
	})
	dc2.secret("gold.secret", "of dc1\n")
	dc2.hangUp()
	dc1.awaitUp()
}

// A first start without the secret fails, at the place of its file's name; a later
// one waits for it and keeps what is established.
func TestStartWithoutTheSecret(t *testing.T) {
	dc1, dc2 := places(t)
	for _, p := range []*place{dc1, dc2} {
		p.write(topo(guarded, wireTo("a", "gold", 7)))
	}
	if err := dc1.try(); err == nil || !strings.Contains(err.Error(), "topology.yaml:8:42: tunnels.gold.secret-file: there is no file ") {
		t.Errorf("start: %v", err)
	}
	for _, p := range []*place{dc1, dc2} {
		p.secret("gold.secret", "shared")
		p.start()
	}
	dc1.awaitUp()
	dc2.awaitUp()
	connections := dc1.connections()
	dc1.shut()
	path := filepath.Join(filepath.Dir(dc1.file), "gold.secret")
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	dc1.start()
	if st := dc1.status(); st.Health != "degraded" || !strings.Contains(st.Problems[len(st.Problems)-1].What, "there is no file ") {
		t.Errorf("problems %+v", st.Problems)
	}
	if err := os.Rename(path+".away", path); err != nil {
		t.Fatal(err)
	}
	dc1.do(dc1.a.retry)
	dc1.awaitUp()
	if got := dc1.connections(); got["gold/dc2"] != connections["gold/dc2"] {
		t.Errorf("connection %v before, %v after", connections, got)
	}
}

// A secret that vanishes under a running daemon stays in force.
func TestSecretThatVanishes(t *testing.T) {
	dc1, dc2 := places(t)
	for _, p := range []*place{dc1, dc2} {
		p.secret("gold.secret", "shared")
		p.write(topo(guarded, wireTo("a", "gold", 7)))
		p.start()
	}
	dc1.awaitUp()
	ids := dc1.sessionIDs()
	os.Remove(filepath.Join(filepath.Dir(dc1.file), "gold.secret"))
	dc1.hangUp()
	dc1.hangUp()
	const line = "error a secret cannot be read, what was read before stays: "
	told := slices.DeleteFunc(dc1.told("topology"), func(s string) bool { return !strings.HasPrefix(s, line) })
	if len(told) != 1 {
		t.Errorf("told %q", told)
	}
	if st := dc1.status(); st.Health != "degraded" || len(st.Problems) != 1 || st.Problems[0].Object != "secret" {
		t.Errorf("problems %+v", st.Problems)
	}
	if got := dc1.sessionIDs(); got["a"] == 0 || got["a"] != ids["a"] {
		t.Errorf("sessions %v before, %v after", ids, got)
	}
	// A topology that needs it is refused.
	_, err := dc1.a.Apply(t.Context(), api.ApplyRequest{Name: "t.yaml", Document: topo(guarded, wireTo("b", "gold", 8)), Directory: filepath.Dir(dc1.file), Disruptive: true})
	if refused, ok := errors.AsType[*api.Error](err); !ok || refused.Code != api.CodeInvalidTopology || len(refused.Diagnostics) != 1 {
		t.Errorf("apply: %v", err)
	}
}

// Through the API the daemon reads the file, from the folder that it is told; who
// may not change the site learns nothing about files.
func TestApplyWithSecret(t *testing.T) {
	p := lone(t)
	p.start()
	dir := t.TempDir()
	doc := topo(guarded, wireTo("a", "gold", 7))
	request := api.ApplyRequest{Name: "t.yaml", Document: doc, Directory: dir, Disruptive: true}
	p.do(func() { p.a.patience.fresh = 0 })
	if _, err := p.a.Apply(t.Context(), request); err == nil {
		t.Error("applied without the secret")
	}
	ask := request
	ask.DryRun, ask.Untrusted = true, true
	if _, err := p.a.Apply(t.Context(), ask); err != nil {
		t.Errorf("asked by somebody who may only look: %v", err)
	}
	path := filepath.Join(dir, "gold.secret")
	if err := os.WriteFile(path, []byte("first-secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	result, err := p.a.Apply(t.Context(), request)
	if err != nil || len(result.Warnings) != 1 || !strings.Contains(result.Warnings[0].Message, "everybody") {
		t.Fatalf("apply: %+v, %v", result, err)
	}
	p.noSecret("first-secret")
	if err := os.WriteFile(path, []byte("second-secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, untrusted := range []bool{false, true} {
		ask.Untrusted = untrusted
		result, err := p.a.Apply(t.Context(), ask)
		if err != nil || (len(result.Changes) == 0) != untrusted {
			t.Errorf("untrusted %v: %+v, %v", untrusted, result, err)
		}
		for _, c := range result.Changes {
			if c.Name != "gold/dc2" || c.Impact != "live" || c.Detail != "secret changed" {
				t.Errorf("change %+v", c)
			}
		}
	}
	request.Directory = "relative"
	if _, err := p.a.Apply(t.Context(), request); err == nil {
		t.Error("a relative directory is taken")
	}
}

// What the datapath cannot carry is shown and not made, and an apply is refused.
func TestDatapathWithoutIP(t *testing.T) {
	p := lone(t)
	p.write(topo("gold: {sites: [dc1, dc2], encapsulation: ip}\n", wireTo("a", "gold", 7)))
	p.start()
	const reason = "the ebpf datapath of this host cannot carry L2TP over IP: use `encapsulation: udp` for tunnel gold, or another `datapath:`"
	if st := p.status(); len(st.Pseudowires) != 1 || st.Pseudowires[0].Reason != reason {
		t.Errorf("pseudowires %+v", st.Pseudowires)
	}
	p.mustApply(topo(gold, wireTo("a", "gold", 7)))
	_, err := p.apply(topo("gold: {sites: [dc1, dc2], encapsulation: ip}\n", wireTo("a", "gold", 7)+wireTo("b", "gold", 8)))
	if err == nil || !strings.Contains(err.Error(), "cannot come up") || !strings.Contains(err.Error(), reason) {
		t.Errorf("apply: %v", err)
	}
	p.shut()
	p.can = everything
	p.start()
	p.mustApply(topo("gold: {sites: [dc1, dc2], encapsulation: ip}\n", wireTo("a", "gold", 7)))
	p.do(func() {
		if e := p.a.tunnels["gold/dc2"].Encapsulation; e != l2tpv3.IP || p.a.wires["a"].fault != nil {
			t.Errorf("tunnel over %v, fault %v", e, p.a.wires["a"].fault)
		}
	})
}
