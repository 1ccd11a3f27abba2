package e2e

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/internal/netlab"
)

// requests counts what daemons send, nearly all of it requests to the kernel, by their process IDs.
type requests struct{ sent *ebpf.Map }

// countRequests counts from now on what the processes send that are counted.
func (w *world) countRequests() *requests {
	w.t.Helper()
	sent, err := ebpf.NewMap(&ebpf.MapSpec{Name: "sent", Type: ebpf.Hash, KeySize: 4, ValueSize: 8, MaxEntries: 64})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { sent.Close() })
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "count_sent", Type: ebpf.RawTracepoint, License: "GPL", Instructions: asm.Instructions{
		asm.LoadMem(asm.R6, asm.R1, 8, asm.DWord), // the system call's number
		asm.JEq.Imm(asm.R6, unix.SYS_SENDTO, "count"),
		asm.JNE.Imm(asm.R6, unix.SYS_SENDMSG, "exit"),
		asm.FnGetCurrentPidTgid.Call().WithSymbol("count"),
		asm.RSh.Imm(asm.R0, 32),
		asm.StoreMem(asm.RFP, -4, asm.R0, asm.Word),
		asm.LoadMapPtr(asm.R1, sent.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "exit"),
		asm.Mov.Imm(asm.R1, 1),
		asm.StoreXAdd(asm.R0, asm.R1, asm.DWord),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("exit"),
		asm.Return(),
	}})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { p.Close() })
	at, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: "sys_enter", Program: p})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { at.Close() })
	return &requests{sent}
}

// of a daemon, since it was first asked for.
func (r *requests) of(pid int) (n uint64, err error) {
	err = r.sent.Lookup(uint32(pid), &n)
	if err != nil {
		err = r.sent.Put(uint32(pid), uint64(0))
	}
	return n, err
}

// all are those of the sites' daemons.
func (w *world) asked() (n []uint64) {
	for _, s := range w.sites {
		of, err := w.requests.of(s.Daemon.Cmd.Process.Pid)
		if err != nil {
			w.t.Fatal(err)
		}
		n = append(n, of)
	}
	return n
}

// askedSince is what has been added, in words. A daemon that was started since has sent all of its own.
func (w *world) askedSince(before []uint64) string {
	var words []string
	for i, n := range w.asked() {
		if n >= before[i] {
			n -= before[i]
		}
		words = append(words, fmt.Sprintf("dc%d %d", i+1, n))
	}
	return strings.Join(words, ", ")
}

// requestsEach is how many requests it may take to set a pseudowire up, beside requestsOnce for all of them.
const requestsOnce, requestsEach = 200, 60

// lookRequests is how many requests it may take to look at what the kernel told of, however many pseudowires there are.
const lookRequests = 40

// lookAfter changes something in the kernel of the first site, and gives how many requests its daemon's look at that took.
func (w *world) lookAfter(change func(nl *netlink.Handle) error) uint64 {
	w.t.Helper()
	s := w.sites[0]
	status := func() {
		if _, err := s.Client().Status(w.t.Context()); err != nil { // the answer comes after what is being done
			w.t.Fatal(err)
		}
	}
	var before uint64
	since := time.Now()
	calm := netlab.Poll(within(w.t, time.Minute), "all that happened before has been looked at", func() error {
		if now := w.asked()[0]; now != before {
			before, since = now, time.Now()
		}
		if time.Since(since) < time.Second {
			return errors.New("something is asked for still")
		}
		return nil
	})
	if calm != nil {
		w.t.Fatal(calm)
	}
	if err := change(s.NS.Netlink()); err != nil {
		w.t.Fatal(err)
	}
	begun := netlab.Poll(within(w.t, 20*time.Second), "a look at what changed", func() error {
		if w.asked()[0] == before {
			return errors.New("nothing was asked")
		}
		return nil
	})
	if begun != nil {
		w.t.Fatal(begun)
	}
	status()
	return w.asked()[0] - before
}

// neighbour is one of the underlay that comes and goes.
func neighbour(nl *netlink.Handle) error {
	l, err := nl.LinkByName("eth0")
	if err != nil {
		return err
	}
	n := &netlink.Neigh{
		LinkIndex: l.Attrs().Index, State: netlink.NUD_PERMANENT, IP: net.IPv4(192, 0, 2, 99), HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 99},
	}
	return errors.Join(nl.NeighSet(n), nl.NeighDel(n))
}

// visitor is a link that is none of the daemon's business.
func visitor(nl *netlink.Handle) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "visitor"
	l := netlink.NewVeth(attrs)
	l.PeerName = "visitor-far"
	return errors.Join(nl.LinkAdd(l), nl.LinkDel(l))
}
