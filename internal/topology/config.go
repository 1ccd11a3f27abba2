package topology

import (
	"net/netip"
	"time"
)

// OnStop says what the daemon leaves behind when it is told to end.
type OnStop string

const (
	// OnStopLeave leaves connections and forwarding as they are.
	OnStopLeave OnStop = "leave"
	// OnStopTeardown closes the connections and removes everything.
	OnStopTeardown OnStop = "teardown"
)

// Config is the daemon's configuration file. Keys that are not in the file have
// their zero value here, OnStop apart: a flag or the built-in default holds.
type Config struct {
	OnStop OnStop
	// Site and Topology are as --site and --topology.
	Site, Topology string
	// Datapath is "auto", "kernel" or "ebpf"; LogLevel "debug", "info", "warn" or "error".
	Datapath, LogLevel       string
	RunDir, StateDir, BPFDir string
	// Metrics is the address and port of the metrics, as "127.0.0.1:9705"; empty is none.
	Metrics string
	// Access is who may do what, nil for the default.
	Access *Access
	// Retransmit and MaxRetransmits are timers of the control protocol (RFC
	// 3931, Section 4.2).
	Retransmit     time.Duration
	MaxRetransmits int
}

// ParseConfig reads the daemon's configuration; name is what diagnostics call
// the file. If one of the diagnostics is an error the configuration is the zero value.
func ParseConfig(name string, data []byte) (Config, Diagnostics) {
	s, text, ok := newSource(name, data)
	if !ok {
		return Config{}, s.finish()
	}
	root := s.parseTree(text)
	if root == nil || !s.header(root, configObject) {
		return Config{}, s.finish()
	}
	rec, _ := configObject.readAt(s, root.at(""), root).(*record)
	if rec == nil || s.diagnostics.HasErrors() {
		return Config{}, s.finish()
	}
	c := Config{OnStop: OnStopLeave}
	if word, _, ok := get[string](rec, "on-stop"); ok {
		c.OnStop = OnStop(word)
	}
	for key, into := range map[string]*string{
		"site": &c.Site, "topology": &c.Topology, "datapath": &c.Datapath, "log-level": &c.LogLevel,
		"run-dir": &c.RunDir, "state-dir": &c.StateDir, "bpf-dir": &c.BPFDir,
	} {
		*into, _, _ = get[string](rec, key)
	}
	if at, _, ok := get[netip.AddrPort](rec, "metrics"); ok {
		c.Metrics = at.String()
	}
	c.Access = accessOf(rec)
	timers, _, _ := get[*record](rec, "timers")
	c.Retransmit, _, _ = get[time.Duration](timers, "retransmit")
	most, _, _ := get[int64](timers, "max-retransmits")
	c.MaxRetransmits = int(most)
	return c, s.finish()
}
