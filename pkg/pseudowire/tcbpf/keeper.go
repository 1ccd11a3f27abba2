package tcbpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/bpf"
)

// keeper ends the time of packets that are held because one before them is missing
// (bpf/order.h), where no later packet of the session's does. It runs while there are
// sessions that ask for order.
type keeper struct {
	waits  *ringbuf.Reader
	alive  bpf.Table[uint32, uint64]
	orders bpf.Table[uint32, bpf.Order]
	// untold is how many notices had been lost when all sessions were last looked at.
	untold uint64
	lane   int // ifindex of the lane's entry
	socket int
	hold   time.Duration
	end    chan struct{}
	done   chan struct{}
}

const (
	// The programs hold packets for as long as they hear of a keeper.
	keeperBeat  = 500 * time.Millisecond
	keeperTrust = 4 * keeperBeat
)

func startKeeper(objs *bpf.Objects, lane int, hold time.Duration) (*keeper, error) {
	k := &keeper{alive: objs.Keeper, orders: objs.Orders, lane: lane, hold: hold, end: make(chan struct{}), done: make(chan struct{})}
	var err error
	if k.socket, err = openPacket(bpf.LaneRelease); err != nil {
		return nil, err
	}
	if k.waits, err = ringbuf.NewReader(objs.Waits); err != nil {
		unix.Close(k.socket)
		return nil, fmt.Errorf("read what packets wait: %w", err)
	}
	if err := k.beat(); err != nil {
		unix.Close(k.socket)
		k.waits.Close()
		return nil, err
	}
	go k.run()
	return k, nil
}

// stop ends it. Without one the programs deliver what they hold, and hold nothing.
func (k *keeper) stop() error {
	close(k.end)
	err := k.waits.Close()
	<-k.done
	return errors.Join(err, unix.Close(k.socket), k.say(0))
}

func (k *keeper) beat() error { return k.say(bpf.Now() + uint64(keeperTrust)) }

func (k *keeper) say(until uint64) error { return k.alive.Put(bpf.KeeperUntil, &until) }

func (k *keeper) run() {
	defer close(k.done)
	for {
		k.waits.SetDeadline(time.Now().Add(keeperBeat))
		record, err := k.waits.Read()
		if errors.Is(err, ringbuf.ErrClosed) || k.beat() != nil || k.catchUp() != nil {
			return
		}
		if errors.Is(err, os.ErrDeadlineExceeded) || err != nil || len(record.RawSample) < 16 {
			continue
		}
		since := binary.NativeEndian.Uint64(record.RawSample)
		session := binary.NativeEndian.Uint64(record.RawSample[8:])
		if !k.wait(since) {
			return
		}
		k.release(uint32(session))
	}
}

// catchUp releases what sessions hold that there was no room to tell of. Those whose time is not
// over are told of again.
func (k *keeper) catchUp() error {
	untold, err := k.alive.Get(bpf.KeeperUntold)
	if err != nil || untold == k.untold {
		return err
	}
	k.untold = untold
	sessions, err := k.orders.Keys()
	if err != nil {
		return err
	}
	for _, session := range sessions {
		if o, err := k.orders.Get(session); err == nil && o.Count > 0 {
			k.release(session)
		}
	}
	return nil
}

// wait waits until the time of what is held since then is over; false is the keeper's
// end. They come in order, and all are held as long.
func (k *keeper) wait(since uint64) bool {
	over := time.NewTimer(k.hold - time.Duration(bpf.Now()-since))
	defer over.Stop()
	beat := time.NewTicker(keeperBeat)
	defer beat.Stop()
	for {
		select {
		case <-over.C:
			return true
		case <-k.end:
			return false
		case <-beat.C:
			if k.beat() != nil || k.catchUp() != nil {
				return false
			}
		}
	}
}

// release puts a packet into the lane; what it cannot, the session's next one does.
func (k *keeper) release(session uint32) {
	b := make([]byte, 60)
	binary.BigEndian.PutUint16(b[ethernetLen-2:], etherTypeExperimental)
	binary.BigEndian.PutUint32(b[ethernetLen:], session)
	_ = unix.Sendto(k.socket, b, 0, &unix.SockaddrLinklayer{Ifindex: k.lane})
}

const etherTypeExperimental = 0x88b5 // IEEE 802, Local Experimental EtherType 1
