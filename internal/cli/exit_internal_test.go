package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"testing"

	"github.com/pwd-project/pwd/internal/api"
	"golang.org/x/sys/unix"
)

// The exit codes of what does not come from the daemon.
func TestExitCode(t *testing.T) {
	unreachable := func(err error) error {
		return fmt.Errorf("asking: %w", &api.UnreachableError{Socket: "s", Err: &net.OpError{Op: "dial", Err: err}})
	}
	for _, tt := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errors.New("other"), 1},
		{&api.ForeignError{Socket: "s", Status: 200}, 1},
		{&usageError{cmd: "pwctl", err: errors.New("no")}, 2},
		{unreachable(unix.ENOENT), 3},
		{unreachable(unix.ECONNREFUSED), 3},
		{unreachable(io.EOF), 3},
		{unreachable(unix.EACCES), 10},
		{&fs.PathError{Op: "open", Path: "two.yaml", Err: unix.EACCES}, 10},
		{&fs.PathError{Op: "open", Path: "two.yaml", Err: os.ErrNotExist}, 1},
		{&exitError{code: ExitDegraded}, 9},
		{&exitError{code: ExitTimeout, err: unreachable(unix.ENOENT)}, 8},
		{fmt.Errorf("applying: %w", &api.Error{Code: api.CodeApplyFailed}), 5},
	} {
		if got := exitCode(tt.err); got != tt.want {
			t.Errorf("%v: %d, want %d", tt.err, got, tt.want)
		}
	}
}
