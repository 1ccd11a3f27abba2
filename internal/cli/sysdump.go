package cli

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"strings"
	"time"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/spf13/cobra"
)

// Limits of a sysdump: of one command, and of what is kept of its output.
const (
	sysdumpPatience = 10 * time.Second
	sysdumpOctets   = 8 << 20
)

// sysdumpCommands are what a sysdump asks the host, by the name of the file with the answer.
var sysdumpCommands = []struct{ file, line string }{
	{"host/uname.txt", "uname -a"},
	{"host/links.txt", "ip -d -s link"},
	{"host/addresses.txt", "ip addr"},
	{"host/routes4.txt", "ip -4 route show table all"},
	{"host/routes6.txt", "ip -6 route show table all"},
	{"host/rules.txt", "ip rule"},
	{"host/neighbours.txt", "ip neigh"},
	{"host/bridges.txt", "bridge -d link"},
	{"host/vlans.txt", "bridge vlan"},
	{"host/fdb.txt", "bridge fdb"},
	{"host/qdiscs.txt", "tc -s qdisc"},
	{"host/l2tp-tunnels.txt", "ip l2tp show tunnel"},
	{"host/l2tp-sessions.txt", "ip l2tp show session"},
	{"host/sockets.txt", "ss -anu"},
	{"host/modules.txt", "lsmod"},
	{"host/programs.txt", "bpftool net show"},
	{"host/nftables.txt", "nft list ruleset"},
	{"host/log.txt", "journalctl -u pwd --no-pager -n 2000"},
}

func (a *app) sysdumpCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "sysdump -w FILE",
		Short: "Collect what a report of a fault needs into one file",
		Long: "Collect what a report of a fault needs into one file (tar, gzip): what the daemon says of itself,\n" +
			"its events and history, and what the host's tools say of links, bridges, routes, qdiscs,\n" +
			"sockets, firewall and log. What cannot be had is named in the file INDEX.\n\n" +
			"There are no secrets and no cookies in it; addresses, names and MACs of this host are.",
		Example: "  pwctl sysdump -w pwd-dc1.tar.gz",
		Args:    arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case file == "":
				return &usageError{cmd: cmd.CommandPath(), err: errors.New("which file? -w FILE, or -w - for standard output")}
			case file == "-" && a.StdoutTerminal:
				return &exitError{code: ExitUsage, err: errors.New("a sysdump is not for a terminal"), help: "`pwctl sysdump -w pwd.tar.gz` keeps it"}
			}
			out := &captureFile{name: file, w: a.Stdout}
			missing, err := a.sysdump(cmd.Context(), out)
			if err = errors.Join(err, out.close()); err != nil {
				return fmt.Errorf("writing the sysdump: %w", err)
			}
			if file != "-" {
				fmt.Fprintf(a.Stderr, "%s written, without %s (see INDEX in it)\n", file, counted(missing, "thing"))
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&file, "write", "w", "", "the `FILE` to write; - is standard output")
	return cmd
}

// sysdump writes the archive and returns how much could not be had.
func (a *app) sysdump(ctx context.Context, w io.Writer) (missing int, err error) {
	zip := gzip.NewWriter(w)
	archive := tar.NewWriter(zip)
	var index strings.Builder
	add := func(name string, content []byte, failure error) error {
		if failure != nil {
			missing++
			fmt.Fprintf(&index, "%s: missing: %s\n", name, printable(failure.Error()))
		} else {
			fmt.Fprintf(&index, "%s: %d octets\n", name, len(content))
		}
		if len(content) == 0 {
			return nil
		}
		header := &tar.Header{Name: name, Mode: 0o600, Size: int64(len(content)), ModTime: a.Now(), Format: tar.FormatPAX}
		if err := archive.WriteHeader(header); err != nil {
			return err
		}
		_, err := archive.Write(content)
		return err
	}
	fmt.Fprintf(&index, "pwctl %s, %s\n", a.Version, a.Now().UTC().Format(time.RFC3339))
	c := a.client()
	defer c.Close()
	for _, q := range sysdumpQuestions(c) {
		content, failure := q.ask(ctx)
		if err := add("daemon/"+q.name, content, failure); err != nil {
			return missing, err
		}
	}
	for _, command := range sysdumpCommands {
		content, failure := a.Command(ctx, strings.Fields(command.line)...)
		if failure != nil {
			failure = fmt.Errorf("%s: %w", command.line, failure)
		}
		content = shownCookie.ReplaceAll(content, []byte("${1}(secret)"))
		if err := add(command.file, content, failure); err != nil {
			return missing, err
		}
	}
	if err := add("INDEX", []byte(index.String()), nil); err != nil {
		return missing, err
	}
	return missing, errors.Join(archive.Close(), zip.Close())
}

// shownCookie is what `ip l2tp show session` has of cookies.
var shownCookie = regexp.MustCompile(`(?m)((?:^|\s)(?:peer )?cookie )[0-9a-fA-F]+`)

// question is one thing that the daemon is asked.
type question struct {
	name string
	ask  func(context.Context) ([]byte, error)
}

func sysdumpQuestions(c *api.Client) []question {
	return []question{
		{"status.json", answerOf(c.Status)},
		{"drift.json", answerOf(c.Drift)},
		{"tunnels.json", answerOf(c.Tunnels)},
		{"sessions.json", answerOf(c.Sessions)},
		{"pseudowires.json", answerOf(c.Pseudowires)},
		{"attachments.json", answerOf(c.Attachments)},
		{"classes.json", answerOf(c.Classes)},
		{"history.json", answerOf(c.History)},
		{"events.ndjson", func(ctx context.Context) ([]byte, error) {
			var b bytes.Buffer
			err := c.Events(ctx, 0, false, func(e api.Event) error { return json.NewEncoder(&b).Encode(e) })
			return b.Bytes(), err
		}},
	}
}

// answerOf is the answer to a question as indented JSON.
func answerOf[T any](ask func(context.Context) (T, error)) func(context.Context) ([]byte, error) {
	return func(ctx context.Context) ([]byte, error) {
		v, err := ask(ctx)
		if err != nil {
			return nil, err
		}
		return json.MarshalIndent(v, "", "  ")
	}
}

// runCommand runs a program of the host and returns what it said, for not too long and
// not too much of it.
func runCommand(ctx context.Context, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, sysdumpPatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	var out limited
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.Bytes(), err
}

// limited keeps the first octets of what is written.
type limited struct{ bytes.Buffer }

func (l *limited) Write(b []byte) (int, error) {
	if room := sysdumpOctets - l.Len(); room < len(b) {
		l.Buffer.Write(b[:max(room, 0)])
	} else {
		l.Buffer.Write(b)
	}
	return len(b), nil
}
