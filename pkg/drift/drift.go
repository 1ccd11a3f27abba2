// Package drift is how those that set kernel objects tell what others have changed about
// them: a link deleted by hand, a VLAN taken off a port, a program detached.
package drift

// Repair is one thing that was not as it had been set, and what was done about it.
type Repair struct {
	// Object is what it is about, as "bridge br-lan" or "pseudowire tenant-a", Thing what of
	// that is put back, and left alone, apart from the rest; Object itself if there is no such.
	Object, Thing string
	// Found says what somebody has done, Done what was done then: "eth1 was taken out of
	// it", "put back".
	Found, Done string
	// Err is why Done failed, nil if it did not. It is tried again.
	Err error
}

// most is how many repairs are kept for one that does not ask for them.
const most = 256

// Log collects repairs, and knows what is not to be repaired now. The zero value is empty.
type Log struct {
	repairs []Repair
	held    func(thing string) bool
}

// Add notes a repair.
func (l *Log) Add(object, found, done string, err error) { l.AddOf(object, object, found, done, err) }

// AddOf notes a repair of a thing.
func (l *Log) AddOf(object, thing, found, done string, err error) {
	if len(l.repairs) < most {
		l.repairs = append(l.repairs, Repair{object, thing, found, done, err})
	}
}

// Repairs gives what was added since the last call.
func (l *Log) Repairs() []Repair {
	all := l.repairs
	l.repairs = nil
	return all
}

// Heed has things left as they are while held says so (Damper.Held).
func (l *Log) Heed(held func(thing string) bool) { l.held = held }

// Held says that a thing is to be left as others have changed it.
func (l *Log) Held(thing string) bool { return l.held != nil && l.held(thing) }
