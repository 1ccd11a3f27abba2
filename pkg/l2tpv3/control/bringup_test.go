package control

import (
	"testing"
	"time"
)

func TestBothEndsOpenAtOnce(t *testing.T) {
	n := newNetwork(t, 1)
	n.tunnel("gold")
	n.tunnel("silver")
	n.session("gold", "tenant-a")
	n.session("silver", "tenant-b")
	n.start()
	if !n.until(5*time.Second, n.up) {
		t.Fatal(n.disagreement())
	}
	n.run(time.Hour)
	if !n.up() {
		t.Fatal(n.disagreement())
	}
}
