package cli

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// idleDays lists ages in days. For each age, a metric counts the records that keep did not refresh
// and whose access token expired at least that long ago. Depending on the authorization server, a
// refresh token expires after 7, 30, 60, 90 or 180 days without use.
var idleDays = []int{1, 3, 7, 14, 30, 45, 60, 75, 90, 180}

const (
	labelIdle      = "idle_days"
	labelKeepState = "keep_result"
)

// A keepMetrics holds the metrics of one run of keep.
type keepMetrics struct {
	registry *prometheus.Registry
	records  *prometheus.GaugeVec
	results  *prometheus.GaugeVec
	idle     *prometheus.GaugeVec
	ran      *prometheus.GaugeVec
}

func newKeepMetrics() *keepMetrics {
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, append([]string{labelStore}, labels...))
	}
	m := &keepMetrics{
		registry: prometheus.NewRegistry(),
		records:  gauge("tokenkeep_keep_records", "Records of the store that keep could read."),
		results:  gauge("tokenkeep_keep_results", "What the last run of keep did with the records that were due.", labelKeepState),
		idle: gauge("tokenkeep_keep_idle_records",
			"Records whose access token expired at least idle_days days ago: their refresh token has not been used since.", labelIdle),
		ran: gauge("tokenkeep_keep_last_run_timestamp_seconds", "When keep ran last."),
	}
	m.registry.MustRegister(m.records, m.results, m.idle, m.ran)
	return m
}

// writeMetrics writes the metrics of this run to the file that --metrics names. The parameter
// tokens contains the records from before the run.
func (w *keeper) writeMetrics(tokens []tokenstore.Token) error {
	m := newKeepMetrics()
	kind, _, _ := strings.Cut(w.app.storeName(), ":")
	now, r := w.app.now(), &w.report
	m.records.WithLabelValues(kind).Set(float64(r.Records))
	for result, n := range map[string]int{
		"refreshed": r.Refreshed, stateDead: len(r.Dead), "failed": len(r.Failed), "later": r.Later, "skipped": r.Skipped,
	} {
		m.results.WithLabelValues(kind, result).Set(float64(n))
	}
	for _, days := range idleDays {
		n := 0
		for _, t := range tokens {
			if !w.renewed[t.ID] && !t.ExpiresAt.IsZero() && now.Sub(t.ExpiresAt) >= time.Duration(days)*24*time.Hour {
				n++
			}
		}
		m.idle.WithLabelValues(kind, strconv.Itoa(days)).Set(float64(n))
	}
	m.ran.WithLabelValues(kind).Set(float64(now.Unix()))
	if err := prometheus.WriteToTextfile(w.metrics, m.registry); err != nil {
		return fmt.Errorf("write metrics: %w", err)
	}
	return nil
}

// checkMetricsFile returns a usage error if name is not empty and does not end in .prom.
func checkMetricsFile(name string) error {
	if name != "" && filepath.Ext(name) != ".prom" {
		return usagef("--metrics: the name of the file must end in .prom, because node_exporter reads no other files")
	}
	return nil
}
