package l2tpeth

import (
	"errors"
	"log/slog"
	"strings"
	"time"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/pkg/drift"
	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// Options of a datapath. The zero value is usable.
type Options struct {
	// Logger gets what went wrong without failing an operation; nil discards it.
	Logger *slog.Logger
}

// Datapath carries sessions in the kernel's l2tp_eth, in the network namespace
// of the thread that opened it. Its setters write below /proc/sys, which is
// the calling thread's namespace: call them there.
type Datapath struct {
	drift.Log
	log   *slog.Logger
	l2tp  *l2tpClient
	links linkClient
	// sysctl is the folder of IPv6's settings by device.
	sysctl string
	// pause waits between two looks at something that the kernel does later.
	pause func(time.Duration)
	// socket identifies and prepares a tunnel's socket.
	socket socketOps
	routes routing

	pseudowires map[string]pseudowire.Pseudowire
	tunnels     map[string]*tunnel
	// sessions by local ID.
	sessions map[uint32]*session
	// carriers are the local IDs of pseudowires' sessions.
	carriers map[string]uint32
	// taken are the IDs of sessions that the namespace had when they were listed last.
	taken   map[uint32]bool
	takenAt time.Time
	// delivered counts the data packets that the kernel left to the tunnels' sockets.
	delivered uint64
}

var _ pseudowire.Datapath = (*Datapath)(nil)

// Open connects to the kernel's L2TP. Where the kernel has none the error is an
// *UnsupportedError. It needs CAP_NET_ADMIN for everything else.
func Open(o Options) (*Datapath, error) {
	g, err := genetlink.Dial(nil)
	if err != nil {
		return nil, &OpError{"open", "generic netlink", err}
	}
	r, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		g.Close()
		return nil, &OpError{"open", "rtnetlink", err}
	}
	routes, err := openRoutes()
	if err != nil {
		g.Close()
		r.Close()
		return nil, &OpError{"open", "rtnetlink", err}
	}
	// Errors then come with the kernel's own words. Kernels that cannot, need not.
	_ = g.SetOption(netlink.ExtendedAcknowledge, true)
	_ = r.SetOption(netlink.ExtendedAcknowledge, true)
	d, err := open(o, g, r)
	if err != nil {
		g.Close()
		r.Close()
		routes.close()
		return nil, err
	}
	d.routes = routes
	return d, nil
}

func open(o Options, g *genetlink.Conn, r *netlink.Conn) (*Datapath, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	c, err := newL2TPClient(g)
	if err != nil {
		return nil, err
	}
	return &Datapath{
		log: o.Logger, l2tp: c, links: linkClient{r},
		sysctl: "/proc/sys/net/ipv6/conf", pause: time.Sleep, socket: kernelSockets{},
		pseudowires: map[string]pseudowire.Pseudowire{},
		tunnels:     map[string]*tunnel{},
		sessions:    map[uint32]*session{},
		carriers:    map[string]uint32{},
	}, nil
}

// Kind is pseudowire.Kernel.
func (d *Datapath) Kind() pseudowire.Kind { return pseudowire.Kernel }

// Abilities are what the kernel offers: frames pass as they are, and its device is
// the session's; see the package documentation for sequencing, DSCP and cookies.
func (d *Datapath) Abilities() pseudowire.Abilities {
	return pseudowire.Abilities{IP: true, Sequencing: true, DSCP: true, Priority: true}
}

// Close gives up the netlink sockets. Tunnels stay for as long as their sockets do.
func (d *Datapath) Close() error {
	if d.routes != nil {
		d.routes.close()
	}
	return errors.Join(d.l2tp.conn.Close(), d.links.conn.Close())
}

// patience is how long the kernel may take to finish in the background what it
// has acknowledged: it ends tunnels, and from 6.12 sessions, on a work queue.
const patience = 2 * time.Second

// until waits for done to be true, looking ever more rarely, and reports whether it became so. The
// kernel does one after the other: as long as devices of ours go, the one waited for may be
// behind them.
func (d *Datapath) until(done func() (bool, error)) (bool, error) {
	waited, left := time.Duration(0), -1
	for step := time.Millisecond; ; step = min(2*step, 50*time.Millisecond) {
		ok, err := done()
		if ok || err != nil {
			return ok, err
		}
		if waited >= patience || left < 0 && waited >= patience/2 {
			now, err := d.ours()
			if err != nil || waited >= patience && now >= left {
				return false, err
			}
			left, waited = now, patience/2
		}
		d.pause(step)
		waited += step
	}
}

// ours is how many devices of ours there are, those on their way out included.
func (d *Datapath) ours() (n int, err error) {
	all, err := d.links.all()
	for _, l := range all {
		if strings.HasPrefix(l.alias, aliasPrefix) {
			n++
		}
	}
	return n, err
}
