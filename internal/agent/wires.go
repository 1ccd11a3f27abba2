package agent

import (
	"errors"
	"fmt"
	"time"

	"github.com/pwd-project/pwd/internal/plan"
	"github.com/pwd-project/pwd/internal/topology"
	"github.com/pwd-project/pwd/pkg/bridge"
	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/l2tpv3/control"
	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// wire is what the agent knows of one pseudowire.
type wire struct {
	topology.Pseudowire
	kind pseudowire.Kind
	// fault is why the device could not be made, attachFault why it is not in its
	// attachment circuit; both are tried again.
	fault, attachFault error
	// circuit is the attachment circuit's status as it was last signalled.
	circuit       l2tpv3.CircuitStatus
	circuitReason string
	// session is the data plane as installed; LocalID is 0 without one.
	session control.InstallSession
	// state is the session's, remote the peer's circuit status.
	state  control.SessionState
	remote l2tpv3.CircuitStatus
	reason string
	since  time.Time
	// ready is when both ends' circuits came together.
	ready bool
}

// carriesTags says that the device carries the attachment circuit's own tag. A
// VLAN device, where the kernel has them, takes it off itself and leaves the rest
// of the interface to the host.
func (a *Agent) carriesTags(w *wire, dp pseudowire.Datapath) bool {
	if w.Attachment.VLAN == 0 || !dp.RewritesTags() {
		return false
	}
	if w.Attachment.Interface == "" {
		return true
	}
	_, vlanDevices, err := a.bridges.Supports()
	if err != nil {
		a.log.Warn("cannot find out whether the kernel has VLAN devices", "err", err)
	}
	return !vlanDevices
}

func (a *Agent) setBridge(b *topology.Bridge) error {
	return a.bridges.SetBridge(bridge.Bridge{
		Name: b.Name, External: b.External, Ports: b.Ports, VLANAware: vlanAware(b.VLANAware),
	})
}

func vlanAware(v topology.VLANAware) bridge.VLANAware {
	switch v {
	case topology.VLANOn:
		return bridge.On
	case topology.VLANOff:
		return bridge.Off
	default:
		return bridge.Auto
	}
}

func (a *Agent) setTunnel(t *topology.Tunnel) error {
	return a.control.SetTunnel(time.Now(), control.Tunnel{
		Name: t.Key, Encapsulation: t.Encapsulation, Local: t.Local, Remote: t.Remote,
		HostName: t.HostName, PeerHostName: t.PeerHostName, Peer: t.Peer, RouterID: t.RouterID,
		Capabilities: []l2tpv3.PseudowireType{l2tpv3.Ethernet},
		Hello:        t.Hello,
	})
}

// setPseudowire makes a pseudowire what the topology says: device, attachment,
// session. A device or attachment that lacks something on this host is no
// failure: it is shown, and tried again.
func (a *Agent) setPseudowire(p *topology.Pseudowire) error {
	w := a.wires[p.Name]
	if w == nil {
		w = &wire{since: time.Now()}
		a.wires[p.Name] = w
	} else if w.Tunnel != p.Tunnel {
		a.control.RemoveSession(time.Now(), w.Tunnel, w.Name, administrative)
		a.settle(time.Now())
	}
	w.Pseudowire = *p
	w.kind = a.standard
	if p.Datapath != "" {
		w.kind = pseudowire.Kind(p.Datapath)
	}
	if err := a.makeDevice(w); err != nil {
		return err
	}
	if err := a.attach(w); err != nil {
		return err
	}
	return a.signal(w)
}

// makeDevice sets the pseudowire in its datapath.
func (a *Agent) makeDevice(w *wire) error {
	dp, err := a.datapath(w.kind)
	if err != nil {
		return err
	}
	p := pseudowire.Pseudowire{Name: w.Name, Device: w.Device, MTU: w.MTU}
	if a.carriesTags(w, dp) {
		p.VLAN = w.Attachment.VLAN
	}
	w.fault = dp.SetPseudowire(p)
	return w.fault
}

// attach puts the device into its attachment circuit. Something that is not
// there (yet) is kept in the wire; any other failure is returned.
func (a *Agent) attach(w *wire) error {
	dp := a.datapaths[w.kind]
	if dp == nil || !dp.DeviceWithoutSession() && w.session.LocalID == 0 {
		return nil
	}
	w.attachFault = a.bridges.SetAttachment(bridge.Attachment{
		Pseudowire: w.Name, Device: w.Device,
		Bridge: w.Attachment.Bridge, Interface: w.Attachment.Interface,
		VLAN: w.Attachment.VLAN, Tagged: a.carriesTags(w, dp),
	})
	if errors.As(w.attachFault, new(*bridge.NotPresentError)) {
		return nil
	}
	return w.attachFault
}

// signal tells the control machine of the session that the pseudowire wants.
func (a *Agent) signal(w *wire) error {
	w.circuit, w.circuitReason = a.circuitOf(w)
	return a.control.SetSession(time.Now(), control.Session{
		Tunnel: w.Tunnel, Name: w.Name, Type: w.Type, RemoteEndID: w.EndID,
		CookieLength: w.CookieLength, Circuit: w.circuit,
	})
}

// circuitOf is the attachment circuit's status (RFC 4719, Section 2.3.2;
// RFC 5641, Section 2: a fault bit means that A is clear).
func (a *Agent) circuitOf(w *wire) (l2tpv3.CircuitStatus, string) {
	const down = l2tpv3.CircuitACRxFault | l2tpv3.CircuitACTxFault
	if w.attachFault != nil {
		return down, w.attachFault.Error()
	}
	up, reason := a.bridges.AttachmentState(w.Name)
	if !up {
		return down, reason
	}
	return l2tpv3.CircuitActive, ""
}

// administrative clears a session that is no longer wanted.
var administrative = l2tpv3.ResultCode{Result: 3}

// shuttingDown clears a control connection that is no longer wanted.
var shuttingDown = l2tpv3.ResultCode{Result: 6}

func (a *Agent) removePseudowire(name string) error {
	w := a.wires[name]
	if w == nil {
		return nil
	}
	now := time.Now()
	a.control.RemoveSession(now, w.Tunnel, w.Name, administrative)
	a.settle(now)
	errs := []error{a.bridges.RemoveAttachment(name)}
	if dp := a.datapaths[w.kind]; dp != nil {
		errs = append(errs, dp.RemovePseudowire(name))
	}
	delete(a.wires, name)
	return errors.Join(errs...)
}

func (a *Agent) removeTunnel(name string) error {
	now := time.Now()
	a.control.RemoveTunnel(now, name, shuttingDown)
	a.settle(now)
	var errs []error
	for _, dp := range a.datapaths {
		errs = append(errs, dp.RemoveTunnel(name))
	}
	return errors.Join(errs...)
}

// execute carries steps out, in order. When one fails, those before it are
// undone, last first; undone is false if that failed too.
func (a *Agent) execute(steps []plan.Step) (undone bool, err error) {
	for i, s := range steps {
		if err = a.step(s); err == nil {
			continue
		}
		err = &StepError{Step: s, Err: err}
		undo := []error{a.step(s.Undo())}
		for j := i - 1; j >= 0; j-- {
			undo = append(undo, a.step(steps[j].Undo()))
		}
		if back := errors.Join(undo...); back != nil {
			return false, errors.Join(err, fmt.Errorf("and going back failed: %w", back))
		}
		return true, err
	}
	return true, nil
}

// StepError says which step of a plan failed.
type StepError struct {
	Step plan.Step
	Err  error
}

func (e *StepError) Error() string {
	return fmt.Sprintf("%s %s %s: %v", e.Step.Action, e.Step.Kind, e.Step.Name, e.Err)
}

func (e *StepError) Unwrap() error { return e.Err }

func (a *Agent) step(s plan.Step) error {
	switch s.Kind {
	case plan.Bridge:
		if s.Action == plan.Remove {
			return a.bridges.RemoveBridge(s.Name)
		}
		return present(a.setBridge(s.After.(*topology.Bridge)))
	case plan.Tunnel:
		if s.Action == plan.Remove {
			return a.removeTunnel(s.Name)
		}
		return a.setTunnel(s.After.(*topology.Tunnel))
	case plan.Pseudowire:
		if s.Action == plan.Remove {
			return a.removePseudowire(s.Name)
		}
		if s.Action == plan.Change && s.Impact == plan.Recreates {
			if err := a.removePseudowire(s.Name); err != nil {
				return err
			}
		}
		return a.setPseudowire(s.After.(*topology.Pseudowire))
	}
	return fmt.Errorf("no such kind of object: %s", s.Kind)
}

// present makes nothing of an interface that is not there yet.
func present(err error) error {
	if errors.As(err, new(*bridge.NotPresentError)) {
		return nil
	}
	return err
}
