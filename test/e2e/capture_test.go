package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/netlab"
)

// recording collects a capture.
type recording struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (r *recording) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.b.Write(b)
}

func (r *recording) save(path string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return os.WriteFile(path, r.b.Bytes(), 0o600)
}

// A capture with data that begins when all is up has every frame of the tunnel's
// pseudowires once, in both directions, and tshark reads them down to what hosts say.
func TestCaptureOfData(t *testing.T) {
	beside(t)
	if inVM {
		t.Skip("tshark is on the host")
	}
	if _, err := exec.LookPath("tshark"); err != nil {
		netlab.Missing(t, "tshark", err)
	}
	w := build(t, network{}).start()
	ctx, cancel := context.WithCancel(within(t, time.Minute))
	defer cancel()
	var r recording
	ended := make(chan error, 1)
	go func() { ended <- w.sites[0].Client().Capture(ctx, api.CaptureRequest{Tunnel: "gold", Data: true}, &r) }()
	path := filepath.Join(t.TempDir(), "gold.pcapng")
	read := func(fields ...string) string {
		if err := r.save(path); err != nil {
			t.Fatal(err)
		}
		out, _ := exec.Command("tshark", append([]string{"-r", path}, fields...)...).Output() // of what is there so far
		return string(out)
	}
	if err := netlab.Poll(ctx, "the capture has begun", func() error {
		if read("-Y", "frame.comment") == "" {
			return fmt.Errorf("nothing of before is there")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	w.ping(w.a, netlab.PingOptions{Count: 3})
	w.ping(w.b, netlab.PingOptions{Count: 3}) // through the other tunnel
	count := map[string]int{}
	if err := netlab.Poll(ctx, "all is in the capture", func() error {
		clear(count)
		for line := range strings.Lines(read("-Y", "icmp.type==8 || icmp.type==0", "-T", "fields", "-e", "icmp.type", "-e", "frame.packet_flags_direction")) {
			count[strings.TrimSpace(line)]++
		}
		if n := count["8\t0x00000001"] + count["8\t0x00000002"] + count["0\t0x00000001"] + count["0\t0x00000002"]; n < 12 {
			return fmt.Errorf("%d of 12: %v", n, count)
		}
		return nil
	}); err != nil {
		t.Fatalf("%v\n%s", err, read())
	}
	for what, n := range count {
		if n != 3 {
			t.Errorf("%q: %d, want 3", what, n)
		}
	}
	if bad := read("-Y", "_ws.malformed || l2tp.incorrect_digest"); bad != "" {
		t.Errorf("tshark reads %s", bad)
	}
	cancel()
	<-ended
}
