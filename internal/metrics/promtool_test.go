package metrics

import (
	"bytes"
	"net/http/httptest"
	"os/exec"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Prometheus reads what is shipped for it, and has nothing to say about how the metrics are
// named and described.
func TestPromtoolIsContent(t *testing.T) {
	tool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed")
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(&collector{dc1()})
	scraped := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(scraped, httptest.NewRequest("GET", "/metrics", nil))
	for _, args := range [][]string{
		{"check", "rules", "../../configs/monitoring/alerts.yaml"},
		{"check", "config", "../../configs/monitoring/prometheus.yaml"},
		{"check", "metrics"},
	} {
		check := exec.CommandContext(t.Context(), tool, args...)
		check.Stdin = bytes.NewReader(scraped.Body.Bytes())
		if out, err := check.CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
}
