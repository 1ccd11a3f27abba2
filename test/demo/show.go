package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/netlab"
)

// upWithin is long against what it takes: a delay of up to a second at each site, and a few round trips.
const upWithin = 20 * time.Second

// start starts both daemons and waits until every tunnel and pseudowire is up at both sites.
func (d *demo) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, upWithin)
	defer cancel()
	began := time.Now()
	for _, s := range d.sites {
		if err := s.Start(); err != nil {
			return err
		}
	}
	for _, s := range d.sites {
		if err := s.AwaitUp(ctx, len(d.lans), len(d.lans)); err != nil {
			return err
		}
	}
	say("The sites found each other: %d tunnels established, %d pseudowires up, %s after the start.", len(d.lans), len(d.lans), seconds(time.Since(began)))
	return nil
}

func (d *demo) status(ctx context.Context) error {
	text, err := d.sites[0].Pwctl(ctx, "status")
	if err != nil {
		return err
	}
	quote(text)
	return nil
}

// traffic pings and transfers over every pseudowire, and looks at the tags on the hosts' wires.
func (d *demo) traffic(ctx context.Context) error {
	for i, l := range d.lans {
		if err := d.ping(ctx, l); err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
		// One goes from dc1 to dc2, the next the other way.
		if err := d.transfer(ctx, l, i%2); err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
	}
	return nil
}

func (d *demo) ping(ctx context.Context, l *lan) error {
	var captures [2]*netlab.Capture
	for i, h := range l.hosts {
		var err error
		if captures[i], err = h.Capture(netlab.CaptureOptions{}); err != nil {
			return err
		}
		defer captures[i].Stop()
	}
	for _, p := range []struct {
		what string
		o    netlab.PingOptions
	}{
		{"ping", netlab.PingOptions{Count: 10}},
		{"ping with IP packets of 1500 octets, as large as the underlay's", netlab.PingOptions{Count: 10, Size: 1472, DontFragment: true}},
	} {
		r, err := l.hosts[0].NS.Ping(ctx, l.addr[1], p.o)
		if err != nil {
			return err
		}
		if r.Lost() > 0 {
			return fmt.Errorf("%s from %v to %v: %d of %d were not answered", p.what, l.addr[0], l.addr[1], r.Lost(), r.Sent)
		}
		say("%s: %s, %v to %v: %d of %d answered, median %s.", l.name, p.what, l.addr[0], l.addr[1], r.Received, r.Sent, milliseconds(r.Median()))
	}
	for i, c := range captures {
		frames, err := c.Stop()
		if err != nil {
			return err
		}
		for _, f := range frames {
			if vlan := vlanOf(f.Data); vlan != l.vlan[i] {
				return fmt.Errorf("a frame came to %v%s, not%s", l.addr[i], tagged(vlan), tagged(l.vlan[i]))
			}
		}
	}
	if l.vlan[0] != 0 {
		say("%s: on the LAN of dc1 every frame has the tag of VLAN %d, on that of dc2 of VLAN %d.", l.name, l.vlan[0], l.vlan[1])
	}
	return nil
}

// vlanOf is the VLAN ID of a frame's tag, 0 if it has none.
func vlanOf(frame []byte) uint16 {
	if len(frame) < 16 || frame[12] != 0x81 || frame[13] != 0 {
		return 0
	}
	return (uint16(frame[14])<<8 | uint16(frame[15])) & 0xfff
}

func (d *demo) transfer(ctx context.Context, l *lan, from int) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	a, b := l.hosts[from], l.hosts[1-from]
	r, err := a.NS.Transfer(ctx, b.NS, l.addr[1-from], d.options.mebibytes<<20)
	if err != nil {
		return err
	}
	if !r.Same() {
		return fmt.Errorf("transfer from %v to %v: sent %d octets with SHA-256 %x, received %d with %x", l.addr[from], l.addr[1-from], r.Sent, r.SentSum, r.Received, r.ReceivedSum)
	}
	say("%s: TCP, %v to %v: %d MiB of random data in %s, %s.", l.name, l.addr[from], l.addr[1-from], r.Received>>20, seconds(r.Duration), gigabits(r.Rate()))
	say("    SHA-256 sent     %x", r.SentSum)
	say("    SHA-256 received %x, the same", r.ReceivedSum)
	return nil
}

// flowRate in datagrams per second, of both flows during the restart.
const flowRate = 2000

// restart kills the daemon of dc1 while datagrams flow in both directions, starts it again and counts what was lost.
func (d *demo) restart(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, upWithin)
	defer cancel()
	l, s := d.lans[0], d.sites[0]
	var flows [2]*netlab.Flow
	for i := range flows {
		var err error
		if flows[i], err = l.hosts[i].NS.Flow(l.hosts[1-i].NS, l.addr[1-i], netlab.FlowOptions{Rate: flowRate, Size: 200}); err != nil {
			return err
		}
		defer flows[i].Stop()
	}
	await := func(n uint64) error {
		return errors.Join(flows[0].WaitReceived(ctx, n), flows[1].WaitReceived(ctx, n))
	}
	if err := await(flowRate / 4); err != nil {
		return err
	}
	s.Daemon.Kill()
	// Half a second without a daemon.
	if err := await(flowRate / 2); err != nil {
		return err
	}
	if err := s.Start(); err != nil {
		return err
	}
	began := time.Now()
	for _, s := range d.sites {
		if err := s.AwaitUp(ctx, len(d.lans), len(d.lans)); err != nil {
			return err
		}
	}
	up := time.Since(began)
	if err := await(flowRate / 4); err != nil {
		return err
	}
	var sent, lost uint64
	for _, f := range flows {
		r, err := f.Stop()
		if err != nil {
			return err
		}
		sent, lost = sent+r.Sent, lost+r.Lost()
	}
	if lost > 0 {
		return fmt.Errorf("%d of %d datagrams were lost while the daemon of dc1 was away", lost, sent)
	}
	say("Up again %s after its start; of %d datagrams, both ways, none was lost.", seconds(up), sent)
	return nil
}

// counters shows what each tunnel carried, and that it did: a tunnel that counted less than was transferred over it did not carry it.
func (d *demo) counters(ctx context.Context) error {
	tunnels, err := d.sites[0].Client().Tunnels(ctx)
	if err != nil {
		return err
	}
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "tunnel\tpseudowire\tframes out\toctets out\tframes in\toctets in\t")
	for i, l := range d.lans {
		at := slices.IndexFunc(tunnels, func(t api.Tunnel) bool { return t.Name == l.tunnel })
		if at < 0 {
			return fmt.Errorf("dc1 has no tunnel %s", l.tunnel)
		}
		t := tunnels[at]
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%d\t\n", t.Name, l.name, t.TransmittedFrames, t.TransmittedOctets, t.ReceivedFrames, t.ReceivedOctets)
		carried := [2]uint64{t.TransmittedOctets, t.ReceivedOctets}[i%2]
		if carried < uint64(d.options.mebibytes<<20) {
			return fmt.Errorf("tunnel %s counted %d octets, but %d MiB were transferred over it", t.Name, carried, d.options.mebibytes)
		}
	}
	w.Flush()
	quote(text.String())
	return nil
}

// takeDown stops the daemons, has them clean up, and looks for what is left.
func (d *demo) takeDown(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, upWithin)
	defer cancel()
	for _, s := range d.sites {
		if err := s.Stop(ctx); err != nil {
			return err
		}
	}
	for _, s := range d.sites {
		if err := s.Cleanup(ctx); err != nil {
			return err
		}
		if err := s.Left(); err != nil {
			return fmt.Errorf("something was left behind at %s: %w", s.Name, err)
		}
	}
	say("Both daemons stopped and `pwd --cleanup` done: no link, bridge port, tc filter, program or pin of theirs is left.")
	return nil
}
