//go:build vm

package datapath

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

// The octets of the packet on the underlay: Ethernet, IP and UDP headers, the
// L2TP header with the peer's session ID and cookie, and then the frame, its tag in it.
func TestTagIsInThePayload(t *testing.T) {
	for _, pair := range pairs {
		for _, family := range families {
			s := setup{kinds: pair, family: family, cookie: 8, underlay: 1500, pw: 1500}
			t.Run(s.String(), func(t *testing.T) {
				a, b := twoSites(t, s)
				for _, d := range [][2]*site{{a, b}, {b, a}} {
					from, to := d[0], d[1]
					sent := frame(7, 200, 0, true, 0x0800)
					capture, err := to.wan.Capture(netlab.CaptureOptions{Keep: func(f *netlab.Frame) bool { return bytes.HasSuffix(f.Data, sent) }})
					if err != nil {
						t.Fatal(err)
					}
					if err := from.lan.Send(sent); err != nil {
						t.Fatal(err)
					}
					ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
					defer cancel()
					packets, err := capture.WaitCount(ctx, 1)
					if err != nil {
						t.Fatal(err)
					}
					p := packets[0]
					if p.TagInMetadata || !bytes.Equal(p.Data[12:14], outerType[family.name]) {
						t.Errorf("outer packet: tag beside it %v, EtherType % x", p.TagInMetadata, p.Data[12:14])
					}
					got, payload, err := l2tpv3.ParseData(p.Data[14+family.ipHeader+8:], l2tpv3.UDP, 8, l2tpv3.SublayerNone)
					if err != nil {
						t.Fatalf("%v: % x", err, p.Data)
					}
					if got.SessionID != to.session.LocalID || !bytes.Equal(got.Cookie, to.session.LocalCookie) {
						t.Errorf("session %x, cookie %x; want %x, %x", got.SessionID, got.Cookie, to.session.LocalID, to.session.LocalCookie)
					}
					if !bytes.Equal(payload, sent) {
						t.Errorf("payload\n% x\nwant\n% x", payload, sent)
					}
				}
			})
		}
	}
}

var outerType = map[string][]byte{"ipv4": {0x08, 0x00}, "ipv6": {0x86, 0xdd}}
