package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pwd-project/pwd/internal/api"
)

// Frames of one pseudowire take the tunnels that its rules say, each way; what a tunnel
// carried goes over the other one while it is down, and back when it works. Rules change
// without a session being set up anew.
func TestSteering(t *testing.T) {
	onOneKernel(t, "6.12")
	kinds := datapaths()
	if inVM {
		kinds = kinds[:1] // the kernel's; a peer cannot tell
	}
	for _, d := range kinds {
		t.Run(strings.Join(d[:], " to "), func(t *testing.T) { testSteering(t, d) })
	}
}

func testSteering(t *testing.T, d [2]string) {
	const byPort = `tunnels: [gold, silver]
    steer: [{protocol: udp, destination-port: 5060, tunnel: gold}]`
	w := drawTwoWays(t, d, byPort)
	w.awaitSpread("gold", "silver")
	gold, silver := 0, 1
	w.expect("voice", 5060, gold)
	w.expect("all else", 5061, silver)

	w.classified("--protocol udp --destination-port 5060", "gold", "1: protocol 17 destination-port 5060 -> gold")
	w.classified("--protocol tcp --destination-port 5060", "silver", "none matches")

	before := w.sessionIDs()
	swapped := strings.Replace(w.text, "5060", "5061", 1)
	if err := os.WriteFile(w.topology, []byte(swapped), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, s := range w.sites {
		if out, err := s.Pwctl(within(t, 30*time.Second), "diff", "-f", w.topology); !strings.Contains(out, "live") {
			t.Errorf("diff: %v\n%s", err, out)
		}
		if out, err := s.Pwctl(within(t, 30*time.Second), "apply", "-y", "-f", w.topology); err != nil {
			t.Fatalf("apply: %v\n%s", err, out)
		}
	}
	w.expect("all else, by the new rules", 5060, silver)
	w.expect("voice, by the new rules", 5061, gold)
	if after := w.sessionIDs(); !slices.Equal(before, after) {
		t.Errorf("sessions %v, and %v before the rules changed", after, before)
	}

	w.cut(gold)
	w.awaitSpread("silver")
	w.expect("voice, gold being down", 5061, silver)
	// A daemon that starts anew knows of the silence: it has nothing to tell of it.
	if err := w.sites[0].Stop(within(t, 30*time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := w.sites[0].Start(); err != nil {
		t.Fatal(err)
	}
	w.awaitSpread("silver")
	w.send(5061, 10)
	w.mend(gold)
	w.awaitSpread("gold", "silver")
	if said, err := w.sites[0].Pwctl(within(t, 30*time.Second), "events"); err != nil || strings.Contains(said, "spares tunnel gold") {
		t.Errorf("events: %v\n%s", err, said)
	}
	w.expect("voice, gold being back", 5061, gold)
}

// classified wants pwctl to say which tunnel a frame takes, and why.
func (w *twoWays) classified(flags, tunnel, rule string) {
	w.t.Helper()
	for _, s := range w.sites {
		out, err := s.Pwctl(within(w.t, 30*time.Second), append([]string{"classify", "trunk"}, strings.Fields(flags)...)...)
		if err != nil || !strings.Contains(out, " "+tunnel+" ") || !strings.Contains(out, rule) {
			w.t.Errorf("classify %s: %v\n%s", flags, err, out)
		}
	}
}

// awaitSpread waits until both sites send over these tunnels, and no others.
func (w *twoWays) awaitSpread(tunnels ...string) {
	w.t.Helper()
	for _, s := range w.sites {
		err := s.Await(within(w.t, 60*time.Second), fmt.Sprintf("frames take %v", tunnels), func(st *api.Status) error {
			p := st.Pseudowires[0]
			if p.State != "up" || p.Steering == nil || p.Tunnel != strings.Join(tunnels, ",") {
				return fmt.Errorf("%s over %s: %s, %+v", p.State, p.Tunnel, p.Reason, p.Steering)
			}
			return nil
		})
		if err != nil {
			w.t.Fatal(err)
		}
	}
}

// sent is how many frames the first site has sent over each tunnel.
func (w *twoWays) sent() (n [2]uint64) {
	w.t.Helper()
	all, err := w.sites[0].Client().Pseudowires(within(w.t, 30*time.Second))
	if err != nil {
		w.t.Fatal(err)
	}
	if len(all) != 1 || all[0].Steering == nil {
		w.t.Fatalf("pseudowires %+v", all)
	}
	for i, x := range all[0].Steering.Tunnels {
		n[i] = x.TransmittedFrames
	}
	return n
}

func (w *twoWays) sessionIDs() (ids []uint32) {
	w.t.Helper()
	all, err := w.sites[0].Client().Sessions(within(w.t, 30*time.Second))
	if err != nil {
		w.t.Fatal(err)
	}
	for _, s := range all {
		ids = append(ids, s.LocalSessionID, s.RemoteSessionID)
	}
	return ids
}

// send sends datagrams from the first host to the other one, and wants all to arrive.
func (w *twoWays) send(port, n int) {
	w.t.Helper()
	address := net.JoinHostPort(w.addr[1].String(), fmt.Sprint(port))
	err := w.hosts[1].NS.Do(func() error {
		in, err := net.ListenPacket("udp", address)
		if err != nil {
			return err
		}
		defer in.Close()
		return errors.Join(w.hosts[0].NS.Do(func() error { return sendDatagrams(address, n) }), receiveDatagrams(in, n))
	})
	if err != nil {
		w.t.Errorf("datagrams to port %d: %v", port, err)
	}
}

func sendDatagrams(address string, n int) error {
	dialer := net.Dialer{LocalAddr: &net.UDPAddr{Port: 20000}} // one flow for each address
	out, err := dialer.Dial("udp", address)
	if err != nil {
		return err
	}
	defer out.Close()
	for range n {
		if _, err := out.Write(make([]byte, 100)); err != nil {
			return err
		}
	}
	return nil
}

func receiveDatagrams(in net.PacketConn, n int) error {
	if err := in.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return err
	}
	b := make([]byte, 2000)
	for i := range n {
		if _, _, err := in.ReadFrom(b); err != nil {
			return fmt.Errorf("after %d of %d: %w", i, n, err)
		}
	}
	return nil
}

// expect sends datagrams and looks which tunnel they took; hosts say little besides. A flow
// goes over to a tunnel that has come in its first pause.
func (w *twoWays) expect(what string, port, tunnel int) {
	w.t.Helper()
	const n = 100
	w.send(port, 1)
	time.Sleep(300 * time.Millisecond)
	before := w.sent()
	w.send(port, n)
	after := w.sent()
	if took, other := after[tunnel]-before[tunnel], after[1-tunnel]-before[1-tunnel]; took < n || other > n/2 {
		w.t.Errorf("%s: %d frames took the tunnel, %d the other one", what, took, other)
	}
}
