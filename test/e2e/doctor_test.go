package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/pwd-project/pwd/bpf"
	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/pkg/pseudowire/tcfilter"
	"github.com/pwd-project/pwd/test/site"
)

// leftovers are what pwctl doctor says of them at a site.
func (w *world) leftovers(s *site.Site) string {
	w.t.Helper()
	return ofLeftovers(ask(w.t, s, []string{"pwctl", "--socket", s.Socket(), "doctor", "--state-dir", s.Dir + "/state"}))
}

func ofLeftovers(answer string) string {
	var told strings.Builder
	of := false
	for line := range strings.Lines(answer) {
		if !strings.HasPrefix(line, " ") {
			_, line, of = strings.Cut(line, " leftovers: ")
		}
		if of {
			told.WriteString(line)
		}
	}
	return told.String()
}

// What a daemon that was killed leaves is told in full, and with what removes it; nothing of it where a daemon
// has taken it over, or where it was removed.
func TestDoctorFindsWhatIsLeft(t *testing.T) {
	beside(t)
	w := build(t, network{})
	w.write(strings.Replace(w.text(""), "silver: {sites: [dc1, dc2]}", "silver: {sites: [dc1, dc2], class: all}", 1) +
		"classes:\n  all: {rate: 10mbit, ceiling: 100mbit}\n")
	w.start()
	s := w.sites[0]
	if told := w.leftovers(s); told != "" {
		t.Errorf("with a daemon: %s", told)
	}
	s.Daemon.Kill()
	told := w.leftovers(s)
	for _, part := range []string{
		"no daemon runs, and there is ", "pw-tenant-a", "bridges (br-lan, pwb-eth2)", "1 qdisc (htb of eth0)",
		"what is pinned in /sys/fs/bpf/pwd/net-", "the state of site dc1 in " + s.Dir + "/state, generation 1",
		": pwd --site dc1 --cleanup --state-dir " + s.Dir + "/state\n",
	} {
		if !strings.Contains(told, part) {
			t.Errorf("no %q in %s", part, told)
		}
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	w.awaitUp()
	if told := w.leftovers(s); told != "" {
		t.Errorf("with another daemon: %s", told)
	}
	if err := s.Stop(within(t, upWithin)); err != nil {
		t.Fatal(err)
	}
	if err := s.Cleanup(within(t, upWithin)); err != nil {
		t.Fatal(err)
	}
	if told := w.leftovers(s); told != "nothing of an earlier daemon is here\n" {
		t.Errorf("cleaned up: %s", told)
	}
}

// Of programs at interfaces the daemon's are told from an earlier one's.
func TestDoctorFindsStrangePrograms(t *testing.T) {
	beside(t)
	w := build(t, network{})
	s := w.sites[0]
	s.Flags = append(s.Flags, "--bpf-dir", t.TempDir()) // on no bpffs: programs are filters
	w.start()
	out, err := s.NS.Run(within(t, upWithin), "tc", "filter", "show", "dev", "eth0", "ingress")
	if err != nil || !strings.Contains(out, "pwd_decap") {
		t.Fatalf("the daemon has no filter at eth0: %v\n%s", err, out)
	}
	if told := w.leftovers(s); told != "" {
		t.Errorf("of the daemon's own: %s", told)
	}
	if err := s.NS.Do(func() error {
		p, err := bpf.LoadPacing("")
		if err != nil {
			return err
		}
		defer p.Close()
		f := tcfilter.Filter{Parent: netlink.HANDLE_MIN_EGRESS, Priority: 0x7066, Name: "pwd_depart"}
		return tcfilter.Attach(s.NS.Netlink(), s.NS.Link("eth2").Index, f, p.Program)
	}); err != nil {
		t.Fatal(err)
	}
	told := w.leftovers(s)
	if !strings.HasPrefix(told, "programs of an earlier daemon: pwd_depart at the egress of eth2\n") {
		t.Errorf("told %s", told)
	}
	_, fix, found := strings.Cut(told, "not its own; ")
	if !found {
		t.Fatalf("nothing to do in %s", told)
	}
	if out, err := s.NS.Run(within(t, upWithin), "sh", "-c", fix); err != nil {
		t.Fatalf("%s: %v\n%s", fix, err, out)
	}
	if err := netlab.Poll(within(t, upWithin), "it is told no more", func() error {
		if told := w.leftovers(s); told != "" {
			return fmt.Errorf("told %s", told)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

// A daemon of another network namespace is not told that what is live here is left over; the command that is told
// instead looks at its own, with the /sys of here.
func TestDoctorOfAnotherNetworkNamespace(t *testing.T) {
	beside(t)
	w := build(t, network{})
	w.start()
	here, there := w.sites[0], w.sites[1]
	doctor := []string{"--socket", there.Socket(), "doctor", "--state-dir", there.Dir + "/state"}
	told := ofLeftovers(ask(t, here, append([]string{"pwctl"}, doctor...)))
	_, rest, found := strings.Cut(told, "nsenter -t ")
	pid, _, _ := strings.Cut(rest, " ")
	if !found || !strings.HasPrefix(told, "what is left over was not looked at: the daemon is in another network namespace\n") {
		t.Fatalf("told %s", told)
	}
	if out, err := there.NS.Run(within(t, upWithin), "sh", "-c", "ip link add old0 type bridge && ip link set old0 alias pwd:pseudowire:gone"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err := here.NS.Run(within(t, upWithin), "nsenter", append([]string{"-t", pid, "-n", filepath.Join(bin, "pwctl")}, doctor...)...)
	if told := ofLeftovers(out); !strings.HasPrefix(told, "devices of no pseudowire of this site: old0 (pseudowire gone)\n") {
		t.Errorf("in the daemon's namespace (%v): %s", err, out)
	}
}
