package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"

	"github.com/pwd-project/pwd/internal/agent"
	"github.com/pwd-project/pwd/internal/build"
	"github.com/pwd-project/pwd/internal/topology"
	"github.com/pwd-project/pwd/pkg/l2tpv3/control"
	"github.com/pwd-project/pwd/pkg/pseudowire"
	"github.com/pwd-project/pwd/pkg/pseudowire/bundle"
	"github.com/pwd-project/pwd/pkg/pseudowire/l2tpeth"
	"github.com/pwd-project/pwd/pkg/pseudowire/mssclamp"
	"github.com/pwd-project/pwd/pkg/pseudowire/nsp"
	"github.com/pwd-project/pwd/pkg/pseudowire/succession"
	"github.com/pwd-project/pwd/pkg/pseudowire/suppress"
	"github.com/pwd-project/pwd/pkg/pseudowire/tcbpf"
)

// settings are the flags and the configuration file, flags first.
type settings struct {
	site, topology, config   string
	runDir, stateDir, bpfDir string
	datapath, logLevel       string
	metrics                  string
	level                    slog.Level
	timers                   control.Timers
	onStopTeardown           bool
	access                   *topology.Access
	check, cleanup, version  bool
	hold                     bool
}

var errHelp = errors.New("help was asked for")

const usage = `pwd joins the Ethernet networks of this site to those of other sites.

  pwd --site NAME --topology FILE [flags]     run, in the foreground
  pwd --site NAME --topology FILE --check     validate and exit
  pwd --site NAME --cleanup                   remove everything it owns and exit
  pwd --hold                                  keep the sockets of the kernel's datapath while no daemon runs

`

func parseFlags(args []string, stderr io.Writer) (*settings, error) {
	s := new(settings)
	f := flag.NewFlagSet("pwd", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.Usage = func() { fmt.Fprint(stderr, usage); f.PrintDefaults() }
	f.StringVar(&s.site, "site", "", "this site's `name` in the topology")
	f.StringVar(&s.topology, "topology", "", "topology `file`; without it the last one applied stays in force")
	f.StringVar(&s.config, "config", "", "daemon configuration `file`")
	f.StringVar(&s.runDir, "run-dir", "/run/pwd", "`directory` of the API socket")
	f.StringVar(&s.stateDir, "state-dir", "/var/lib/pwd", "`directory` of what survives a restart")
	f.StringVar(&s.bpfDir, "bpf-dir", "/sys/fs/bpf/pwd", "`directory` on a bpffs for pinned programs and maps")
	f.StringVar(&s.datapath, "datapath", "auto", "auto, kernel or ebpf; auto is ebpf where its programs load")
	f.StringVar(&s.logLevel, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&s.metrics, "metrics", "", "`address:port` to serve metrics and health on, besides the API socket")
	f.BoolVar(&s.check, "check", false, "validate the topology and exit")
	f.BoolVar(&s.cleanup, "cleanup", false, "close connections, remove every object of this daemon's and exit")
	f.BoolVar(&s.hold, "hold", false, "be the holder of sockets beside the daemon with the same --run-dir")
	f.BoolVar(&s.version, "version", false, "print the version and exit")
	switch err := f.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return nil, errHelp
	case err != nil:
		return nil, err
	case f.NArg() > 0:
		return nil, fmt.Errorf("unexpected argument %q", f.Arg(0))
	case s.version:
		return s, nil
	}
	given := make(map[string]bool)
	f.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if s.config != "" {
		if err := s.readConfig(given); err != nil {
			return nil, err
		}
	}
	switch {
	case s.check && s.cleanup:
		return nil, errors.New("--check and --cleanup: give one of them")
	case s.hold && (s.check || s.cleanup):
		return nil, errors.New("--hold does nothing else: leave out --check and --cleanup")
	}
	if s.site == "" && !s.hold {
		return nil, errors.New("--site NAME is required: which of the topology's sites is this host?")
	}
	switch s.datapath {
	case "auto", string(pseudowire.EBPF), string(pseudowire.Kernel):
	default:
		return nil, fmt.Errorf("--datapath %q: use auto, kernel or ebpf", s.datapath)
	}
	if at, err := netip.ParseAddrPort(s.metrics); s.metrics != "" && (err != nil || at.Port() == 0) {
		return nil, fmt.Errorf("--metrics %q: use an address and a port, as 127.0.0.1:9705", s.metrics)
	}
	if err := s.level.UnmarshalText([]byte(s.logLevel)); err != nil {
		return nil, fmt.Errorf("--log-level %q: use debug, info, warn or error", s.logLevel)
	}
	return s, nil
}

// readConfig takes from the configuration what no flag gave.
func (s *settings) readConfig(given map[string]bool) error {
	b, err := os.ReadFile(s.config)
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	c, diags := topology.ParseConfig(s.config, b)
	if err := diags.Err(); err != nil {
		return err
	}
	for name, v := range map[string]struct {
		value string
		to    *string
	}{
		"site": {c.Site, &s.site}, "topology": {c.Topology, &s.topology},
		"run-dir": {c.RunDir, &s.runDir}, "state-dir": {c.StateDir, &s.stateDir}, "bpf-dir": {c.BPFDir, &s.bpfDir},
		"datapath": {c.Datapath, &s.datapath}, "log-level": {c.LogLevel, &s.logLevel}, "metrics": {c.Metrics, &s.metrics},
	} {
		if !given[name] && v.value != "" {
			*v.to = v.value
		}
	}
	s.timers = control.Timers{Retransmit: c.Retransmit, MaxRetransmits: c.MaxRetransmits}
	s.access = c.Access
	s.onStopTeardown = c.OnStop == topology.OnStopTeardown
	return nil
}

// agent is what the agent is to be made of.
func (s *settings) agent(log *slog.Logger) agent.Options {
	o := agent.Options{
		Site: s.site, TopologyFile: s.topology, StateDir: s.stateDir, Version: build.Version(), BPFDir: s.bpfDir,
		Datapaths: []agent.Opener{
			{Kind: pseudowire.EBPF, Open: func() (pseudowire.Datapath, error) { return openEBPF(s.bpfDir, log) }},
			{Kind: pseudowire.Kernel, Open: func() (pseudowire.Datapath, error) { return openKernel(s.bpfDir, log) }},
		},
		Timers: s.timers, OnStopTeardown: s.onStopTeardown, Logger: log,
	}
	if s.datapath != "auto" {
		o.Datapath = pseudowire.Kind(s.datapath)
	}
	return o
}

func openEBPF(dir string, log *slog.Logger) (pseudowire.Datapath, error) {
	dp, err := tcbpf.Open(tcbpf.Options{BPFDir: dir, Logger: log})
	if err != nil {
		return nil, unsupported(err, errors.Is(err, tcbpf.ErrKernel))
	}
	return withSuppression(withServices(dp, dir, log), log), nil
}

func openKernel(dir string, log *slog.Logger) (pseudowire.Datapath, error) {
	dp, err := l2tpeth.Open(l2tpeth.Options{Logger: log})
	if err != nil {
		return nil, unsupported(err, errors.As(err, new(*l2tpeth.UnsupportedError)))
	}
	clamped, err := mssclamp.Wrap(dp, mssclamp.Options{Logger: log})
	if err != nil {
		// Where eBPF programs do not load the kernel's datapath carries frames all the same.
		log.Warn("the MSS of TCP through the kernel's datapath is not clamped: full segments may travel in fragments", "err", err)
		return dp, nil
	}
	succeeding, err := succession.Wrap(clamped, succession.Options{Logger: log})
	if err != nil {
		log.Warn("rotation of cookies, and redundancy, are not available on the kernel's datapath", "err", err)
		return withSuppression(withServices(clamped, dir, log), log), nil
	}
	bundled, err := bundle.Wrap(succeeding, bundle.Options{Logger: log})
	if err != nil {
		log.Warn("redundancy is not available on the kernel's datapath", "err", err)
		return withSuppression(withServices(succeeding, dir, log), log), nil
	}
	return withSuppression(withServices(bundled, dir, log), log), nil
}

// withServices gives the datapath what it does not do to frames itself, where the kernel can.
func withServices(dp pseudowire.Datapath, dir string, log *slog.Logger) pseudowire.Datapath {
	served, err := nsp.Wrap(dp, nsp.Options{BPFDir: dir})
	if err != nil {
		log.Warn("attachment circuits of several tags, priority bits and limits are not available", "datapath", dp.Kind(), "err", err)
		return dp
	}
	return served
}

// withSuppression has the datapath answer address resolution, where the kernel can.
func withSuppression(dp pseudowire.Datapath, log *slog.Logger) pseudowire.Datapath {
	quiet, err := suppress.Wrap(dp, suppress.Options{})
	if err != nil {
		log.Warn("suppression of ARP and neighbour discovery is not available", "datapath", dp.Kind(), "err", err)
		return dp
	}
	return quiet
}

// unsupported makes an error errors.ErrUnsupported too if it is about what the host lacks.
func unsupported(err error, is bool) error {
	if !is {
		return err
	}
	return lackError{err}
}

type lackError struct{ error }

func (e lackError) Unwrap() error        { return e.error }
func (e lackError) Is(target error) bool { return target == errors.ErrUnsupported }
