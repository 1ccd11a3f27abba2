package netlab

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Tagged puts everything that the namespace does with the link on VLAN vid: frames leave
// with an 802.1Q tag, those that come with it lose it, all others are dropped.
// It is what a VLAN device on the link would do, where the kernel has no 8021q; offloads still work.
func (l *Link) Tagged(vid uint16) *Link {
	if l.NS.lab.Err() != nil {
		return l
	}
	if err := l.attachTagger(vid); err != nil {
		l.NS.lab.fail("put %s in %s on VLAN %d: %w", l.Name, l.NS.Name, vid, err)
	}
	return l
}

func (l *Link) attachTagger(vid uint16) error {
	qdisc := &netlink.GenericQdisc{QdiscType: "clsact", QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: l.Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}}
	if err := l.NS.nl.QdiscAdd(qdisc); err != nil {
		return fmt.Errorf("add qdisc clsact: %w", err)
	}
	for _, p := range []struct {
		name   string
		parent uint32
		code   asm.Instructions
	}{
		{"tag", netlink.HANDLE_MIN_EGRESS, pushTag(vid)},
		{"untag", netlink.HANDLE_MIN_INGRESS, popTag(vid)},
	} {
		program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: p.name, Type: ebpf.SchedCLS, Instructions: p.code, License: "Apache-2.0"})
		if err != nil {
			return fmt.Errorf("load program %s: %w", p.name, err)
		}
		err = l.NS.nl.FilterAdd(&netlink.BpfFilter{
			FilterAttrs:  netlink.FilterAttrs{LinkIndex: l.Index, Parent: p.parent, Handle: 1, Priority: 1, Protocol: unix.ETH_P_ALL},
			Fd:           program.FD(),
			Name:         p.name,
			DirectAction: true,
		})
		program.Close() // the filter holds it
		if err != nil {
			return fmt.Errorf("attach program %s: %w", p.name, err)
		}
	}
	return nil
}

// Offsets in struct __sk_buff and verdicts of linux/bpf.h and linux/pkt_cls.h.
const (
	skbVLANPresent = 20
	skbVLANTCI     = 24
	verdictOK      = 0
	verdictDrop    = 2
)

// pushTag is: return bpf_skb_vlan_push(skb, htons(ETH_P_8021Q), vid) ? drop : ok.
func pushTag(vid uint16) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Imm(asm.R2, unix.ETH_P_8021Q),
		asm.HostTo(asm.BE, asm.R2, asm.Half),
		asm.Mov.Imm(asm.R3, int32(vid)),
		asm.FnSkbVlanPush.Call(),
		asm.JNE.Imm(asm.R0, 0, "drop"),
		asm.Mov.Imm(asm.R0, verdictOK),
		asm.Return(),
		asm.Mov.Imm(asm.R0, verdictDrop).WithSymbol("drop"),
		asm.Return(),
	}
}

// popTag is: drop unless the tag's VLAN ID is vid; return bpf_skb_vlan_pop(skb) ? drop : ok.
func popTag(vid uint16) asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, skbVLANPresent, asm.Word),
		asm.JEq.Imm(asm.R2, 0, "drop"),
		asm.LoadMem(asm.R2, asm.R1, skbVLANTCI, asm.Word),
		asm.And.Imm(asm.R2, 0x0fff),
		asm.JNE.Imm(asm.R2, int32(vid), "drop"),
		asm.FnSkbVlanPop.Call(),
		asm.JNE.Imm(asm.R0, 0, "drop"),
		asm.Mov.Imm(asm.R0, verdictOK),
		asm.Return(),
		asm.Mov.Imm(asm.R0, verdictDrop).WithSymbol("drop"),
		asm.Return(),
	}
}
