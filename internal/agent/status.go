package agent

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/plan"
	"github.com/pwd-project/pwd/internal/topology"
	"github.com/pwd-project/pwd/pkg/bridge"
	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/l2tpv3/control"
	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// view runs f in Run's goroutine and returns what it made.
func view[T any](ctx context.Context, a *Agent, f func() T) (T, error) {
	var v T
	err := a.do(ctx, func() { v = f() })
	return v, err
}

// Tunnels implements api.Backend.
func (a *Agent) Tunnels(ctx context.Context) ([]api.Tunnel, error) {
	return view(ctx, a, func() []api.Tunnel { return a.tunnelViews(a.counters()) })
}

// Sessions implements api.Backend.
func (a *Agent) Sessions(ctx context.Context) ([]api.Session, error) {
	return view(ctx, a, a.sessionViews)
}

// Pseudowires implements api.Backend.
func (a *Agent) Pseudowires(ctx context.Context) ([]api.Pseudowire, error) {
	return view(ctx, a, func() []api.Pseudowire { return a.pseudowireViews(a.counters()) })
}

// Attachments implements api.Backend.
func (a *Agent) Attachments(ctx context.Context) ([]api.Attachment, error) {
	return view(ctx, a, a.attachmentViews)
}

// Classes implements api.Backend.
func (a *Agent) Classes(ctx context.Context) ([]api.Class, error) {
	return view(ctx, a, a.classViews)
}

// Events implements api.Backend.
func (a *Agent) Events(ctx context.Context, since uint64, follow bool, emit func(api.Event) error) error {
	return a.events.stream(ctx, since, follow, emit)
}

// Pulse implements api.Backend.
func (a *Agent) Pulse(ctx context.Context) (api.Pulse, error) {
	return view(ctx, a, func() api.Pulse { return api.Pulse{Site: a.opt.Site, Generation: a.number()} })
}

// Status implements api.Backend.
func (a *Agent) Status(ctx context.Context) (*api.Status, error) {
	fileHash := a.hashFile()
	in, err := view(ctx, a, a.inForce)
	if err != nil {
		return nil, err
	}
	problems, notes := secretProblems(in)
	return view(ctx, a, func() *api.Status {
		s := a.status(fileHash)
		s.Notes = append(s.Notes, notes...)
		if s.Problems = append(s.Problems, problems...); len(problems) > 0 {
			s.Health = "degraded"
		}
		return s
	})
}

// status is the site with a topology file of that hash.
func (a *Agent) status(fileHash string) *api.Status {
	counters := a.counters() // of which the kernel makes a list each time
	s := &api.Status{
		Site: a.opt.Site, Version: a.opt.Version, Started: a.started, Datapath: string(a.standard),
		Drift: api.DriftCount{Repaired: a.drifts.repaired, Failed: a.drifts.failed, Contested: len(a.contests.now)},
		Notes: slices.Clone(a.notes), Tunnels: a.tunnelViews(counters), Pseudowires: a.pseudowireViews(counters),
		Counters: a.globalCounters(), Strangers: a.drops.views(), FileHash: fileHash, Health: "healthy", Problems: []api.Problem{},
	}
	if a.opt.Keeper != nil {
		s.Restart.Store, s.Restart.Holder = a.opt.Keeper.Places()
	}
	if a.local != nil {
		s.Topology = a.local.Topology
	}
	for _, d := range a.drains {
		if !d.byLoop() {
			s.Notes = append(s.Notes, fmt.Sprintf("%s is %s; `pwctl undrain %s` ends that", d.object(), d.words(time.Now()), d.Name))
		}
	}
	if note := a.drifts.note(time.Now()); note != "" {
		s.Notes = append(s.Notes, note)
	}
	s.Notes = append(s.Notes, a.unknownNotes(time.Now())...)
	s.Notes = append(s.Notes, a.addressNotes()...)
	if g := a.generation; g != nil {
		s.Generation, s.Applied, s.AppliedHash = g.Number, g.Applied, g.Hash
		s.ConfirmBy = g.confirmBy()
		s.FileDiffers = fileHash != "" && fileHash != g.Hash
	}
	s.Problems = append(s.Problems, a.problems(s)...)
	if len(s.Problems) > 0 {
		s.Health = "degraded"
	}
	return s
}

func (a *Agent) problems(s *api.Status) []api.Problem {
	var ps []api.Problem
	if a.generation == nil {
		ps = append(ps, api.Problem{Object: "topology", What: "none applied", Fix: "run pwctl apply -f FILE"})
	}
	if err := a.file.err; err != nil {
		ps = append(ps, api.Problem{Object: "topology file", What: err.Error(),
			Fix: "see pwctl validate -f " + a.opt.TopologyFile + ", then send SIGHUP"})
	}
	for _, object := range a.faults.objects() {
		// What a pseudowire lacks is its reason to be down.
		if !strings.HasPrefix(object, "pseudowire ") {
			// Joined errors are a line each.
			for what := range strings.SplitSeq(a.faults.now[object], "\n") {
				ps = append(ps, api.Problem{Object: object, What: what})
			}
		}
	}
	for _, d := range a.drains {
		if d.byLoop() {
			ps = append(ps, api.Problem{Object: d.object(), What: d.words(time.Now()), Fix: d.Fix})
		}
	}
	ps = append(ps, a.keepProblem()...)
	ps = append(ps, a.macProblems()...)
	ps = append(ps, a.contestProblems(time.Now())...)
	for _, t := range s.Tunnels {
		if t.State != "established" {
			ps = append(ps, api.Problem{Object: "tunnel " + t.Name + " to " + t.Peer, What: t.State + ": " + t.Reason, Fix: t.Next})
		} else if t.Reason != "" {
			ps = append(ps, api.Problem{Object: "tunnel " + t.Name + " to " + t.Peer, What: t.Reason, Fix: t.Next})
		}
	}
	for _, p := range s.Pseudowires {
		if p.State == "down" {
			ps = append(ps, api.Problem{Object: "pseudowire " + p.Name, What: "down: " + p.Reason, Fix: p.Next})
		}
	}
	return ps
}

func (a *Agent) globalCounters() map[string]uint64 {
	sum := make(map[string]uint64)
	for kind, dp := range a.datapaths {
		counters, err := dp.Global()
		a.faults.set("the "+string(kind)+" datapath's global counters", err)
		for name, n := range counters {
			sum[name] += n
		}
	}
	for name, n := range a.control.Counters() {
		sum["control-"+name] += n
	}
	c := a.transport.Counters()
	sum["transport-dropped-control"], sum["transport-dropped-data"] = c.DroppedControl, c.DroppedData
	sum["transport-malformed"], sum["transport-errors"] = c.Malformed, c.SocketErrors
	return sum
}

// counters of all sessions, by local ID.
func (a *Agent) counters() map[uint32]pseudowire.Counters {
	all := make(map[uint32]pseudowire.Counters)
	for kind, dp := range a.datapaths {
		counters, err := dp.Counters()
		a.faults.set("the "+string(kind)+" datapath's counters", err)
		maps.Copy(all, counters)
	}
	return all
}

func (a *Agent) tunnelViews(counters map[uint32]pseudowire.Counters) []api.Tunnel {
	views := []api.Tunnel{}
	if a.local == nil {
		return views
	}
	status := make(map[string]control.ConnectionStatus)
	for _, c := range a.control.Connections() {
		status[c.Tunnel.Name] = c
	}
	sums := make(map[string]pseudowire.Counters)
	for id, c := range counters {
		if in := a.sessions[id]; in != nil {
			s := sums[in.Tunnel]
			s.ReceivedFrames += c.ReceivedFrames
			s.ReceivedOctets += c.ReceivedOctets
			s.TransmittedFrames += c.TransmittedFrames
			s.TransmittedOctets += c.TransmittedOctets
			sums[in.Tunnel] = s
		}
	}
	now, given := time.Now(), a.mtusGiven()
	for _, t := range a.local.Tunnels {
		c := status[t.Key]
		known := a.tunnels[t.Key]
		if known != nil && known.Static != nil {
			c = known.staticStatus()
		}
		if local, remote, open := a.transport.Path(c.LocalID); open {
			c.Path.Local, c.Path.Remote = local, remote
		}
		v := tunnelView(now, t, c, sums[t.Key])
		if known != nil {
			if v.Reason = known.why(); v.Reason != "" {
				v.Next = a.next(known)
			}
		}
		v.PathMTU = a.shortestMTU(given[t.Key], c.LocalID)
		if known != nil && known.probe.cap != 0 && v.PathMTU > known.probe.cap {
			v.PathMTU, v.BlackHole = known.probe.cap, known.probe.silent()
		}
		views = append(views, v)
	}
	return views
}

func tunnelView(now time.Time, t topology.Tunnel, c control.ConnectionStatus, sum pseudowire.Counters) api.Tunnel {
	v := api.Tunnel{
		Name: t.Name, Peer: t.Peer, State: connectionWord(c.State),
		LocalControlConnectionID: c.LocalID, RemoteControlConnectionID: c.RemoteID,
		Local: addrPort(c.Path.Local, t.Local), Remote: addrPort(c.Path.Remote, t.Remote),
		Encapsulation: encapsulationWord(t.Encapsulation), SinceSeconds: seconds(now, c.Since),
		HostName: t.HostName, PeerHostName: c.PeerHostName,
		RouterID: dotted(t.RouterID), PeerRouterID: dotted(c.PeerRouterID), PeerVendor: c.PeerVendorName,
		HelloSeconds: c.Tunnel.Hello.Seconds(), Ns: c.Ns, Nr: c.Nr, PeerWindow: uint16(c.PeerWindow),
		Unacknowledged: c.Unacknowledged, Retransmits: c.Retransmits, Sessions: c.Sessions,
		History: transitions(c.History), Cause: causeView(c.Cause), ControlMessages: c.Counters,
		ReceivedFrames: sum.ReceivedFrames, ReceivedOctets: sum.ReceivedOctets,
		TransmittedFrames: sum.TransmittedFrames, TransmittedOctets: sum.TransmittedOctets,

		CongestionWindow: c.CongestionWindow, Queued: c.Queued, Tries: c.Tries, RTTSeconds: c.RTT.Seconds(),
		Authenticated: c.Authenticated, ECN: c.ECN,
	}
	if c.LocalID == 0 {
		return v
	}
	if t.Static != nil {
		v.Role, v.HostName, v.RouterID = "static", "", ""
		return v
	}
	if v.Role = "responder"; c.Initiator {
		v.Role = "initiator"
	}
	if !c.Heard.IsZero() {
		v.HeardSeconds = seconds(now, c.Heard)
	}
	if c.Unacknowledged > 0 {
		v.RetransmitSeconds = max(0, c.Retransmit.Sub(now).Seconds())
	}
	if c.PeerNumbers == l2tpv3.CiscoNumbers {
		v.PeerNumbers = c.PeerNumbers.String()
	}
	for _, kind := range c.PeerCapabilities {
		v.PeerCapabilities = append(v.PeerCapabilities, kind.String())
	}
	return v
}

func (a *Agent) sessionViews() []api.Session {
	views := []api.Session{}
	counters := a.counters()
	now := time.Now()
	for _, s := range a.control.Sessions() {
		w := a.wires[s.Session.Name]
		if w == nil {
			continue
		}
		c := counters[s.LocalID]
		views = append(views, api.Session{
			Tunnel: tunnelName(s.Session.Tunnel), Pseudowire: s.Session.Name, Peer: w.Peer, State: sessionWord(s.State),
			LocalSessionID: s.LocalID, RemoteSessionID: s.RemoteID,
			Reason: s.Reason, Cause: causeView(s.Cause), SinceSeconds: seconds(now, s.Since),
			LocalCircuit: s.Local.String(), RemoteCircuit: s.Remote.String(),
			CookieOctets: w.CookieLength,
			LocalErrors:  errorsView(s.LocalErrors), RemoteErrors: errorsView(s.RemoteErrors),
			ReceivedFrames: c.ReceivedFrames, ReceivedOctets: c.ReceivedOctets,
			TransmittedFrames: c.TransmittedFrames, TransmittedOctets: c.TransmittedOctets,
			Drops: c.Drops, History: transitions(s.History),
		})
	}
	views = append(views, a.staticSessionViews(now, counters)...)
	slices.SortFunc(views, func(x, y api.Session) int {
		return cmp.Or(cmp.Compare(x.Tunnel, y.Tunnel), cmp.Compare(x.Pseudowire, y.Pseudowire))
	})
	return views
}

func (a *Agent) pseudowireViews(counters map[uint32]pseudowire.Counters) []api.Pseudowire {
	views := []api.Pseudowire{}
	if a.local == nil {
		return views
	}
	now := time.Now()
	for _, p := range a.local.Pseudowires {
		w := a.wires[p.Name]
		if w == nil {
			continue
		}
		var c pseudowire.Counters
		for _, r := range w.rides {
			if r.session != nil {
				c = sumOf(c, counters[r.session.LocalID])
			}
		}
		views = append(views, api.Pseudowire{
			StormControl: w.Limits.String(), Police: w.Limits.Police,
			Name: w.Name, Peer: w.Peer, State: w.word(), Device: w.Device, Datapath: string(w.kind), Reason: a.why(w),
			Cause: causeView(w.current().cause), Next: a.remedy(w),
			Type: w.Type.String(), Tunnel: w.tunnelWords(), MTU: cmp.Or(w.MTU, 1500), Attachment: attachmentWords(w.Attachment),
			SinceSeconds:   seconds(now, w.since),
			ReceivedFrames: c.ReceivedFrames, ReceivedOctets: c.ReceivedOctets,
			TransmittedFrames: c.TransmittedFrames, TransmittedOctets: c.TransmittedOctets, Drops: c.Drops,
			Redundancy: a.redundancyView(now, w), Steering: a.steeringView(w, counters), SuppressedRequests: a.suppressed(w),
		})
	}
	return views
}

// sumOf adds the counters of two sessions.
func sumOf(x, y pseudowire.Counters) pseudowire.Counters {
	if y.Drops != nil && x.Drops != nil {
		sum := maps.Clone(x.Drops)
		for reason, n := range y.Drops {
			sum[reason] += n
		}
		y.Drops = sum
	} else if y.Drops == nil {
		y.Drops = x.Drops
	}
	return pseudowire.Counters{
		ReceivedFrames: x.ReceivedFrames + y.ReceivedFrames, ReceivedOctets: x.ReceivedOctets + y.ReceivedOctets,
		TransmittedFrames: x.TransmittedFrames + y.TransmittedFrames, TransmittedOctets: x.TransmittedOctets + y.TransmittedOctets,
		Drops: y.Drops,
	}
}

// redundancyView is how the tunnels of a pseudowire stand in for each other, nil if it has one.
func (a *Agent) redundancyView(now time.Time, w *wire) *api.Redundancy {
	x := w.redundancy
	if x == nil {
		return nil
	}
	v := &api.Redundancy{DecidedBy: w.Peer, Why: x.why, SinceSeconds: seconds(now, x.switched), Revertive: x.revertive, HoldSeconds: x.hold.Seconds()}
	if x.leads {
		v.DecidedBy = a.opt.Site
	}
	for i, r := range w.rides {
		s := &x.standings[i]
		t := api.RedundantTunnel{Tunnel: tunnelName(r.Tunnel), State: "standby", SinceSeconds: seconds(now, s.since)}
		switch {
		case r.drained != nil:
			t.State, t.Reason = "drained", r.drained.words(now)
		case !s.works:
			t.State, t.Reason = "failed", s.why
		case r == w.current() && x.inUse(i):
			t.State = "used"
		case i == x.chosen:
			t.State, t.Reason = "chosen", "waiting for "+w.Peer
		case i < x.chosen && x.leads && x.revertive:
			if left := s.wait(x.hold) - now.Sub(s.since); left > 0 {
				t.Reason = fmt.Sprintf("returns in %v", left.Round(time.Second))
			}
		}
		v.Tunnels = append(v.Tunnels, t)
	}
	return v
}

func (a *Agent) attachmentViews() []api.Attachment {
	views := []api.Attachment{}
	if a.local == nil {
		return views
	}
	for _, p := range a.local.Pseudowires {
		w := a.wires[p.Name]
		if w == nil {
			continue
		}
		state := "down"
		if w.circuit&l2tpv3.CircuitActive != 0 {
			state = "up"
		}
		private := ""
		if w.Attachment.Interface != "" {
			private = bridge.PrivateBridge(w.Attachment.Interface)
		}
		views = append(views, api.Attachment{
			Pseudowire: w.Name, Bridge: w.Attachment.Bridge, Interface: w.Attachment.Interface,
			VLAN: w.Attachment.VLAN, Frames: w.Attachment.Frames(), Device: w.Device, PrivateBridge: private, CrossConnected: a.crossConnected(w), State: state, Reason: w.circuitReason,
		})
	}
	return views
}

func changes(steps []plan.Step) []api.Change {
	out := make([]api.Change, 0, len(steps))
	for _, s := range steps {
		out = append(out, api.Change{Action: string(s.Action), Kind: string(s.Kind), Name: s.Name, Impact: string(s.Impact), Detail: s.Detail})
	}
	return out
}

func connectionWord(s control.ConnectionState) string {
	switch s {
	case control.ConnectionEstablished:
		return "established"
	case control.ConnectionWaitReply, control.ConnectionWaitConnect:
		return "connecting"
	default:
		return "down"
	}
}

func sessionWord(s control.SessionState) string {
	switch s {
	case control.SessionEstablished:
		return "established"
	case control.SessionWaitReply, control.SessionWaitConnect:
		return "signalling"
	default:
		return "down"
	}
}

func encapsulationWord(e l2tpv3.Encapsulation) string {
	if e == l2tpv3.IP {
		return "ip"
	}
	return "udp"
}

func attachmentWords(at topology.Attachment) string {
	words := "bridge " + at.Bridge
	if at.Interface != "" {
		words = "interface " + at.Interface
	}
	if frames := at.Frames(); frames != "" {
		words += " " + frames
	}
	return words
}

// tunnelName takes the peer off a tunnel's key.
func tunnelName(key string) string {
	name, _, _ := strings.Cut(key, "/")
	return name
}

// addrPort is an address with its port, if it has one; otherwise where it is to be,
// if that is known.
func addrPort(ap netip.AddrPort, otherwise netip.Addr) string {
	switch {
	case ap.IsValid() && ap.Port() != 0:
		return ap.String()
	case ap.IsValid():
		return ap.Addr().String()
	case otherwise.IsValid():
		return otherwise.String()
	}
	return "any address"
}

func dotted(id uint32) string {
	if id == 0 {
		return ""
	}
	return netip.AddrFrom4([4]byte{byte(id >> 24), byte(id >> 16), byte(id >> 8), byte(id)}).String()
}

func seconds(now, since time.Time) int64 {
	if since.IsZero() {
		return 0
	}
	return int64(now.Sub(since).Seconds())
}
