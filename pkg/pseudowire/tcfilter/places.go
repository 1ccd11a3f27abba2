package tcfilter

import (
	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// The priorities of filters of ours, the first first. What is found at a hook at one of them, with a name of ours, is
// taken for that of an earlier process: where two have the same, no device has both.
const (
	PrioritySuppressOut  = 0x7062 // suppression, of what comes out of the pseudowire
	PriorityDatapath     = 0x7064 // the eBPF datapath
	PriorityClamp        = 0x7064 // MSS clamp, on the kernel's devices
	PriorityService      = 0x7065 // native service processing
	PriorityBundle       = 0x7066 // the choice among a pseudowire's sessions, on its veth pair
	PriorityDepartures   = 0x7066 // departure times, on interfaces of the underlay
	PrioritySuppressInto = 0x7067 // suppression, of what goes into it
	PrioritySuccession   = 0x7068 // redirection to and from a session's successor
	PriorityEnter        = 0x7070 // the eBPF datapath, of what goes into the pseudowire: services and suppression come first, nothing behind
)

// Redirect is a program that gives every frame to a device: into it where received says so, else out of it.
func Redirect(name string, device int, received bool) (*ebpf.Program, error) {
	const ingress = 1 // BPF_F_INGRESS
	flags := int32(0)
	if received {
		flags = ingress
	}
	return ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: name, Type: ebpf.SchedCLS, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{
			asm.Mov.Imm(asm.R1, int32(device)),
			asm.Mov.Imm(asm.R2, flags),
			asm.FnRedirect.Call(),
			asm.Return(),
		},
	})
}
