package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/bpf"

	"github.com/pwd-project/pwd/internal/netlab"
)

var (
	destinations = []net.HardwareAddr{
		{0x02, 0, 0, 0, 0, 0x0b}, // unicast
		{0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		{0x01, 0x00, 0x5e, 0x00, 0x01, 0x17}, // multicast
	}
	source = net.HardwareAddr{0x02, 0, 0, 0x5e, 0xed, 0x01}
	// A datapath may treat IP apart; the last is for experiments (IEEE 802a).
	etherTypes = []uint16{0x0800, 0x86dd, 0x88b5}
)

// frameOf is a frame of size octets, the tag not counted, with random contents
// that begin like a packet of its type. A VLAN of 0 is no tag.
func frameOf(r *rand.ChaCha8, size, kind int, vlan uint16) []byte {
	f := slices.Concat(destinations[kind%len(destinations)], source)
	if vlan != 0 {
		f = binary.BigEndian.AppendUint16(f, 0x8100)
		f = binary.BigEndian.AppendUint16(f, vlan)
		size += 4
	}
	etherType := etherTypes[size%len(etherTypes)]
	f = binary.BigEndian.AppendUint16(f, etherType)
	payload := make([]byte, size-len(f))
	r.Read(payload)
	switch etherType {
	case 0x0800:
		copy(payload, []byte{0x45, 0, byte(len(payload) >> 8), byte(len(payload)), 0, 0, 0, 0, 64, 253, 0, 0, 203, 0, 113, 1, 203, 0, 113, 2})
		binary.BigEndian.PutUint16(payload[10:], sum16(payload[:20]))
	case 0x86dd:
		copy(payload, []byte{0x60, 0, 0, 0, byte((len(payload) - 40) >> 8), byte(len(payload) - 40), 59, 64})
	}
	return append(f, payload...)
}

// sum16 is the Internet checksum (RFC 1071) of an even number of octets.
func sum16(b []byte) uint16 {
	var sum uint32
	for ; len(b) > 0; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// retagged is the frame as it is on the far LAN of tenant-a.
func retagged(frame []byte, vlan uint16) []byte {
	f := slices.Clone(frame)
	binary.BigEndian.PutUint16(f[14:], vlan)
	return f
}

// fromSource lets frames from the tests' source address through.
var fromSource = []bpf.Instruction{
	bpf.LoadAbsolute{Off: 6, Size: 4},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: binary.BigEndian.Uint32(source), SkipFalse: 1},
	bpf.RetConstant{Val: 1 << 20},
	bpf.RetConstant{Val: 0},
}

// batch is how many frames are under way at once: those sent in fragments pass through queues of the kernel's.
const batch = 32

// sweep sends frames of every size, to every kind of destination, and wants each on the far host as it was sent.
// tags are what frames carry; arrives is what becomes of a frame on the way.
func (w *world) sweep(l *lan, from, maxSize, step int, tags []uint16, arrives func([]byte) []byte) {
	w.t.Helper()
	c, err := l.hosts[1-from].Capture(netlab.CaptureOptions{Filter: fromSource})
	if err != nil {
		w.t.Fatal(err)
	}
	r := rand.NewChaCha8([32]byte{byte(from)})
	var sent, want [][]byte
	flush := func() {
		if err := l.hosts[from].Send(sent...); err != nil {
			w.t.Fatal(err)
		}
		sent = sent[:0]
		if _, err := c.WaitCount(within(w.t, upWithin), len(want)); err != nil {
			w.t.Error(err)
		}
	}
	for size := 60; size <= maxSize; size += step {
		for kind := range destinations {
			for _, vlan := range tags {
				f := frameOf(r, size, kind, vlan)
				sent, want = append(sent, f), append(want, arrives(f))
				if len(sent) == batch {
					flush()
				}
			}
		}
		if w.t.Failed() {
			break
		}
	}
	flush()
	frames, err := c.Stop()
	if err != nil {
		w.t.Error(err)
	}
	w.compare(l, from, want, frames)
}

// compare wants the frames that were captured to be those wanted, in any order.
func (w *world) compare(l *lan, from int, want [][]byte, frames []netlab.Frame) {
	w.t.Helper()
	missing := map[string]int{}
	for _, f := range want {
		missing[string(f)]++
	}
	wrong := 0
	for _, f := range frames {
		if missing[string(f.Data)] == 0 {
			if wrong++; wrong <= 3 {
				w.t.Errorf("%s from host %d: a frame of %d octets that was not sent: % x", l.name, from, len(f.Data), f.Data[:min(len(f.Data), 80)])
			}
			continue
		}
		if missing[string(f.Data)]--; missing[string(f.Data)] == 0 {
			delete(missing, string(f.Data))
		}
	}
	var sizes []int
	for f := range missing {
		sizes = append(sizes, len(f))
	}
	slices.Sort(sizes)
	if len(sizes) > 0 || wrong > 0 {
		w.t.Errorf("%s from host %d: of %d frames %d did not arrive (sizes %v), %d others did", l.name, from, len(want), len(sizes), sizes[:min(len(sizes), 20)], wrong)
	}
}

// Every frame that a host can send arrives as it was sent, on a whole port with its
// tags, on a VLAN with the other site's tag.
func TestEveryFrame(t *testing.T) {
	beside(t)
	for _, tt := range []struct {
		network
		maxSize, step int
		mtu           string
	}{
		{network{}, 1514, 1, ""},
		{network{ipv6: true}, 1514, 1, ""},
		{network{underlay: 1600}, 1514, 1, ""},
		{network{underlay: 9200, lan: 9000}, 9014, 7, "mtu: 9000"},
		{network{underlay: 1500, lan: 9000}, 9014, 19, "mtu: 9000"},
	} {
		for _, d := range datapaths() {
			tt.datapaths, tt.raw = d, true
			if inVM {
				tt.step = max(tt.step, 17)
			}
			t.Run(fmt.Sprintf("%s-%s, IPv6 %v, %d over %d", d[0], d[1], tt.ipv6, max(tt.lan, 1500), max(tt.underlay, 1500)), func(t *testing.T) {
				w := build(t, tt.network)
				w.write(w.text(tt.mtu))
				w.start()
				for from := range 2 {
					w.sweep(w.b, from, tt.maxSize, tt.step, []uint16{0, 1, 1234}, func(f []byte) []byte { return f })
					w.sweep(w.a, from, tt.maxSize, tt.step, []uint16{w.vlan(from)}, func(f []byte) []byte { return retagged(f, w.vlan(1-from)) })
				}
			})
		}
	}
}

// A host of another VLAN, or of none, is not part of the pseudowire.
func TestOtherVLANsStayOut(t *testing.T) {
	beside(t)
	w := build(t, network{raw: true}).start()
	c, err := w.a.hosts[1].Capture(netlab.CaptureOptions{Filter: fromSource})
	if err != nil {
		t.Fatal(err)
	}
	r := rand.NewChaCha8([32]byte{})
	// The last one shows that the others have had their time.
	last := frameOf(r, 100, 0, w.vlan(0))
	if err := w.a.hosts[0].Send(frameOf(r, 100, 0, 0), frameOf(r, 100, 0, 101), frameOf(r, 100, 1, 200), frameOf(r, 100, 2, 4000), last); err != nil {
		t.Fatal(err)
	}
	if _, err := c.WaitCount(within(t, upWithin), 1); err != nil {
		t.Error(err)
	}
	frames, err := c.Stop()
	if err != nil {
		t.Error(err)
	}
	w.compare(w.a, 0, [][]byte{retagged(last, w.vlan(1))}, frames)
}

// The underlay's packets carry the tag where it belongs: in the L2TP payload, and nowhere else. tshark reads them.
func TestTagIsInThePayload(t *testing.T) {
	beside(t)
	if _, err := exec.LookPath("tshark"); err != nil {
		netlab.Missing(t, "tshark", err)
	}
	var frames []netlab.Frame
	var sent [][]byte
	for _, d := range eachOnOneKernel(datapaths()) {
		for _, ipv6 := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s-%s, IPv6 %v", d[0], d[1], ipv6), func(t *testing.T) {
				w := build(t, network{datapaths: d, ipv6: ipv6, raw: true})
				w.write(w.text("cookie: 8"))
				f, s := w.start().showsTags()
				frames, sent = append(frames, f...), append(sent, s...)
			})
		}
	}
	dissect(t, frames, sent) // all at once: it takes long to start
}

// showsTags sends frames with and without tags through tenant-b, and gives them and the underlay's.
func (w *world) showsTags() (frames []netlab.Frame, sent [][]byte) {
	w.t.Helper()
	wire, err := w.underlay[1].Capture(netlab.CaptureOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	host, err := w.b.hosts[1].Capture(netlab.CaptureOptions{Filter: fromSource})
	if err != nil {
		w.t.Fatal(err)
	}
	r := rand.NewChaCha8([32]byte{})
	for i, vlan := range []uint16{0, 7, 1234} {
		for k := range etherTypes {
			sent = append(sent, frameOf(r, 200+k, i+k, vlan))
		}
	}
	if err := w.b.hosts[0].Send(sent...); err != nil {
		w.t.Fatal(err)
	}
	if _, err := host.WaitCount(within(w.t, upWithin), len(sent)); err != nil {
		w.t.Error(err)
	}
	frames, err = wire.Stop()
	if err != nil {
		w.t.Error(err)
	}
	var inPayload [][]byte
	for _, f := range frames {
		if f.TagInMetadata || vlanOf(f.Data) != 0 {
			w.t.Errorf("a packet on the underlay with a VLAN tag: % x", f.Data[:64])
		}
		for _, s := range sent {
			if strings.HasSuffix(string(f.Data), string(s)) {
				inPayload = append(inPayload, s)
			}
		}
	}
	if len(inPayload) != len(sent) {
		w.t.Errorf("of %d frames %d are, octet for octet, the end of a packet on the underlay", len(sent), len(inPayload))
	}
	return frames, sent
}

// dissect has tshark find the inner frames' addresses and tags behind the L2TPv3 header.
func dissect(t *testing.T, frames []netlab.Frame, sent [][]byte) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "underlay.pcap")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(netlab.WritePcap(file, frames), file.Close()); err != nil {
		t.Fatal(err)
	}
	// Without the control messages it has to be told the cookie's length, and that sessions whose type it does not know are Ethernet.
	out, err := exec.Command("tshark", "-r", path, "-o", "l2tp.cookie_size:8 Byte Cookie", "-o", "l2tp.l2_specific:None", "-d", "l2tp.pw_type==0,eth",
		"-Y", "eth.src=="+source.String(), "-T", "fields", "-E", "separator=;", "-e", "frame.protocols", "-e", "vlan.id").Output()
	if err != nil {
		t.Fatalf("tshark: %v", err)
	}
	var got []string
	for line := range strings.Lines(string(out)) {
		protocols, vlan, _ := strings.Cut(strings.TrimSpace(line), ";")
		outer, _, found := strings.Cut(protocols, ":l2tp")
		if !found || strings.Contains(outer, "vlan") {
			t.Errorf("tshark reads %s", line)
		}
		got = append(got, vlan)
	}
	var want []string
	for _, f := range sent {
		vlan := ""
		if id := vlanOf(f); id != 0 {
			vlan = fmt.Sprint(id)
		}
		want = append(want, vlan)
	}
	if !slices.Equal(got, want) {
		t.Errorf("tshark reads the VLANs %q, sent were %q", got, want)
	}
}
