package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/loop"
)

// tryOut is pwctl apply -y --confirm.
func (p *place) tryOut(text string, d time.Duration) {
	p.t.Helper()
	r := api.ApplyRequest{Name: "applied.yaml", Document: text, Disruptive: true, ConfirmSeconds: d.Seconds(), By: "uid 7"}
	res, err := p.a.Apply(p.t.Context(), r)
	if err != nil {
		p.t.Fatal(err)
	}
	if res.ConfirmBy == nil || p.status().ConfirmBy == nil {
		p.t.Errorf("confirm by %v, status %v", res.ConfirmBy, p.status().ConfirmBy)
	}
}

// timeIsUp ends the probation as its time does.
func (p *place) timeIsUp() {
	p.t.Helper()
	p.do(func() {
		if !p.a.unconfirmed() {
			p.t.Error("nothing is to be confirmed")
			return
		}
		p.a.expire(p.a.generation.Confirm.Add(time.Millisecond))
	})
}

func (p *place) history() []string {
	p.t.Helper()
	all, err := p.a.History(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	var lines []string
	for _, g := range all {
		lines = append(lines, fmt.Sprintf("%d %v %s %s", g.Number, g.InForce, g.Cause, g.By))
	}
	return lines
}

func TestUnconfirmedTopologyIsTakenBack(t *testing.T) {
	p := lone(t)
	p.write(docA)
	p.start()
	p.impatient()
	before := ""
	p.do(func() { before = p.links() })
	p.tryOut(docB, time.Hour)
	if got := p.inForce(); got != "B" {
		t.Fatalf("%s is in force", got)
	}
	// Meanwhile nothing else is applied.
	if _, err := p.apply(docC); codeOf(err) != api.CodeUnconfirmed {
		t.Errorf("another apply: %v", err)
	}
	p.timeIsUp()
	if got := p.inForce(); got != "A" {
		t.Errorf("%s is in force", got)
	}
	p.do(func() {
		if diff := cmp.Diff(lines(before), lines(p.links())); diff != "" {
			t.Errorf("links before and after:\n%s", diff)
		}
	})
	if st := p.status(); st.ConfirmBy != nil || st.Generation != 3 {
		t.Errorf("generation %d, to be confirmed by %v", st.Generation, st.ConfirmBy)
	}
	want := []string{"3 true generation 2 was not confirmed ", "2 false applied uid 7", "1 false topology file "}
	if diff := cmp.Diff(want, p.history()); diff != "" {
		t.Error(diff)
	}
	p.restart()
	if got := p.inForce(); got != "A" {
		t.Errorf("after a restart %s is in force", got)
	}
}

// The time passes by the daemon's own clock.
func TestProbationEndsByItself(t *testing.T) {
	p := lone(t)
	p.write(docA)
	p.start()
	p.impatient()
	p.tryOut(docB, 200*time.Millisecond)
	p.await("A is in force again", func(*Agent) error {
		if got := p.inForce(); got != "A" {
			return errors.New(got)
		}
		return nil
	})
}

func TestConfirmedTopologyStays(t *testing.T) {
	p := lone(t)
	p.write(docA)
	p.start()
	p.impatient()
	p.tryOut(docB, time.Hour)
	g, err := p.a.Confirm(t.Context(), "uid 0")
	if err != nil || g.Number != 2 {
		t.Fatalf("%+v, %v", g, err)
	}
	if _, err := p.a.Confirm(t.Context(), "uid 0"); codeOf(err) != api.CodeNothingToDo {
		t.Errorf("a second time: %v", err)
	}
	p.do(func() {
		if err := p.a.store.read(probationFile, new(probation)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("when it would have ended is still kept: %v", err)
		}
	})
	p.do(func() { p.a.expire(time.Now().Add(48 * time.Hour)) })
	p.restart()
	if got := p.inForce(); got != "B" {
		t.Errorf("%s is in force", got)
	}
}

// The deadline outlives the daemon; what passes while it is away is kept at its start.
func TestProbationOutlivesTheDaemon(t *testing.T) {
	p := lone(t)
	p.write(docA)
	p.start()
	p.impatient()
	p.tryOut(docB, time.Hour)
	p.restart()
	if st := p.status(); p.inForce() != "B" || st.ConfirmBy == nil {
		t.Fatalf("after a restart %s is in force, to be confirmed by %v", p.inForce(), st.ConfirmBy)
	}
	p.do(func() {
		past := time.Now().Add(-time.Second)
		g := *p.a.generation
		g.Confirm = &past
		p.a.generation = &g
		if err := errors.Join(p.a.keepProbation(time.Hour), p.a.store.setGeneration(&g)); err != nil {
			t.Error(err)
		}
	})
	p.restart()
	p.await("A is in force again", func(*Agent) error {
		if got := p.inForce(); got != "A" {
			return errors.New(got)
		}
		return nil
	})
}

// Where the first topology of all cannot be written, none is in force, and none on probation.
func TestNoGenerationHasNoProbation(t *testing.T) {
	var none *generation
	if by := none.confirmBy(); by != nil {
		t.Error(by)
	}
}

// The deadline is none of the clock's that people set: not while the daemon runs, and not while it is away. After
// another boot, of which nothing but that clock is known, it is never later than was asked for.
func TestProbationAndASetClock(t *testing.T) {
	const year = 365 * 24 * time.Hour
	p := lone(t)
	p.write(docA)
	p.start()
	p.impatient()
	p.tryOut(docB, time.Hour)
	stored := func(changeBoot bool, shift time.Duration) {
		t.Helper()
		p.do(func() {
			asked := time.Now().Add(time.Hour)
			p.a.generation.Confirm = &asked
			if err := p.a.keepProbation(time.Hour); err != nil {
				t.Error(err)
			}
			g, by := *p.a.generation, time.Now().Add(shift).Round(0)
			g.Confirm = &by
			if err := p.a.store.setGeneration(&g); err != nil {
				t.Error(err)
			}
			if !changeBoot {
				return
			}
			var kept probation
			if err := p.a.store.read(probationFile, &kept); err != nil {
				t.Error(err)
			}
			kept.Boot = "another"
			if err := p.a.store.replace(probationFile, &kept, true); err != nil {
				t.Error(err)
			}
		})
	}
	for name, tt := range map[string]struct {
		reboot      bool
		shift       time.Duration
		least, most time.Duration
	}{
		"set back by a year":                 {false, year, 50 * time.Minute, time.Hour},
		"set forward by a year":              {false, -year, 50 * time.Minute, time.Hour},
		"set back by a year before a reboot": {true, year, 50 * time.Minute, time.Hour},
		"right, and a reboot":                {true, 20 * time.Minute, 10 * time.Minute, 20 * time.Minute},
	} {
		stored(tt.reboot, tt.shift)
		p.restart()
		if got := p.inForce(); got != "B" {
			t.Fatalf("%s: %s is in force", name, got)
		}
		if left := time.Until(*p.status().ConfirmBy); left < tt.least || left > tt.most {
			t.Errorf("%s: it is taken back in %v, want between %v and %v", name, left, tt.least, tt.most)
		}
		p.do(func() {
			if !strings.Contains(p.a.generation.Confirm.String(), "m=") {
				t.Errorf("%s: %v has no monotonic clock's reading", name, p.a.generation.Confirm)
			}
		})
	}
	stored(true, -year)
	p.restart()
	p.await("A is in force again", func(*Agent) error {
		if got := p.inForce(); got != "A" {
			return errors.New(got)
		}
		return nil
	})
}

// What a site blocked for a loop ends in time, though the clock was set back.
func TestLoopBlocksAndASetClock(t *testing.T) {
	now := time.Now()
	late, soon := now.Add(1000*time.Hour), now.Add(time.Minute)
	all := []drain{{Name: "a", Until: &late}, {Name: "b", Until: &soon}, {Name: "c"}}
	boundDrains(now, all)
	if !all[0].Until.Equal(now.Add(loop.LongestHold)) || !all[1].Until.Equal(soon) || all[2].Until != nil {
		t.Errorf("%v", all)
	}
}

// The topology file waits for the end of the probation, at SIGHUP and at a start.
func TestFileWaitsForTheProbation(t *testing.T) {
	for _, restart := range []bool{false, true} {
		p := lone(t)
		p.write(docA)
		p.start()
		p.impatient()
		p.tryOut(docB, time.Hour)
		p.write(docC)
		if restart {
			p.restart()
		} else {
			p.hangUp()
		}
		if got := p.inForce(); got != "B" {
			t.Errorf("during the probation %s is in force", got)
		}
		p.timeIsUp()
		p.await("the file is in force", func(*Agent) error {
			if got := p.inForce(); got != "C" {
				return errors.New(got)
			}
			return nil
		})
		p.shut()
	}
}

// A file that says what was rolled back does not bring it back at a restart.
func TestRolledBackFileCountsAsRead(t *testing.T) {
	p := lone(t)
	p.write(docA)
	p.start()
	p.impatient()
	p.write(docB)
	p.tryOut(docB, time.Hour)
	p.timeIsUp()
	p.restart()
	if got := p.inForce(); got != "A" {
		t.Errorf("%s is in force", got)
	}
	p.hangUp()
	if got := p.inForce(); got != "A" {
		t.Errorf("after SIGHUP %s is in force", got)
	}
	p.write(docC)
	p.hangUp()
	if got := p.inForce(); got != "C" {
		t.Errorf("after a change of the file %s is in force", got)
	}
}

func TestRollback(t *testing.T) {
	p := lone(t)
	p.opt.TopologyFile = ""
	p.start()
	p.impatient()
	rollback := func(n int) error {
		_, err := p.a.Rollback(t.Context(), api.RollbackRequest{Generation: n, By: "uid 0"})
		return err
	}
	if err := rollback(0); codeOf(err) != api.CodeNothingToDo {
		t.Errorf("without a topology: %v", err)
	}
	if _, err := p.a.Apply(t.Context(), api.ApplyRequest{Document: docA, Disruptive: true, ConfirmSeconds: 60}); codeOf(err) != api.CodeNothingToDo {
		t.Errorf("the first, to be confirmed: %v", err)
	}
	p.mustApply(docA)
	if err := rollback(0); codeOf(err) != api.CodeNothingToDo {
		t.Errorf("from the first: %v", err)
	}
	p.mustApply(docB)
	p.mustApply(docC)
	for _, tt := range []struct {
		number int
		want   string
	}{{0, "B"}, {0, "C"}, {1, "A"}, {0, "C"}} {
		if err := rollback(tt.number); err != nil || p.inForce() != tt.want {
			t.Errorf("rollback %d: %v, %s is in force, want %s", tt.number, err, p.inForce(), tt.want)
		}
	}
	if err := rollback(99); codeOf(err) != api.CodeNotFound {
		t.Errorf("to what is not kept: %v", err)
	}
	p.tryOut(docA, time.Hour)
	if err := rollback(0); err != nil || p.inForce() != "C" || p.status().ConfirmBy != nil {
		t.Errorf("during a probation: %v, %s is in force", err, p.inForce())
	}
}

func TestHistoryIsBounded(t *testing.T) {
	s, err := openStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	for n := 1; n <= keptGenerations+20; n++ {
		if err := s.keepGeneration(&generation{Number: n}); err != nil {
			t.Fatal(err)
		}
	}
	kept, err := s.history()
	if err != nil || len(kept) != keptGenerations || kept[0].Number != keptGenerations+20 || kept[keptGenerations-1].Number != 21 {
		t.Errorf("%d kept, %v", len(kept), err)
	}
}
