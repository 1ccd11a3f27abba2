package qos_test

import (
	"errors"
	"net"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/pkg/pseudowire/tcfilter"
	"github.com/pwd-project/pwd/pkg/qos"
)

// priorities counts the packets of a host's eth0 behind the program that gives times: all, and
// those that fq would send first.
type priorities struct{ counts *ebpf.Map }

func (h *host) priorities() priorities {
	h.t.Helper()
	counts, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 16, MaxEntries: 1})
	h.must(err)
	h.t.Cleanup(func() { counts.Close() })
	const skbPriority = 32 // in struct __sk_buff
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SchedCLS, License: "GPL",
		Instructions: asm.Instructions{
			asm.LoadMem(asm.R6, asm.R1, skbPriority, asm.Word),
			asm.LoadMapValue(asm.R7, counts.FD(), 0),
			asm.Mov.Imm(asm.R1, 1),
			asm.StoreXAdd(asm.R7, asm.R1, asm.DWord),
			asm.JNE.Imm(asm.R6, 7, "out"), // TC_PRIO_CONTROL
			asm.LoadMapValue(asm.R7, counts.FD(), 8),
			asm.StoreXAdd(asm.R7, asm.R1, asm.DWord),
			asm.Mov.Imm(asm.R0, -1).WithSymbol("out"), // TC_ACT_UNSPEC
			asm.Return(),
		},
	})
	h.must(err)
	h.t.Cleanup(func() { program.Close() })
	f := tcfilter.Filter{Parent: netlink.HANDLE_MIN_EGRESS, Priority: 0x7070, Name: "counts"}
	h.must(tcfilter.Attach(h.ns.Netlink(), h.index, f, program))
	return priorities{counts}
}

func (p priorities) is(t *testing.T, what string, all, first uint64) {
	t.Helper()
	var got [2]uint64
	if err := p.counts.Lookup(uint32(0), &got); err != nil || got != [2]uint64{all, first} {
		t.Errorf("%s: %d packets, want %d first of %d: %v", what, got, first, all, err)
	}
}

// Control messages come from sockets of the host: what it forwards is not believed to be one.
func TestDeparturesOfControlMessages(t *testing.T) {
	h := newHeldHost(t)
	h.must(h.set(h.paced(qos.Class{Number: 3, Ceiling: 1e6})))
	counted := h.priorities()
	for name, value := range map[string]string{"ip_forward": "1", "conf.all.send_redirects": "0", "conf.eth0.send_redirects": "0", "conf.all.rp_filter": "0", "conf.eth0.rp_filter": "0"} {
		h.ns.Sysctl("net.ipv4."+name, value)
	}
	far := net.ParseIP("192.0.2.9")
	nl := h.ns.Netlink()
	h.must(nl.NeighSet(&netlink.Neigh{LinkIndex: h.index, State: netlink.NUD_PERMANENT, IP: far, HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 9}}))
	const message = "\xc8\x03\x00\x0c\x00\x00\x00\x01\x00\x00\x00\x00"
	send := func() {
		t.Helper()
		h.must(h.ns.Do(func() error {
			c, err := net.DialUDP("udp4", nil, &net.UDPAddr{IP: far, Port: 1701})
			if err != nil {
				return err
			}
			defer c.Close()
			control(t, c, func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TOS, 0xc0) })
			_, err = c.Write([]byte(message))
			return err
		}))
	}
	send()
	counted.is(t, "of the host's own", 1, 1)

	forwarded := append([]byte{
		0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 7, 8, 0,
		0x45, 0xc0, 0, 40, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 7, 192, 0, 2, 9,
		6, 0xa5, 6, 0xa5, 0, 20, 0, 0,
	}, message...)
	copy(forwarded, h.link.Attrs().HardwareAddr)
	var sum uint32
	for i := 14; i < 34; i += 2 {
		sum += uint32(forwarded[i])<<8 | uint32(forwarded[i+1])
	}
	sum = ^(sum>>16 + sum&0xffff)
	forwarded[24], forwarded[25] = byte(sum>>8), byte(sum)
	start := h.sent()
	h.must(h.arrive(forwarded))
	h.awaitSent(start + 1)
	counted.is(t, "with what was forwarded", 2, 1)
}

// arrive has a frame come in at eth0.
func (h *host) arrive(frame []byte) error {
	return h.far.Do(func() error {
		l, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: l.Index, Halen: 6})
	})
}

// A control message leaves before the data that waits of its own socket, which is that of the data
// on the kernel's datapath: at once, or behind the one packet that is next.
func TestControlBeforeData(t *testing.T) {
	h := newHost(t)
	// Datagrams of 1000 octets on the wire: 100 ms each.
	if !h.needsFQ(h.paced(slow)) {
		return
	}
	h.must(h.set(h.paced(slow)))
	h.far.Link("eth0").Addr("192.0.2.2/24")
	to := &net.UDPAddr{IP: net.ParseIP("192.0.2.2"), Port: 1701}
	var in, out *net.UDPConn
	h.must(h.far.Do(func() (err error) { in, err = net.ListenUDP("udp4", to); return err }))
	defer in.Close()
	h.must(h.ns.Do(func() (err error) { out, err = net.DialUDP("udp4", nil, to); return err }))
	defer out.Close()
	send := func(tos, priority, octets int) {
		t.Helper()
		control(t, out, func(fd int) error {
			// The TOS sets a priority, too.
			return errors.Join(unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TOS, tos), unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PRIORITY, priority))
		})
		_, err := out.Write(append([]byte("\xc8\x03\x00\x0c\x00\x00\x00\x01\x00\x00\x00\x00"), make([]byte, octets-12)...))
		h.must(err)
	}
	for range frames {
		send(0, int(qos.Handle(3)), 1000-42)
	}
	send(0xc0, 0, 12)
	began := time.Now()
	h.must(in.SetReadDeadline(began.Add(30 * time.Second)))
	buf := make([]byte, 2000)
	before := 0
	for ; ; before++ {
		n, err := in.Read(buf)
		h.must(err)
		if n == 12 {
			break
		}
	}
	// The first had left before.
	t.Logf("a control message took %v, behind %d of %d datagrams", time.Since(began), before, frames)
	if before > 3 {
		t.Errorf("%d of %d datagrams came before a control message", before, frames)
	}
}

func control(t *testing.T, conn *net.UDPConn, f func(fd int) error) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var set error
	if err := raw.Control(func(fd uintptr) { set = f(int(fd)) }); err != nil || set != nil {
		t.Fatal(err, set)
	}
}
