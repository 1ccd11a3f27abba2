//go:build vm

package datapath

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// cell is a session between the eBPF datapath and one made with `ip l2tp`.
type cell struct {
	*matrixTunnel
	cookie     int
	sublayer   l2tpv3.L2SpecificSublayer
	sequencing l2tpv3.DataSequencing
	near       pseudowire.Session
}

type matrixTunnel struct {
	family        family
	encapsulation l2tpv3.Encapsulation
	checksum      bool
	near, far     pseudowire.Tunnel
	port          uint16 // of both ends
}

func (c *cell) String() string {
	s := fmt.Sprintf("%s over %s, cookie of %d, sublayer %s, sequencing %s", c.encapsulation, c.family.name, c.cookie, c.sublayer, c.sequencing)
	if c.encapsulation == l2tpv3.UDP {
		s += ", checksum " + onOff(c.checksum)
	}
	return s
}

func (c *cell) device() string { return "pw-" + c.near.Pseudowire }

// cells are all combinations; the kernel carries them all. RFC 3931, Section 5.4.4: sequencing
// needs a sublayer.
func cells() (tunnels []*matrixTunnel, all []*cell) {
	for _, f := range families {
		tunnels = append(tunnels,
			&matrixTunnel{family: f, encapsulation: l2tpv3.UDP, checksum: true},
			&matrixTunnel{family: f, encapsulation: l2tpv3.UDP},
			&matrixTunnel{family: f, encapsulation: l2tpv3.IP})
	}
	for i, t := range tunnels {
		id := uint32(i + 1)
		t.port = l2tpv3.Port + uint16(i)
		t.near.Name, t.near.LocalID, t.near.RemoteID = fmt.Sprintf("t%d", i), id, 100+id
		t.far.LocalID, t.far.RemoteID = 100+id, id
		for _, cookieLen := range []int{0, 4, 8} {
			for _, l2 := range []struct {
				sublayer   l2tpv3.L2SpecificSublayer
				sequencing l2tpv3.DataSequencing
			}{
				{l2tpv3.SublayerNone, l2tpv3.SequencingNone},
				{l2tpv3.SublayerDefault, l2tpv3.SequencingNone},
				{l2tpv3.SublayerDefault, l2tpv3.SequencingAll},
			} {
				c := &cell{matrixTunnel: t, cookie: cookieLen, sublayer: l2.sublayer, sequencing: l2.sequencing}
				n := uint32(len(all) + 1)
				c.near = pseudowire.Session{
					Tunnel: t.near.Name, Pseudowire: fmt.Sprintf("m%d", n), LocalID: 1000 + n, RemoteID: 2000 + n,
					LocalCookie: cookie(1, cookieLen), RemoteCookie: cookie(2, cookieLen),
					ReceiveSublayer: l2.sublayer, TransmitSublayer: l2.sublayer,
					ReceiveSequencing: l2.sequencing, TransmitSequencing: l2.sequencing, Transmit: true,
				}
				all = append(all, c)
			}
		}
	}
	return tunnels, all
}

// Every cell at once between two namespaces: small frames and some that leave in fragments,
// each way, arrive bit for bit, and both ends count just them.
func TestEveryCellAgainstTheKernel(t *testing.T) {
	tunnels, all := cells()
	lab := netlab.New(t)
	a, b := newSite(t, lab, "a"), newSite(t, lab, "b")
	a.wan, b.wan = lab.Veth(a.lcce, "wan0", b.lcce, "wan0")
	for _, s := range []*site{a, b} {
		s.wan.Feature("tx-checksum-*", false) // as in twoSites
		for _, f := range families {
			s.wan.Addr(map[*site]netip.Addr{a: f.a, b: f.b}[s].String() + f.prefix)
		}
		s.wan.Up()
	}
	a.wan.Operational()
	b.wan.Operational()
	a.open(ebpf)
	b.kind = static
	farEnds(t, b, tunnels, all)
	nearEnds(t, a, b, tunnels, all)

	// The third size is more than the underlay of 1500 octets takes.
	sizes := []int{60, 400, 1514}
	for i, c := range all {
		var wait sync.WaitGroup
		for _, way := range [][2]*site{{a, b}, {b, a}} {
			wait.Go(func() {
				if err := exchange(t, way[0].lcce.Link(c.device()), way[1].lcce.Link(c.device()), i, sizes); err != nil {
					t.Errorf("%s, to %s: %v", c, way[1].lcce.Name, err)
				}
			})
		}
		wait.Wait()
	}
	var counts map[uint32]pseudowire.Counters
	a.must("count", func(dp pseudowire.Datapath) (err error) { counts, err = dp.Counters(); return err })
	n := uint64(len(sizes))
	for _, c := range all {
		got := counts[c.near.LocalID]
		maps.DeleteFunc(got.Drops, func(_ string, n uint64) bool { return n == 0 })
		fragments := map[string]uint64{pseudowire.CountFragmented: 1, pseudowire.CountReassembled: 1}
		if got.TransmittedFrames != n || got.ReceivedFrames != n || !maps.Equal(got.Drops, fragments) {
			t.Errorf("%s: of %d frames each way, one of them in fragments, are counted %+v", c, n, got)
		}
		far, err := b.lcce.Link(c.device()).Attrs()
		if err != nil {
			t.Fatal(err)
		}
		if s := far.Statistics; s.TxPackets != n || s.RxPackets != n || s.RxErrors != 0 || s.TxErrors != 0 || s.TxDropped != 0 {
			t.Errorf("%s: the kernel counts %d of %d frames sent and %d received, %d and %d errors, %d drops", c, s.TxPackets, n, s.RxPackets, s.TxErrors, s.RxErrors, s.TxDropped)
		}
	}
	t.Logf("%d sessions in %d tunnels", len(all), len(tunnels))
}

// farEnds makes all tunnels and sessions with one `ip`.
func farEnds(t *testing.T, s *site, tunnels []*matrixTunnel, all []*cell) {
	t.Helper()
	var batch strings.Builder
	for _, x := range tunnels {
		fmt.Fprintf(&batch, "l2tp add tunnel tunnel_id %d peer_tunnel_id %d local %s remote %s", x.far.LocalID, x.far.RemoteID, x.family.b, x.family.a)
		switch {
		case x.encapsulation == l2tpv3.IP:
			batch.WriteString(" encap ip\n")
		case x.family.a.Is4():
			fmt.Fprintf(&batch, " encap udp udp_sport %d udp_dport %d udp_csum %s\n", x.port, x.port, onOff(x.checksum))
		default:
			fmt.Fprintf(&batch, " encap udp udp_sport %d udp_dport %d udp6_csum_tx %s udp6_csum_rx off\n", x.port, x.port, onOff(x.checksum))
		}
	}
	for _, c := range all {
		fmt.Fprintf(&batch, "l2tp add session name %s tunnel_id %d session_id %d peer_session_id %d l2spec_type %s",
			c.device(), c.far.LocalID, c.near.RemoteID, c.near.LocalID, c.sublayer)
		if c.cookie > 0 {
			fmt.Fprintf(&batch, " cookie %s peer_cookie %s", hex.EncodeToString(c.near.LocalCookie), hex.EncodeToString(c.near.RemoteCookie))
		}
		if c.sequencing != l2tpv3.SequencingNone {
			batch.WriteString(" seq both")
		}
		batch.WriteString("\n")
	}
	file := filepath.Join(t.TempDir(), "batch")
	if err := os.WriteFile(file, []byte(batch.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := s.lcce.Run(t.Context(), "ip", "-batch", file); err != nil {
		t.Fatalf("ip -batch: %v: %s", err, out)
	}
	for _, c := range all {
		s.lcce.Link(c.device()).MTU(1500).Silent().Up()
	}
}

// nearEnds makes those of the eBPF datapath.
func nearEnds(t *testing.T, s, peer *site, tunnels []*matrixTunnel, all []*cell) {
	t.Helper()
	var data []uint32
	for _, c := range all {
		data = append(data, c.near.LocalID)
	}
	if err := s.lcce.Do(func() error { return s.tr.SetDataSessions(data) }); err != nil {
		t.Fatal(err)
	}
	for _, x := range tunnels {
		local, remote := netip.AddrPortFrom(x.family.a, x.port), netip.AddrPortFrom(x.family.b, x.port)
		if x.encapsulation == l2tpv3.IP {
			local, remote = netip.AddrPortFrom(x.family.a, 0), netip.AddrPortFrom(x.family.b, 0)
		}
		s.connectTo(&x.near, x.encapsulation, local, remote)
		x.near.Checksum = x.checksum
		s.must("set tunnel", func(dp pseudowire.Datapath) error { return dp.SetTunnel(x.near) })
	}
	for _, c := range all {
		s.must("set "+c.String(), func(dp pseudowire.Datapath) error {
			return errors.Join(dp.SetPseudowire(pseudowire.Pseudowire{Name: c.near.Pseudowire, Device: c.device(), MTU: 1500}), dp.SetSession(c.near))
		})
	}
	for _, f := range families {
		s.addr, peer.addr = f.a, f.b
		s.meet(peer)
	}
}

// exchange sends one frame of each size into a device and says whether they, and no others,
// come out of the other.
func exchange(t *testing.T, from, to *netlab.Link, cell int, sizes []int) error {
	c := &collector{missing: map[uint32][]byte{}, changed: make(chan struct{}, 1)}
	var frames [][]byte
	for i, size := range sizes {
		number := uint32(cell*len(sizes) + i)
		f := frame(number, size, i%len(destinations), false, etherTypes[(cell+i)%len(etherTypes)])
		frames = append(frames, f)
		c.missing[number] = f
	}
	capture, err := to.Capture(netlab.CaptureOptions{Keep: c.take})
	if err != nil {
		return err
	}
	defer capture.Stop()
	if err := from.Send(frames...); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	for {
		c.mu.Lock()
		left, wrong := len(c.missing), c.wrong
		c.mu.Unlock()
		if left == 0 || len(wrong) > 0 {
			if len(wrong) > 0 {
				return errors.New(strings.Join(wrong, "; "))
			}
			return nil
		}
		select {
		case <-c.changed:
		case <-ctx.Done():
			return fmt.Errorf("%d of %d frames did not come", left, len(sizes))
		}
	}
}
