package hold

import (
	"log/slog"
	"net"

	"github.com/pwd-project/pwd/internal/systemd"
)

// Keeper keeps descriptors in all places that there are. It implements what the agent
// wants of one, and belongs to the agent's goroutine.
type Keeper struct {
	log     *slog.Logger
	manager *systemd.Notifier
	passed  []systemd.Descriptor
	holder  client
	// seen says that there has been a holder, failed that the holder's last failure was told.
	seen, failed bool
	// owed are names that the holder could not be told to forget.
	owed []string
}

// Open looks for the places. passed are the descriptors that the service manager gave
// this process; the Keeper owns them until Take.
func Open(runDir string, manager *systemd.Notifier, passed []systemd.Descriptor, log *slog.Logger) *Keeper {
	k := &Keeper{log: log, manager: manager, passed: passed, holder: client{path: Path(runDir)}}
	k.note(k.holder.connect())
	return k
}

// Places says which there are: the service manager's store (for a restart), the holder
// (for a stop and a start, too).
func (k *Keeper) Places() (store, holder bool) { return k.manager.Stores(), k.holder.conn != nil }

// Take gives each all that is kept; a descriptor may come twice, once from each place.
func (k *Keeper) Take(each func(name string, fd int)) {
	for _, d := range k.passed {
		each(d.Name, d.FD)
	}
	k.passed = nil
	k.note(k.holder.ask("take", func(name string, fds []int) {
		if len(fds) == 1 {
			each(name, fds[0])
			return
		}
		closeAll(fds)
	}))
}

// Keep takes a duplicate of a descriptor.
func (k *Keeper) Keep(name string, fd int) {
	if k.manager.Stores() {
		if err := k.manager.Store(name, fd); err != nil {
			k.log.Warn("a socket is not in the file descriptor store: a restart interrupts what hangs on it", "name", name, "err", err)
		}
	}
	if k.holder.conn != nil {
		k.note(k.holder.ask("keep "+name, nil, fd))
	}
}

// Forget closes what is kept under a name.
func (k *Keeper) Forget(name string) {
	if k.manager.Stores() {
		if err := k.manager.Unstore(name); err != nil {
			k.log.Warn("a socket stays in the file descriptor store", "name", name, "err", err)
		}
	}
	k.forget(name)
}

func (k *Keeper) forget(names ...string) {
	for i, name := range names {
		err := error(net.ErrClosed)
		if k.holder.conn != nil {
			err = k.holder.ask("forget "+name, nil)
			k.note(err)
		}
		if err != nil && k.seen {
			k.owed = append(k.owed, names[i:]...)
			return
		}
	}
}

// Renewed reports that there is a holder that was not there at the last look: it has
// nothing of what was kept.
func (k *Keeper) Renewed() bool {
	if k.holder.lives() {
		return false
	}
	k.note(k.holder.connect())
	if k.holder.conn == nil {
		return false
	}
	owed := k.owed
	k.owed = nil
	k.forget(owed...)
	return true
}

// Close gives up the connection to the holder, which keeps what it has.
func (k *Keeper) Close() { k.holder.close() }

// note tells what went wrong with the holder, once. That there is none is nothing wrong.
func (k *Keeper) note(err error) {
	switch {
	case err == nil:
		k.failed, k.seen = false, true
	case absent(err):
	case k.failed:
		k.log.Debug("the holder of sockets", "err", err)
	default:
		k.failed = true
		k.log.Warn("the holder of sockets keeps less than it was to: a stop and a start interrupts the kernel's datapath", "socket", k.holder.path, "err", err)
	}
}
