package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pwd-project/pwd/internal/api"
)

// impatient has verifications fail within the test.
func (p *place) impatient() {
	p.do(func() { p.a.patience = patience{fresh: 50 * time.Millisecond, old: 200 * time.Millisecond} })
}

// codeOf is the code of an API error, or the error's text.
func codeOf(err error) string {
	if e, ok := errors.AsType[*api.Error](err); ok {
		return e.Code
	}
	return fmt.Sprint(err)
}

func TestNewPseudowireMayWaitForItsPeer(t *testing.T) {
	one, both := topo(gold, wireTo("a", "gold", 7)), topo(gold, wireTo("a", "gold", 7)+wireTo("b", "gold", 8))
	dc1, dc2 := pair(t, one)
	dc1.impatient()
	result, err := dc1.apply(both)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"b: waiting for dc2"}; !cmp.Equal(result.Waiting, want) || result.Generation != 2 {
		t.Errorf("generation %d, waiting %q, want 2 and %q", result.Generation, result.Waiting, want)
	}
	if st := dc1.status(); st.Pseudowires[1].Reason != "waiting for dc2" || st.Pseudowires[1].State != "down" {
		t.Errorf("b is %s: %q", st.Pseudowires[1].State, st.Pseudowires[1].Reason)
	}
	// The other site has all of its own, and says what is asked of it.
	want := `tunnel gold/dc1: dc1 asks for a pseudowire with the end ID "b" (Ethernet), which the topology here does not have; apply the same topology here and at dc1`
	if st := dc2.status(); st.Health != "healthy" || !cmp.Equal(st.Notes, []string{want}) {
		t.Errorf("dc2 is %s, %q; want %q", st.Health, st.Notes, want)
	}
	if told := strings.Join(dc2.told("tunnel gold/dc1"), "\n"); strings.Count(told, "a pseudowire of the peer's is not known here") != 1 {
		t.Errorf("told: %s", told)
	}
	// What is down and not touched is not waited for; the same once more is nothing.
	for i, text := range []string{both + "# a comment\n", both + "# a comment\n"} {
		result, err = dc1.apply(text)
		if err != nil || len(result.Waiting) > 0 || result.Generation != 3 {
			t.Errorf("apply %d: %+v, %v", i, result, err)
		}
	}
	if _, err := dc2.apply(both); err != nil {
		t.Fatal(err)
	}
	if st := dc2.status(); len(st.Notes) > 0 {
		t.Errorf("dc2 has it, and says %q", st.Notes)
	}
}

// What both ends have to agree on is changed at one of them first: its pseudowire waits
// for the other, and the change is no failure.
func TestTheFirstOfTwoSitesWaits(t *testing.T) {
	was := strings.Replace(topo(gold, wireTo("a", "gold", 7)), "a: {tunnel", "a: {mtu: 1400, tunnel", 1)
	is := strings.Replace(was, "1400", "1300", 1)
	dc1, dc2 := pair(t, was)
	dc1.do(func() { dc1.a.patience.fresh = 50 * time.Millisecond })
	result, err := dc1.apply(is)
	if err != nil {
		t.Fatal(err)
	}
	if len(result.Waiting) != 1 || !strings.Contains(result.Waiting[0], "1300") {
		t.Errorf("waiting: %q", result.Waiting)
	}
	if _, err := dc2.apply(is); err != nil {
		t.Fatal(err)
	}
	dc1.awaitUp()
	dc2.awaitUp()
}

func TestPeersCanBeRequired(t *testing.T) {
	one, both := topo(gold, wireTo("a", "gold", 7)), topo(gold, wireTo("a", "gold", 7)+wireTo("b", "gold", 8))
	dc1, dc2 := pair(t, one)
	dc1.impatient()
	ids := dc1.sessionIDs()
	require := api.ApplyRequest{Name: "t.yaml", Document: both, Disruptive: true, RequirePeers: true}
	_, err := dc1.a.Apply(t.Context(), require)
	if codeOf(err) != api.CodeApplyFailed || !strings.Contains(err.Error(), "b: waiting for dc2") {
		t.Errorf("without the peer: %v", err)
	}
	if diff := cmp.Diff(ids, dc1.sessionIDs()); diff != "" || strings.Contains(dc1.links(), "pw-b") || dc1.status().Generation != 1 {
		t.Errorf("not as it was: sessions %s\n%s\n%+v", diff, dc1.links(), dc1.status())
	}
	if _, err := dc2.apply(both); err != nil {
		t.Fatal(err)
	}
	dc1.do(func() { dc1.a.patience = defaultPatience })
	if result, err := dc1.a.Apply(t.Context(), require); err != nil || result.Generation != 2 {
		t.Errorf("with the peer: %+v, %v", result, err)
	}
}

// A topology after which a pseudowire does not come up again is taken back.
func TestFailedVerificationIsTakenBack(t *testing.T) {
	text := topo(gold, wireTo("a", "gold", 7))
	dc1, dc2 := pair(t, text)
	dc1.impatient()
	was := ""
	dc1.do(func() { was = dc1.state(dc1.a) })
	for _, tt := range []struct{ name, text, reason string }{
		{"nobody is there", strings.Replace(text, "192.0.2.2", "192.0.2.99", 1), "no answer from 192.0.2.99:1701 since"},
		{"another end ID", strings.Replace(text, "a: {tunnel", "a: {end-id: other, tunnel", 1), "waiting for dc2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := dc1.apply(tt.text)
			if codeOf(err) != api.CodeApplyFailed || !strings.Contains(err.Error(), tt.reason) {
				t.Errorf("apply: %v, want %q", err, tt.reason)
			}
			dc1.awaitUp()
			dc2.awaitUp()
			dc1.do(func() {
				if diff := cmp.Diff(lines(was), lines(dc1.state(dc1.a))); diff != "" {
					t.Errorf("the state before and after:\n%s", diff)
				}
			})
		})
	}
}

// What interrupts traffic needs a confirmation; a dry run never changes anything.
func TestDisruptionIsConfirmed(t *testing.T) {
	text := topo(gold, wireTo("a", "gold", 7))
	dc1, _ := pair(t, text)
	disruptive := strings.Replace(text, "a: {tunnel", "a: {cookie: 4, tunnel", 1)
	_, err := dc1.a.Apply(t.Context(), api.ApplyRequest{Name: "t.yaml", Document: disruptive})
	failure, _ := errors.AsType[*api.Error](err)
	if codeOf(err) != api.CodeNeedsConfirmation || len(failure.Changes) != 1 {
		t.Errorf("unconfirmed: %v", err)
	}
	result, err := dc1.a.Apply(t.Context(), api.ApplyRequest{Name: "t.yaml", Document: disruptive, DryRun: true})
	if err != nil || len(result.Changes) != 1 || result.Generation != 1 {
		t.Errorf("dry run: %+v, %v", result, err)
	}
	if diff := cmp.Diff([]api.Object{{Kind: "bridge", Name: "br-lan"}, {Kind: "tunnel", Name: "gold/dc2"}}, result.Untouched); diff != "" {
		t.Errorf("a dry run leaves untouched (-want +got):\n%s", diff)
	}
	if told := dc1.told("pseudowire a"); !cmp.Equal(told, []string{"info up"}) {
		t.Errorf("a was told of: %q", told)
	}
}

func TestInvalidTopologyIsRefusedWithEveryFault(t *testing.T) {
	p := lone(t)
	p.start()
	_, err := p.apply("apiVersion: pwd/v1\nkind: Topology\nmetadata: {name: x}\nsites: {dc1: {}, dc2: {}}\n")
	failure, _ := errors.AsType[*api.Error](err)
	if codeOf(err) != api.CodeInvalidTopology || len(failure.Diagnostics) < 2 {
		t.Errorf("apply: %+v", err)
	}
	if st := p.status(); st.Generation != 0 {
		t.Errorf("generation %d", st.Generation)
	}
}

// onTrial waits until a topology is in force that has yet to be verified.
func (p *place) onTrial() {
	p.t.Helper()
	p.await("a trial is under way", func(a *Agent) error {
		if a.trial == nil {
			return errors.New("none")
		}
		return nil
	})
}

// Applies are carried out one after the other.
func TestAppliesTakeTurns(t *testing.T) {
	dc1, _ := pair(t, topo(gold, wireTo("a", "gold", 7)))
	dc1.do(func() { dc1.a.patience = patience{fresh: 50 * time.Millisecond, old: time.Second} })
	type outcome struct {
		result *api.ApplyResult
		err    error
	}
	results := make(chan outcome, 3)
	for vlan := range 3 {
		go func() {
			r, err := dc1.apply(topo(gold, wireTo("a", "gold", 7)+wireTo("b", "gold", 10+vlan)))
			results <- outcome{r, err}
		}()
	}
	for want := range 3 {
		if o := <-results; o.err != nil || o.result.Generation != 2+want || len(o.result.Waiting) != 1 {
			t.Errorf("%+v, %v; want generation %d", o.result, o.err, 2+want)
		}
	}
}

// A topology file that is read again in the middle of an apply waits for its end.
func TestFileWaitsForTheApply(t *testing.T) {
	dc1, _ := pair(t, topo(gold, wireTo("a", "gold", 7)))
	dc1.do(func() { dc1.a.patience = patience{fresh: 100 * time.Millisecond, old: time.Second} })
	applied := make(chan error)
	go func() {
		_, err := dc1.apply(topo(gold, wireTo("a", "gold", 7)+wireTo("b", "gold", 8)))
		applied <- err
	}()
	dc1.onTrial()
	dc1.write(topo(gold, wireTo("a", "gold", 7)+wireTo("c", "gold", 9)))
	dc1.a.Reload()
	if err := <-applied; err != nil {
		t.Error(err)
	}
	dc1.await("the file is in force", func(a *Agent) error {
		if a.number() != 3 || a.wires["c"] == nil || a.wires["b"] != nil {
			return fmt.Errorf("generation %d", a.number())
		}
		return nil
	})
}

// A daemon that ends during the verification goes on with the topology before.
func TestStopDuringVerification(t *testing.T) {
	for _, killed := range []bool{false, true} {
		t.Run(fmt.Sprintf("killed %v", killed), func(t *testing.T) {
			dc1, _ := places(t)
			dc1.mortal = killed
			dc1.write(topo(gold, wireTo("a", "gold", 7)))
			dc1.start()
			bare := ""
			dc1.do(func() { bare = dc1.links() })
			results := make(chan error, 2)
			for range 2 { // the second waits for its turn
				go func() {
					_, err := dc1.apply(topo(gold, wireTo("a", "gold", 7)+wireTo("b", "gold", 8)))
					results <- err
				}()
			}
			dc1.onTrial()
			dc1.shut()
			var codes []string
			for range 2 {
				codes = append(codes, codeOf(<-results))
			}
			if !cmp.Equal(codes, []string{api.CodeApplyFailed, api.CodeInternal}) && !cmp.Equal(codes, []string{api.CodeInternal, api.CodeApplyFailed}) {
				t.Errorf("the applies end with %q", codes)
			}
			if _, err := dc1.a.Status(context.Background()); codeOf(err) != api.CodeInternal {
				t.Errorf("status of a daemon that has ended: %v", err)
			}
			dc1.start()
			if st := dc1.status(); st.Generation != 1 || len(st.Pseudowires) != 1 {
				t.Errorf("generation %d with %d pseudowires", st.Generation, len(st.Pseudowires))
			}
			if diff := cmp.Diff(lines(bare), lines(dc1.links())); diff != "" {
				t.Errorf("links before and after:\n%s", diff)
			}
		})
	}
}

// What cannot be kept is not in force.
func TestGenerationThatCannotBeWrittenIsTakenBack(t *testing.T) {
	p := lone(t)
	a := p.applied(mustParse(t, topo(gold, wireTo("a", "gold", 7))))
	was := p.state(a)
	p.within(func() error {
		if _, err := a.change(mustParse(t, topo(gold, wireTo("b", "gold", 7)))); err != nil {
			return err
		}
		a.store.dir += "/nowhere"
		if err := a.commit(); codeOf(err) != api.CodeApplyFailed {
			t.Errorf("commit: %v", err)
		}
		return nil
	})
	if diff := cmp.Diff(lines(was), lines(p.state(a))); diff != "" {
		t.Errorf("the state before and after:\n%s", diff)
	}
}

// When the way back fails too, it is told, and tried until it works.
func TestRollbackIsTriedAgain(t *testing.T) {
	p := lone(t)
	a := p.applied(mustParse(t, before))
	was := p.state(a)
	p.within(func() error {
		p.turns.reset(0)
		p.turns.failFrom = 8
		_, err := a.change(mustParse(t, after))
		if codeOf(err) != api.CodeRollbackFailed {
			t.Errorf("change: %v", err)
		}
		p.turns.failFrom = 0
		a.retry()
		return nil
	})
	if diff := cmp.Diff(lines(was), lines(p.state(a))); diff != "" {
		t.Errorf("the state before and after:\n%s", diff)
	}
}
