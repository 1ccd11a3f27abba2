package agent

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/pcapng"
	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/l2tpv3/control"
)

const (
	// maxTaps is how many captures there may be at once.
	maxTaps = 8
	// tapMessages and tapOctets are what waits for the reader of one of them.
	tapMessages = 1024
	tapOctets   = 4 << 20
)

// tap takes copies of control messages where they leave and arrive. It is Run's
// but for what its reader takes from messages.
type tap struct {
	api.CaptureRequest
	messages chan *pcapng.Message
	octets   atomic.Int64
	// before are messages that tell what was agreed on before it began.
	before []*pcapng.Message
	// sniffer takes data packets, nil where they are not wanted. It puts them beside Run.
	sniffer *sniffer
	mu      sync.Mutex
	// missed counts messages that found the queue full since the last that did not.
	missed uint64
}

// wants says whether the messages of the tunnel with that key are to be taken.
func (t *tap) wants(key string) bool {
	name, peer, _ := strings.Cut(key, "/")
	return name == t.Tunnel && (t.Peer == "" || peer == t.Peer)
}

func (t *tap) put(m *pcapng.Message) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := int64(len(m.Payload) + len(m.Packet))
	if t.octets.Load()+n <= tapOctets {
		copied := *m
		copied.Missed = t.missed
		select {
		case t.messages <- &copied:
			t.octets.Add(n)
			t.missed = 0
			return
		default:
		}
	}
	t.missed++
}

// tapReceived shows those who capture what was received. A message that is
// nobody's goes with every tunnel to that address.
func (a *Agent) tapReceived(now time.Time, tunnel string, p control.Path, payload []byte) {
	a.tap(tunnel, p, &pcapng.Message{
		Time: now, Encapsulation: p.Encapsulation, Source: p.Remote, Destination: p.Local, Payload: payload,
	})
}

// tapSent shows those who capture what was sent.
func (a *Agent) tapSent(out *control.Transmit) {
	local := out.Path.Local
	if bound, _, ok := a.transport.Path(out.Connection); ok && out.Connection != 0 {
		local = bound
	}
	if local.Port() == 0 && out.Path.Encapsulation == l2tpv3.UDP {
		local = netip.AddrPortFrom(local.Addr(), l2tpv3.Port) // the listener's
	}
	a.tap(out.Tunnel, out.Path, &pcapng.Message{
		Time: time.Now(), Sent: true, Encapsulation: out.Path.Encapsulation,
		Source: local, Destination: out.Path.Remote, Payload: bytes.Clone(out.Payload),
	})
}

func (a *Agent) tap(tunnel string, p control.Path, m *pcapng.Message) {
	for _, t := range a.taps {
		if tunnel != "" && t.wants(tunnel) || tunnel == "" && a.near(t, p) {
			t.put(m)
		}
	}
}

// near says whether one of the wanted tunnels has its peer where a packet came from.
func (a *Agent) near(t *tap, p control.Path) bool {
	for key, x := range a.tunnels {
		if x.Remote == p.Remote.Addr().Unmap() && x.Encapsulation == p.Encapsulation && t.wants(key) {
			return true
		}
	}
	return false
}

// Capture implements api.Backend.
func (a *Agent) Capture(ctx context.Context, req api.CaptureRequest, w io.Writer) error {
	t := &tap{CaptureRequest: req, messages: make(chan *pcapng.Message, tapMessages)}
	var refused error
	if err := a.do(ctx, func() { refused = a.addTap(t) }); err != nil {
		return err
	}
	if refused != nil {
		return refused
	}
	writer, err := pcapng.NewWriter(w, req.Tunnel)
	for i := 0; err == nil && i < len(t.before); i++ {
		err = writer.Write(t.before[i])
	}
	if err == nil {
		err = t.copy(ctx, writer, a.stopping)
	}
	// Without its loop the daemon has no taps any more.
	_ = a.do(context.WithoutCancel(ctx), func() { a.removeTap(t) })
	if t.sniffer != nil {
		t.missed += t.sniffer.close()
	}
	if err != nil || ctx.Err() != nil {
		return err
	}
	return writer.Close(time.Now(), t.missed)
}

func (a *Agent) addTap(t *tap) error {
	known := false
	for key := range a.tunnels {
		known = known || t.wants(key)
	}
	switch {
	case !known:
		name := t.Tunnel
		if t.Peer != "" {
			name += "/" + t.Peer
		}
		return &api.Error{Code: api.CodeNotFound, Title: "not found", Detail: "this site has no tunnel " + name}
	case len(a.taps) == maxTaps:
		return &api.Error{Code: api.CodeBadRequest, Status: http.StatusTooManyRequests, Title: "too many captures",
			Detail: "there are as many captures under way as there may be: end one"}
	}
	if t.Data {
		s, err := newSniffer()
		if err != nil {
			return fmt.Errorf("capture data packets: %w", err)
		}
		s.follow(a.lanes(t))
		t.sniffer = s
		go s.run(t.put)
	}
	a.recall(time.Now(), t)
	a.taps = append(a.taps, t)
	return nil
}

// recalled is the comment of messages that were not sent or received.
const recalled = "pwctl capture: not seen, but put together from what the ends agreed on before the capture began"

// recall begins a capture of established tunnels with what a reader needs to know: IDs,
// nonces, cookies.
func (a *Agent) recall(now time.Time, t *tap) {
	for _, key := range slices.Sorted(maps.Keys(a.tunnels)) {
		if !t.wants(key) {
			continue
		}
		for _, c := range a.control.Connections() {
			local, remote, open := a.transport.Path(c.LocalID)
			if c.Tunnel.Name != key || !open {
				continue
			}
			for _, r := range a.control.Recall(key) {
				m := &pcapng.Message{Time: now, Sent: r.Sent, Encapsulation: c.Path.Encapsulation, Source: local, Destination: remote, Payload: r.Payload, Comment: recalled}
				if !r.Sent {
					m.Source, m.Destination = remote, local
				}
				t.before = append(t.before, m)
			}
		}
	}
}

// lanes are the sessions that a capture is of.
func (a *Agent) lanes(t *tap) map[lane]bool {
	all := make(map[lane]bool)
	for id, s := range a.sessions {
		local, remote, open := a.transport.Path(s.Connection)
		if !open || !t.wants(s.Tunnel) {
			continue
		}
		all[lane{remote.Addr().Unmap(), local.Addr().Unmap(), id}] = true
		all[lane{local.Addr().Unmap(), remote.Addr().Unmap(), s.RemoteID}] = true
	}
	return all
}

// followSessions tells those who capture data which sessions there are now.
func (a *Agent) followSessions() {
	a.lanesDue = false
	for _, t := range a.taps {
		if t.sniffer != nil {
			t.sniffer.follow(a.lanes(t))
		}
	}
}

func (a *Agent) removeTap(t *tap) {
	if i := slices.Index(a.taps, t); i >= 0 {
		a.taps = slices.Delete(a.taps, i, i+1)
	}
}

// copy writes what comes until there is enough of it.
func (t *tap) copy(ctx context.Context, w *pcapng.Writer, stopping <-chan struct{}) error {
	var over <-chan time.Time
	if t.Duration > 0 {
		timer := time.NewTimer(t.Duration)
		defer timer.Stop()
		over = timer.C
	}
	for n := 0; t.Count == 0 || n < t.Count; n++ {
		select {
		case m := <-t.messages:
			t.octets.Add(-int64(len(m.Payload) + len(m.Packet)))
			if err := w.Write(m); err != nil {
				return err
			}
		case <-over:
			return nil
		case <-ctx.Done():
			return nil
		case <-stopping:
			return errStopping
		}
	}
	return nil
}
