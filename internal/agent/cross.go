package agent

import (
	"fmt"

	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// crosses says that a pseudowire's frames need no bridge, as its datapath can pass
// them between the interface and the PSN: those of one that has its attachment circuit
// for itself, in which there are no addresses to be learned, and whose frames nothing else
// is done to at its device.
func crosses(w *wire, dp pseudowire.Datapath) bool {
	if dp == nil || w.Attachment.Interface == "" || w.Network != "" || w.Suppress {
		return false
	}
	can := dp.Abilities()
	return can.CrossConnects && serviceOf(w, can) == pseudowire.Service{}
}

// cross tells the datapath whether it may pass frames by the bridge. It may once the
// bridge is there: that makes the interface promiscuous, is the way while programs come and
// go, and remembers how the interface was.
func (a *Agent) cross(w *wire, may bool) error {
	dp := a.datapaths[w.kind]
	if may = may && crosses(w, dp); may == w.crossed {
		return nil
	}
	w.crossed = may
	if w.fault != nil {
		return nil
	}
	if err := dp.SetPseudowire(a.deviceOf(w, dp)); err != nil {
		w.crossed = !may
		return err
	}
	return nil
}

// crossConnected says whether the datapath passes frames by the bridge.
func (a *Agent) crossConnected(w *wire) bool {
	dp, ok := a.datapaths[w.kind].(interface{ CrossConnected(name string) bool })
	return ok && dp.CrossConnected(w.Name)
}

// warnOfAddress tells that the host cannot be reached over the interface any more: once for
// an attachment to all of it, or to such of its frames that the rest is not the host's either.
func (a *Agent) warnOfAddress(w *wire) {
	name := a.wholeInterface(w)
	if name == "" || w.warnedOf == name {
		return
	}
	w.warnedOf = name
	if a.addressed()[name] {
		a.event("warning", "pseudowire "+w.Name, "interface "+name+" has an IP address",
			"what comes in there is for pseudowires: give the address to another interface")
	}
}

// wholeInterface is that of an attachment circuit if none of its frames are the host's, empty for others.
func (a *Agent) wholeInterface(w *wire) string {
	dp := a.datapaths[w.kind]
	if dp == nil || w.Attachment.VLAN != 0 && !servesTags(w, dp.Abilities()) {
		return ""
	}
	return w.Attachment.Interface
}

func (a *Agent) addressed() map[string]bool {
	addressed, err := a.bridges.Addressed()
	if err != nil {
		a.log.Debug("addresses not looked at", "err", err)
	}
	return addressed
}

// addressNotes tell of addresses at interfaces whose frames are none of the host's, whenever they came.
func (a *Agent) addressNotes() (notes []string) {
	addressed := a.addressed()
	if a.local == nil || len(addressed) == 0 {
		return nil
	}
	for _, p := range a.local.Pseudowires {
		w := a.wires[p.Name]
		if w == nil {
			continue
		}
		if name := a.wholeInterface(w); name != "" && addressed[name] {
			delete(addressed, name)
			notes = append(notes, fmt.Sprintf("interface %s of pseudowire %s has an IP address, and what comes in there is for pseudowires: give the address to another interface", name, w.Name))
		}
	}
	for _, b := range a.local.Bridges {
		for _, name := range b.Ports {
			if addressed[name] {
				delete(addressed, name)
				notes = append(notes, fmt.Sprintf("interface %s has an IP address, and is a port of bridge %s, which gets what comes in there: give the address to the bridge", name, b.Name))
			}
		}
	}
	return notes
}
