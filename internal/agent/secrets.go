package agent

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/plan"
	"github.com/pwd-project/pwd/internal/secretfile"
	"github.com/pwd-project/pwd/internal/topology"
)

// errNoSecret is why a tunnel stays as it is: its secrets could not be read since
// the daemon runs, and without them nothing may be sent.
var errNoSecret = errors.New("its secret cannot be read")

// folder is what the names in the topology file are relative to.
func folder(file string) string {
	dir, err := filepath.Abs(filepath.Dir(file))
	if err != nil {
		return ""
	}
	return dir
}

// readSecrets reads the secrets of a document that is to come into force. The error
// is a *topology.InvalidError.
func (d *document) readSecrets() error {
	next, found := d.local.WithSecrets(secretfile.In(d.dir))
	d.warnings = append(d.warnings, found...)
	if err := found.Err(); err != nil {
		return err
	}
	d.local = next
	return nil
}

// keepSecrets gives tunnels whose secrets could not be read those that they have.
func keepSecrets(next, now *topology.Local) {
	if now != nil {
		keepCookies(next, now)
	}
	for i := range next.Tunnels {
		t := &next.Tunnels[i]
		if len(t.Secrets) > 0 || len(t.SecretFiles) == 0 || now == nil {
			continue
		}
		if k := slices.IndexFunc(now.Tunnels, func(o topology.Tunnel) bool { return o.Key == t.Key }); k >= 0 {
			t.Secrets = now.Tunnels[k].Secrets
		}
	}
}

// rereadSecrets reads the secrets of the topology in force again, so that they can
// be replaced without another topology. Those that cannot be read stay as they are.
func (a *Agent) rereadSecrets() {
	if a.local == nil || a.trial != nil || len(a.local.SecretFiles)+len(a.local.CookieFiles) == 0 {
		return
	}
	next, found := a.local.WithSecrets(secretfile.In(a.generation.Dir))
	a.tellSecrets(found)
	keepSecrets(next, a.local)
	steps := plan.Between(a.local, next)
	if len(steps) == 0 {
		return
	}
	if err := a.execute(steps); err != nil {
		a.event("error", "topology", "secrets could not be replaced", err.Error())
		return
	}
	a.local = next
	names := make([]string, len(steps))
	for i, s := range steps {
		names[i] = s.Name
	}
	a.event("info", "topology", "secrets replaced", strings.Join(names, ", "))
}

// tellSecrets tells what is wrong with secrets that are in force, once.
func (a *Agent) tellSecrets(found topology.Diagnostics) {
	told := make(map[string]bool)
	for _, d := range found {
		line := d.Place.String() + ": " + d.Text()
		if told[line] = true; a.secretsTold[line] {
			continue
		}
		if d.Severity == topology.SeverityWarning {
			a.log.Warn("topology", "diagnostic", strings.TrimSpace(d.String()))
			continue
		}
		a.event("error", "topology", "a secret cannot be read, what was read before stays", line)
	}
	a.secretsTold = told
}

// lacking says that a tunnel waits for its secrets.
func (a *Agent) lacking() bool {
	for _, t := range a.tunnels {
		if t.fault != nil {
			return true
		}
	}
	for _, w := range a.wires {
		if w.Static != nil && w.Static.Lacks() {
			return true
		}
	}
	return false
}

// secretProblems compares the secrets in force with their files, for the status. It
// may be called from anywhere: what is in force is never changed in place.
func secretProblems(in inForce) (problems []api.Problem, notes []string) {
	if in.local == nil {
		return nil, nil
	}
	now, found := in.local.WithSecrets(secretfile.In(in.dir))
	for _, d := range found {
		if d.Severity == topology.SeverityError {
			problems = append(problems, api.Problem{Object: "secret", What: d.Place.String() + ": " + d.Text(), Fix: d.Help + ", then send SIGHUP"})
		} else {
			notes = append(notes, d.Place.String()+": "+d.Text())
		}
	}
	keepSecrets(now, in.local)
	for _, s := range plan.Between(in.local, now) {
		notes = append(notes, string(s.Kind)+" "+s.Name+": its secret's file was changed since it was read; SIGHUP has it read again")
	}
	return problems, notes
}

// giveSecrets tells the control machine the secrets of connections that are to be
// closed. Without them their peers find out by themselves.
func (a *Agent) giveSecrets() {
	if a.generation == nil {
		return
	}
	d, err := parse(a.generation.Name, a.generation.Dir, a.generation.Document, a.opt.Site)
	if err != nil {
		return
	}
	local, _ := d.local.WithSecrets(secretfile.In(d.dir))
	for _, c := range a.control.Connections() {
		for i := range local.Tunnels {
			if t := &local.Tunnels[i]; t.Key == c.Tunnel.Name && len(t.Secrets) > 0 {
				if err := a.setTunnel(t); err != nil {
					a.log.Warn("cannot close a tunnel in view of its peer", "tunnel", t.Key, "err", err)
				}
			}
		}
	}
}

// inForce is the topology in force and what its names are relative to.
type inForce struct {
	local *topology.Local
	dir   string
}

func (a *Agent) inForce() inForce {
	if a.local == nil || a.generation == nil {
		return inForce{}
	}
	return inForce{a.local, a.generation.Dir}
}
