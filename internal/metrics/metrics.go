// Package metrics shows a site to Prometheus.
//
// Every scrape asks the daemon once, so that the values of one scrape belong
// together; nothing is counted here. The names are in families.go, and
// docs/metrics.md is made of them.
package metrics

import (
	"context"
	"log/slog"
	"maps"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/pwd-project/pwd/internal/api"
)

// timeout is how long a scrape waits for the daemon, less than Prometheus's own 10 s.
const timeout = 8 * time.Second

// Source is what is shown; api.Backend is one.
type Source interface {
	Status(context.Context) (*api.Status, error)
	Sessions(context.Context) ([]api.Session, error)
	Classes(context.Context) ([]api.Class, error)
}

// Handler answers scrapes with what source tells, and with what the process uses.
// A source that does not answer makes the scrape fail (503): old values in its
// place would look like a site that is well.
func Handler(source Source, log *slog.Logger) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		&collector{source}, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorLog:            slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		ErrorHandling:       promhttp.HTTPErrorOnError,
		MaxRequestsInFlight: 2,
	})
}

// collector is a prometheus.Collector over a Source.
type collector struct{ source Source }

// Describe implements prometheus.Collector.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, f := range Families {
		out <- f.desc
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	s, err := c.source.Status(ctx)
	if err != nil {
		out <- prometheus.NewInvalidMetric(up.desc, err)
		return
	}
	sessions, err := c.source.Sessions(ctx)
	if err != nil {
		out <- prometheus.NewInvalidMetric(sessionState.desc, err)
		return
	}
	classes, err := c.source.Classes(ctx)
	if err != nil {
		out <- prometheus.NewInvalidMetric(classRate.desc, err)
		return
	}
	to := sink(out)
	to.site(s)
	for i := range s.Tunnels {
		to.tunnel(&s.Tunnels[i])
	}
	for i := range s.Pseudowires {
		to.pseudowire(&s.Pseudowires[i])
	}
	for i := range sessions {
		x := &sessions[i]
		to.state(sessionState, x.State, []string{"established", "signalling", "down"}, x.Tunnel, x.Pseudowire, x.Peer)
	}
	for i := range classes {
		to.class(&classes[i])
	}
	to.counters(s.Counters)
}

// sink takes the values of one scrape.
type sink chan<- prometheus.Metric

func (to sink) put(f *Family, value float64, labels ...string) {
	to <- prometheus.MustNewConstMetric(f.desc, f.kind, value, labels...)
}

// state is 1 for the state that holds and 0 for the others.
func (to sink) state(f *Family, now string, all []string, labels ...string) {
	if !slices.Contains(all, now) {
		all = append(slices.Clone(all), now)
	}
	for _, word := range all {
		to.put(f, truth(word == now), append(slices.Clone(labels), word)...)
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (to sink) site(s *api.Status) {
	to.put(up, truth(s.Health == "healthy"), s.Site)
	to.put(buildInfo, 1, s.Version, runtime.Version(), s.Datapath)
	to.put(startTime, unix(s.Started))
	to.put(problems, float64(len(s.Problems)))
	to.put(drift, float64(s.Drift.Repaired), "repaired")
	to.put(drift, float64(s.Drift.Failed), "failed")
	to.put(contested, float64(s.Drift.Contested))
	to.put(generation, float64(s.Generation))
	to.put(fileDiffers, truth(s.FileDiffers))
	if s.Generation > 0 {
		to.put(applied, unix(s.Applied))
	}
	if s.ConfirmBy != nil {
		to.put(confirmBy, unix(*s.ConfirmBy))
	}
}

func unix(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

func (to sink) tunnel(t *api.Tunnel) {
	of := []string{t.Name, t.Peer}
	to.state(tunnelState, t.State, []string{"established", "connecting", "down"}, of...)
	to.put(tunnelSince, float64(t.SinceSeconds), of...)
	to.put(tunnelHeard, float64(t.HeardSeconds), of...)
	to.put(tunnelRetransmits, float64(t.Retransmits), of...)
	to.put(tunnelUnacknowledged, float64(t.Unacknowledged+t.Queued), of...)
	to.put(tunnelSessions, float64(t.Sessions), of...)
	if t.RTTSeconds > 0 {
		to.put(tunnelRTT, t.RTTSeconds, of...)
	}
	if t.PathMTU > 0 {
		to.put(tunnelPathMTU, float64(t.PathMTU), of...)
	}
}

func (to sink) pseudowire(p *api.Pseudowire) {
	of := []string{p.Name, p.Peer}
	to.state(pseudowireState, p.State, []string{"up", "standby", "down"}, of...)
	to.put(pseudowireSince, float64(p.SinceSeconds), of...)
	to.put(receivePackets, float64(p.ReceivedFrames), of...)
	to.put(receiveBytes, float64(p.ReceivedOctets), of...)
	to.put(transmitPackets, float64(p.TransmittedFrames), of...)
	to.put(transmitBytes, float64(p.TransmittedOctets), of...)
	if p.SuppressedRequests != nil {
		to.put(suppressed, float64(*p.SuppressedRequests), of...)
	}
	for _, reason := range slices.Sorted(maps.Keys(p.Drops)) {
		to.put(pseudowireDrops, float64(p.Drops[reason]), p.Name, p.Peer, reason)
	}
}

func (to sink) class(c *api.Class) {
	to.put(classRate, float64(c.Rate)/8, c.Name)
	to.put(classCeiling, float64(c.Ceiling)/8, c.Name)
	to.put(classPackets, float64(c.Frames), c.Name)
	to.put(classBytes, float64(c.Octets), c.Name)
	to.put(classDrops, float64(c.Drops), c.Name)
	to.put(classBacklog, float64(c.BacklogOctets), c.Name)
	for i := range c.Tunnels {
		t := &c.Tunnels[i]
		of := []string{t.Tunnel, t.Peer, c.Name, t.Interface}
		to.put(shapedPackets, float64(t.Frames), of...)
		to.put(shapedBytes, float64(t.Octets), of...)
		to.put(shapedMarks, float64(t.Marked), of...)
		to.put(shapedBacklog, float64(t.BacklogOctets), of...)
		for _, reason := range slices.Sorted(maps.Keys(t.DropsByReason)) {
			to.put(shapedDrops, float64(t.DropsByReason[reason]), append(of, reason)...)
		}
	}
}

// counters are those of the site as a whole: the control protocol's have a prefix
// of theirs, the others are frames that belong to no pseudowire.
func (to sink) counters(all map[string]uint64) {
	for _, name := range slices.Sorted(maps.Keys(all)) {
		n := float64(all[name])
		word, ofControl := strings.CutPrefix(name, "control-")
		switch {
		case !ofControl:
			to.put(drops, n, name)
		case word == "received":
			to.put(controlReceived, n)
		case word == "transmitted":
			to.put(controlTransmitted, n)
		case word == "retransmitted":
			to.put(controlRetransmits, n)
		case word == "hello-sent":
			to.put(controlHellos, n)
		case word == "connections-lost":
			to.put(controlLost, n)
		case word == "out-of-order":
			to.put(controlReordered, n)
		default:
			to.put(controlDiscards, n, word)
		}
	}
}
