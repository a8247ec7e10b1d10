package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/yaml"

	"github.com/tokenkeep/tokenkeep/agent"
	"github.com/tokenkeep/tokenkeep/internal/fakeaws"
	"github.com/tokenkeep/tokenkeep/tokenstore/observe"
)

// scraped requests a page, and returns its status and body.
func scraped(t *testing.T, method, url string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(text)
}

func TestServeMetrics(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("there is no SIGTERM")
	}
	_, base, refresh := accounts(t)
	aws := fakeaws.New(nil)
	t.Cleanup(aws.Close)
	e := env{envStore: "awssm:p?region=eu-central-1&endpoint=" + aws.URL, envAgentToken: canary + canary}
	s := serveProcess(t, e, "--accounts-url", base, "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0")
	s.token = canary + canary
	line, err := s.out.ReadString('\n')
	url, ok := strings.CutPrefix(strings.TrimSpace(line), "metrics ")
	if err != nil || !ok {
		t.Fatalf("it says %q: %v", line, err)
	}
	like := fmt.Sprintf(`{"client_id":"1000.C","client_secret":%q,"refresh_token":%q,"user_name":"ann-of-the-record"}`, canary+"secret", refresh)
	status, answer := s.post("find", like)
	record, _ := answer["token"].(map[string]any)
	if status != http.StatusOK {
		t.Fatalf("status %d", status)
	}
	if status, _ := s.post("find_by_id", `{"id":"nobody-has-it"}`); status != http.StatusNotFound {
		t.Errorf("status %d", status)
	}
	status, text := scraped(t, http.MethodGet, url)
	if status != http.StatusOK {
		t.Fatalf("the metrics have status %d", status)
	}
	for _, want := range []string{
		`tokenkeep_refreshes_total{error_type="",tokenkeep_refresh_result="minted",tokenkeep_store="awssm"} 1`,
		`tokenkeep_refresh_wait_duration_seconds_count{tokenkeep_refresh_result="minted",tokenkeep_store="awssm"} 1`,
		`tokenkeep_refresh_request_duration_seconds_count{error_type="",tokenkeep_refresh_result="minted",tokenkeep_store="awssm"} 1`,
		`tokenkeep_call_duration_seconds_count{error_type="",tokenkeep_operation_name="create",tokenkeep_store="awssm"}`,
		`tokenkeep_agent_request_duration_seconds_count{error_type="",http_response_status_code="200",tokenkeep_operation_name="find"} 1`,
		`tokenkeep_agent_request_duration_seconds_count{error_type="not_found",http_response_status_code="404",tokenkeep_operation_name="find_by_id"} 1`,
		"process_cpu_seconds_total", "go_goroutines",
	} {
		if runtime.GOOS != "linux" && strings.HasPrefix(want, "process_") {
			continue
		}
		if !strings.Contains(text, want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
	for _, secret := range []string{canary, refresh, "1000.C", "ann-of-the-record", "nobody-has-it", fmt.Sprint(record["access_token"]), fmt.Sprint(record["id"])} {
		if strings.Contains(text, secret) {
			t.Error("the metrics hold a part of a record")
		}
	}
	if status, _ := scraped(t, http.MethodPost, url); status != http.StatusMethodNotAllowed {
		t.Errorf("a POST has status %d", status)
	}
	if status, _ := scraped(t, http.MethodGet, strings.TrimSuffix(url, metricsPath)+"/v1/openapi.json"); status != http.StatusNotFound {
		t.Errorf("another page has status %d", status)
	}
	if status, _ := scraped(t, http.MethodGet, s.url+metricsPath); status == http.StatusOK {
		t.Error("the agent itself serves metrics")
	}
}

// families returns the labels of each metric of the program, and the bucket boundaries of each
// histogram, keyed by the name of the metric.
func families(t *testing.T) (labels map[string][]string, bounds map[string][]float64) {
	t.Helper()
	m := newMetrics()
	o := m.observer()
	_, refreshed := o.Refresh(t.Context(), "store")
	refreshed(observe.Refreshed{Result: observe.ResultAdopted, Asked: time.Second, Waited: time.Second, Lag: time.Second})
	_, called := o.Call(t.Context(), observe.Call{Store: "store", Operation: observe.OpGet})
	called(observe.Called{Took: time.Second})
	m.request(agent.Request{Operation: "find", Status: 200, Took: time.Second})
	k := newKeepMetrics()
	k.records.WithLabelValues("store").Set(1)
	k.results.WithLabelValues("store", "dead").Set(1)
	k.idle.WithLabelValues("store", "30").Set(1)
	k.ran.WithLabelValues("store").Set(1)
	gathered, err := prometheus.Gatherers{m.registry, k.registry}.Gather()
	if err != nil {
		t.Fatal(err)
	}
	labels, bounds = map[string][]string{}, map[string][]float64{}
	for _, f := range gathered {
		if !strings.HasPrefix(f.GetName(), "tokenkeep_") {
			continue
		}
		point := f.GetMetric()[0]
		for _, l := range point.GetLabel() {
			labels[f.GetName()] = append(labels[f.GetName()], l.GetName())
		}
		for _, b := range point.GetHistogram().GetBucket() {
			bounds[f.GetName()] = append(bounds[f.GetName()], b.GetUpperBound())
		}
	}
	return labels, bounds
}

var (
	metricName = regexp.MustCompile(`\btokenkeep_[a-z_]+(?:\{[^}]*\})?`)
	byLabels   = regexp.MustCompile(`\bby \(([^)]*)\)`)
	matcher    = regexp.MustCompile(`([a-z_]+)\s*(?:=~|!~|!=|=)"`)
)

// unknown returns the names of metrics and labels in expr that the program does not have. The
// parameter labels holds the labels of each metric of the program.
func unknown(expr string, labels map[string][]string) (names []string) {
	known := []string{"le", "job", "instance"}
	for _, all := range labels {
		known = append(known, all...)
	}
	for _, m := range metricName.FindAllString(expr, -1) {
		name, of, _ := strings.Cut(m, "{")
		if slices.Contains(known, name) {
			continue
		}
		family := name
		for _, suffix := range []string{"_bucket", "_count", "_sum"} {
			if base := strings.TrimSuffix(name, suffix); labels[base] != nil {
				family = base
			}
		}
		if labels[family] == nil {
			names = append(names, name)
		}
		for _, l := range matcher.FindAllStringSubmatch(of, -1) {
			if l[1] != "job" && l[1] != "instance" && !slices.Contains(labels[family], l[1]) {
				names = append(names, name+"{"+l[1]+"}")
			}
		}
	}
	for _, m := range byLabels.FindAllStringSubmatch(expr, -1) {
		for _, l := range strings.Split(m[1], ",") {
			if l = strings.TrimSpace(l); !slices.Contains(known, l) {
				names = append(names, l)
			}
		}
	}
	return names
}

// expressions returns all strings under the key "expr" in a document.
func expressions(v any) (all []string) {
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			if text, ok := value.(string); ok && key == "expr" {
				all = append(all, text)
			} else {
				all = append(all, expressions(value)...)
			}
		}
	case []any:
		for _, value := range v {
			all = append(all, expressions(value)...)
		}
	}
	return all
}

// TestDeployedMetrics checks that the metrics and labels in the dashboard and the alerts
// exist. It also checks that docs/operating.md describes each alert and each metric.
func TestDeployedMetrics(t *testing.T) {
	t.Parallel()
	labels, bounds := families(t)
	if bad := unknown(`sum by (nothing) (rate(tokenkeep_refreshes_total{colour="red"}[5m])) / tokenkeep_colours`, labels); len(bad) != 3 {
		t.Errorf("of what does not exist, %q is found", bad)
	}
	deployed := "../deploy"
	for _, name := range []string{"prometheus/tokenkeep.rules.yml", "grafana/tokenkeep.json"} {
		text, err := os.ReadFile(filepath.Join(deployed, name))
		if err != nil {
			t.Fatal(err)
		}
		var document any
		if err := yaml.Unmarshal(text, &document); err != nil {
			t.Fatal(err)
		}
		found := expressions(document)
		if len(found) < 10 {
			t.Errorf("%s has %d expressions", name, len(found))
		}
		for _, expr := range found {
			if bad := unknown(expr, labels); len(bad) > 0 {
				t.Errorf("%s: %q does not exist, in %s", name, bad, expr)
			}
		}
		if filepath.Ext(name) == ".json" && !json.Valid(text) {
			t.Errorf("%s is not JSON", name)
		}
	}

	t.Run("alerts", func(t *testing.T) {
		t.Parallel()
		rules, err := os.ReadFile(filepath.Join(deployed, "prometheus/tokenkeep.rules.yml"))
		if err != nil {
			t.Fatal(err)
		}
		page, err := os.ReadFile("../docs/operating.md")
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`alert: (\w+)`).FindAllSubmatch(rules, -1) {
			if !bytes.Contains(page, append([]byte("\n### "), m[1]...)) {
				t.Errorf("docs/operating.md does not explain the alert %s", m[1])
			}
			if link := "operating.md#" + strings.ToLower(string(m[1])); !bytes.Contains(rules, []byte(link)) {
				t.Errorf("the alert %s has no link to its explanation", m[1])
			}
		}
		for name := range labels {
			if !bytes.Contains(page, []byte("`"+name+"`")) {
				t.Errorf("docs/operating.md does not name the metric %s", name)
			}
		}
	})

	// The program must have the metrics of otelkeep, with the names under which an OpenTelemetry
	// collector exports them to Prometheus.
	t.Run("otelkeep", func(t *testing.T) {
		t.Parallel()
		code, err := os.ReadFile("../otelkeep/otelkeep.go")
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, m := range regexp.MustCompile(`(Int64Counter|Float64Histogram)\("([a-z.]+)"`).FindAllSubmatch(code, -1) {
			name := strings.ReplaceAll(string(m[2]), ".", "_") + map[string]string{"Int64Counter": "_total", "Float64Histogram": "_seconds"}[string(m[1])]
			if labels[name] == nil {
				t.Errorf("the program has no metric %s, and otelkeep has", name)
			}
			n++
		}
		own := 0
		for name := range labels {
			if strings.HasPrefix(name, "tokenkeep_agent_") || strings.HasPrefix(name, "tokenkeep_keep_") {
				own++
			}
		}
		if n != len(labels)-own {
			t.Errorf("otelkeep has %d metrics, and the program has %d without its own", n, len(labels)-own)
		}
		for _, m := range regexp.MustCompile(`attribute\.Key\("([a-z._]+)"\)`).FindAllSubmatch(code, -1) {
			name := strings.ReplaceAll(string(m[1]), ".", "_")
			if !slices.Contains([]string{labelStore, labelResult, labelOperation, labelError}, name) {
				t.Errorf("the program has no label %s, and otelkeep has", name)
			}
		}
		buckets := regexp.MustCompile(`WithExplicitBucketBoundaries\(([^)]*)\)`).FindSubmatch(code)
		if buckets == nil {
			t.Fatal("otelkeep has no boundaries")
		}
		var want []float64
		for _, text := range strings.Split(string(buckets[1]), ", ") {
			f, err := strconv.ParseFloat(text, 64)
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, f)
		}
		for name, got := range bounds {
			if !slices.Equal(got, want) {
				t.Errorf("%s has the boundaries %v, and otelkeep has %v", name, got, want)
			}
		}
	})
}

func TestMetricsThatCannotBeServed(t *testing.T) {
	t.Parallel()
	e := fileStoreEnv(t).with(envAgentToken, "a-token-that-is-long-enough")
	e.fails(t, 1, "", "serve", "--pass-through", "--metrics", "192.0.2.1:0")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, errs bytes.Buffer
	if code := run(ctx, []string{"serve", "--json", "--pass-through", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"}, e.lookup, strings.NewReader(""), &out, &errs); code != 0 {
		t.Errorf("exit code %d: %s", code, errs.String())
	}
	var said struct{ Metrics string }
	if err := json.Unmarshal(out.Bytes(), &said); err != nil || !strings.HasPrefix(said.Metrics, "http://127.0.0.1:") {
		t.Errorf("it says %s", out.String())
	}
}
