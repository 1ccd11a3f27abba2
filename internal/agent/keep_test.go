package agent

import (
	"errors"
	"slices"
	"testing"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// faulty is a Keeper whose place hangs.
type faulty struct{ Keeper }

func (faulty) Fault() (string, error)       { return "start it again", errors.New("the holder: it hangs") }
func (faulty) Places() (store, holder bool) { return true, false }

// That a place does not keep what it is to keep is a problem where something hangs on it.
func TestKeepProblem(t *testing.T) {
	a := newAgent(Options{Keeper: faulty{}})
	if got := a.keepProblem(); got != nil {
		t.Errorf("without the kernel's datapath: %+v", got)
	}
	a.datapaths[pseudowire.Kernel] = &fakeDatapath{}
	want := []api.Problem{{Object: "restart", What: "the holder: it hangs", Fix: "start it again"}}
	if got := a.keepProblem(); !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
}
