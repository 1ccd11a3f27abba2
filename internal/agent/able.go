package agent

import (
	"errors"
	"fmt"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// UnableError says that a datapath of this host cannot carry a pseudowire as the
// topology wants it. Trying again does not help.
type UnableError struct {
	Kind pseudowire.Kind
	// What it cannot, in words, and Help how to go on.
	What, Help string
}

func (e *UnableError) Error() string {
	return fmt.Sprintf("the %s datapath of this host cannot %s: %s", e.Kind, e.What, e.Help)
}

// unable says that the wire's datapath cannot carry it.
func (w *wire) unable() bool { return errors.As(w.fault, new(*UnableError)) }

// able compares what the topology wants of a pseudowire with what its datapath
// can. The error is an *UnableError.
func (a *Agent) able(w *wire, dp pseudowire.Datapath) error {
	can := dp.Abilities()
	t := a.tunnels[w.Tunnel]
	if t == nil {
		return nil
	}
	if t.Encapsulation == l2tpv3.IP && !can.IP {
		return &UnableError{dp.Kind(), "carry L2TP over IP", "use `encapsulation: udp` for tunnel " + t.Name + ", or another `datapath:`"}
	}
	return nil
}

// review looks again whether the pseudowires of a tunnel that was set can be
// carried: it may have changed what they need.
func (a *Agent) review(tunnel string) error {
	var errs []error
	for _, w := range a.wires {
		dp := a.datapaths[w.kind]
		if w.Tunnel == tunnel && dp != nil && (a.able(w, dp) != nil) != w.unable() {
			errs = append(errs, a.setPseudowire(&w.Pseudowire))
		}
	}
	return errors.Join(errs...)
}
