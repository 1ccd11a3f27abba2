package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pwd-project/pwd/internal/topology"
)

// The documents of the tests: three good ones, and one with two faults.
var (
	docA = topo(gold, wireTo("a", "gold", 7))
	docB = topo(gold, wireTo("b", "gold", 7))
	docC = topo(gold, wireTo("c", "gold", 7))
	bad  = topo(gold, "a: {tunel: gold, attach: {dc1: {bridge: br-lan, vlan: 4095}, dc2: {bridge: br-lan}}}\n")
)

// inForce names the document that is in force.
func (p *place) inForce() string {
	for name, doc := range map[string]string{"A": docA, "B": docB, "C": docC} {
		if g := p.a.generation; g != nil && g.Hash == hashOf([]byte(doc)) {
			return name
		}
	}
	return "none"
}

// hangUp is SIGHUP, and returns when the file has been read.
func (p *place) hangUp() { p.do(p.a.readAgain) }

// A file that changed since it was last read is applied, one that did not is not;
// the status shows whether file and topology in force differ.
func TestFileIsAppliedWhenItChanged(t *testing.T) {
	p := lone(t)
	p.write(docA)
	p.start()
	steps := []struct {
		do      string
		what    func()
		inForce string
		differs bool
		fault   bool
	}{
		{"the first start", func() {}, "A", false, false},
		{"SIGHUP, unchanged", p.hangUp, "A", false, false},
		{"the file is written", func() { p.write(docB) }, "A", true, false},
		{"SIGHUP", p.hangUp, "B", false, false},
		{"pwctl apply C", func() { p.mustApply(docC) }, "C", true, false},
		{"SIGHUP, unchanged", p.hangUp, "C", true, false},
		{"restart, unchanged", p.restart, "C", true, false},
		{"SIGHUP, invalid", func() { p.write(bad); p.hangUp() }, "C", true, true},
		{"restart, invalid", p.restart, "C", true, true},
		{"SIGHUP, mended: it changed twice", func() { p.write(docB); p.hangUp() }, "B", false, false},
		{"the file is gone", func() { os.Remove(p.file); p.hangUp() }, "B", false, true},
		{"restart without the file", p.restart, "B", false, true},
		{"it is back", func() { p.write(docB); p.hangUp() }, "B", false, false},
		{"restart, changed", func() { p.shut(); p.write(docA); p.start() }, "A", false, false},
		{"restart without --topology", func() { p.shut(); p.opt.TopologyFile = ""; p.start() }, "A", false, false},
	}
	for i, s := range steps {
		s.what()
		st := p.status()
		fault := false
		for _, problem := range st.Problems {
			fault = fault || problem.Object == "topology file"
		}
		if got := p.inForce(); got != s.inForce || st.FileDiffers != s.differs || fault != s.fault {
			t.Fatalf("%d: %s: %s in force, differs %v, fault %v; want %s, %v, %v", i, s.do, got, st.FileDiffers, fault, s.inForce, s.differs, s.fault)
		}
	}
}

func (p *place) restart() {
	p.t.Helper()
	p.shut()
	p.start()
}

func (p *place) mustApply(text string) {
	p.t.Helper()
	p.do(func() { p.a.patience.fresh = 0 })
	if _, err := p.apply(text); err != nil {
		p.t.Fatal(err)
	}
}

// The first start with an invalid file fails with every diagnostic, and without a trace.
func TestFirstStartWithInvalidFile(t *testing.T) {
	p := lone(t)
	was := p.links()
	p.write(bad)
	err := p.try()
	invalid, ok := errors.AsType[*topology.InvalidError](err)
	if !ok || err != error(invalid) || len(invalid.Diagnostics) != 2 {
		t.Errorf("start: %v", err)
	}
	if p.turns.n > 0 || p.links() != was {
		t.Errorf("it did %q; links:\n%s", p.turns.calls, p.links())
	}
	os.Remove(p.file)
	if err := p.try(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("start without the file: %v", err)
	}
}

// The first start with a topology that the host refuses fails, and leaves nothing.
func TestFirstStartThatFails(t *testing.T) {
	p := lone(t)
	was := p.links()
	p.write(docA)
	p.turns.failAt = 1
	if err := p.try(); err == nil || !strings.Contains(err.Error(), errRefused.Error()) {
		t.Errorf("start: %v", err)
	}
	if p.links() != was || p.kernel.text() != "" {
		t.Errorf("left behind:\n%s\n%s", p.links(), p.kernel.text())
	}
	p.turns.reset(0)
	p.start()
}

// A changed file that the host refuses does not keep a site from running.
func TestLaterStartThatFails(t *testing.T) {
	p := lone(t)
	p.write(docA)
	p.start()
	p.shut()
	p.write(docB)
	p.turns.reset(0)
	p.make() // what a start takes that changes nothing
	p.a.Close()
	p.turns.reset(len(p.turns.calls) + 1)
	p.start()
	if got := p.inForce(); got != "A" {
		t.Errorf("%s in force", got)
	}
	if told := p.told("topology"); len(told) != 1 || !strings.Contains(told[0], "error file could not be applied, keeping the last one applied") {
		t.Errorf("told %q", told)
	}
	p.hangUp()
	if got := p.inForce(); got != "B" {
		t.Errorf("after another look: %s in force", got)
	}
}

// A generation that this version cannot read gives way to a valid file, and what
// is in the kernel stays.
func TestUnreadableGenerationGivesWay(t *testing.T) {
	for _, tt := range []struct {
		file string
		want string
	}{{docA, "A"}, {bad, ""}, {"", ""}} {
		t.Run(fmt.Sprintf("%.0q", tt.want), func(t *testing.T) {
			p := lone(t)
			p.write(docA)
			p.start()
			p.shut()
			was := p.links()
			s, err := openStore(p.opt.StateDir)
			if err != nil {
				t.Fatal(err)
			}
			g, err := s.generation()
			if err != nil {
				t.Fatal(err)
			}
			g.Document += "shape: round\n"
			if err := s.setGeneration(g); err != nil {
				t.Fatal(err)
			}
			s.close()
			if tt.file == "" {
				p.opt.TopologyFile = ""
			} else {
				p.write(tt.file)
			}
			if tt.want == "" {
				if err := p.try(); !errors.As(err, new(*topology.InvalidError)) {
					t.Errorf("start: %v", err)
				}
			} else {
				p.start()
				if got := p.inForce(); got != tt.want {
					t.Errorf("%s in force", got)
				}
			}
			if diff := cmp.Diff(lines(was), lines(p.links())); diff != "" {
				t.Errorf("links before and after:\n%s", diff)
			}
		})
	}
}
