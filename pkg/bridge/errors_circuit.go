package bridge

import (
	"golang.org/x/sys/unix"

	"github.com/vishvananda/netlink/nl"
)

// CircuitErrors are errors of received frames, as an interface has counted them
// since it was made. The kernel has them under the names of rtnl_link_stats64.
type CircuitErrors struct {
	CRC       uint64 // rx_crc_errors
	Length    uint64 // rx_length_errors
	Alignment uint64 // rx_frame_errors
	// HardwareOverruns are of the device's own memory: rx_over_errors or
	// rx_fifo_errors, whichever the driver counts.
	HardwareOverruns uint64
	// BufferOverruns are for want of memory of the host's: rx_missed_errors.
	BufferOverruns uint64
}

// CircuitErrors are those of an interface that attaches pseudowires; false if it
// is not there, or does not say.
func (m *Manager) CircuitErrors(name string) (CircuitErrors, bool) {
	if m.nl == nil {
		return CircuitErrors{}, false
	}
	messages, err := m.nl.request(unix.RTM_GETLINK, unix.NLM_F_ACK, nl.NewIfInfomsg(unix.AF_UNSPEC),
		nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name))).Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	if err != nil || len(messages) == 0 || len(messages[0]) < unix.SizeofIfInfomsg {
		return CircuitErrors{}, false
	}
	var e CircuitErrors
	found := false
	err = walk(messages[0][unix.SizeofIfInfomsg:], func(kind uint16, v []byte) error {
		if kind == unix.IFLA_STATS64 {
			e, found = parseErrors(v), true
		}
		return nil
	})
	return e, found && err == nil
}

// parseErrors reads a struct rtnl_link_stats64; what a short one lacks is 0.
func parseErrors(stats []byte) CircuitErrors {
	const length, over, crc, frame, fifo, missed = 10, 11, 12, 13, 14, 15
	at := func(i int) uint64 {
		if len(stats) < 8*(i+1) {
			return 0
		}
		return nl.NativeEndian().Uint64(stats[8*i:])
	}
	return CircuitErrors{
		CRC: at(crc), Length: at(length), Alignment: at(frame),
		HardwareOverruns: max(at(over), at(fifo)), BufferOverruns: at(missed),
	}
}
