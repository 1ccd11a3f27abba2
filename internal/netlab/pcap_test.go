package netlab

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// tshark reads back what was written.
func TestWritePcap(t *testing.T) {
	if _, err := exec.LookPath("tshark"); err != nil {
		Missing(t, "tshark", err)
	}
	path := filepath.Join(t.TempDir(), "two.pcap")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Unix(1700000000, 123456789)
	err = WritePcap(f, []Frame{
		{Time: at, Data: append([]byte("\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x01\x88\xb5"), make([]byte, 46)...)},
		{Time: at.Add(time.Second), Data: append([]byte("\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x02\x81\x00\x00\x64\x88\xb5"), make([]byte, 46)...)},
	})
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	out, err := exec.Command("tshark", "-r", path, "-T", "fields", "-E", "separator=,", "-e", "frame.time_epoch", "-e", "frame.len", "-e", "eth.src", "-e", "vlan.id").Output()
	want := "1700000000.123456789,60,02:00:00:00:00:01,\n1700000001.123456789,64,02:00:00:00:00:02,100\n"
	if err != nil || string(out) != want {
		t.Errorf("tshark reads\n%swant\n%s%v", out, want, err)
	}
}
