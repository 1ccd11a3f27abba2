package agent

import "github.com/pwd-project/pwd/pkg/pseudowire"

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
	name := w.Attachment.Interface
	rest := w.Attachment.VLAN != 0 && !servesTags(w, a.datapaths[w.kind].Abilities())
	if name == "" || rest || w.warnedOf == name {
		return
	}
	w.warnedOf = name
	addressed, err := a.bridges.Addressed(name)
	if err != nil {
		a.log.Debug("addresses not looked at", "interface", name, "err", err)
	}
	if addressed {
		a.event("warning", "pseudowire "+w.Name, "interface "+name+" has an IP address",
			"what comes in there is for pseudowires: give the address to another interface")
	}
}
