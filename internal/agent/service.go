package agent

import (
	"github.com/pwd-project/pwd/internal/topology"
	"github.com/pwd-project/pwd/pkg/bridge"
	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/pseudowire"
	"github.com/pwd-project/pwd/pkg/vlan"
)

// wantsService says that an attachment circuit has frames or tags that only a service
// tells apart and changes, whatever the datapath.
func wantsService(at *topology.Attachment) bool {
	return at.VLANs != "" || at.Untagged || at.InnerVLAN != 0 || at.TagProtocol != 0 || at.PCP != topology.PCP{}
}

// servesTags says that a service keeps the frames of others away, pops and pushes tags
// instead of the datapath, the bridge or a VLAN device.
func servesTags(w *wire, can pseudowire.Abilities) bool {
	at := &w.Attachment
	switch {
	case !can.Services || at.Whole():
		return false
	case wantsService(at):
		return true
	}
	// A bridge that filters VLANs would take the second tag of a frame for the first, once
	// it has taken that off.
	return at.VLAN != 0 && !can.RewritesTags && (w.Type == l2tpv3.EthernetVLAN || at.Bridge != "")
}

// serviceOf is what happens to the frames of a pseudowire beyond its datapath.
func serviceOf(w *wire, can pseudowire.Abilities) pseudowire.Service {
	at := &w.Attachment
	if !can.Services {
		return pseudowire.Service{}
	}
	s := pseudowire.Service{PCP: pseudowire.PCP(at.PCP), RefusedGroups: at.RefusedGroups, Limits: pseudowire.Limits(w.Limits)}
	if !servesTags(w, can) {
		return s
	}
	s.Filter, s.Untagged, s.Protocol, s.Inner = true, at.Untagged, at.TagProtocol, at.InnerVLAN
	switch {
	case at.VLAN != 0:
		s.VLANs = vlan.Of(vlan.Range{First: at.VLAN, Last: at.VLAN})
		s.Push, s.Rewrite = w.Type == l2tpv3.Ethernet, w.Type == l2tpv3.EthernetVLAN
	case at.InnerVLAN != 0 && at.VLANs == "":
		s.VLANs = vlan.Of(vlan.Range{First: vlan.First, Last: vlan.Last})
	default:
		s.VLANs = at.VLANs
	}
	return s
}

// attachmentOf is where the device goes, and what of it the bridge has to do.
func (a *Agent) attachmentOf(w *wire, dp pseudowire.Datapath) bridge.Attachment {
	can, at := dp.Abilities(), &w.Attachment
	out := bridge.Attachment{
		Pseudowire: w.Name, Device: w.Device, Bridge: at.Bridge, Interface: at.Interface, Isolated: w.Isolated, Full: w.full,
		StateOfOthers: !can.DeviceWithoutSession,
	}
	if !servesTags(w, can) {
		out.VLAN, out.Tagged = at.VLAN, a.carriesTags(w, dp)
		out.AnyTag = out.Tagged && !can.RewritesTags
		return out
	}
	// Frames with service tags that differ are told apart as little as those with inner ones.
	out.Filtered, out.Stacked = true, at.InnerVLAN != 0 || at.TagProtocol != 0
	if at.TagProtocol != 0 {
		return out // to a bridge frames with a service tag are without one
	}
	out.VLAN, out.Tagged = at.VLAN, at.VLAN != 0
	if at.VLAN == 0 {
		out.VLANs, out.Untagged = serviceOf(w, can).VLANs, at.Untagged
	}
	return out
}
