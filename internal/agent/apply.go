package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/plan"
	"github.com/pwd-project/pwd/internal/topology"
	"github.com/pwd-project/pwd/pkg/l2tpv3/control"
	"github.com/pwd-project/pwd/pkg/l2tpv3/transport"
)

const (
	// newPatience is how long an apply waits for pseudowires that were not up
	// before: their peer may not know of them yet.
	newPatience = 5 * time.Second
	// oldPatience is how long one that was up before may take to be up again.
	oldPatience = 20 * time.Second
)

// difference lists the steps from the topology in force to another.
func (a *Agent) difference(to *topology.Local) []plan.Step { return plan.Between(a.local, to) }

// change carries a topology out and makes it the generation in force. On an
// error everything is as it was before, unless the error says otherwise.
func (a *Agent) change(name, document, fileHash string, to *topology.Local) ([]plan.Step, error) {
	steps := a.difference(to)
	undone, err := a.execute(steps)
	if err != nil {
		if !undone {
			return steps, &api.Error{Code: api.CodeRollbackFailed, Title: "the topology could not be applied, nor taken back", Detail: err.Error()}
		}
		return steps, &api.Error{Code: api.CodeApplyFailed, Title: "the topology could not be applied, everything is as it was", Detail: err.Error()}
	}
	a.local = to
	a.setListeners()
	g := &generation{Site: a.opt.Site, Number: 1, Applied: time.Now(), Hash: hashOf([]byte(document)), FileHash: fileHash, Name: name, Document: document}
	if a.generation != nil {
		g.Number = a.generation.Number + 1
		if fileHash == "" {
			g.FileHash = a.generation.FileHash
		}
	}
	a.generation = g
	a.event("info", "topology "+to.Topology, fmt.Sprintf("generation %d applied", g.Number), describeSteps(steps))
	return steps, a.store.setGeneration(g)
}

func describeSteps(steps []plan.Step) string {
	var n [3]int
	for _, s := range steps {
		n[slices.Index([]plan.Action{plan.Add, plan.Change, plan.Remove}, s.Action)]++
	}
	return fmt.Sprintf("%d added, %d changed, %d removed", n[0], n[1], n[2])
}

func (a *Agent) setListeners() {
	if err := a.transport.SetListeners(a.localAddresses()); err != nil {
		a.log.Warn("cannot listen on every address, trying again", "err", err)
	}
}

// readAgain is SIGHUP: a file that changed since it was last read is applied,
// an invalid one changes nothing.
func (a *Agent) readAgain() {
	if a.opt.TopologyFile == "" {
		a.log.Warn("nothing to read again: the daemon runs without --topology")
		return
	}
	document, hash, local, diags, err := a.readFile()
	if err != nil {
		a.event("error", "topology", "file could not be read", err.Error())
		return
	}
	a.fileHash, a.fileFault = hash, nil
	if local == nil {
		a.fileFault = diags
		a.event("error", "topology", "file is invalid, nothing was changed", diags.Err().Error())
		return
	}
	if a.generation != nil && a.generation.FileHash == hash {
		a.log.Info("topology file is unchanged")
		return
	}
	if _, err := a.change(a.opt.TopologyFile, document, hash, local); err != nil {
		a.event("error", "topology", "file could not be applied", err.Error())
	}
}

// Apply carries a topology out and verifies it. It implements api.Backend.
func (a *Agent) Apply(ctx context.Context, r api.ApplyRequest) (*api.ApplyResult, error) {
	a.applying.Lock()
	defer a.applying.Unlock()
	begin := time.Now()
	local, diags := parse(r.Name, []byte(r.Document), a.opt.Site)
	if local == nil {
		return nil, &api.Error{Code: api.CodeInvalidTopology, Title: "the topology is invalid, nothing was changed", Diagnostics: api.DiagnosticsOf(diags)}
	}
	var (
		steps  []plan.Step
		before *generation
		was    *topology.Local
		wasUp  []string
		number int
		err    error
	)
	if derr := a.do(ctx, func() {
		steps, before, was = a.difference(local), a.generation, a.local
		if a.generation != nil {
			number = a.generation.Number
		}
		switch {
		case r.DryRun:
		case plan.Disruptive(steps) && !r.Disruptive:
			err = &api.Error{Code: api.CodeNeedsConfirmation, Title: "the change interrupts traffic", Detail: "confirm it, or give -y", Changes: changes(steps)}
		case len(steps) == 0 && a.generation != nil && a.generation.Hash == hashOf([]byte(r.Document)):
			// The document in force once more: nothing to do, no new generation.
		default:
			wasUp = a.readyWires()
			if _, err = a.change(r.Name, r.Document, "", local); err == nil {
				number = a.generation.Number
			}
		}
	}); derr != nil {
		return nil, derr
	}
	if err != nil {
		return nil, err
	}
	result := &api.ApplyResult{Generation: number, Changes: changes(steps)}
	if !r.DryRun {
		result.Waiting, err = a.verify(ctx, wasUp, r.RequirePeers)
		if err != nil {
			return nil, a.takeBack(ctx, before, was, err)
		}
	}
	result.Seconds = time.Since(begin).Seconds()
	return result, nil
}

// takeBack returns to an earlier generation after a verification that failed.
func (a *Agent) takeBack(ctx context.Context, before *generation, was *topology.Local, cause error) error {
	var err error
	if derr := a.do(context.WithoutCancel(ctx), func() {
		var undone bool
		if undone, err = a.execute(a.difference(was)); err != nil {
			err = &api.Error{Code: api.CodeRollbackFailed, Title: "the topology failed its verification and could not be taken back",
				Detail: errors.Join(cause, err).Error()}
			if undone {
				return
			}
		}
		a.local, a.generation = was, before
		a.setListeners()
		a.event("error", "topology", "generation taken back", cause.Error())
		if before != nil {
			err = errors.Join(err, a.store.setGeneration(before))
		} else {
			err = errors.Join(err, a.store.remove("generation.json"))
		}
	}); derr != nil {
		return derr
	}
	if err != nil {
		return err
	}
	return &api.Error{Code: api.CodeApplyFailed, Title: "the topology failed its verification, everything is as it was", Detail: cause.Error()}
}

// readyWires names the pseudowires that carry traffic.
func (a *Agent) readyWires() []string {
	var up []string
	for name, w := range a.wires {
		if w.ready {
			up = append(up, name)
		}
	}
	return up
}

// verify waits until what was up before is up again and, for a while, until
// everything else is up too. It returns what is still awaited, as "NAME: REASON".
func (a *Agent) verify(ctx context.Context, wasUp []string, requireAll bool) ([]string, error) {
	patience := time.NewTimer(newPatience)
	defer patience.Stop()
	limit := time.NewTimer(oldPatience)
	defer limit.Stop()
	impatient := false
	for {
		changed := a.changed.wait()
		var waiting, broken []string
		if err := a.do(ctx, func() { waiting, broken = a.awaited(wasUp) }); err != nil {
			return nil, err
		}
		if len(waiting) == 0 || impatient && len(broken) == 0 && !requireAll {
			return waiting, nil
		}
		select {
		case <-changed:
		case <-patience.C:
			impatient = true
		case <-limit.C:
			if requireAll {
				broken = waiting
			}
			if len(broken) == 0 {
				return waiting, nil
			}
			return nil, fmt.Errorf("not up after %v: %v", oldPatience, broken)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// awaited lists pseudowires that are not up, and those among them that were.
func (a *Agent) awaited(wasUp []string) (waiting, broken []string) {
	for _, p := range a.local.Pseudowires {
		w := a.wires[p.Name]
		if w == nil || w.ready {
			continue
		}
		s := p.Name + ": " + a.why(w)
		waiting = append(waiting, s)
		if slices.Contains(wasUp, p.Name) {
			broken = append(broken, s)
		}
	}
	return waiting, broken
}

// resume takes up what an earlier daemon left, before anything is signalled:
// its topology, connections and sessions.
func (a *Agent) resume() error {
	states, sockets, err := a.saved()
	if err != nil {
		return err
	}
	if err := a.transport.Restore(sockets); err != nil {
		a.log.Warn("cannot bind every saved port again, those peers will be asked anew", "err", err)
	}
	now := time.Now()
	if g := a.generation; g != nil {
		local, diags := parse(g.Name, []byte(g.Document), a.opt.Site)
		if local == nil {
			return fmt.Errorf("the applied topology cannot be read by this version: %w", diags.Err())
		}
		a.local = local
		if err := a.setAgain(now, states); err != nil {
			return err
		}
	}
	for kind, dp := range a.datapaths {
		if err := dp.Prune(); err != nil {
			return fmt.Errorf("remove leftovers of the %s datapath: %w", kind, err)
		}
	}
	if err := a.bridges.Prune(); err != nil {
		return fmt.Errorf("remove leftover bridges: %w", err)
	}
	return nil
}

// saved reads the tunnels' state, and forgets that of another boot.
func (a *Agent) saved() (states []control.TunnelState, sockets transport.State, err error) {
	records, err := a.store.tunnels()
	if err != nil {
		return nil, sockets, err
	}
	for name, r := range records {
		if r.Boot != a.boot {
			if err := a.store.removeTunnel(name); err != nil {
				return nil, sockets, err
			}
			continue
		}
		states = append(states, r.Control)
		sockets.Connections = append(sockets.Connections, r.Sockets...)
	}
	return states, sockets, nil
}

// setAgain names every object of the topology in force to the layers below,
// which find most of them as they should be.
func (a *Agent) setAgain(now time.Time, states []control.TunnelState) error {
	a.setListeners()
	for i := range a.local.Bridges {
		if err := present(a.setBridge(&a.local.Bridges[i])); err != nil {
			a.log.Error("cannot set bridge", "bridge", a.local.Bridges[i].Name, "err", err)
		}
	}
	if err := a.control.Restore(now, control.State{Version: control.StateVersion, Tunnels: states}); err != nil {
		return fmt.Errorf("restore control connections: %w", err)
	}
	wanted := make(map[string]bool)
	for i := range a.local.Tunnels {
		t := &a.local.Tunnels[i]
		wanted[t.Key] = true
		if err := a.setTunnel(t); err != nil {
			return err
		}
	}
	for _, s := range states {
		if !wanted[s.Config.Name] {
			a.control.RemoveTunnel(now, s.Config.Name, shuttingDown)
		}
	}
	for i := range a.local.Pseudowires {
		if err := a.setPseudowire(&a.local.Pseudowires[i]); err != nil {
			a.log.Error("cannot set pseudowire", "pseudowire", a.local.Pseudowires[i].Name, "err", err)
		}
	}
	a.settle(now)
	for _, s := range a.control.Sessions() {
		if w := a.wires[s.Session.Name]; w != nil && w.Tunnel == s.Session.Tunnel {
			w.state, w.remote, w.reason = s.State, s.Remote, s.Reason
			a.judge(w, s.Reason)
			w.since = s.Since
		}
	}
	return nil
}

// save writes the tunnels that changed since they were last written.
func (a *Agent) save() {
	dirty := a.control.TakeDirty()
	if len(dirty) == 0 {
		return
	}
	sockets := make(map[uint32]transport.ConnectionState)
	for _, c := range a.transport.Save().Connections {
		sockets[c.Connection] = c
	}
	for _, name := range dirty {
		var err error
		if state, ok := a.control.SaveTunnel(name); ok {
			r := &tunnelRecord{Boot: a.boot, Control: state}
			for _, c := range state.Connections {
				if s, ok := sockets[c.LocalID]; ok {
					r.Sockets = append(r.Sockets, s)
				}
			}
			err = a.store.setTunnel(name, r)
		} else {
			err = a.store.removeTunnel(name)
		}
		if err != nil {
			a.log.Error("cannot save a tunnel's state: a restart would reset it", "tunnel", name, "err", err)
		}
	}
}
