package agent

import (
	"errors"
	"fmt"

	"github.com/pwd-project/pwd/internal/topology"
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
	tag := w.Attachment.VLAN
	for _, r := range w.Rides() {
		switch t := a.tunnels[r.Tunnel]; {
		case t != nil && t.Encapsulation == l2tpv3.IP && !can.IP:
			return &UnableError{dp.Kind(), "carry L2TP over IP", "use `encapsulation: udp` for tunnel " + t.Name + ", or another `datapath:`"}
		case t != nil && t.DF && !can.DF:
			return &UnableError{dp.Kind(), "keep packets from being fragmented", "remove `df: true` of tunnel " + t.Name + ", or use `datapath: ebpf`"}
		case r.DSCP != 0 && !can.DSCP:
			return &UnableError{dp.Kind(), "set the DSCP of packets", "remove `class:` of the tunnel, or use another `datapath:`"}
		case r.Marking.Any() && !can.Marking:
			return &UnableError{dp.Kind(), "take the DSCP of packets from the frames in them", "give the tunnel's class one DSCP, as `dscp: ef`, or use `datapath: ebpf`"}
		case !can.Priority && t != nil && t.Shapes():
			return &UnableError{dp.Kind(), "shape a tunnel", "remove `rate:` and `ceiling:` of its class, or use another `datapath:`"}
		}
	}
	switch {
	case len(w.Standby) > 0 && !can.Several:
		return &UnableError{dp.Kind(), "keep sessions ready that stand by", "use one `tunnel:`, or a kernel that loads eBPF programs"}
	case w.Steered() && !can.Steers:
		return &UnableError{dp.Kind(), "spread frames over several tunnels", "use one `tunnel:` or `redundancy:` instead of `steer:`, or a kernel that loads eBPF programs"}
	case w.Sequencing != l2tpv3.SequencingNone && !can.Sequencing:
		return &UnableError{dp.Kind(), "look at sequence numbers", "remove `sequencing:`, or use another `datapath:`"}
	case !can.Services && wantsService(&w.Attachment):
		return &UnableError{dp.Kind(), "tell frames apart by several tags, or change more of tags than a VLAN", "attach one VLAN with `vlan:`, or a whole port; for more this kernel has to load eBPF programs"}
	case w.Suppress && !can.Suppresses:
		return &UnableError{dp.Kind(), "answer ARP requests and neighbour solicitations", "remove `suppress:`, or use a kernel that loads eBPF programs"}
	case !can.Services && w.Limits.Police != 0:
		return &UnableError{dp.Kind(), "limit what comes out of a pseudowire", "remove `police:`, or use a kernel that loads eBPF programs"}
	case !can.Services && w.Limits != (topology.Limits{}):
		return &UnableError{dp.Kind(), "limit storms", "remove `storm-control:`, or use a kernel that loads eBPF programs"}
	case !can.Services && w.Attachment.RefusedGroups != 0:
		return &UnableError{dp.Kind(), "keep link-local groups out", "remove `link-local:` of the attachment, or use a kernel that loads eBPF programs"}
	// RFC 4719, Section 3.1: the tag on the way is one end's, and the other end
	// gives it the number that it has there.
	case w.Type == l2tpv3.EthernetVLAN && tag != 0 && !can.RewritesTags && !can.Services && w.PeerVLAN != tag:
		there := "that of " + w.Peer + " is not known"
		if w.PeerVLAN != 0 {
			there = fmt.Sprintf("it is %d at %s", w.PeerVLAN, w.Peer)
		}
		return &UnableError{dp.Kind(), fmt.Sprintf("give tags another number (VLAN %d here, %s)", tag, there), "use one VLAN at both ends, `type: ethernet`, or `datapath: ebpf`"}
	}
	return nil
}

// fit takes out of a topology what the datapaths of this host cannot: congestion
// marks are passed on by a tunnel all of whose pseudowires can.
func (a *Agent) fit(local *topology.Local) {
	if local == nil {
		return
	}
	can := func(asked string) bool {
		dp, err := a.datapath(a.kindOf(asked))
		return err == nil && dp.Abilities().ECN
	}
	for i := range local.Tunnels {
		t := &local.Tunnels[i]
		t.ECN = t.ECN && can("")
		for _, p := range local.Pseudowires {
			t.ECN = t.ECN && (!p.On(t.Key) || can(p.Datapath))
		}
	}
}

// review looks again whether the pseudowires of a tunnel that was set can be
// carried: it may have changed what they need.
func (a *Agent) review(tunnel string) error {
	var errs []error
	for _, w := range a.wires {
		dp := a.datapaths[w.kind]
		if w.on(tunnel) != nil && dp != nil && (a.able(w, dp) != nil) != w.unable() {
			errs = append(errs, a.setPseudowire(w.Pseudowire))
		}
	}
	return errors.Join(errs...)
}
