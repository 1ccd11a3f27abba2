package pcapng

import (
	"bytes"
	"errors"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

// messages are two of every family and encapsulation, of even and odd lengths.
func messages(t testing.TB) (all []*Message) {
	t.Helper()
	at := time.Unix(1700000000, 123456789)
	for _, e := range []l2tpv3.Encapsulation{l2tpv3.UDP, l2tpv3.IP} {
		for _, ends := range [][2]string{{"192.0.2.1", "192.0.2.2"}, {"2001:db8::1", "2001:db8::2"}} {
			for i, m := range []*l2tpv3.Message{
				l2tpv3.NewMessage(l2tpv3.Hello),
				l2tpv3.NewMessage(l2tpv3.StopCCN, l2tpv3.ResultCode{Result: 6, HasError: true, Message: "odd"}),
			} {
				payload, err := m.Append(nil)
				if err != nil {
					t.Fatal(err)
				}
				one := &Message{Time: at, Sent: i == 1, Encapsulation: e, Payload: payload}
				one.Source, one.Destination = netip.AddrPortFrom(netip.MustParseAddr(ends[0]), 1701), netip.AddrPortFrom(netip.MustParseAddr(ends[1]), 40001)
				all = append(all, one)
				at = at.Add(time.Second)
			}
		}
	}
	all[3].Missed = 7
	return all
}

func written(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := NewWriter(&b, "gold/dc2")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range messages(t) {
		if err := w.Write(m); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(time.Unix(1700000010, 0), 2); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// tshark finds every header right, checksums included.
func TestWriter(t *testing.T) {
	if _, err := exec.LookPath("tshark"); err != nil {
		netlab.Missing(t, "tshark", err)
	}
	path := filepath.Join(t.TempDir(), "all.pcapng")
	if err := os.WriteFile(path, written(t), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("tshark", "-r", path, "-o", "ip.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE", "-T", "fields", "-E", "separator= ",
		"-e", "frame.time_epoch", "-e", "frame.interface_name", "-e", "frame.packet_flags_direction", "-e", "ip.src", "-e", "ipv6.src", "-e", "ip.dst", "-e", "ipv6.dst",
		"-e", "udp.srcport", "-e", "udp.dstport", "-e", "l2tp.avp.message_type", "-e", "ip.checksum.status", "-e", "udp.checksum.status", "-e", "_ws.malformed", "-e", "_ws.expert")
	var problems bytes.Buffer
	cmd.Stderr = &problems
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("tshark: %v: %s", err, problems.String())
	}
	var got []string
	for line := range strings.Lines(string(out)) {
		got = append(got, strings.Join(strings.Fields(line), " "))
	}
	want := []string{
		"1700000000.123456789 gold/dc2 0x00000001 192.0.2.1 192.0.2.2 1701 40001 6 1 1",
		"1700000001.123456789 gold/dc2 0x00000002 192.0.2.1 192.0.2.2 1701 40001 4 1 1",
		"1700000002.123456789 gold/dc2 0x00000001 2001:db8::1 2001:db8::2 1701 40001 6 1",
		"1700000003.123456789 gold/dc2 0x00000002 2001:db8::1 2001:db8::2 1701 40001 4 1",
		"1700000004.123456789 gold/dc2 0x00000001 192.0.2.1 192.0.2.2 6 1",
		"1700000005.123456789 gold/dc2 0x00000002 192.0.2.1 192.0.2.2 4 1",
		"1700000006.123456789 gold/dc2 0x00000001 2001:db8::1 2001:db8::2 6",
		"1700000007.123456789 gold/dc2 0x00000002 2001:db8::1 2001:db8::2 4",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("tshark reads (-want +got):\n%s", diff)
	}
}

// A capture is counted in pieces of any size.
func TestCounter(t *testing.T) {
	whole := written(t)
	for name, r := range map[string]io.Reader{"whole": bytes.NewReader(whole), "octets": iotest.OneByteReader(bytes.NewReader(whole))} {
		var c Counter
		if _, err := io.Copy(&c, r); err != nil || c.Packets != 8 || c.Missing != 9 {
			t.Errorf("%s: %d packets, %d missing, %v; want 8 and 7+2", name, c.Packets, c.Missing, err)
		}
	}
	// Interrupted, it knows what messages told.
	var c Counter
	if _, err := c.Write(whole[:len(whole)-20]); err != nil || c.Packets != 8 || c.Missing != 7 {
		t.Errorf("interrupted: %d packets, %d missing, %v", c.Packets, c.Missing, err)
	}
	var bad *FormatError
	if _, err := new(Counter).Write([]byte("something else entirely")); !errors.As(err, &bad) {
		t.Errorf("something else: %v", err)
	}
}

// What the largest datagram holds still makes blocks that a Counter takes.
func TestLargest(t *testing.T) {
	for _, m := range messages(t) {
		m.Payload = make([]byte, 1<<16)
		var b bytes.Buffer
		w, err := NewWriter(&b, "gold/dc2")
		if err == nil {
			err = w.Write(m)
		}
		var c Counter
		if _, counted := c.Write(b.Bytes()); err != nil || counted != nil || c.Packets != 1 {
			t.Errorf("%v from %v: %v, %v", m.Encapsulation, m.Source, err, counted)
		}
	}
}

func FuzzCounter(f *testing.F) {
	f.Add(written(f))
	f.Fuzz(func(t *testing.T, b []byte) {
		var c Counter
		for len(b) > 0 {
			n := min(len(b), 7)
			if _, err := c.Write(b[:n]); err != nil {
				return
			}
			if b = b[n:]; len(c.b) > maxBlock {
				t.Fatalf("%d octets kept", len(c.b))
			}
		}
	})
}
