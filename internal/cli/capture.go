package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/pcapng"
	"github.com/spf13/cobra"
)

func (a *app) captureCommand() *cobra.Command {
	var file string
	var req api.CaptureRequest
	cmd := &cobra.Command{
		Use:   "capture TUNNEL[/PEER]",
		Short: "Capture a tunnel's control messages for Wireshark",
		Long: "Write a tunnel's control messages, both directions, as a pcapng file: as the daemon sends\n" +
			"and receives them, in headers with their addresses and ports; with --data the data packets\n" +
			"of its sessions, too, as they leave and arrive. It goes on until interrupted, or until\n" +
			"--count or --duration is reached.\n\n" +
			"The messages hold the cookies of sessions: keep the file to yourself. For the same\n" +
			"reason it takes root or the daemon's own user. Secrets are not in them; with\n" +
			"-o l2tp.shared_secret:SECRET tshark verifies their digests.",
		Example: "  pwctl capture gold | tshark -r -\n  pwctl capture gold/dc2 -w gold.pcapng --duration 1m",
		Args:    arguments(cobra.ExactArgs(1)),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return a.completeNames(cmd, []string{"tunnels"}, word)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Tunnel, req.Peer, _ = strings.Cut(args[0], "/")
			switch {
			case req.Count < 0:
				return &usageError{cmd: cmd.CommandPath(), err: fmt.Errorf("--count %d is less than one message", req.Count)}
			case req.Duration < 0:
				return &usageError{cmd: cmd.CommandPath(), err: fmt.Errorf("--duration %v is over already", req.Duration)}
			case file == "-" && a.StdoutTerminal:
				return &exitError{code: ExitUsage, err: errors.New("a capture is not for a terminal"),
					help: fmt.Sprintf("`pwctl capture %s | tshark -r -` decodes it, `-w FILE` keeps it", args[0])}
			}
			return a.capture(cmd, req, file)
		},
	}
	cmd.Flags().StringVarP(&file, "write", "w", "-", "the `FILE` to write; - is standard output")
	cmd.Flags().IntVarP(&req.Count, "count", "c", 0, "end after so many messages")
	cmd.Flags().BoolVar(&req.Data, "data", false, "data packets of its sessions, too: users' frames")
	cmd.Flags().DurationVar(&req.Duration, "duration", 0, "end after so long, as 30s")
	return cmd
}

// capture copies the stream to the file, and says at the end what is in it.
func (a *app) capture(cmd *cobra.Command, req api.CaptureRequest, file string) error {
	c := a.client()
	defer c.Close()
	out := &captureFile{name: file, w: a.Stdout}
	var seen pcapng.Counter
	err := c.Capture(cmd.Context(), req, io.MultiWriter(out, &seen))
	if failed := out.close(); err == nil {
		err = failed
	}
	if !out.begun {
		return err
	}
	line := counted(int(seen.Packets), "message")
	if seen.Missing > 0 {
		line += fmt.Sprintf(", %d more came faster than they were taken and are missing", seen.Missing)
	}
	if file != "-" {
		line += ", in " + file
	}
	fmt.Fprintln(a.Stderr, line)
	return err
}

// captureFile is made with the first octet, so that a capture that is refused
// leaves none behind. Nobody else may read it.
type captureFile struct {
	name  string
	w     io.Writer
	file  *os.File
	begun bool
}

func (f *captureFile) Write(b []byte) (int, error) {
	if !f.begun && f.name != "-" {
		file, err := os.OpenFile(f.name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
		if err != nil {
			return 0, err
		}
		f.file, f.w = file, file
	}
	f.begun = true
	return f.w.Write(b)
}

func (f *captureFile) close() error {
	if f.file == nil {
		return nil
	}
	return f.file.Close()
}
