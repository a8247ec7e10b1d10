package otelkeep_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	oteltrace "go.opentelemetry.io/otel/trace"

	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/internal/zohoaccounts"
	"github.com/tokenkeep/tokenkeep/otelkeep"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/observe"
)

const (
	user         = "canary@example.com:60012345"
	clientID     = "1000.CANARY"
	clientSecret = "canary-client-secret"
)

// An exporters keeps the spans and metrics of an Observer in memory.
type exporters struct {
	spans   *tracetest.InMemoryExporter
	tracers *trace.TracerProvider
	metrics *metric.ManualReader
	meters  *metric.MeterProvider
}

func newExporters() *exporters {
	e := &exporters{spans: tracetest.NewInMemoryExporter(), metrics: metric.NewManualReader()}
	e.tracers = trace.NewTracerProvider(trace.WithSyncer(e.spans))
	e.meters = metric.NewMeterProvider(metric.WithReader(e.metrics))
	return e
}

func (e *exporters) observer(t *testing.T) *tokenstore.Observer {
	t.Helper()
	o, err := otelkeep.New(&otelkeep.Options{TracerProvider: e.tracers, MeterProvider: e.meters})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// collected returns the metrics of otelkeep by name.
func (e *exporters) collected(t *testing.T) map[string]metricdata.Metrics {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := e.metrics.Collect(context.Background(), &all); err != nil {
		t.Fatal(err)
	}
	byName := map[string]metricdata.Metrics{}
	for _, scope := range all.ScopeMetrics {
		if scope.Scope.Name != otelkeep.Scope {
			t.Errorf("metrics of the scope %q", scope.Scope.Name)
		}
		for _, m := range scope.Metrics {
			byName[m.Name] = m
		}
	}
	return byName
}

// exported returns all exported spans and metrics as text.
func (e *exporters) exported(t *testing.T) string {
	t.Helper()
	spans, err := json.Marshal(e.spans.GetSpans())
	if err != nil {
		t.Fatal(err)
	}
	metrics, err := json.Marshal(e.collected(t))
	if err != nil {
		t.Fatal(err)
	}
	return string(spans) + string(metrics) + fmt.Sprintf("%+v %+v", e.spans.GetSpans(), e.collected(t))
}

// count returns the number of measurements that have all the attributes in the slice of.
func count(t *testing.T, m metricdata.Metrics, of ...attribute.KeyValue) (n uint64) {
	t.Helper()
	add := func(set attribute.Set, more uint64) {
		for _, kv := range of {
			if v, ok := set.Value(kv.Key); !ok || v != kv.Value {
				return
			}
		}
		n += more
	}
	switch data := m.Data.(type) {
	case nil: // nothing was measured
	case metricdata.Sum[int64]:
		for _, p := range data.DataPoints {
			add(p.Attributes, uint64(p.Value))
		}
	case metricdata.Histogram[float64]:
		for _, p := range data.DataPoints {
			add(p.Attributes, p.Count)
		}
	default:
		t.Errorf("metric %q has data of type %T", m.Name, m.Data)
	}
	return n
}

// turned is a clock that is ahead of the real clock by an adjustable duration.
type turned struct{ ahead atomic.Int64 }

func (c *turned) Now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

// A service is a driver whose Get fails with driver.ErrThrottled while throttles is set.
type service struct {
	driver.Leaser
	throttles atomic.Bool
}

func (s *service) Get(ctx context.Context, name string) (driver.Secret, error) {
	if s.throttles.Load() {
		return driver.Secret{}, fmt.Errorf("%w: quota of canary-project", driver.ErrThrottled)
	}
	return s.Leaser.Get(ctx, name)
}

// live saves, refreshes and deletes the tokens of a user, with package initializer and a simulation
// of Zoho's accounts server. live returns the texts that must not be exported.
func live(t *testing.T, e *exporters) (secrets []string) {
	t.Helper()
	clock := &turned{}
	zoho := zohoaccounts.New(&zohoaccounts.Options{Now: clock.Now})
	zoho.AddClient(zohoaccounts.Client{ID: clientID, Secret: clientSecret})
	refresh, access := zoho.Tokens(zohoaccounts.Consent{ClientID: clientID, Email: "canary@example.com", ZGID: "60012345"})
	d := memstore.NewDriver()
	on := &service{Leaser: d}
	store := func(d driver.Secrets) *tokenstore.Store {
		s, err := tokenstore.New(d, &tokenstore.Options{Now: clock.Now, Observer: e.observer(t), LeaseTTL: 6 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	one, other := store(on), store(d.Reopen())
	ctx := t.Context()
	saved, err := one.SaveToken(ctx, tokenstore.Token{
		UserName: user, ClientID: clientID, ClientSecret: clientSecret, RefreshToken: tokenstore.Secret(refresh),
		AccessToken: tokenstore.Secret(access), ExpiresAt: clock.Now().Add(-time.Hour).Truncate(time.Millisecond),
	})
	if err != nil {
		t.Fatal(err)
	}
	secrets = []string{user, "canary", clientID, clientSecret, refresh, access, saved.ID}
	open := func(s *tokenstore.Store) (*initializer.Client, error) {
		return initializer.New(ctx, initializer.Config{
			Environment: initializer.US.Production(), Store: s, HTTPClient: zoho.Client(), Now: clock.Now,
			Token: tokenstore.Token{UserName: user, ClientID: clientID, ClientSecret: clientSecret},
		})
	}
	var clients []*initializer.Client
	for _, s := range []*tokenstore.Store{one, other} {
		c, err := open(s)
		if err != nil {
			t.Fatal(err)
		}
		clients = append(clients, c)
	}
	for range 2 {
		var wg sync.WaitGroup
		for _, c := range clients {
			wg.Go(func() {
				if _, err := c.Token(ctx); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		now, err := one.FindTokenByID(ctx, saved.ID)
		if err != nil {
			t.Fatal(err)
		}
		secrets = append(secrets, string(now.AccessToken))
		clock.ahead.Add(int64(2 * time.Hour))
	}

	on.throttles.Store(true)
	_, err = one.FindTokenByID(ctx, saved.ID)
	if !errors.Is(err, tokenstore.ErrThrottled) {
		t.Errorf("a throttled search: %v", err)
	}
	on.throttles.Store(false)
	zoho.RevokeTokens(clientID, "canary@example.com")
	for range 2 {
		if _, err := open(other); !errors.Is(err, initializer.ErrReauthRequired) {
			t.Errorf("after the consent was revoked: %v", err)
		}
	}
	if _, err := one.FindTokenByID(ctx, "canary-of-nobody"); !errors.Is(err, tokenstore.ErrNotFound) {
		t.Errorf("a record that does not exist: %v", err)
	}
	if _, err := one.GetTokens(ctx); err != nil {
		t.Error(err)
	}
	for _, err := range one.Check(ctx, nil) {
		if err != nil {
			t.Error(err)
		}
	}
	if err := one.DeleteToken(ctx, saved.ID); err != nil {
		t.Error(err)
	}
	return secrets
}

func TestExportedTelemetry(t *testing.T) {
	t.Parallel()
	e := newExporters()
	secrets := live(t, e)

	t.Run("canary", func(t *testing.T) {
		text := e.exported(t)
		for i, secret := range secrets {
			if secret == "" || strings.Contains(strings.ToLower(text), strings.ToLower(secret)) {
				t.Errorf("what is exported has secret %d", i)
			}
		}
		planted := newExporters()
		_, span := planted.tracers.Tracer("test").Start(t.Context(), "name")
		span.AddEvent("event", oteltrace.WithAttributes(attribute.String("key", secrets[4])))
		span.End()
		if !strings.Contains(planted.exported(t), secrets[4]) {
			t.Error("a secret that is exported is not found")
		}
	})

	t.Run("enumerations", func(t *testing.T) {
		known := map[attribute.Key][]string{"tokenkeep.store": {"memstore"}}
		for _, r := range observe.Results() {
			known["tokenkeep.refresh.result"] = append(known["tokenkeep.refresh.result"], string(r))
		}
		for _, op := range observe.Operations() {
			known["tokenkeep.operation.name"] = append(known["tokenkeep.operation.name"], string(op))
		}
		for _, c := range observe.Classes() {
			known["error.type"] = append(known["error.type"], string(c))
		}
		check := func(kv attribute.KeyValue) {
			t.Helper()
			if !slices.Contains(known[kv.Key], kv.Value.AsString()) {
				t.Errorf("attribute %s has the value %q", kv.Key, kv.Value.AsString())
			}
		}
		for _, span := range e.spans.GetSpans() {
			for _, kv := range span.Attributes {
				check(kv)
			}
			if len(span.Events) != 0 || len(span.Links) != 0 {
				t.Errorf("span %q has %d events and %d links", span.Name, len(span.Events), len(span.Links))
			}
		}
		for _, m := range e.collected(t) {
			for _, set := range sets(m) {
				for _, kv := range set.ToSlice() {
					check(kv)
				}
			}
		}
	})

	t.Run("metrics", func(t *testing.T) {
		m := e.collected(t)
		result := func(r observe.Result) attribute.KeyValue {
			return attribute.String("tokenkeep.refresh.result", string(r))
		}
		class := func(c observe.Class) attribute.KeyValue { return attribute.String("error.type", string(c)) }
		op := func(o observe.Operation) attribute.KeyValue {
			return attribute.String("tokenkeep.operation.name", string(o))
		}
		refreshes := m["tokenkeep.refreshes"]
		if n := count(t, refreshes, result(observe.ResultMinted)); n != 2 {
			t.Errorf("%d tokens are minted, want 2", n)
		}
		adopted := count(t, refreshes, result(observe.ResultAdopted))
		if n := adopted + count(t, refreshes, result(observe.ResultCurrent)); n != 1 {
			t.Errorf("%d tokens are adopted or current, want 1", n)
		}
		if n := count(t, refreshes, result(observe.ResultRefused), class(observe.ClassReauth)); n != 1 {
			t.Errorf("%d refusals, want 1", n)
		}
		if n := count(t, refreshes, result(observe.ResultRefusalKept), class(observe.ClassReauth)); n != 1 {
			t.Errorf("%d kept refusals, want 1", n)
		}
		if n := count(t, m["tokenkeep.call.duration"], op(observe.OpGet), class(observe.ClassThrottled)); n == 0 {
			t.Error("no throttled call is counted")
		}
		if n := count(t, m["tokenkeep.refresh.request.duration"]); n != 3 {
			t.Errorf("%d requests to the authorization server, want 3", n)
		}
		if waits, all := count(t, m["tokenkeep.refresh.wait.duration"]), count(t, refreshes); waits != all {
			t.Errorf("%d waits of %d refreshes", waits, all)
		}
		if n := count(t, m["tokenkeep.refresh.adoption.lag"]); n > adopted {
			t.Errorf("%d lags of %d adoptions", n, adopted)
		}
		units := map[string]string{
			"tokenkeep.refreshes": "{refresh}", "tokenkeep.refresh.wait.duration": "s", "tokenkeep.refresh.request.duration": "s",
			"tokenkeep.refresh.adoption.lag": "s", "tokenkeep.call.duration": "s",
		}
		for name, got := range m {
			if units[name] != got.Unit || got.Description == "" {
				t.Errorf("metric %q has the unit %q and the description %q", name, got.Unit, got.Description)
			}
		}
	})

	t.Run("spans", func(t *testing.T) {
		refreshes := map[oteltrace.SpanID]bool{}
		children := 0
		for _, span := range e.spans.GetSpans() {
			if span.Name == "refresh memstore" {
				refreshes[span.SpanContext.SpanID()] = true
			}
		}
		for _, span := range e.spans.GetSpans() {
			if refreshes[span.Parent.SpanID()] {
				children++
			}
			attributes := attribute.NewSet(span.Attributes...)
			class, _ := attributes.Value("error.type")
			failed := span.Status.Code == codes.Error
			harmless := slices.Contains([]string{"", "not_found", "exists", "conflict", "canceled"}, class.AsString())
			if failed == harmless {
				t.Errorf("span %q with the class %q has the status %v", span.Name, class.AsString(), span.Status.Code)
			}
			if kind := span.SpanKind; (kind == oteltrace.SpanKindInternal) != (span.Name == "refresh memstore") {
				t.Errorf("span %q is of the kind %v", span.Name, kind)
			}
		}
		if len(refreshes) == 0 || children < len(refreshes) {
			t.Errorf("%d calls are children of %d refreshes", children, len(refreshes))
		}
	})
}

// sets returns the attributes of each data point of m.
func sets(m metricdata.Metrics) (all []attribute.Set) {
	switch data := m.Data.(type) {
	case metricdata.Sum[int64]:
		for _, p := range data.DataPoints {
			all = append(all, p.Attributes)
		}
	case metricdata.Histogram[float64]:
		for _, p := range data.DataPoints {
			all = append(all, p.Attributes)
		}
	}
	return all
}

// TestLag checks that the Observer records the lag, in seconds.
func TestLag(t *testing.T) {
	t.Parallel()
	e := newExporters()
	_, done := e.observer(t).Refresh(t.Context(), "memstore")
	done(observe.Refreshed{Result: observe.ResultAdopted, Waited: 3 * time.Second, Lag: 250 * time.Millisecond})
	h, ok := e.collected(t)["tokenkeep.refresh.adoption.lag"].Data.(metricdata.Histogram[float64])
	if !ok || len(h.DataPoints) != 1 || h.DataPoints[0].Sum != 0.25 {
		t.Errorf("the lags are %+v", h)
	}
}

// TestGlobal checks that New accepts nil options, and that a store works with the Observer.
func TestGlobal(t *testing.T) {
	t.Parallel()
	o, err := otelkeep.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	s := memstore.New(&tokenstore.Options{Observer: o})
	if _, err := s.FindTokenByID(t.Context(), "nobody"); !errors.Is(err, tokenstore.ErrNotFound) {
		t.Errorf("error %v", err)
	}
}
