package agent

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/pkg/l2tpv3/control"
)

// What a rotation waits for: that the peer has gone over to the new cookie, which
// is a message there and one back.
const (
	rotationLimit = 10 * time.Second
	rotationLook  = 20 * time.Millisecond
)

// refusals are what stands in the way of another cookie, in words for the operator.
var refusals = map[error]string{
	control.ErrNoCookie:     "it has no cookie (`cookie: 0`)",
	control.ErrCannotChange: "its datapath cannot change a cookie under way",
	control.ErrChanging:     "it is being changed already: try again in some seconds",
	control.ErrPeerCannot:   "the peer is of another make and cannot change a cookie under way",
}

// RotateCookies gives pseudowires other cookies, and loses no frame. It implements
// api.Backend.
func (a *Agent) RotateCookies(ctx context.Context, r api.RotateRequest) ([]api.Rotation, error) {
	var all []api.Rotation
	var err error
	before := make(map[string][]byte)
	if derr := a.do(ctx, func() { all, err = a.beginRotation(r.Pseudowires, before) }); derr != nil || err != nil {
		return nil, errors.Join(derr, err)
	}
	limit := time.NewTimer(rotationLimit)
	defer limit.Stop()
	look := time.NewTicker(rotationLook)
	defer look.Stop()
	for {
		pending := false
		if err := a.do(ctx, func() { pending = a.followRotation(all, before) }); err != nil {
			return nil, err
		}
		if !pending {
			return all, nil
		}
		select {
		case <-look.C:
		case <-limit.C:
			return all, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// beginRotation begins with the pseudowires named, or all, and notes the cookies
// that they had. The error is an *api.Error.
func (a *Agent) beginRotation(names []string, before map[string][]byte) ([]api.Rotation, error) {
	if len(names) == 0 {
		names = slices.Sorted(maps.Keys(a.wires))
	}
	for _, name := range names {
		if a.wires[name] == nil {
			return nil, &api.Error{Code: api.CodeNotFound, Title: "not found", Detail: "this site has no pseudowire " + name}
		}
	}
	for _, s := range a.control.Sessions() {
		before[rideName(tunnelName(s.Session.Tunnel), s.Session.Name)] = s.LocalCookie
	}
	all := make([]api.Rotation, 0, len(names))
	now := time.Now()
	for _, name := range names {
		w := a.wires[name]
		for _, ride := range w.rides {
			rotation := api.Rotation{Pseudowire: name, Peer: w.Peer, Result: "pending", Reason: "waiting for " + w.Peer}
			if len(w.rides) > 1 {
				rotation.Tunnel = tunnelName(ride.Tunnel)
			}
			if w.Static != nil {
				rotation.Result, rotation.Reason = "failed", "its cookies are static: change them in the topology, at both ends"
				all = append(all, rotation)
				continue
			}
			switch err := a.control.ChangeCookie(now, ride.Tunnel, name); {
			case err == nil:
			case errors.Is(err, control.ErrNotEstablished):
				rotation.Result, rotation.Reason = "failed", nonempty(a.whyRide(w, ride), "it is not established")
			default:
				rotation.Result, rotation.Reason = "failed", nonempty(refusals[err], err.Error())
			}
			all = append(all, rotation)
		}
	}
	return all, nil
}

// rideName tells the sessions of a pseudowire apart.
func rideName(tunnel, pseudowire string) string { return tunnel + " " + pseudowire }

// followRotation notes what has become of those that are pending, and reports
// whether some still are.
func (a *Agent) followRotation(all []api.Rotation, before map[string][]byte) (pending bool) {
	now := make(map[string]control.SessionStatus)
	for _, s := range a.control.Sessions() {
		now[rideName(tunnelName(s.Session.Tunnel), s.Session.Name)] = s
	}
	for i := range all {
		r := &all[i]
		tunnel := r.Tunnel
		if w := a.wires[r.Pseudowire]; w != nil && tunnel == "" {
			tunnel = tunnelName(w.Tunnel)
		}
		name := rideName(tunnel, r.Pseudowire)
		s := now[name]
		switch {
		case r.Result != "pending":
		case s.State != control.SessionEstablished:
			r.Result, r.Reason = "failed", nonempty(s.Reason, "it is not established any more")
		case s.AwaitingCookie:
			pending = true
		case bytes.Equal(s.LocalCookie, before[name]):
			r.Result, r.Reason = "failed", nonempty(s.Reason, r.Peer+" has not gone over to the new one")
		default:
			r.Result, r.Reason = "done", ""
			a.event("info", "pseudowire "+r.Pseudowire, "cookie changed", "")
		}
	}
	return pending
}
