package e2e

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/internal/netlab"
)

// meter counts the octets of packets that a link receives, its header included, by their
// DSCP: a program on a packet socket, which sees them before all that is under test.
type meter struct{ counts *ebpf.Map }

func newMeter(t *testing.T, l *netlab.Link) *meter {
	t.Helper()
	counts, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 64})
	if err != nil {
		netlab.Missing(t, "bpf", err)
	}
	t.Cleanup(func() { counts.Close() })
	const length, packetType = 0, 4 // struct __sk_buff
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SocketFilter, License: "GPL", Instructions: asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R7, asm.R6, length, asm.Word),
		asm.LoadMem(asm.R0, asm.R6, packetType, asm.Word),
		asm.JEq.Imm(asm.R0, unix.PACKET_OUTGOING, "out"),
		asm.LoadAbs(14+1, asm.Byte),
		asm.RSh.Imm(asm.R0, 2),
		asm.StoreMem(asm.RFP, -4, asm.R0, asm.Word),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.LoadMapPtr(asm.R1, counts.FD()),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "out"),
		asm.StoreXAdd(asm.R0, asm.R7, asm.DWord),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("out"),
		asm.Return(),
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	if err := l.NS.Do(func() error {
		all := int(binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL}))
		// No packets before the program is there and the link is said.
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		t.Cleanup(func() { unix.Close(fd) })
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ATTACH_BPF, program.FD()); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: uint16(all), Ifindex: l.Index})
	}); err != nil {
		t.Fatal(err)
	}
	return &meter{counts}
}

// read is how many octets came so far, by DSCP.
func (m *meter) read(t *testing.T) (octets [64]uint64) {
	t.Helper()
	for i := range octets {
		if err := m.counts.Lookup(uint32(i), &octets[i]); err != nil {
			t.Fatal(err)
		}
	}
	return octets
}

// delays are sorted.
type delays []time.Duration

func (d delays) at(percent int) time.Duration {
	return d[min(len(d)*percent/100, len(d)-1)].Round(10 * time.Microsecond)
}

// probe sends datagrams, 200 a second, and takes the time of each from one host to the
// other: both have one clock, and the kernel notes when they come.
func (s *shared) probe(k, n int) delays {
	s.t.Helper()
	sink := s.listen(k)
	control(s.t, sink, func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1) })
	var source *net.UDPConn
	if err := s.hosts[k][0].NS.Do(func() (err error) {
		source, err = net.DialUDP("udp", nil, sink.LocalAddr().(*net.UDPAddr))
		return err
	}); err != nil {
		s.t.Fatal(err)
	}
	defer source.Close()
	came := make(chan delays, 1)
	go func() {
		var d delays
		defer func() { came <- d }()
		packet, oob := make([]byte, 256), make([]byte, 256)
		for len(d) < n {
			_, length, _, _, err := sink.ReadMsgUDP(packet, oob)
			if err != nil {
				return
			}
			at, err := arrival(oob[:length])
			if err != nil {
				s.t.Error(err)
				return
			}
			d = append(d, at.Sub(time.Unix(0, int64(binary.BigEndian.Uint64(packet)))))
		}
	}()
	ctx := within(s.t, time.Minute)
	packet := make([]byte, 172) // G.711 for 20 ms, in RTP
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range n {
		select {
		case <-tick.C:
		case <-ctx.Done():
			s.t.Fatal("probes are not sent: ", context.Cause(ctx))
		}
		binary.BigEndian.PutUint64(packet, uint64(time.Now().UnixNano()))
		if _, err := source.Write(packet); err != nil {
			s.t.Fatal(err)
		}
	}
	// Some may be lost.
	sink.SetReadDeadline(time.Now().Add(2 * time.Second))
	d := <-came
	if len(d) < n/2 {
		s.t.Fatalf("of %d probes %d came", n, len(d))
	}
	slices.Sort(d)
	return d
}

// arrival is the kernel's time stamp.
func arrival(oob []byte) (time.Time, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return time.Time{}, err
	}
	for _, m := range messages {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS {
			return time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:]))), nil
		}
	}
	return time.Time{}, fmt.Errorf("there is no time stamp in % x", oob)
}
