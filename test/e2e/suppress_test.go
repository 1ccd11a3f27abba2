package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pwd-project/pwd/internal/netlab"
)

// What is known behind a network's pseudowires is not asked for over there: the site answers.
// A host that moves is found at its new place.
func TestSuppression(t *testing.T) {
	beside(t)
	d := drawing{sites: 3, datapath: "ebpf", also: "    suppress: arp-nd\n"}
	if inVM { // each datapath on one of the kernels
		if d.vlans = true; os.Getenv("PWD_VM") != "6.1" {
			d.datapath = "kernel"
		}
	}
	m := d.draw(t)
	m.start()
	for _, s := range m.sites {
		if err := s.AwaitUp(within(t, 2*upWithin), 2, 2); err != nil {
			t.Fatal(err)
		}
	}
	g := d.board(m)
	captures := map[string]*netlab.Capture{}
	for i, link := range []*netlab.Link{m.hosts[0], m.hosts[1], g.nic} {
		c, err := link.Capture(netlab.CaptureOptions{Keep: func(f *netlab.Frame) bool { return isARP(f.Data) }})
		if err != nil {
			t.Fatal(err)
		}
		captures[fmt.Sprint("host ", i)] = c
	}
	asker := m.hosts[2]
	ping := func(what string, to netip.Addr) {
		t.Helper()
		r, err := asker.NS.Ping(within(t, 30*time.Second), to, netlab.PingOptions{Count: 1})
		if err != nil || r.Lost() > 0 {
			t.Errorf("%s: %d of %d lost, %v", what, r.Lost(), r.Sent, err)
		}
	}
	forget := func(to netip.Addr) {
		t.Helper()
		if said, err := asker.NS.Run(t.Context(), "ip", "neigh", "del", to.String(), "dev", "eth0"); err != nil {
			t.Fatalf("%v\n%s", err, said)
		}
	}
	// asked is how many requests of the asker's for an address came to the others: all that did
	// before another message of its.
	serial := byte(0)
	asked := func(to netip.Addr) (n int) {
		t.Helper()
		serial++
		mark := []byte{203, 0, 113, serial}
		f := slices.Concat(bytes.Repeat([]byte{0xff}, 6), asker.MAC, []byte{0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 2}, asker.MAC, mark, asker.MAC, mark, make([]byte, 18))
		if err := asker.Send(f); err != nil {
			t.Fatal(err)
		}
		for name, c := range captures {
			if _, err := c.Wait(within(t, 30*time.Second), name+" hears the asker", func(all []netlab.Frame) bool {
				return slices.ContainsFunc(all, func(f netlab.Frame) bool { return bytes.Contains(f.Data, slices.Concat(asker.MAC, mark)) })
			}); err != nil {
				t.Fatal(err)
			}
		}
		for _, c := range captures {
			for _, f := range c.Frames() {
				arp := f.Data[14:]
				if vlanOf(f.Data) != 0 {
					arp = f.Data[18:]
				}
				from, ip := m.addr[2].As4(), to.As4()
				if len(arp) >= 28 && arp[7] == 1 && bytes.Equal(arp[14:18], from[:]) && bytes.Equal(arp[24:28], ip[:]) {
					n++
				}
			}
		}
		return n
	}
	suppressed := func() (n uint64) {
		t.Helper()
		st, err := m.sites[2].Client().Status(within(t, 30*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range st.Pseudowires {
			if p.SuppressedRequests == nil {
				t.Fatalf("%s suppresses nothing", p.Name)
			}
			n += *p.SuppressedRequests
		}
		return n
	}
	for _, to := range []netip.Addr{m.addr[1], g.addr} {
		ping("nothing is known", to)
		if asked(to) == 0 {
			t.Errorf("nobody was asked for %v", to)
		}
		before, crossed := suppressed(), asked(to)
		forget(to)
		ping("the site answers", to)
		// At one pseudowire it is answered, at the other withheld.
		if n := suppressed() - before; n < 2 || asked(to) != crossed {
			t.Errorf("%d requests for %v suppressed, %d crossed", n, to, asked(to)-crossed)
		}
	}
	g.move()
	m.awaitMAC(2, guestMAC, "dc2")
	crossed := asked(g.addr)
	forget(g.addr)
	ping("it has moved", g.addr)
	if n := asked(g.addr) - crossed; n != 0 {
		t.Errorf("it has moved: %d requests crossed", n)
	}
	m.awaitMAC(2, guestMAC, "dc2")
	if said, err := m.sites[2].Pwctl(within(t, 30*time.Second), "describe", "pseudowire", "office/dc1"); err != nil || !strings.Contains(said, "Suppressed ARP and ND requests") {
		t.Errorf("%s\n%v", said, err)
	}
	// A host that gets another MAC address says so by its first request, which is not answered for: who knew
	// the old one finds it.
	other := m.hosts[1].NS
	if said, err := other.Run(t.Context(), "ip", "link", "set", "dev", "eth0", "address", "02:00:00:00:77:01"); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	if r, err := other.Ping(within(t, 30*time.Second), m.addr[2], netlab.PingOptions{Count: 1}); err != nil || r.Lost() > 0 {
		t.Errorf("from another MAC address: %d of %d lost, %v", r.Lost(), r.Sent, err)
	}
	ping("it has another MAC address", m.addr[1])
	// What was behind a pseudowire that is down now is asked for elsewhere.
	if said, err := m.sites[2].Pwctl(within(t, 30*time.Second), "drain", "office/dc2"); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	// Split horizon: those at dc2 hear nothing any more.
	delete(captures, "host 1")
	delete(captures, "host 2")
	crossed = asked(g.addr)
	if err := netlab.Poll(within(t, 30*time.Second), "a request crosses", func() error {
		forget(g.addr)
		if _, err := asker.NS.Ping(within(t, 30*time.Second), g.addr, netlab.PingOptions{Timeout: 300 * time.Millisecond}); err != nil {
			return err
		}
		if asked(g.addr) == crossed {
			return errors.New("none does")
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}
