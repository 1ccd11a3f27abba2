package netlab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Frame is a captured Ethernet frame.
type Frame struct {
	Time time.Time
	// Data is the frame as on a wire, from the destination address to the end of the
	// payload. A tag that the kernel kept beside the frame has been put back into it.
	Data []byte
	// TagInMetadata says that it was.
	TagInMetadata bool
	// Outgoing frames were sent by the capturing namespace itself.
	Outgoing bool
	// ChecksumPending says that the checksum of TCP or UDP is not in the frame
	// yet: the sender left it to hardware, and a veth has none.
	ChecksumPending bool
}

// htons is a number in network byte order, as the kernel's structures have some.
func htons(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}

// packetSocket opens an AF_PACKET socket in the link's namespace. It receives
// nothing until bindPacket, so never a frame of another link.
func (l *Link) packetSocket() (fd int, err error) {
	err = l.NS.Do(func() error {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return fmt.Errorf("netlab: open a packet socket in %s: %w", l.NS.Name, err)
		}
		return nil
	})
	return fd, err
}

// bindPacket binds to a link and an EtherType; 0 is for sending only.
func bindPacket(fd, index int, protocol uint16) error {
	return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(protocol), Ifindex: index})
}

// Send sends frames from the link, each as it is: nothing is added, not even padding.
func (l *Link) Send(frames ...[]byte) error {
	l.sendMu.Lock()
	defer l.sendMu.Unlock()
	if l.sender == nil {
		if err := l.openSender(); err != nil {
			return err
		}
	}
	raw, err := l.sender.SyscallConn()
	if err != nil {
		return err
	}
	for _, f := range frames {
		var sent error
		err := raw.Write(func(fd uintptr) bool {
			_, sent = unix.SendmsgN(int(fd), f, nil, nil, 0)
			return !errors.Is(sent, unix.EAGAIN)
		})
		if err = errors.Join(err, sent); err != nil {
			return fmt.Errorf("netlab: send a frame of %d octets from %s in %s: %w", len(f), l.Name, l.NS.Name, err)
		}
	}
	return nil
}

// openSender opens the socket for Send. It is kept until the lab is closed: to close one takes the kernel a while.
func (l *Link) openSender() error {
	fd, err := l.packetSocket()
	if err != nil {
		return err
	}
	if err := bindPacket(fd, l.Index, 0); err != nil {
		unix.Close(fd)
		return fmt.Errorf("netlab: bind to %s in %s: %w", l.Name, l.NS.Name, err)
	}
	sender := os.NewFile(uintptr(fd), "packet")
	l.sender = sender
	l.NS.lab.onClose(func() { sender.Close() })
	return nil
}

// CaptureOptions say what to capture. The zero value is every frame that the link receives.
type CaptureOptions struct {
	// Outgoing captures frames that the namespace sends from the link, too.
	Outgoing bool
	// Filter selects frames in the kernel, so that the others cost next to nothing; without it all are captured.
	Filter []bpf.Instruction
	// Keep decides which frames are kept; nil keeps all. It is called in order, on one goroutine.
	Keep func(*Frame) bool
}

// Capture is a running or ended capture.
type Capture struct {
	link *Link
	fd   int
	file *os.File
	keep func(*Frame) bool
	done chan struct{}
	stop sync.Once

	mu      sync.Mutex
	frames  []Frame
	changed chan struct{} // closed and replaced with every frame
	err     error
}

// Capture starts to capture frames on the link, in promiscuous mode. It captures by the time it returns.
func (l *Link) Capture(o CaptureOptions) (*Capture, error) {
	if err := l.NS.lab.Err(); err != nil {
		return nil, err
	}
	fd, err := l.packetSocket()
	if err != nil {
		return nil, err
	}
	set := func(level, option, value int) {
		if err == nil {
			err = unix.SetsockoptInt(fd, level, option, value)
		}
	}
	set(unix.SOL_PACKET, unix.PACKET_AUXDATA, 1)
	set(unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20)
	set(unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1)
	if !o.Outgoing {
		set(unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)
	}
	if err == nil && o.Filter != nil {
		err = setFilter(fd, o.Filter)
	}
	if err == nil {
		err = unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &unix.PacketMreq{Ifindex: int32(l.Index), Type: unix.PACKET_MR_PROMISC})
	}
	if err == nil {
		err = bindPacket(fd, l.Index, unix.ETH_P_ALL)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("netlab: capture on %s in %s: %w", l.Name, l.NS.Name, err)
	}
	if o.Keep == nil {
		o.Keep = func(*Frame) bool { return true }
	}
	c := &Capture{link: l, fd: fd, file: os.NewFile(uintptr(fd), "packet"), keep: o.Keep, done: make(chan struct{}), changed: make(chan struct{})}
	l.NS.lab.onClose(func() { c.Stop() })
	go c.receive()
	return c, nil
}

func setFilter(fd int, program []bpf.Instruction) error {
	raw, err := bpf.Assemble(program)
	if err != nil {
		return fmt.Errorf("assemble the filter: %w", err)
	}
	code := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		code[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]})
}

// largestFrame is more than the largest GSO packet with its headers.
const largestFrame = 512 << 10

func (c *Capture) receive() {
	defer close(c.done)
	raw, err := c.file.SyscallConn()
	if err != nil {
		c.end(err)
		return
	}
	data, control := make([]byte, largestFrame), make([]byte, 256)
	// takeOne reports whether there was a frame, or an error other than that there is none yet.
	takeOne := func(fd uintptr) bool {
		n, controlLength, _, from, err := unix.Recvmsg(int(fd), data, control, 0)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return false
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ENETDOWN): // the link went down; it may come back
		case err != nil:
			c.end(err)
		default:
			f := frameOf(data[:n], control[:controlLength])
			if sll, ok := from.(*unix.SockaddrLinklayer); ok {
				f.Outgoing = sll.Pkttype == unix.PACKET_OUTGOING
			}
			c.add(f)
		}
		return true
	}
	for raw.Read(takeOne) == nil {
	}
	// Stop has ended the waiting; what came until then is still in the socket.
	raw.Control(func(fd uintptr) {
		for takeOne(fd) {
		}
	})
}

func (c *Capture) add(f Frame) {
	if !c.keep(&f) {
		return
	}
	c.mu.Lock()
	c.frames = append(c.frames, f)
	close(c.changed)
	c.changed = make(chan struct{})
	c.mu.Unlock()
}

func (c *Capture) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = fmt.Errorf("netlab: capture on %s in %s: %w", c.link.Name, c.link.NS.Name, err)
	close(c.changed)
	c.changed = make(chan struct{})
}

// frameOf copies a received frame and puts its tag back where it was on the wire, behind the addresses.
func frameOf(data, control []byte) Frame {
	f := Frame{}
	messages, _ := unix.ParseSocketControlMessage(control) // from the kernel, and long enough
	var tag []byte
	for _, m := range messages {
		switch {
		case m.Header.Level == unix.SOL_PACKET && m.Header.Type == unix.PACKET_AUXDATA && len(m.Data) >= int(unsafe.Sizeof(unix.TpacketAuxdata{})):
			aux := (*unix.TpacketAuxdata)(unsafe.Pointer(&m.Data[0]))
			f.ChecksumPending = aux.Status&unix.TP_STATUS_CSUMNOTREADY != 0
			if aux.Status&unix.TP_STATUS_VLAN_VALID == 0 {
				break
			}
			tpid := uint16(unix.ETH_P_8021Q)
			if aux.Status&unix.TP_STATUS_VLAN_TPID_VALID != 0 {
				tpid = aux.Vlan_tpid
			}
			tag = binary.BigEndian.AppendUint16(tag, tpid)
			tag = binary.BigEndian.AppendUint16(tag, aux.Vlan_tci)
		case m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS && len(m.Data) >= 16:
			f.Time = time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:])))
		}
	}
	f.Data = make([]byte, 0, len(data)+len(tag))
	if tag == nil || len(data) < 12 {
		f.Data = append(f.Data, data...)
		return f
	}
	f.TagInMetadata = true
	f.Data = append(append(append(f.Data, data[:12]...), tag...), data[12:]...)
	return f
}

// Frames are those captured so far.
func (c *Capture) Frames() []Frame {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.frames)
}

// Wait waits until enough, given all frames so far, says so, and returns them.
func (c *Capture) Wait(ctx context.Context, what string, enough func([]Frame) bool) ([]Frame, error) {
	for {
		c.mu.Lock()
		// Clipped, so that what is appended here and what the caller appends do not meet.
		frames, changed, err := slices.Clip(c.frames), c.changed, c.err
		c.mu.Unlock()
		if enough(frames) {
			return frames, nil
		}
		if err != nil {
			return frames, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return frames, fmt.Errorf("netlab: capture on %s in %s: waiting for %s, with %d frames: %w", c.link.Name, c.link.NS.Name, what, len(frames), ctx.Err())
		}
	}
}

// WaitCount waits for n frames.
func (c *Capture) WaitCount(ctx context.Context, n int) ([]Frame, error) {
	return c.Wait(ctx, fmt.Sprintf("%d frames", n), func(f []Frame) bool { return len(f) >= n })
}

// Stop ends the capture and returns the frames. Frames that the kernel dropped
// because they were not taken in time are an error: the capture is not the wire.
func (c *Capture) Stop() ([]Frame, error) {
	c.stop.Do(func() {
		c.file.SetReadDeadline(time.Unix(1, 0))
		<-c.done
		s, err := unix.GetsockoptTpacketStats(c.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
		c.file.Close()
		switch {
		case err != nil:
			c.end(fmt.Errorf("read the count of dropped frames: %w", err))
		case s.Drops > 0:
			c.end(fmt.Errorf("%d frames dropped", s.Drops))
		}
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.frames), c.err
}
