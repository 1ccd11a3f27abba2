package agent

import (
	"testing"

	"github.com/pwd-project/pwd/internal/topology"
	"github.com/pwd-project/pwd/pkg/bridge"
	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// What an attachment circuit asks for becomes a service where it has to, and no more than
// that; a bridge is told what it has to know.
func TestServices(t *testing.T) {
	ebpf := pseudowire.Abilities{RewritesTags: true, DeviceWithoutSession: true, Services: true}
	kernel := pseudowire.Abilities{Services: true}
	at := func(a topology.Attachment) topology.Pseudowire {
		a.Interface = "eth1"
		return topology.Pseudowire{Name: "a", Device: "pw-a", Type: l2tpv3.Ethernet, Attachment: a}
	}
	tagged := at(topology.Attachment{VLAN: 7})
	tagged.Type = l2tpv3.EthernetVLAN
	bridged := at(topology.Attachment{VLAN: 7})
	bridged.Attachment.Interface, bridged.Attachment.Bridge = "", "br0"
	limited := at(topology.Attachment{})
	limited.Limits.Broadcast = 9
	inner := at(topology.Attachment{VLAN: 7, InnerVLAN: 8, TagProtocol: 0x88a8})
	for _, c := range []struct {
		name    string
		p       topology.Pseudowire
		can     pseudowire.Abilities
		service pseudowire.Service
		bridge  bridge.Attachment
	}{
		{"a whole port", at(topology.Attachment{}), ebpf, pseudowire.Service{}, bridge.Attachment{}},
		{"several VLANs", at(topology.Attachment{VLANs: "7-9", Untagged: true}), kernel,
			pseudowire.Service{Filter: true, Untagged: true, VLANs: "7-9"}, bridge.Attachment{Filtered: true, VLANs: "7-9", Untagged: true}},
		{"two tags, a service tag first", inner, ebpf,
			pseudowire.Service{Filter: true, VLANs: "7", Inner: 8, Protocol: 0x88a8, Push: true}, bridge.Attachment{Filtered: true, Stacked: true}},
		{"a service tag alone", at(topology.Attachment{VLAN: 7, TagProtocol: 0x88a8}), ebpf,
			pseudowire.Service{Filter: true, VLANs: "7", Protocol: 0x88a8, Push: true}, bridge.Attachment{Filtered: true, Stacked: true}},
		{"any tag over one", at(topology.Attachment{InnerVLAN: 8}), ebpf,
			pseudowire.Service{Filter: true, VLANs: "1-4094", Inner: 8}, bridge.Attachment{Filtered: true, Stacked: true, VLANs: "1-4094"}},
		{"Ethernet VLAN on eBPF", tagged, ebpf, pseudowire.Service{}, bridge.Attachment{VLAN: 7, Tagged: true}},
		{"Ethernet VLAN on the kernel's", tagged, kernel,
			pseudowire.Service{Filter: true, VLANs: "7", Rewrite: true}, bridge.Attachment{Filtered: true, VLAN: 7, Tagged: true}},
		{"a VLAN of a bridge on the kernel's", bridged, kernel,
			pseudowire.Service{Filter: true, VLANs: "7", Push: true}, bridge.Attachment{Bridge: "br0", Filtered: true, VLAN: 7, Tagged: true}},
		{"a limit alone", limited, kernel, pseudowire.Service{Limits: pseudowire.Limits{Broadcast: 9}}, bridge.Attachment{}},
		{"a kernel without eBPF", limited, pseudowire.Abilities{}, pseudowire.Service{}, bridge.Attachment{}},
	} {
		w := &wire{Pseudowire: &c.p}
		if got := serviceOf(w, c.can); got != c.service {
			t.Errorf("%s: the service is %+v, want %+v", c.name, got, c.service)
		}
		want := c.bridge
		want.Pseudowire, want.Device, want.Interface = "a", "pw-a", c.p.Attachment.Interface
		want.StateOfOthers = !c.can.DeviceWithoutSession
		got := (&Agent{}).attachmentOf(w, able{can: c.can})
		if got != want {
			t.Errorf("%s: the attachment is %+v, want %+v", c.name, got, want)
		}
	}
}

// able is a datapath that has abilities and nothing else.
type able struct {
	pseudowire.Datapath
	can pseudowire.Abilities
}

func (a able) Abilities() pseudowire.Abilities { return a.can }
