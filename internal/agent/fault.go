package agent

import (
	"log/slog"
	"maps"
	"slices"
)

// faults are what is wrong with objects at the moment. Each is told when it
// comes, changes and goes, and not in between, however often it is met.
type faults struct {
	log *slog.Logger
	// now is by object, as "bridge br-lan".
	now map[string]string
}

func newFaults(log *slog.Logger) faults {
	return faults{log: log, now: make(map[string]string)}
}

// set notes how an object is; nil is well.
func (f *faults) set(object string, err error) {
	before, was := f.now[object]
	switch {
	case err == nil && was:
		delete(f.now, object)
		f.log.Info("well again", "object", object)
	case err != nil && (!was || before != err.Error()):
		f.now[object] = err.Error()
		f.log.Warn("something is wrong, trying again", "object", object, "err", err)
	}
}

// forget drops what is known of an object that is gone.
func (f *faults) forget(object string) { delete(f.now, object) }

// objects are those that something is wrong with, sorted.
func (f *faults) objects() []string { return slices.Sorted(maps.Keys(f.now)) }
