package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/pwd-project/pwd/internal/api"
)

// Exit codes of every command.
const (
	ExitOK             = 0
	ExitFailed         = 1  // the operation failed; of diff: there are differences
	ExitUsage          = 2  // the command line is wrong; of diff: it failed
	ExitUnreachable    = 3  // no daemon answers
	ExitInvalid        = 4  // the topology is invalid; nothing was changed
	ExitRolledBack     = 5  // the apply failed and was rolled back
	ExitRollbackFailed = 6  // the apply failed, and so did rolling back
	ExitNotConfirmed   = 7  // of apply --wait: nobody confirmed it, it was rolled back
	ExitTimeout        = 8  // what was waited for did not happen in time
	ExitDegraded       = 9  // of status: something is wrong
	ExitPermission     = 10 // not permitted
)

// usageError is a wrong command line.
type usageError struct {
	cmd string
	err error
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }
func (e *usageError) Help() string  { return "see `" + e.cmd + " --help`" }

// exitError ends a command with a code of its own. Without an error there is
// nothing to say that was not said.
type exitError struct {
	code int
	err  error
	help string
}

func (e *exitError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}
func (e *exitError) Unwrap() error { return e.err }
func (e *exitError) Help() string  { return e.help }

// exitCode is the code for what a command returned.
func exitCode(err error) int {
	var exit *exitError
	var usage *usageError
	var refused *api.Error
	switch {
	case err == nil:
		return ExitOK
	case errors.As(err, &exit):
		return exit.code
	case errors.As(err, &usage):
		return ExitUsage
	case errors.As(err, &refused):
		return refusalCode(refused.Code)
	case errors.Is(err, fs.ErrPermission):
		return ExitPermission
	case errors.Is(err, api.ErrUnreachable):
		return ExitUnreachable
	}
	return ExitFailed
}

// refusalCode is the exit code for an error code of the API.
func refusalCode(code string) int {
	switch code {
	case api.CodeInvalidTopology:
		return ExitInvalid
	case api.CodeApplyFailed:
		return ExitRolledBack
	case api.CodeRollbackFailed:
		return ExitRollbackFailed
	case api.CodeNotPermitted:
		return ExitPermission
	case api.CodeTimeout:
		return ExitTimeout
	}
	return ExitFailed
}

// report prints err, and what to do about it, on standard error.
func (a *app) report(err error) {
	if err == nil || err.Error() == "" {
		return
	}
	var refused *api.Error
	if errors.As(err, &refused) && len(refused.Diagnostics) > 0 {
		a.diagnostics(refused.Diagnostics)
	}
	if errors.Is(err, context.Canceled) {
		fmt.Fprintln(a.Stderr, "pwctl: interrupted")
		return
	}
	fmt.Fprintln(a.Stderr, "pwctl: "+printable(err.Error()))
	var helper interface{ Help() string }
	if errors.As(err, &helper) && helper.Help() != "" {
		fmt.Fprintln(a.Stderr, "  help: "+printable(helper.Help()))
	} else if refused != nil && refused.Code == api.CodeNotPermitted {
		fmt.Fprintln(a.Stderr, "  help: run pwctl as root, or have yourself named under `access:` of the daemon's configuration")
	}
}
