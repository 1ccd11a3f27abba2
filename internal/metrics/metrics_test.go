package metrics

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/pwd-project/pwd/internal/api"
)

var update = flag.Bool("update", false, "write docs/metrics.md anew")

type site struct {
	status   api.Status
	sessions []api.Session
	classes  []api.Class
	err      error
}

func (s *site) Status(context.Context) (*api.Status, error)     { return &s.status, s.err }
func (s *site) Sessions(context.Context) ([]api.Session, error) { return s.sessions, s.err }
func (s *site) Classes(context.Context) ([]api.Class, error)    { return s.classes, s.err }

func dc1() *site {
	confirm := time.Unix(1800000120, 500e6)
	return &site{
		status: api.Status{
			Site: "dc1", Version: "v1.2.3", Datapath: "ebpf", Health: "degraded", Started: time.Unix(1700000000, 0),
			Generation: 4, Applied: time.Unix(1800000000, 0), ConfirmBy: &confirm, FileDiffers: true,
			Drift:    api.DriftCount{Repaired: 3, Failed: 1, Contested: 2},
			Problems: []api.Problem{{Object: "tunnel silver to dc2"}},
			Tunnels: []api.Tunnel{
				{Name: "gold", Peer: "dc2", State: "established", SinceSeconds: 60, HeardSeconds: 2, RTTSeconds: 0.004,
					PathMTU: 1500, Retransmits: 3, Unacknowledged: 1, Queued: 2, Sessions: 1},
				{Name: "silver", Peer: "dc2", State: "connecting", SinceSeconds: 7},
			},
			Pseudowires: []api.Pseudowire{{
				Name: "lan", Peer: "dc2", State: "up", SinceSeconds: 50, ReceivedFrames: 10, ReceivedOctets: 1000,
				TransmittedFrames: 20, TransmittedOctets: 2000, Drops: map[string]uint64{"wrong-cookie": 5}, SuppressedRequests: new(uint64(6)),
			}},
			Counters: map[string]uint64{
				"unknown-session": 9, "control-received": 100, "control-transmitted": 90, "control-retransmitted": 4,
				"control-hello-sent": 8, "control-out-of-order": 6, "control-connections-lost": 1, "control-unknown-peer": 77,
			},
		},
		sessions: []api.Session{{Tunnel: "gold", Pseudowire: "lan", Peer: "dc2", State: "established"}},
		classes:  []api.Class{{Name: "voice", Rate: 8000, Ceiling: 16000, Octets: 300, Frames: 3, Drops: 1, BacklogOctets: 60, Tunnels: []api.ClassTunnel{{Tunnel: "gold", Peer: "dc2", Interface: "eth0", Octets: 300, Frames: 3, Drops: 1, DropsByReason: map[string]uint64{"queue-full": 1}, Marked: 2, BacklogOctets: 60}}}},
	}
}

// Every family has a value that follows from what the daemon says.
func TestScrape(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(&collector{dc1()})
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, f := range families {
		for _, m := range f.Metric {
			var labels []string
			for _, l := range m.Label {
				if l.GetName() != "goversion" {
					labels = append(labels, l.GetValue())
				}
			}
			value := m.GetCounter().GetValue() + m.GetGauge().GetValue()
			got[f.GetName()+" "+strings.Join(labels, "/")] = fmt.Sprint(value)
		}
	}
	want := map[string]string{
		"pwd_healthy dc1": "0", "pwd_problems ": "1", "pwd_build_info ebpf/v1.2.3": "1", "pwd_start_time_seconds ": "1.7e+09",
		"pwd_config_generation ": "4", "pwd_config_applied_timestamp_seconds ": "1.8e+09", "pwd_config_file_differs ": "1",
		"pwd_config_confirm_deadline_timestamp_seconds ": "1.8000001205e+09",

		"pwd_tunnel_state dc2/established/gold": "1", "pwd_tunnel_state dc2/connecting/gold": "0", "pwd_tunnel_state dc2/down/gold": "0",
		"pwd_tunnel_state dc2/established/silver": "0", "pwd_tunnel_state dc2/connecting/silver": "1", "pwd_tunnel_state dc2/down/silver": "0",
		"pwd_tunnel_state_duration_seconds dc2/gold": "60", "pwd_tunnel_state_duration_seconds dc2/silver": "7",
		"pwd_tunnel_silence_seconds dc2/gold": "2", "pwd_tunnel_silence_seconds dc2/silver": "0",
		"pwd_tunnel_rtt_seconds dc2/gold": "0.004", "pwd_tunnel_path_mtu_bytes dc2/gold": "1500",
		"pwd_tunnel_retransmits_total dc2/gold": "3", "pwd_tunnel_retransmits_total dc2/silver": "0",
		"pwd_tunnel_unacknowledged_messages dc2/gold": "3", "pwd_tunnel_unacknowledged_messages dc2/silver": "0",
		"pwd_tunnel_sessions dc2/gold": "1", "pwd_tunnel_sessions dc2/silver": "0",

		"pwd_session_state dc2/lan/established/gold": "1", "pwd_session_state dc2/lan/signalling/gold": "0", "pwd_session_state dc2/lan/down/gold": "0",

		"pwd_pseudowire_state dc2/lan/up": "1", "pwd_pseudowire_state dc2/lan/standby": "0", "pwd_pseudowire_state dc2/lan/down": "0",
		"pwd_pseudowire_state_duration_seconds dc2/lan": "50",
		"pwd_pseudowire_receive_packets_total dc2/lan":  "10", "pwd_pseudowire_receive_bytes_total dc2/lan": "1000",
		"pwd_pseudowire_transmit_packets_total dc2/lan": "20", "pwd_pseudowire_transmit_bytes_total dc2/lan": "2000",
		"pwd_pseudowire_suppressed_requests_total dc2/lan": "6",
		"pwd_pseudowire_drops_total dc2/lan/wrong-cookie":  "5", "pwd_datapath_drops_total unknown-session": "9",
		"pwd_drift_total repaired": "3", "pwd_drift_total failed": "1", "pwd_drift_contested ": "2",

		"pwd_control_receive_messages_total ": "100", "pwd_control_transmit_messages_total ": "90", "pwd_control_retransmits_total ": "4",
		"pwd_control_hellos_total ": "8", "pwd_control_reordered_total ": "6", "pwd_control_connections_lost_total ": "1", "pwd_control_discards_total unknown-peer": "77",

		"pwd_class_rate_bytes_per_second voice": "1000", "pwd_class_ceiling_bytes_per_second voice": "2000", "pwd_class_packets_total voice": "3",
		"pwd_class_bytes_total voice": "300", "pwd_class_drops_total voice": "1", "pwd_class_backlog_bytes voice": "60",
		"pwd_shaped_tunnel_packets_total voice/eth0/dc2/gold": "3", "pwd_shaped_tunnel_bytes_total voice/eth0/dc2/gold": "300",
		"pwd_shaped_tunnel_marks_total voice/eth0/dc2/gold": "2", "pwd_shaped_tunnel_backlog_bytes voice/eth0/dc2/gold": "60",
		"pwd_shaped_tunnel_drops_total voice/eth0/dc2/queue-full/gold": "1",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if len(families) != len(Families) {
		t.Errorf("%d of %d families have values", len(families), len(Families))
	}
	complaints, err := testutil.GatherAndLint(registry)
	if err != nil || len(complaints) > 0 {
		t.Errorf("%v, %v", complaints, err)
	}
}

func scrape(t *testing.T, s Source) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	Handler(s, slog.New(slog.NewTextHandler(io.Discard, nil))).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return w.Code, w.Body.String()
}

func TestHandler(t *testing.T) {
	code, body := scrape(t, dc1())
	for _, line := range []string{
		"\n# TYPE pwd_tunnel_retransmits_total counter\n", "\npwd_tunnel_state{peer=\"dc2\",state=\"connecting\",tunnel=\"silver\"} 1\n",
		"\nprocess_open_fds ", "\ngo_goroutines ",
	} {
		if code != 200 || !strings.Contains(body, line) {
			t.Errorf("status %d, no %q in\n%s", code, line, body)
		}
	}
	// What a daemon said before it hung is not repeated.
	if code, body := scrape(t, &site{err: errors.New("no answer")}); code < 500 || strings.Contains(body, "pwd_healthy{") {
		t.Errorf("a daemon that does not answer: %d %s", code, body)
	}
}

// A state that this package has not heard of is shown rather than lost.
func TestUnknownState(t *testing.T) {
	s := dc1()
	s.status.Pseudowires[0].State = "blocked"
	if _, body := scrape(t, s); !strings.Contains(body, `pwd_pseudowire_state{peer="dc2",pseudowire="lan",state="blocked"} 1`) {
		t.Error(body)
	}
}

func TestDocumentation(t *testing.T) {
	const page, begin, end = "../../docs/metrics.md", "<!-- metrics -->\n", "<!-- end -->\n"
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(b), begin)
	_, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		t.Fatalf("%s has no place for the table", page)
	}
	var table strings.Builder
	table.WriteString("| Metric | Type | Labels | |\n|---|---|---|---|\n")
	for _, f := range Families {
		fmt.Fprintf(&table, "| `%s` | %s | %s | %s |\n", f.Name, f.Type(), strings.Join(f.Labels, ", "), f.Help)
	}
	want := before + begin + table.String() + end + after
	if *update {
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if diff := cmp.Diff(want, string(b)); diff != "" {
		t.Errorf("%s is not what the metrics are; go test ./internal/metrics -update (-want +got):\n%s", page, diff)
	}
}

// What is shipped for Prometheus and Grafana speaks of metrics and labels that there are.
func TestMonitoringKnowsTheMetrics(t *testing.T) {
	labels := map[string]bool{"job": true, "instance": true}
	known := map[string]bool{}
	for _, f := range Families {
		known[f.Name] = true
		for _, l := range f.Labels {
			labels[l] = true
		}
	}
	used := map[string]bool{}
	for _, file := range []string{"alerts.yaml", "dashboard.json"} {
		b, err := os.ReadFile("../../configs/monitoring/" + file)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range regexp.MustCompile(`\bpwd_[a-z_]+`).FindAllString(string(b), -1) {
			used[name] = true
			if !known[name] {
				t.Errorf("%s: no metric %s", file, name)
			}
		}
		for _, found := range regexp.MustCompile(`\b(?:by|on|without)\s*\(([a-z, ]*)\)`).FindAllStringSubmatch(string(b), -1) {
			for _, l := range strings.FieldsFunc(found[1], func(r rune) bool { return r == ',' || r == ' ' }) {
				if !labels[l] {
					t.Errorf("%s: no label %s in %s", file, l, found[0])
				}
			}
		}
		if strings.HasSuffix(file, ".json") && !json.Valid(b) {
			t.Errorf("%s is not JSON", file)
		}
	}
	for _, name := range []string{"pwd_healthy", "pwd_tunnel_state", "pwd_pseudowire_state", "pwd_pseudowire_drops_total"} {
		if !used[name] {
			t.Errorf("%s is neither watched nor shown", name)
		}
	}
}
