package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pwd-project/pwd/internal/netlab"
)

func TestSpread(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   spread
		text   string
	}{
		{nil, spread{}, "–"},
		{[]float64{3}, spread{3, 3, 3}, "3.00 (3.00–3.00)"},
		{[]float64{50, 10, 40, 20, 30}, spread{20, 30, 40}, "30.0 (20.0–40.0)"},
		{[]float64{400, 100, 200, 300}, spread{175, 250, 325}, "250 (175–325)"},
	} {
		if got := spreadOf(c.values); got != c.want || got.text() != c.text {
			t.Errorf("%v: %v, %q", c.values, got, got.text())
		}
	}
}

// invented is a result in which TCP reaches its goal and small datagrams do not.
func invented() *result {
	k := &kernelResult{Kernel: "6.18", Machine: "1 × <fast> & small", Started: time.Date(2026, 11, 26, 1, 2, 3, 0, time.UTC), Rounds: 3, Each: 1}
	values := map[string]map[string][]float64{
		vxlan:   {tcpOne: {2e9, 1e9, 4e9}, udp64: {1e5, 1e5, 1e5}},
		ebpfUDP: {tcpOne: {3e9, 1e9, 5e9}, udp64: {1e5, 2e5, 1e5}},
	}
	for _, c := range []string{vxlan, ebpfUDP} {
		k.Carriers = append(k.Carriers, carrierInfo{c, "about " + c})
		for _, m := range []string{tcpOne, udp64} {
			for _, v := range values[c][m] {
				k.add(c, m, 1, sample{Value: v})
			}
		}
	}
	return &result{Commit: "abc", Kernels: []*kernelResult{k}}
}

// On a busy machine it is the CPU time that counts; what has none, as latency, stays.
func TestByCPUTime(t *testing.T) {
	k := &kernelResult{Kernel: "6.18"}
	k.add(vxlan, udp64, 1, span{count: 600, took: 3 * time.Second, own: time.Second}.sample(2))
	k.add(vxlan, "latency", 1, sample{Value: 7})
	if got := k.Points[0].Samples[0].Value; got != 400 {
		t.Errorf("600 things of 2 in 3 s are %v in a second", got)
	}
	k.byCPUTime()
	if a, b := k.Points[0].Samples[0].Value, k.Points[1].Samples[0].Value; a != 1200 || b != 7 {
		t.Errorf("by CPU time 600 things of 2 in one second of it are %v, a latency of 7 is %v", a, b)
	}
	if text := (&result{Kernels: []*kernelResult{k}}).markdown(); !strings.Contains(text, "not the clock's") {
		t.Error("the table does not say what its seconds are")
	}
}

// Ratios are of values of one round, and their median is what counts.
func TestOutcomes(t *testing.T) {
	var got []string
	for _, o := range invented().outcomes() {
		got = append(got, o.about+" "+o.ratio.text())
		if want := o.measure == tcpOne; o.reached() != want {
			t.Errorf("%s: reached is %v", o.about, o.reached())
		}
	}
	want := "TCP, one stream, over the kernel's VXLAN 1.25 (1.12–1.38)\nUDP of 64 octets, over the kernel's VXLAN 1.00 (1.00–1.50)"
	if strings.Join(got, "\n") != want {
		t.Errorf("%q", got)
	}
}

func TestPlotIsXML(t *testing.T) {
	d := xml.NewDecoder(strings.NewReader(invented().svg()))
	bars := 0
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "path" {
			bars++
		}
	}
	if bars != 4 {
		t.Errorf("%d bars", bars)
	}
}

func TestPublish(t *testing.T) {
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "docs"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"README.md", "docs/performance.md"} {
		if err := os.WriteFile(filepath.Join(root, file), []byte("before\n"+begin+"old\n"+end+"after\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := invented().write(root, false); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time changes nothing
		if err := publish(root, root); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(root, "README.md"))
		if err != nil {
			t.Fatal(err)
		}
		want := "before\n" + begin + "\nMeasured on 2026-11-26, on Linux 6.18:\n\n" + outcomeTable(invented().outcomes()) + "\n" + end + "after\n"
		if string(b) != want {
			t.Errorf("README.md:\n%s", b)
		}
	}
	if _, err := os.Stat(filepath.Join(root, "docs", "performance.svg")); err != nil {
		t.Error(err)
	}
}

// Results of a busy machine say so.
func TestCaveat(t *testing.T) {
	r := invented()
	if got := r.caveat(); got != "" {
		t.Error(got)
	}
	r.Kernels[0].Load = 9
	for _, text := range []string{r.markdown(), r.quote()} {
		if !strings.Contains(text, "Provisional") || !strings.Contains(text, "load average 9") {
			t.Error(text)
		}
	}
}

// The documents of this tree have the lines that results go between.
func TestDocuments(t *testing.T) {
	for _, file := range []string{"README.md", "docs/performance.md"} {
		b, err := os.ReadFile(filepath.Join("..", "..", file))
		if err != nil {
			t.Fatal(err)
		}
		if _, rest, found := strings.Cut(string(b), begin); !found || !strings.Contains(rest, end) {
			t.Errorf("%s lacks them", file)
		}
	}
}

// All measures work, of a carrier of each kind; what they find here says nothing.
func TestSmoke(t *testing.T) {
	bin := t.TempDir()
	build := exec.Command("go", "build", "-o", bin+"/", "../../cmd/pwd")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the daemon: %v\n%s", err, out)
	}
	p := plan{Measures: measures, Each: 30 * time.Millisecond, Rounds: 1, CPUs: []int{len(placements())}, Only: func(carrier string) bool {
		return carrier == bare || carrier == ebpfUDP
	}}
	r, err := measureAll(t.Context(), p, bin, t.Logf, func(line string) { t.Log(line) })
	if unavailable := (*netlab.UnavailableError)(nil); errors.As(err, &unavailable) {
		netlab.Missing(t, "netns", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if want := 2 * len(measures); len(r.Points) != want {
		t.Errorf("%d points of %d carriers, not %d", len(r.Points), len(r.Carriers), want)
	}
	for _, point := range r.Points {
		if v := point.spread(value).median; v <= 0 {
			t.Errorf("%s of %s: %v", point.Measure, point.Carrier, v)
		}
	}
}
