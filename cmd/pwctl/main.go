// Pwctl shows and changes the L2TPv3 pseudowires of this site.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/pwd-project/pwd/internal/build"
	"github.com/pwd-project/pwd/internal/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := cli.Run(ctx, cli.System(build.Version()), os.Args[1:])
	stop()
	os.Exit(code)
}
