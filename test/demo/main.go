// Demo shows two sites become one Ethernet, on one machine: network namespaces
// for the sites and for the hosts of their LANs, a real daemon at each site, real traffic. It
// leaves nothing behind.
//
//	 tenant-a        site dc1                       site dc2        tenant-a
//	host dc1-a ──── eth1       eth0 ──────── eth0       eth1 ──── host dc2-a
//	198.51.100.1     VLAN 100      192.0.2.1  .2     VLAN 200      198.51.100.2
//	 tenant-b                                                       tenant-b
//	host dc1-b ──── eth2                                eth2 ──── host dc2-b
//	203.0.113.1      untagged                        untagged      203.0.113.2
//
// All links have an MTU of 1500, the underlay between the sites too.
//
// It exits with 0 if all that it shows held, 1 if something did not, 2 on wrong
// usage, and 130 if it was interrupted. In each case everything is removed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/pwd-project/pwd/internal/netlab"
)

func main() {
	var o options
	flag.StringVar(&o.bin, "bin", "bin", "`directory` of pwd and pwctl")
	flag.StringVar(&o.topology, "topology", "examples/two-sites.yaml", "topology `file` with the sites dc1 and dc2")
	flag.Int64Var(&o.mebibytes, "size", 128, "MiB to transfer over each pseudowire")
	flag.BoolVar(&o.verbose, "v", false, "show the daemons' logs")
	flag.Parse()
	if flag.NArg() > 0 || o.mebibytes <= 0 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, o)
	interrupted := ctx.Err() != nil
	stop()
	switch {
	case err == nil:
	case interrupted && errors.Is(err, context.Canceled):
		fmt.Fprintln(os.Stderr, "\ndemo: interrupted; everything is removed again")
		os.Exit(130)
	default:
		fmt.Fprintln(os.Stderr, "\ndemo: "+err.Error())
		os.Exit(1)
	}
}

type options struct {
	bin, topology string
	mebibytes     int64
	verbose       bool
}

// errRoot says what is missing and why it is needed.
var errRoot = errors.New("this needs root: it makes network namespaces and loads eBPF programs\n" +
	"      (they are its own, and gone when it ends). Try: sudo make demo")

func run(ctx context.Context, o options) (err error) {
	if os.Geteuid() != 0 {
		return errRoot
	}
	began := time.Now()
	d, err := newDemo(o)
	if err != nil {
		return err
	}
	defer func() {
		if closing := d.close(); closing != nil {
			err = errors.Join(err, closing)
		}
		if err == nil {
			say("Done in %s. The namespaces are gone, and with them all that was in them.", seconds(time.Since(began)))
		}
	}()
	for _, part := range []struct {
		title string
		do    func(context.Context) error
	}{
		{"Two sites, and a LAN with two hosts behind each", d.build},
		{"A daemon at each site, both with " + o.topology, d.start},
		{"What dc1 says (pwctl status)", d.status},
		{"Traffic between the LANs", d.traffic},
		{"dc1's daemon is killed while traffic flows, and started again", d.restart},
		{"Counters per tunnel, at dc1", d.counters},
		{"Everything is taken down", d.takeDown},
	} {
		heading(part.title)
		if err := part.do(ctx); err != nil {
			return d.explain(ctx, err)
		}
	}
	return nil
}

// explain adds to an error what helps to find its cause.
func (d *demo) explain(ctx context.Context, err error) error {
	if u, ok := errors.AsType[*netlab.UnavailableError](err); ok || ctx.Err() != nil {
		if ok {
			return u
		}
		return context.Canceled
	}
	for _, s := range d.sites {
		if s.Daemon != nil && !d.options.verbose {
			err = fmt.Errorf("%w\n\n--- the last that the daemon at %s said:\n%s", err, s.Name, lastLines(s.Daemon.Output(), 15))
		}
	}
	return err
}
