package hold

import (
	"cmp"
	"errors"
	"log/slog"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/internal/systemd"
)

// Keeper keeps descriptors in all places that there are. It implements what the agent
// wants of one, and belongs to the agent's goroutine. But for Take and Close nothing of it
// waits for anybody.
type Keeper struct {
	log     *slog.Logger
	manager *systemd.Notifier
	passed  []systemd.Descriptor
	holder  *link
	// takesOnly says that nothing is to be kept.
	takesOnly bool
	// told is the holder's last failure that was told.
	told string
	// stored and held are what each place was given last, by name.
	stored, held map[string]identity
}

// identity tells an open file, or a socket, from others.
type identity struct{ device, inode uint64 }

// identityOf is that of a descriptor, the zero one where nothing is known of it.
func identityOf(fd int) identity {
	var s unix.Stat_t
	if err := unix.Fstat(fd, &s); err != nil {
		return identity{}
	}
	return identity{s.Dev, s.Ino}
}

// Options say where a Keeper keeps.
type Options struct {
	// RunDir is the daemon's run directory: the holder's is beside it.
	RunDir string
	// Manager is the service manager; nil is none.
	Manager *systemd.Notifier
	// Passed are the descriptors that the service manager gave this process; the Keeper
	// owns them until Take.
	Passed []systemd.Descriptor
	// AnyUser has a holder of another user trusted. Root wants that to clean up after a
	// daemon of another user: the Keeper takes and forgets, and keeps nothing.
	AnyUser bool
	// Logger is where failures go.
	Logger *slog.Logger
}

// Open looks for the places.
func Open(o Options) *Keeper {
	ours := trusted
	if o.AnyUser {
		ours = func(*net.UnixConn) error { return nil }
	}
	return &Keeper{log: o.Logger, manager: o.Manager, passed: o.Passed, holder: newLink(Path(o.RunDir), ours), takesOnly: o.AnyUser,
		stored: map[string]identity{}, held: map[string]identity{}}
}

// Places says which there are: the service manager's store (for a restart), the holder
// (for a stop and a start, too).
func (k *Keeper) Places() (store, holder bool) {
	holder, _ = k.holder.state(time.Now())
	return k.manager.Stores() && k.manager.Stuck() == nil, holder
}

// Fault is what keeps a place from keeping, nil if nothing does, and next what mends it. A
// place that is not there is no fault.
func (k *Keeper) Fault() (next string, err error) {
	if err := cmp.Or(k.manager.Stuck(), k.manager.Unstored()); err != nil && k.manager.Stores() {
		return "systemctl daemon-reexec; see its journal", &PlaceError{"the service manager's file descriptor store", err}
	}
	if _, err := k.holder.state(time.Now()); err != nil {
		return "start it again, which costs no frame while this daemon runs: systemctl restart pwd-hold", &PlaceError{"the holder of sockets at " + k.holder.path, err}
	}
	return "", nil
}

// PlaceError says that a place does not keep what it is to keep: a stop and a start, or a
// restart, would interrupt the kernel's datapath.
type PlaceError struct {
	Place string
	Err   error
}

func (e *PlaceError) Error() string { return e.Place + ": " + e.Err.Error() }

func (e *PlaceError) Unwrap() error { return e.Err }

// Take gives each all that is kept; a descriptor may come twice, once from each place. It
// waits for the holder, two seconds at most, and ten if what it keeps is wanted.
func (k *Keeper) Take(wanted bool, each func(name string, fd int)) {
	longest := patience
	if wanted {
		longest = takePatience
	}
	for _, d := range k.passed {
		each(d.Name, d.FD)
	}
	k.passed = nil
	lost := k.holder.take(longest, each)
	k.tell()
	for _, name := range lost {
		// Nobody can go on with it. What is made anew in its place is kept.
		k.holder.forget(name)
	}
}

// Keep takes a duplicate of a descriptor. A place that has it is not given it again.
func (k *Keeper) Keep(name string, fd int) {
	if k.takesOnly {
		return
	}
	is := identityOf(fd)
	known := func(has map[string]identity) bool {
		was := has[name]
		has[name] = is
		return was == is && is != (identity{})
	}
	if k.manager.Stores() && (!known(k.stored) || k.manager.Lacks(name)) {
		if err := k.manager.Store(name, fd); err != nil {
			k.log.Warn("a socket is not in the file descriptor store: a restart interrupts what hangs on it", "name", name, "err", err)
		}
	}
	if !known(k.held) || k.holder.lacks(name) {
		k.holder.keep(name, fd)
	}
}

// Forget closes what is kept under a name.
func (k *Keeper) Forget(name string) {
	delete(k.stored, name)
	delete(k.held, name)
	if k.manager.Stores() {
		if err := k.manager.Unstore(name); err != nil {
			k.log.Warn("a socket stays in the file descriptor store", "name", name, "err", err)
		}
	}
	k.holder.forget(name)
}

// Renewed reports that there is a holder that was not there at the last look: it has
// nothing of what was kept. Or that the service manager's store, which has not got all of it, may take it now.
func (k *Keeper) Renewed() bool {
	k.tell()
	holder, manager := k.holder.takeRenewed(), k.manager.TakeRecovered()
	for _, name := range k.holder.takeOld() {
		if _, mine := k.held[name]; !mine {
			k.log.Info("a socket that the holder did not give in time is closed there", "name", name)
			k.holder.forget(name)
		}
	}
	if holder {
		clear(k.held)
	}
	return holder || manager
}

// Close gives up the connection to the holder, which keeps what it has.
func (k *Keeper) Close() { k.holder.close() }

// tell logs what is wrong with the holder, once.
func (k *Keeper) tell() {
	_, err := k.holder.state(time.Now())
	what := ""
	if err != nil {
		what = "silent"
		if !errors.As(err, new(*SilentError)) {
			what = err.Error()
		}
	}
	if what != "" && what != k.told {
		k.log.Warn("the holder of sockets keeps less than it was to: a stop and a start interrupts the kernel's datapath", "socket", k.holder.path, "err", err)
	}
	k.told = what
}
