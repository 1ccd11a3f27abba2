package cli

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/doctor"
)

func (a *app) doctorCommand() *cobra.Command {
	out := newFormat(formatText, formatJSON, formatYAML)
	host := a.Host
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look for what keeps this host's pseudowires from working",
		Long: "Look for what keeps this host's pseudowires from working, and say what to do about it:\n" +
			"the daemon and the problems it knows of, kernel, eBPF and modules, filters on bridges, the\n" +
			"firewall, the MTU to each peer, attached interfaces and their offloads, what is left over of earlier daemons, the\n" +
			"clock, and what a restart would mean. Nothing is changed. It helps also where no daemon answers; as root it sees\n" +
			"more.\n\n" +
			"The exit code is 9 if there is a fault, else 0.",
		Args: arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !cmd.Flags().Changed("state-dir") && filepath.Clean(a.socket) != defaultSocket() {
				host.StateDir = "" // that of another daemon, which is none of this one's
			}
			for _, dir := range []*string{&host.StateDir, &host.BPFDir} {
				if *dir == "" {
					continue
				}
				if abs, err := filepath.Abs(*dir); err == nil {
					*dir = abs
				}
			}
			findings := doctor.Examine(cmd.Context(), host, a.examined(cmd.Context()))
			if err := a.showFindings(findings, out.value); err != nil {
				return err
			}
			if doctor.Worst(findings) == doctor.Fault {
				return &exitError{code: ExitDegraded}
			}
			return nil
		},
	}
	out.flag(cmd)
	cmd.Flags().StringVar(&host.StateDir, "state-dir", doctor.DefaultStateDir, "where the daemon has its state; not looked at with another socket unless it is given")
	cmd.Flags().StringVar(&host.BPFDir, "bpf-dir", doctor.DefaultBPFDir, "where daemons pin maps and programs")
	return cmd
}

// examined is what the daemon tells for an examination.
func (a *app) examined(ctx context.Context) doctor.Site {
	c := a.client()
	defer c.Close()
	s := doctor.Site{Pwctl: a.Version}
	if s.Status, s.Err = c.Status(ctx); s.Err != nil {
		return s
	}
	if s.Sessions, s.Err = c.Sessions(ctx); s.Err != nil {
		return s
	}
	s.Attachments, s.Err = c.Attachments(ctx)
	s.PID = serves(a.socket)
	return s
}

// serves is the process that listens on a socket, 0 where it cannot be seen from here.
func serves(socket string) int {
	if self, err := os.Readlink("/proc/self"); err != nil || self != strconv.Itoa(os.Getpid()) {
		return 0 // /proc is another PID namespace's, and numbers processes otherwise
	}
	c, err := net.Dial("unix", socket)
	if err != nil {
		return 0
	}
	defer c.Close()
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0
	}
	pid := 0
	_ = raw.Control(func(fd uintptr) {
		if of, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(of.Pid)
		}
	})
	return pid
}

func (a *app) showFindings(findings []doctor.Finding, format string) error {
	if format != formatText {
		return a.write(format, api.List[doctor.Finding]{Items: findings})
	}
	var b strings.Builder
	var faults, warnings int
	for _, f := range findings {
		switch f.Level {
		case doctor.Fault:
			faults++
		case doctor.Warning:
			warnings++
		}
		fmt.Fprintf(&b, "%-8s %s: %s\n", f.Level, f.Check, printable(f.What))
		if f.Why != "" {
			fmt.Fprintf(&b, "%-8s why: %s\n", "", printable(f.Why))
		}
		if f.Fix != "" {
			fmt.Fprintf(&b, "%-8s do: %s\n", "", printable(f.Fix))
		}
	}
	fmt.Fprintf(&b, "\n%s, %s\n", counted(faults, "fault"), counted(warnings, "warning"))
	_, err := io.WriteString(a.Stdout, b.String())
	return err
}

// thisHost is the host that pwctl runs on.
func thisHost() doctor.Host {
	return doctor.Host{
		Files: os.DirFS("/"), Run: runCommand, LoadProgram: loadProgram, Table: readTable, Attached: attached, Aliases: aliases,
		ClockSynchronised: func() (bool, error) {
			var t unix.Timex
			_, err := unix.Adjtimex(&t)
			return t.Status&unix.STA_UNSYNC == 0, err
		},
		Addresses: func(name string) (found []netip.Addr, err error) {
			i, err := net.InterfaceByName(name)
			if err != nil {
				return nil, err
			}
			addresses, err := i.Addrs()
			for _, a := range addresses {
				if n, ok := a.(*net.IPNet); ok {
					if ip, ok := netip.AddrFromSlice(n.IP); ok {
						found = append(found, ip.Unmap())
					}
				}
			}
			return found, err
		},
	}
}
