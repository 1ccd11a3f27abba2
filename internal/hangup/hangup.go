// Package hangup takes SIGHUP from the beginning of the process: it imports so little that
// it is set up before most of the program is, which takes longer than a hurried
// administrator. A SIGHUP that nobody takes ends the process.
package hangup

import (
	"os"
	"os/signal"
	"syscall"
)

// C has one signal for all that came since it was read last.
var C = take()

func take() <-chan os.Signal {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGHUP)
	return c
}
