package hold

import (
	"net"
	"path/filepath"
	"testing"
)

// A connection that comes when the link has ended is closed: nobody waits for its end in vain.
func TestDialAfterTheEnd(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	run(t, dir)
	var dialled *net.UnixConn
	l := &link{path: Path(dir), ended: make(chan struct{}), ours: func(c *net.UnixConn) error { dialled = c; return nil }}
	close(l.ended)
	if conn := l.dial(); conn != nil || l.conn != nil || dialled == nil {
		t.Fatalf("dialled %v, it stays: %v, %v", dialled, conn, l.conn)
	}
	if _, err := dialled.Write(nil); err == nil {
		t.Error("it is open")
	}
}
