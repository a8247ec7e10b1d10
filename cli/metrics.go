package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/tokenkeep/tokenkeep/agent"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/observe"
)

const (
	labelStore     = "tokenkeep_store"
	labelResult    = "tokenkeep_refresh_result"
	labelOperation = "tokenkeep_operation_name"
	labelError     = "error_type"
	labelStatus    = "http_response_status_code"
)

// metrics holds the metrics of serve. Metrics that package otelkeep also records have the same
// names, labels and buckets as otelkeep's metrics in Prometheus.
type metrics struct {
	registry  *prometheus.Registry
	refreshes *prometheus.CounterVec
	waits     *prometheus.HistogramVec
	asked     *prometheus.HistogramVec
	lags      *prometheus.HistogramVec
	calls     *prometheus.HistogramVec
	requests  *prometheus.HistogramVec
}

func newMetrics() *metrics {
	histogram := func(name, help string, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: name, Help: help, Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}, labels)
	}
	m := &metrics{
		registry: prometheus.NewRegistry(),
		refreshes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tokenkeep_refreshes_total", Help: "Refreshes of records by this process, by result.",
		}, []string{labelStore, labelResult, labelError}),
		waits: histogram("tokenkeep_refresh_wait_duration_seconds",
			"Time until this process had the right to ask the authorization server, or the refresh ended without it.", labelStore, labelResult),
		asked: histogram("tokenkeep_refresh_request_duration_seconds",
			"Time that the authorization server took to answer.", labelStore, labelResult, labelError),
		lags: histogram("tokenkeep_refresh_adoption_lag_seconds",
			"Time from the commit of a token by another process to its adoption by this one.", labelStore),
		calls: histogram("tokenkeep_call_duration_seconds",
			"Duration of the calls of a store to its backend.", labelStore, labelOperation, labelError),
		requests: histogram("tokenkeep_agent_request_duration_seconds",
			"Duration of the requests to the agent.", labelOperation, labelStatus, labelError),
	}
	m.registry.MustRegister(m.refreshes, m.waits, m.asked, m.lags, m.calls, m.requests,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// observer returns an Observer that records in m the refreshes and calls of a store.
func (m *metrics) observer() *tokenstore.Observer {
	return &tokenstore.Observer{
		Refresh: func(ctx context.Context, store string) (context.Context, func(observe.Refreshed)) {
			return ctx, func(e observe.Refreshed) { m.refreshed(store, e) }
		},
		Call: func(ctx context.Context, c observe.Call) (context.Context, func(observe.Called)) {
			return ctx, func(e observe.Called) {
				m.calls.WithLabelValues(c.Store, string(c.Operation), string(e.Class)).Observe(e.Took.Seconds())
			}
		},
	}
}

func (m *metrics) refreshed(store string, e observe.Refreshed) {
	result, class := string(e.Result), string(e.Class)
	m.refreshes.WithLabelValues(store, result, class).Inc()
	m.waits.WithLabelValues(store, result).Observe(e.Waited.Seconds())
	if e.Asked > 0 {
		m.asked.WithLabelValues(store, result, class).Observe(e.Asked.Seconds())
	}
	if e.Lag > 0 {
		m.lags.WithLabelValues(store).Observe(e.Lag.Seconds())
	}
}

func (m *metrics) request(e agent.Request) {
	m.requests.WithLabelValues(cmp.Or(e.Operation, "none"), strconv.Itoa(e.Status), e.Class).Observe(e.Took.Seconds())
}

// Limits on scrapes: the time for a request or a response, the size of the header in bytes, and
// the number of concurrent scrapes.
const (
	scrapeTime    = 10 * time.Second
	scrapeHead    = 8 << 10
	scrapesAtOnce = 4
)

const metricsPath = "/metrics"

// listen serves the metrics at an address until the returned function stop is called. It returns
// the address on which it listens.
func (m *metrics) listen(ctx context.Context, address string) (at net.Addr, stop func(), err error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, nil, fmt.Errorf("serve metrics: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET "+metricsPath, promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: scrapesAtOnce}))
	s := &http.Server{
		Handler: mux, ReadTimeout: scrapeTime, WriteTimeout: scrapeTime, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: scrapeHead,
		ErrorLog: log.New(io.Discard, "", 0), // discards errors that clients cause
	}
	go func() { _ = s.Serve(l) }()
	return l.Addr(), func() { _ = s.Close() }, nil
}
