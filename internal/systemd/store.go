package systemd

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Store hands a duplicate of a descriptor to the service manager's file descriptor store
// (sd_notify(3), FDSTORE=1): it outlives the process, and comes back with Inherited. The
// unit has to allow it with FileDescriptorStoreMax=. The same descriptor again changes nothing.
func (n *Notifier) Store(name string, fd int) error {
	// Without FDPOLL=0 an ICMP error on a socket would end its keeping.
	return n.deliver(&message{stores: name, fd: fd}, "FDSTORE=1", "FDNAME="+name, "FDPOLL=0")
}

// Unstore has the service manager close what it keeps under a name.
func (n *Notifier) Unstore(name string) error {
	return n.deliver(&message{drops: name, fd: -1}, "FDSTOREREMOVE=1", "FDNAME="+name)
}

// Stores says whether there is a service manager that may keep descriptors. Only since
// systemd 254 it says so itself, in FDSTORE; before that it is taken for one that does.
func (n *Notifier) Stores() bool { return n != nil && n.socket != "" && n.stores }

// Descriptor is an open file under a name.
type Descriptor struct {
	Name string
	FD   int
}

// Inherited are the descriptors that the service manager passed at the start
// (sd_listen_fds_with_names(3)). It takes them out of the environment: a second call gives none.
func Inherited() ([]Descriptor, error) {
	all, err := inherited(os.Getenv, os.Getpid())
	return all, errors.Join(err, os.Unsetenv("LISTEN_PID"), os.Unsetenv("LISTEN_FDS"), os.Unsetenv("LISTEN_FDNAMES"))
}

// firstInherited is SD_LISTEN_FDS_START.
const firstInherited = 3

func inherited(getenv func(string) string, pid int) ([]Descriptor, error) {
	if getenv("LISTEN_FDS") == "" || getenv("LISTEN_PID") != strconv.Itoa(pid) {
		return nil, nil
	}
	count, err := strconv.Atoi(getenv("LISTEN_FDS"))
	if err != nil || count < 0 || count > 1<<20 {
		return nil, fmt.Errorf("LISTEN_FDS=%q is no number of descriptors: none is taken over", getenv("LISTEN_FDS"))
	}
	names := strings.Split(getenv("LISTEN_FDNAMES"), ":")
	if len(names) != count && count > 0 {
		return nil, fmt.Errorf("LISTEN_FDNAMES has %d names for %d descriptors: none is taken over", len(names), count)
	}
	all := make([]Descriptor, count)
	for i := range all {
		all[i] = Descriptor{names[i], firstInherited + i}
	}
	return all, nil
}
