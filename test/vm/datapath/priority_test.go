//go:build vm

package datapath

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/l2tpv3/control"
	"github.com/pwd-project/pwd/pkg/pseudowire"
	"github.com/pwd-project/pwd/pkg/qos"
)

// Data of the kernel's L2TP is in the class of its session, control messages are in none:
// over UDP and IP, IPv4 and IPv6.
func TestKernelPriority(t *testing.T) {
	for _, family := range families {
		for _, e := range []l2tpv3.Encapsulation{l2tpv3.UDP, l2tpv3.IP} {
			t.Run(fmt.Sprintf("%s over %s", e, family.name), func(t *testing.T) {
				x := plain
				x.family, x.encapsulation = family, e
				a, b := twoSites(t, x)
				var shaper *qos.Manager
				counters := func() (c qos.Counters, err error) {
					err = a.lcce.Do(func() error {
						all, err := shaper.Counters(a.wan.Index)
						c = all[5]
						return err
					})
					return c, err
				}
				if err := a.lcce.Do(func() (err error) {
					if shaper, err = qos.Open(nil, ""); err != nil {
						return err
					}
					return shaper.Set([]qos.Interface{{Index: a.wan.Index, Classes: []qos.Class{{Number: 5, Rate: 100e6}, {Number: 6, Rate: 100e6}}}})
				}); err != nil {
					t.Fatal(err)
				}
				defer shaper.Close()
				a.session.DSCP, a.session.Priority = 46, qos.Handle(5)
				a.must("set session", func(dp pseudowire.Datapath) error { return dp.SetSession(a.session) })

				const frames = 10
				for range frames {
					if err := a.lan.Send(frame(1, 100, 0, false, 0x88b5)); err != nil {
						t.Fatal(err)
					}
				}
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				await := func(want uint64) {
					t.Helper()
					if err := netlab.Poll(ctx, "the class to have them", func() error {
						c, err := counters()
						if err == nil && c.Frames < want {
							err = fmt.Errorf("%+v", c)
						}
						return err
					}); err != nil {
						t.Fatal(err)
					}
				}
				await(frames)
				before, err := counters()
				if err != nil {
					t.Fatal(err)
				}
				message := []byte("\xc8\x03 is how a control message begins")
				capture, err := b.wan.Capture(netlab.CaptureOptions{Keep: func(f *netlab.Frame) bool { return bytes.HasSuffix(f.Data, message) }})
				if err != nil {
					t.Fatal(err)
				}
				err = a.lcce.Do(func() error {
					return a.tr.Transmit(control.Transmit{
						Connection: a.tunnel.LocalID, Payload: message,
						Path: control.Path{Encapsulation: e, Local: a.tunnel.Local, Remote: a.tunnel.Remote},
					})
				})
				if _, waited := capture.WaitCount(ctx, 1); err != nil || waited != nil {
					t.Fatal(errors.Join(err, waited))
				}
				if after, err := counters(); err != nil || after.Frames != before.Frames {
					t.Errorf("a control message made %+v of %+v, %v", after, before, err)
				}
				// And the socket is as it was before.
				if err := a.lan.Send(frame(1, 100, 0, false, 0x88b5)); err != nil {
					t.Fatal(err)
				}
				await(before.Frames + 1)
			})
		}
	}
}
