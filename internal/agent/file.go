package agent

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/pwd-project/pwd/internal/secretfile"
	"github.com/pwd-project/pwd/internal/topology"
)

// fileState is the topology file as it was last read.
type fileState struct {
	// hash is of what was read, good or bad; empty if nothing ever was.
	hash string
	// err is what is wrong with it: a *topology.InvalidError, or it cannot be read.
	err error
	// next is the file's topology if that has yet to be applied.
	next *document
}

// document is a topology as it is written and as the site sees it.
type document struct {
	name, text string
	// fileHash is the hash of the file that it was read from, empty if from none.
	fileHash string
	// dir is what the names of files in it are relative to.
	dir   string
	local *topology.Local
	// warnings are those that do not stand in the way.
	warnings topology.Diagnostics
}

// parse reads a topology as one site sees it, without the files that it names. The
// error is a *topology.InvalidError.
func parse(name, dir, text, site string) (*document, error) {
	t, diags := topology.Parse(name, []byte(text))
	if t == nil {
		return nil, diags.Err()
	}
	local, more := t.Local(site)
	diags = append(diags, more...)
	if err := diags.Err(); err != nil {
		return nil, err
	}
	return &document{name: name, dir: dir, text: text, local: local, warnings: diags}, nil
}

// choose decides with which topology to begin: that of the file, if it changed
// since it was last read, else the last one applied. The error says that there is none.
func (a *Agent) choose() error {
	var applied *document
	var broken error
	if g := a.generation; g != nil {
		a.file.hash = g.FileHash
		if applied, broken = parse(g.Name, g.Dir, g.Document, a.opt.Site); applied != nil {
			// What cannot be read is missed where it is needed.
			local, found := applied.local.WithSecrets(secretfile.In(g.Dir))
			a.local = local
			a.tellSecrets(found)
		}
	}
	if a.opt.TopologyFile == "" {
		if broken != nil {
			return fmt.Errorf("the applied topology cannot be read by this version, give a valid one with --topology: %w", broken)
		}
		return nil
	}
	changed := a.readFile()
	switch {
	case changed && applied != nil && a.unconfirmed():
		a.file.hash, a.file.next, a.fileDue = a.generation.FileHash, nil, true
	case a.file.next == nil && applied == nil:
		return a.file.err
	case applied == nil && a.generation != nil:
		// The file takes its place without a difference that could be carried out.
		a.log.Error("the applied topology cannot be read by this version, taking the file instead", "err", broken)
		a.local, a.generation = a.file.next.local, a.newGeneration(a.file.next)
		a.file.next = nil
	case !changed:
		a.file.next = nil
	}
	return nil
}

// readFile reads the topology file and reports whether that is another than was
// last read.
func (a *Agent) readFile() (changed bool) {
	a.file.next, a.file.err = nil, nil
	b, err := os.ReadFile(a.opt.TopologyFile)
	if err != nil {
		a.file.err = &readError{err}
		return false
	}
	hash := hashOf(b)
	changed = hash != a.file.hash
	a.file.hash = hash
	next, err := parse(a.opt.TopologyFile, folder(a.opt.TopologyFile), string(b), a.opt.Site)
	if err == nil && changed {
		if err = next.readSecrets(); err != nil {
			a.file.hash = "" // so that the next look tries again
		}
	}
	if a.file.err = err; err == nil {
		next.fileHash = hash
		a.file.next = next
	}
	return changed
}

// start applies the file if choose found that it is to be.
func (a *Agent) start() error {
	g := a.generation
	switch {
	case a.opt.TopologyFile == "" && g == nil:
		a.log.Warn("no topology yet: give --topology FILE or run pwctl apply")
		return nil
	case a.file.err != nil:
		a.fileEvent("keeping the last topology applied", a.file.err)
		a.noteFile()
		return nil
	case a.file.next == nil && g != nil:
		a.log.Info("going on with the topology applied last", "generation", g.Number)
		return a.store.setGeneration(g)
	}
	err := a.applyFile()
	if errors.Is(err, errStopping) {
		return nil
	}
	if err != nil && g != nil {
		a.fileEvent("could not be applied, keeping the last one applied", err)
		return nil
	}
	return err
}

// readAgain is SIGHUP: a file that changed since it was last read is applied,
// an invalid one changes nothing; with an unchanged one the secrets are read again.
func (a *Agent) readAgain() {
	if a.opt.TopologyFile == "" {
		a.log.Warn("nothing to read again: the daemon runs without --topology")
		return
	}
	if a.unconfirmed() {
		a.log.Info("the topology file is read again once the one in force is confirmed, or rolled back")
	}
	if a.trial != nil || a.unconfirmed() {
		a.fileDue = true
		return
	}
	changed := a.readFile()
	switch {
	case a.file.err != nil:
		a.fileEvent("nothing was changed", a.file.err)
		a.noteFile()
	case !changed:
		a.file.next = nil
		a.log.Info("topology file is unchanged")
		a.rereadSecrets()
	default:
		if err := a.applyFile(); err != nil {
			a.fileEvent("could not be applied", err)
		}
	}
}

// applyFile makes the file's topology the one in force. Until that has worked
// the file counts as not read, so that the next look tries again.
func (a *Agent) applyFile() error {
	d := a.file.next
	a.file.next = nil
	_, err := a.change(d)
	if err == nil {
		a.generation.Cause = "topology file"
		err = a.commit()
	}
	if err != nil {
		a.file.hash, a.file.err = "", err
	}
	return err
}

// noteFile keeps, across restarts, that the file was read: an invalid one that is
// put back to what it was has changed twice.
func (a *Agent) noteFile() {
	if g := a.generation; g != nil && a.file.hash != g.FileHash {
		g.FileHash = a.file.hash
		a.faults.set("the applied topology's file", a.store.setGeneration(g))
	}
}

// fileEvent tells what became of the topology file; the log gets every diagnostic.
func (a *Agent) fileEvent(outcome string, err error) {
	message := "file cannot be read, " + outcome
	if invalid, ok := errors.AsType[*topology.InvalidError](err); ok {
		message = "file is invalid, " + outcome
		for _, d := range invalid.Diagnostics {
			a.log.Error("topology file", "diagnostic", strings.TrimSpace(d.String()))
		}
	} else if !errors.As(err, new(*readError)) {
		message = "file " + outcome
	}
	a.event("error", "topology", message, err.Error())
}

// readError says that the topology file cannot be read.
type readError struct{ err error }

func (e *readError) Error() string { return "read topology: " + e.err.Error() }

func (e *readError) Unwrap() error { return e.err }

// hashFile is the hash of the topology file now, empty if there is none. It may
// be called from anywhere.
func (a *Agent) hashFile() string {
	if a.opt.TopologyFile == "" {
		return ""
	}
	b, err := os.ReadFile(a.opt.TopologyFile)
	if err != nil {
		return ""
	}
	return hashOf(b)
}

// newGeneration is what a document in force is kept as.
func (a *Agent) newGeneration(d *document) *generation {
	g := &generation{
		Site: a.opt.Site, Number: 1, Applied: time.Now(),
		Hash: hashOf([]byte(d.text)), FileHash: d.fileHash, Name: d.name, Document: d.text, Dir: d.dir,
	}
	if before := a.generation; before != nil {
		g.Number = before.Number + 1
		if d.fileHash == "" {
			g.FileHash = before.FileHash
		}
	}
	return g
}
