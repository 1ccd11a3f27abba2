package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/loop"
	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

// What is drained is not used until somebody says so: pseudowires are in standby at this
// end, and those that have another tunnel take that first. It holds across restarts.

// drain is something that is drained.
type drain struct {
	// Kind is a kindOf…, Name that of the object.
	Kind string `json:"kind"`
	Name string `json:"name"`
	// By is who wants it so, Reason why.
	By     string    `json:"by,omitempty"`
	Reason string    `json:"reason,omitempty"`
	Since  time.Time `json:"since"`
	// Until is when it ends by itself, Fix what to do about it, where the daemon did it.
	Until *time.Time `json:"until,omitempty"`
	Fix   string     `json:"fix,omitempty"`
	// Joined is the site whose LAN something else joins with this one's, Behind the port that it is
	// heard behind: that ends when it is heard no more.
	Joined string `json:"joined,omitempty"`
	Behind string `json:"behind,omitempty"`
}

// byLoop says that the daemon did it, for a loop.
func (d *drain) byLoop() bool { return d.Until != nil || d.Joined != "" }

const (
	kindSite       = "site"
	kindTunnel     = "tunnel"
	kindPseudowire = "pseudowire"
)

// drainLimit is how long a request waits for the frames to go elsewhere.
const (
	drainLimit = 5 * time.Second
	drainLook  = 20 * time.Millisecond
)

func (d *drain) object() string { return d.Kind + " " + d.Name }

// words say who did it and why.
func (d *drain) words(now time.Time) string {
	words := "drained by " + nonempty(d.By, "somebody")
	if d.byLoop() {
		words = "blocked"
	}
	words += " since " + clock(now, d.Since)
	if d.Reason != "" {
		words += ": " + d.Reason
	}
	if d.Until != nil {
		words += "; tried again at " + clock(now, *d.Until)
	}
	return words
}

// drainsObject is what is amiss where the files do not say what is drained.
const drainsObject = "what is drained"

// drainFile is what is drained, as it is kept.
type drainFile struct {
	Version int     `json:"version"`
	Drains  []drain `json:"drains"`
}

func (s *store) drains() ([]drain, error) {
	var f drainFile
	if err := s.read("drains.json", &f); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var blocked drainFile
	if err := s.read(loopsFile, &blocked); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return append(f.Drains, blocked.Drains...), nil
}

// loopsFile has what the daemon blocked for loops, apart from what it was asked for: a daemon of
// another version that knows nothing of loops starts without it.
const loopsFile = "loops.json"

func (s *store) setDrains(all []drain) error {
	asked, blocked := drainFile{Version: stateVersion, Drains: []drain{}}, drainFile{Version: stateVersion}
	for _, d := range all {
		if d.byLoop() {
			blocked.Drains = append(blocked.Drains, d)
		} else {
			asked.Drains = append(asked.Drains, d)
		}
	}
	if len(blocked.Drains) == 0 {
		if err := s.remove(loopsFile); err != nil {
			return err
		}
	} else if err := s.replace(loopsFile, &blocked, true); err != nil {
		return err
	}
	return s.replace("drains.json", &asked, true)
}

// withhold finds what of a pseudowire is drained. What somebody drained goes before what is blocked for
// a loop: the site does not get through to the peer, whatever becomes of the loop.
func (a *Agent) withhold(w *wire) {
	w.withheld = nil
	for _, r := range w.rides {
		r.drained = nil
	}
	for i := range a.drains {
		d := &a.drains[i]
		switch {
		case !d.concerns(w, a.opt.Site):
		case d.Kind == kindTunnel:
			for _, r := range w.rides {
				if d.Name == tunnelName(r.Tunnel) {
					r.drained = d
				}
			}
		case w.withheld == nil || w.withheld.byLoop():
			w.withheld = d
		}
	}
	left := slices.ContainsFunc(w.rides, func(r *ride) bool { return r.drained == nil })
	if w.redundancy == nil && (w.withheld == nil || w.withheld.byLoop()) && len(w.rides) > 0 && !left {
		w.withheld = w.rides[0].drained // nothing stands in for it
	}
}

// setDrains puts what is drained into force. It is kept first.
func (a *Agent) setDrains(all []drain) error {
	err := a.store.setDrains(all)
	a.faults.set(drainsObject, err)
	if err != nil {
		return err
	}
	a.enforceDrains(all)
	return nil
}

// enforceDrains is setDrains without keeping it.
func (a *Agent) enforceDrains(all []drain) {
	a.drains = all
	for _, w := range a.wires {
		was := w.withheld != nil // somebody's drain may have hidden a loop's
		a.withhold(w)
		if was && w.withheld == nil {
			a.setBlocked(w, false)
		}
		if w.several() {
			a.undecided[w] = true
		}
	}
	a.resignal = true
	a.settle(time.Now())
}

// Drain implements api.Backend.
func (a *Agent) Drain(ctx context.Context, r api.DrainRequest) ([]api.Drained, error) {
	var targets []drain
	var err error
	if derr := a.do(ctx, func() { targets, err = a.drainNames(&r) }); derr != nil || err != nil {
		return nil, errors.Join(derr, err)
	}
	limit := time.NewTimer(drainLimit)
	defer limit.Stop()
	look := time.NewTicker(drainLook)
	defer look.Stop()
	for {
		var views []api.Drained
		done := false
		if err := a.do(ctx, func() { views, done = a.drainViews(targets, r.Undo) }); err != nil {
			return nil, err
		}
		if done {
			return views, nil
		}
		select {
		case <-look.C:
		case <-limit.C:
			return views, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// drainNames drains what the request names, or ends that. The error is an *api.Error
// where the request is wrong.
func (a *Agent) drainNames(r *api.DrainRequest) (targets []drain, err error) {
	now, all := time.Now(), slices.Clone(a.drains)
	var ended []drain
	word := "drained"
	if r.Undo {
		word = "undrained"
	}
	for _, name := range r.Names {
		kind, err := a.kindNamed(r.Kind, name)
		if err != nil {
			return nil, err
		}
		d := drain{Kind: kind, Name: name, By: r.By, Reason: r.Reason, Since: now}
		if kind == kindTunnel {
			d.Name = tunnelName(name)
		}
		same := func(o drain) bool { return o.Kind == d.Kind && o.Name == d.Name }
		switch i := slices.IndexFunc(all, same); {
		case r.Undo && i < 0:
			return nil, &api.Error{Code: api.CodeNothingToDo, Title: "not drained", Detail: d.object() + " is not drained"}
		case r.Undo:
			ended = append(ended, all[i])
			all = slices.Delete(all, i, i+1)
		default:
			all = append(slices.DeleteFunc(all, same), d)
		}
		targets = append(targets, d)
	}
	if err := a.setDrains(all); err != nil {
		return nil, err
	}
	for _, d := range ended {
		a.releaseLoops(d)
	}
	for _, d := range targets {
		a.event("info", d.object(), word, strings.TrimSuffix("by "+nonempty(r.By, "somebody")+": "+r.Reason, ": "))
	}
	return targets, nil
}

// kindNamed is what a name is that of. The error is an *api.Error.
func (a *Agent) kindNamed(wanted, name string) (string, error) {
	found := make(map[string]bool)
	found[kindSite] = name == a.opt.Site
	for key, t := range a.tunnels {
		found[kindTunnel] = found[kindTunnel] || key == name || t.Name == name
		found[kindSite] = found[kindSite] || t.Peer == name
	}
	for _, w := range a.wires {
		found[kindPseudowire] = found[kindPseudowire] || w.Name == name || w.Network == name
	}
	for _, d := range a.drains { // it may have gone since
		found[d.Kind] = found[d.Kind] || d.Name == name
	}
	maps.DeleteFunc(found, func(kind string, is bool) bool { return !is || wanted != "" && kind != wanted })
	kinds := slices.Sorted(maps.Keys(found))
	switch len(kinds) {
	case 1:
		return kinds[0], nil
	case 0:
		return "", &api.Error{Code: api.CodeNotFound, Title: "not found", Detail: fmt.Sprintf("there is no %s %s here", nonempty(wanted, "pseudowire, network, tunnel or site"), name)}
	}
	return "", &api.Error{Code: api.CodeBadRequest, Title: "not clear", Detail: fmt.Sprintf("%s is the name of a %s: say which, with --kind", name, strings.Join(kinds, " and of a "))}
}

// drainViews are the pseudowires that targets concern. It is done when none of them
// uses what is drained, or after the end of that, when none is in standby but for its peer.
func (a *Agent) drainViews(targets []drain, undo bool) (views []api.Drained, done bool) {
	views, done = []api.Drained{}, true
	for _, name := range slices.Sorted(maps.Keys(a.wires)) {
		w := a.wires[name]
		if !slices.ContainsFunc(targets, func(d drain) bool { return d.concerns(w, a.opt.Site) }) {
			continue
		}
		v := api.Drained{Pseudowire: name, Peer: w.Peer, State: w.word(), Tunnel: w.tunnelWords(), Reason: a.why(w)}
		views = append(views, v)
		uses := w.ready && (w.withheld != nil || w.usesDrained())
		leaving := w.redundancy != nil && w.redundancy.leaving >= 0
		done = done && !leaving && (!uses || undo) && (!undo || !w.standby || w.withheld != nil || w.current().remote&l2tpv3.CircuitStandby != 0)
	}
	return views, done
}

// concerns says whether a pseudowire of the site, or one of its tunnels, is what is drained.
func (d *drain) concerns(w *wire, site string) bool {
	switch d.Kind {
	case kindSite:
		return d.Name == w.Peer || d.Name == site
	case kindTunnel:
		return slices.ContainsFunc(w.rides, func(r *ride) bool { return tunnelName(r.Tunnel) == d.Name })
	}
	return d.Name == w.Name || d.Name == w.Network
}

// word is the pseudowire's state.
func (w *wire) word() string {
	switch {
	case w.ready:
		return "up"
	case w.standby:
		return "standby"
	}
	return "down"
}

// boundDrains has none that the daemon made end later than it could be meant to: the clock may have been set back
// since.
func boundDrains(now time.Time, all []drain) {
	latest := now.Add(loop.LongestHold)
	for i := range all {
		if d := &all[i]; d.Until != nil && d.Until.After(latest) {
			d.Until = &latest
		}
	}
}

// nextDrainEnd is when the next of them ends by itself.
func (a *Agent) nextDrainEnd() (next time.Time) {
	for _, d := range a.drains {
		if d.Until != nil && (next.IsZero() || d.Until.Before(next)) {
			next = *d.Until
		}
	}
	return next
}

// endDrains ends those whose time has come.
func (a *Agent) endDrains(now time.Time) {
	next := a.nextDrainEnd()
	if next.IsZero() || now.Before(next) {
		return
	}
	var rest, over []drain
	for _, d := range a.drains {
		if d.Until != nil && !now.Before(*d.Until) {
			over = append(over, d)
		} else {
			rest = append(rest, d)
		}
	}
	if err := a.setDrains(rest); err != nil { // it is not kept, and holds all the same
		again := now.Add(recheck)
		for i := range a.drains {
			if d := &a.drains[i]; d.Until != nil && !now.Before(*d.Until) {
				d.Until = &again
			}
		}
		return
	}
	for _, d := range over {
		a.event("info", d.object(), "tried again", "its time is over")
	}
}
