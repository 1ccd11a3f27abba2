package agent

import (
	"encoding/binary"
	"errors"
	"os"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/internal/loop"
)

// ears hear the probes of other sites, on all ports, and send this site's. They are open only
// while there is something to find out: each frame of the host passes their filter.
type ears struct {
	file    *os.File
	raw     syscall.RawConn
	closing atomic.Bool
	done    chan struct{}
	// heard has what came in. What there is no room for is lost, as on a wire.
	heard chan earful
}

// earful is a probe, and where it came in with what tag, 0 for none.
type earful struct {
	port  int
	tag   uint16
	probe loop.Heard
}

// probeFilter lets probes through.
var probeFilter = []unix.SockFilter{
	{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: 12},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: loop.EtherType, Jf: 1},
	{Code: unix.BPF_RET | unix.BPF_K, K: maxSniffed},
	{Code: unix.BPF_RET | unix.BPF_K},
}

// openEars has to be called in the network namespace.
func openEars() (*ears, error) {
	file, raw, err := openPacketSocket(probeFilter, func(fd int) error {
		return errors.Join(
			os.NewSyscallError("take tags", unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1)),
			os.NewSyscallError("leave out what is sent", unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)),
		)
	})
	if err != nil {
		return nil, err
	}
	e := &ears{file: file, raw: raw, done: make(chan struct{}), heard: make(chan earful, 64)}
	go e.run()
	return e, nil
}

func (e *ears) run() {
	defer close(e.done)
	frame, control := make([]byte, 2048), make([]byte, 128)
	// The only error is that of a closed socket.
	_ = e.raw.Read(func(fd uintptr) bool {
		for !e.closing.Load() {
			n, oobn, _, from, err := unix.Recvmsg(int(fd), frame, control, unix.MSG_DONTWAIT)
			if err != nil {
				return false
			}
			link, ok := from.(*unix.SockaddrLinklayer)
			if !ok || n < ethernetHeader {
				continue
			}
			p, err := loop.Parse(frame[ethernetHeader:n])
			if err != nil {
				continue
			}
			select {
			case e.heard <- earful{link.Ifindex, tagOf(control[:oobn]), p}:
			default:
			}
		}
		return true
	})
}

// tagOf is the VLAN of the tag that the kernel took off a frame (struct tpacket_auxdata), 0 for none.
func tagOf(control []byte) uint16 {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return 0
	}
	for _, m := range messages {
		if m.Header.Level != unix.SOL_PACKET || m.Header.Type != unix.PACKET_AUXDATA || len(m.Data) < 20 {
			continue
		}
		if binary.NativeEndian.Uint32(m.Data)&unix.TP_STATUS_VLAN_VALID != 0 {
			return binary.NativeEndian.Uint16(m.Data[16:]) & 0xfff
		}
	}
	return 0
}

// send sends a frame out of a port. Ears that could not be opened send nothing.
func (e *ears) send(port int, frame []byte) error {
	if e == nil {
		return nil
	}
	var failed error
	err := e.raw.Control(func(fd uintptr) {
		failed = unix.Sendto(int(fd), frame, unix.MSG_DONTWAIT, &unix.SockaddrLinklayer{Ifindex: port})
	})
	return errors.Join(err, failed)
}

// ready has what is heard; nil for ears that are not open.
func (e *ears) ready() <-chan earful {
	if e == nil {
		return nil
	}
	return e.heard
}

func (e *ears) close() {
	e.closing.Store(true)
	e.file.Close()
	<-e.done
}
