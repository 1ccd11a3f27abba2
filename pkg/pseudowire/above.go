package pseudowire

import "errors"

// Above is a datapath around another one, for those that do one thing more: it passes on
// what not every datapath has.
type Above struct{ Datapath }

var _ Classifier = Above{}

// SessionTaken is the datapath's, where it has one: whether the namespace has a session of
// that local ID that is somebody else's.
func (a Above) SessionTaken(id uint32) (bool, error) {
	if t, ok := a.Datapath.(interface{ SessionTaken(uint32) (bool, error) }); ok {
		return t.SessionTaken(id)
	}
	return false, nil
}

// RefreshWays is the datapath's, or Refresh where it has none: it looks at the ways to peers, and
// not at each device.
func (a Above) RefreshWays() error {
	if w, ok := a.Datapath.(interface{ RefreshWays() error }); ok {
		return w.RefreshWays()
	}
	return a.Datapath.Refresh()
}

// DeviceIndex is the datapath's, where it has one: the number of a pseudowire's device, which the kernel
// need not be asked for.
func (a Above) DeviceIndex(name string) (index int, known bool) {
	if d, ok := a.Datapath.(interface{ DeviceIndex(string) (int, bool) }); ok {
		return d.DeviceIndex(name)
	}
	return 0, false
}

// SessionBehind is the datapath's, where it has one: the session, of this process or an earlier
// one, whose device a pseudowire's is.
func (a Above) SessionBehind(name string) (Session, bool, error) {
	if b, ok := a.Datapath.(interface {
		SessionBehind(string) (Session, bool, error)
	}); ok {
		return b.SessionBehind(name)
	}
	return Session{}, false, nil
}

// CrossConnected is the datapath's, where it has one: whether a pseudowire's frames go past
// its device.
func (a Above) CrossConnected(name string) bool {
	c, ok := a.Datapath.(interface{ CrossConnected(string) bool })
	return ok && c.CrossConnected(name)
}

// Classify is the datapath's; the error is errors.ErrUnsupported where it has none.
func (a Above) Classify(name string, frame Frame) (Classified, error) {
	if c, ok := a.Datapath.(Classifier); ok {
		return c.Classify(name, frame)
	}
	return Classified{}, errors.ErrUnsupported
}
