package agent

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/internal/pcapng"
	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/l2tpv3/control"
	"github.com/pwd-project/pwd/pkg/l2tpv3/transport"
)

// signalled changes what the control machine has of gold, beside the topology.
func (p *place) signalled(change func(*control.Tunnel)) {
	p.t.Helper()
	p.do(func() {
		cfg := p.a.control.Connections()[0].Tunnel
		change(&cfg)
		err := p.a.transport.SetEndpoints([]transport.Endpoint{{Addr: cfg.Local, Encapsulation: cfg.Encapsulation}})
		if err = errors.Join(err, p.a.control.SetTunnel(time.Now(), cfg)); err != nil {
			p.t.Error(err)
		}
	})
}

// recording is a capture under way, into memory.
type recording struct {
	mu    sync.Mutex
	b     bytes.Buffer
	begun chan struct{}
	end   context.CancelFunc
	ended chan error
}

func (r *recording) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.b.Len() == 0 {
		close(r.begun)
	}
	return r.b.Write(b)
}

// record captures until stop.
func (p *place) record(req api.CaptureRequest) *recording {
	p.t.Helper()
	ctx, cancel := context.WithCancel(p.t.Context())
	r := &recording{begun: make(chan struct{}), end: cancel, ended: make(chan error, 1)}
	go func() { r.ended <- p.a.Capture(ctx, req, r) }()
	select {
	case <-r.begun:
	case <-time.After(soon):
		p.t.Fatal("no capture begins")
	}
	return r
}

func (r *recording) octets() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return bytes.Clone(r.b.Bytes())
}

func (r *recording) count() pcapng.Counter {
	var c pcapng.Counter
	c.Write(r.octets())
	return c
}

// tshark reads a capture.
func tshark(t *testing.T, capture []byte, options ...string) string {
	t.Helper()
	if _, err := exec.LookPath("tshark"); err != nil {
		netlab.Missing(t, "tshark", err)
	}
	path := filepath.Join(t.TempDir(), "gold.pcapng")
	if err := os.WriteFile(path, capture, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("tshark", append([]string{"-r", path}, options...)...)
	var problems bytes.Buffer
	cmd.Stderr = &problems
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("tshark: %v: %s", err, problems.String())
	}
	return string(out)
}

// A capture of a connection's whole life can be read by tshark, which finds
// nothing malformed, every checksum right and every digest to fit the secret.
func TestCaptureIsReadByTshark(t *testing.T) {
	dc1, dc2 := places(t)
	// tshark knows one connection between two addresses: dc2 begins none.
	dc2.opt.Timers.OpenDelay, dc2.opt.Timers.ReopenMin, dc2.opt.Timers.ReopenMax = time.Hour, time.Hour, time.Hour
	// And that one is not to be lost on a busy machine.
	dc1.opt.Timers.MaxRetransmits, dc2.opt.Timers.MaxRetransmits = 50, 50
	for i, p := range []*place{dc1, dc2} {
		link := p.linkBy("eth0")
		six, err := netlink.ParseAddr(fmt.Sprintf("2001:db8::%d/64", i+1))
		if err != nil {
			t.Fatal(err)
		}
		six.Flags = unix.IFA_F_NODAD
		if err := p.ns.Netlink().AddrAdd(link, six); err != nil {
			t.Fatal(err)
		}
		p.write(topo(gold, wireTo("a", "gold", 7)))
		p.start()
	}
	dc1.awaitUp()
	variants := []struct {
		name          string
		encapsulation l2tpv3.Encapsulation
		local, remote string
		digest        l2tpv3.DigestAlgorithm
	}{
		{"UDP, IPv4, MD5", l2tpv3.UDP, "192.0.2.1", "192.0.2.2", l2tpv3.HMACMD5},
		{"UDP, IPv6, SHA-1", l2tpv3.UDP, "2001:db8::1", "2001:db8::2", l2tpv3.HMACSHA1},
		{"IP, IPv4, SHA-1", l2tpv3.IP, "192.0.2.1", "192.0.2.2", l2tpv3.HMACSHA1},
		{"IP, IPv6, MD5", l2tpv3.IP, "2001:db8::1", "2001:db8::2", l2tpv3.HMACMD5},
	}
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			r := dc1.record(api.CaptureRequest{Tunnel: "gold"})
			for i, p := range []*place{dc2, dc1} {
				ends := []string{v.remote, v.local}
				p.signalled(func(c *control.Tunnel) {
					c.Encapsulation, c.Digest, c.Secrets = v.encapsulation, v.digest, [][]byte{[]byte("s3cret")}
					c.Local, c.Remote = netip.MustParseAddr(ends[i]), netip.MustParseAddr(ends[1-i])
					c.Hello = 50 * time.Millisecond
				})
			}
			up := func(a *Agent) error {
				c := a.control.Connections()[0]
				if !c.Authenticated || c.Path.Encapsulation != v.encapsulation || c.Path.Remote.Addr() != c.Tunnel.Remote || !a.wires["a"].ready {
					return fmt.Errorf("%v, %v: %s", c.Path, c.State, c.Reason)
				}
				return nil
			}
			dc1.await("it is up as wanted", up)
			dc2.await("it is up as wanted", up)
			if err := dc1.ns.Netlink().LinkSetDown(dc1.linkBy("eth1")); err != nil {
				t.Fatal(err)
			}
			dc2.await("the circuit is down", func(a *Agent) error {
				if a.wires["a"].ready {
					return errors.New("it is up")
				}
				return nil
			})
			if err := dc1.ns.Netlink().LinkSetUp(dc1.linkBy("eth1")); err != nil {
				t.Fatal(err)
			}
			dc1.awaitUp()
			var hellos uint64
			dc1.do(func() { hellos = dc1.a.control.Counters()["hello-sent"] })
			dc1.poll("a HELLO is sent", func() error {
				var now uint64
				dc1.do(func() { now = dc1.a.control.Counters()["hello-sent"] })
				if now == hellos {
					return errors.New("not yet")
				}
				return nil
			})
			nowhere := netip.MustParseAddr(strings.TrimSuffix(v.remote, "2") + "9")
			dc1.signalled(func(c *control.Tunnel) { c.Remote, c.Secrets = nowhere, [][]byte{[]byte("s3cret")} })
			dc2.await("it was ended", func(a *Agent) error {
				if s := a.control.Connections()[0].State; s != control.ConnectionIdle {
					return errors.New(s.String())
				}
				return nil
			})
			dc1.await("that is acknowledged", func(a *Agent) error {
				if n := a.control.Connections()[0].Closing; n > 0 {
					return fmt.Errorf("%d", n)
				}
				return nil
			})
			r.end()
			if err := <-r.ended; err != nil {
				t.Fatal(err)
			}
			got := tshark(t, r.octets(), "-o", "l2tp.shared_secret:s3cret", "-o", "ip.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE",
				"-Y", "not frame.comment", // those are of before, see TestCaptureBeginsWithWhatWasAgreedOn
				"-T", "fields", "-E", "separator=|", "-e", "l2tp.avp.message_type", "-e", "frame.packet_flags_direction", "-e", "l2tp.avp.message_digest",
				"-e", "l2tp.incorrect_digest", "-e", "_ws.malformed", "-e", "ip.checksum.status", "-e", "udp.checksum.status", "-e", "ip.proto", "-e", "ipv6.nxt")
			seen := map[string]bool{}
			lines := strings.Split(strings.TrimSpace(got), "\n")
			for _, line := range lines {
				f := strings.Split(line, "|")
				ipSum, udpSum := "1", "1"
				if strings.Contains(v.local, ":") {
					ipSum = ""
				}
				if v.encapsulation == l2tpv3.IP {
					udpSum = ""
				}
				if (f[0] == "4" || f[0] == "20") && f[2] == "" {
					continue // the end of what was there before, which had no secret
				}
				if f[0] == "4" && f[3] != "" {
					continue // both ends called: tshark judges the StopCCN for one by the nonces of the other
				}
				if len(f) != 9 || f[0] == "" || f[2] == "" || f[3] != "" || f[4] != "" {
					t.Errorf("tshark reads %s", line)
					continue
				}
				if f[5] == ipSum && f[6] == udpSum {
					seen[f[0]+" "+f[1]] = true
				}
			}
			const in, out = " 0x00000001", " 0x00000002"
			for _, m := range []l2tpv3.MessageType{l2tpv3.StopCCN, l2tpv3.Hello, l2tpv3.SLI} {
				if want := fmt.Sprint(uint16(m)); !seen[want+out] {
					t.Errorf("no %v was seen to leave", m)
				}
			}
			for _, m := range []l2tpv3.MessageType{l2tpv3.SCCRQ, l2tpv3.SCCRP, l2tpv3.SCCCN, l2tpv3.ICRQ, l2tpv3.ICRP, l2tpv3.ICCN, l2tpv3.ACK} {
				if n := fmt.Sprint(uint16(m)); !seen[n+in] && !seen[n+out] {
					t.Errorf("no %v was seen", m)
				}
			}
			if t.Failed() {
				t.Log(got)
			}
			if wrong := tshark(t, r.octets(), "-o", "l2tp.shared_secret:another", "-Y", "l2tp.incorrect_digest"); wrong == "" {
				t.Error("tshark finds the digests to fit another secret, too")
			}
		})
	}
}

// A capture of a tunnel that is established begins with messages that tell a reader what
// the ends have agreed on: tshark finds the digests of those to come to fit, and knows the
// cookies and types of the sessions' data packets, in both directions.
func TestCaptureBeginsWithWhatWasAgreedOn(t *testing.T) {
	dc1, dc2 := places(t)
	for _, p := range []*place{dc1, dc2} {
		p.opt.Timers.MaxRetransmits = 50 // a busy machine is not to lose the connection
		p.write(topo(gold, wireTo("a", "gold", 7)))
		p.start()
	}
	dc1.awaitUp()
	for _, p := range []*place{dc1, dc2} {
		p.signalled(func(c *control.Tunnel) { c.Secrets, c.Hello = [][]byte{[]byte("s3cret")}, 50*time.Millisecond })
	}
	for _, p := range []*place{dc1, dc2} {
		p.await("it is up with the secret", func(a *Agent) error {
			if c := a.control.Connections()[0]; !c.Authenticated || !a.wires["a"].ready {
				return errors.New(c.Reason)
			}
			return nil
		})
	}
	for _, p := range []*place{dc1, dc2} {
		// What they repeat has no digest, or one of other nonces.
		p.poll("the connections of before are forgotten", func() (err error) {
			p.do(func() {
				if n := p.a.control.Connections()[0].Closing; n > 0 {
					err = fmt.Errorf("%d are not", n)
				}
			})
			return err
		})
	}
	for _, p := range []*place{dc1, dc2} {
		r := p.record(api.CaptureRequest{Tunnel: "gold", Data: true})
		frame := append(make([]byte, 12), 0x08, 0x06)
		p.do(func() {
			for id, s := range p.a.sessions {
				local, remote, _ := p.a.transport.Path(s.Connection)
				for _, d := range []struct {
					from, to netip.AddrPort
					session  uint32
					cookie   []byte
				}{{remote, local, id, s.LocalCookie}, {local, remote, s.RemoteID, s.RemoteCookie}} {
					data := binary.BigEndian.AppendUint32([]byte{0, 3, 0, 0}, d.session)
					p.a.taps[0].put(&pcapng.Message{Time: time.Now(), Encapsulation: l2tpv3.UDP, Source: d.from, Destination: d.to,
						Payload: append(append(data, d.cookie...), frame...)})
				}
			}
		})
		p.poll("there is data, and a HELLO or two", func() error {
			if n := r.count().Packets; n < 6 {
				return fmt.Errorf("%d messages", n)
			}
			return nil
		})
		r.end()
		if err := <-r.ended; err != nil {
			t.Fatal(err)
		}
		got := tshark(t, r.octets(), "-o", "l2tp.shared_secret:s3cret", "-T", "fields", "-E", "separator=|", "-e", "frame.comment", "-e", "l2tp.type",
			"-e", "l2tp.incorrect_digest", "-e", "_ws.malformed", "-e", "eth.type", "-e", "l2tp.avp.message_digest")
		var before, control, data int
		for line := range strings.Lines(strings.TrimSpace(got)) {
			switch f := strings.Split(strings.TrimRight(line, "\n"), "|"); {
			case f[2] != "" || f[3] != "" && f[1] == "1" || f[1] == "1" && f[5] == "":
				t.Errorf("%s: tshark reads %s", p.site, line)
			case f[0] == recalled:
				before++
			case f[1] == "1":
				control++
			case f[4] == "0x0806":
				data++
			default:
				t.Errorf("%s: tshark reads %s", p.site, line)
			}
		}
		if n := r.count().Packets; before != 6 || control < 4 || data != 2 || n != uint64(control+data) {
			t.Errorf("%s: %d messages of before, %d of control, %d of data:\n%s", p.site, before, control, data, got)
		}
	}
}

// A capture has what is asked for and ends when it is to; without any there is no tap.
func TestCaptureEnds(t *testing.T) {
	dc1, _ := pair(t, docA)
	var notFound *api.Error
	if err := dc1.a.Capture(t.Context(), api.CaptureRequest{Tunnel: "lead"}, new(bytes.Buffer)); !errors.As(err, &notFound) || notFound.Code != api.CodeNotFound {
		t.Errorf("of a tunnel that is not there: %v", err)
	}
	if err := dc1.a.Capture(t.Context(), api.CaptureRequest{Tunnel: "gold", Peer: "dc3"}, new(bytes.Buffer)); !errors.As(err, &notFound) || notFound.Code != api.CodeNotFound {
		t.Errorf("of a peer that is not there: %v", err)
	}
	for _, req := range []api.CaptureRequest{
		{Tunnel: "gold", Duration: 10 * time.Millisecond},
		{Tunnel: "gold", Peer: "dc2", Count: 2},
	} {
		r := dc1.record(req)
		dc1.signalled(func(c *control.Tunnel) { c.RouterID++ })
		if err := <-r.ended; err != nil {
			t.Errorf("%+v: %v", req, err)
		}
		if c := r.count(); req.Count > 0 && c.Packets != uint64(req.Count) {
			t.Errorf("%+v: %d messages", req, c.Packets)
		}
	}
	var all []*recording
	for range maxTaps {
		all = append(all, dc1.record(api.CaptureRequest{Tunnel: "gold"}))
	}
	if err := dc1.a.Capture(t.Context(), api.CaptureRequest{Tunnel: "gold"}, new(bytes.Buffer)); err == nil {
		t.Errorf("more than %d captures at once", maxTaps)
	}
	for _, r := range all {
		r.end()
		if err := <-r.ended; err != nil {
			t.Error(err)
		}
	}
	r := dc1.record(api.CaptureRequest{Tunnel: "gold"})
	dc1.do(func() {
		if n := len(dc1.a.taps); n != 1 {
			t.Errorf("%d taps, want the last one's", n)
		}
	})
	dc1.shut()
	if err := <-r.ended; !errors.Is(err, errStopping) {
		t.Errorf("the daemon ended, and the capture said %v", err)
	}
}

// Who does not read misses messages, and is told how many. Nobody waits for him.
func TestCaptureMissesWhatIsNotTaken(t *testing.T) {
	a := &Agent{tunnels: map[string]*tunnel{}}
	slow := &tap{CaptureRequest: api.CaptureRequest{Tunnel: "gold"}, messages: make(chan *pcapng.Message, 2)}
	other := &tap{CaptureRequest: api.CaptureRequest{Tunnel: "silver"}, messages: make(chan *pcapng.Message, 2)}
	a.taps = []*tap{slow, other}
	for range 5 {
		a.tapReceived(time.Now(), "gold/dc2", control.Path{}, []byte{0xc8, 3})
	}
	<-slow.messages
	a.tapReceived(time.Now(), "gold/dc2", control.Path{}, []byte{0xc8, 3})
	<-slow.messages
	if m := <-slow.messages; m.Missed != 3 {
		t.Errorf("%d missed, want 3", m.Missed)
	}
	a.tapReceived(time.Now(), "gold/dc2", control.Path{}, make([]byte, tapOctets+1))
	if slow.missed != 1 || len(other.messages) != 0 {
		t.Errorf("%d missed, want the one that is larger than the queue; %d of another tunnel", slow.missed, len(other.messages))
	}
}

// A message that is nobody's goes with the tunnels to where it came from.
func TestCaptureOfStrangers(t *testing.T) {
	a := &Agent{tunnels: map[string]*tunnel{}}
	for key, remote := range map[string]string{"gold/dc2": "192.0.2.2", "silver/dc2": "192.0.2.2", "gold/dc3": "192.0.2.3"} {
		x := &tunnel{}
		x.Remote = netip.MustParseAddr(remote)
		a.tunnels[key] = x
	}
	var got []string
	for _, req := range []api.CaptureRequest{{Tunnel: "gold"}, {Tunnel: "gold", Peer: "dc3"}, {Tunnel: "silver"}} {
		a.taps = append(a.taps, &tap{CaptureRequest: req, messages: make(chan *pcapng.Message, 9)})
	}
	a.tapReceived(time.Now(), "", control.Path{Remote: netip.MustParseAddrPort("192.0.2.2:9")}, []byte{0xc8, 3})
	a.tapReceived(time.Now(), "", control.Path{Remote: netip.MustParseAddrPort("198.51.100.9:9")}, []byte{0xc8, 3})
	for _, x := range a.taps {
		got = append(got, fmt.Sprint(len(x.messages)))
	}
	if want := []string{"1", "0", "1"}; !slices.Equal(got, want) {
		t.Errorf("captures of gold, gold/dc3 and silver got %v, want %v", got, want)
	}
}
