// Package otelkeep exports the refreshes and calls of a token store as OpenTelemetry
// spans and metrics.
//
//	observer, err := otelkeep.New(nil)
//	store, err := awssm.New(client, "oauth/crm", &awssm.Options{
//		Store: &tokenstore.Options{Observer: observer},
//	})
//
// # Metrics
//
//	tokenkeep.refreshes                   counter, {refresh}   refreshes, by result
//	tokenkeep.refresh.wait.duration       histogram, s         time until the process may send a request
//	tokenkeep.refresh.request.duration    histogram, s         time that the server takes to answer
//	tokenkeep.refresh.adoption.lag        histogram, s         time from a commit to its adoption
//	tokenkeep.call.duration               histogram, s         duration of a store's call to its backend
//
// In these descriptions, a request is a refresh request to the authorization server. If a refresh
// sends no request, its wait is the duration of the whole refresh. The adoption lag is the time
// from the commit of a token by another process until this process finds the token in the store.
//
// The attributes are:
//
//	tokenkeep.store             the kind of store, such as "awssm"
//	tokenkeep.refresh.result    an observe.Result
//	tokenkeep.operation.name    an observe.Operation
//	error.type                  an observe.Class, only if the refresh or call failed
//
// No attribute contains an ID, a user name, a token or the text of an error.
//
// # Spans
//
// A refresh is a span of kind internal, such as "refresh awssm", and a call is a span of kind
// client, such as "get awssm". If the service's SDK is instrumented, the spans of its requests are
// children of the spans of calls. If the HTTP client for the authorization server is instrumented,
// the spans of its requests are children of the spans of refreshes.
//
// If a refresh or call failed, the status of its span is Error, unless the class is not_found,
// exists, conflict or canceled. These classes need no action by an operator. A span with one of
// these classes still has the attribute error.type.
package otelkeep

import (
	"cmp"
	"context"
	"errors"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/observe"
)

// Scope is the name of the instrumentation scope.
const Scope = "github.com/tokenkeep/tokenkeep/otelkeep"

const (
	keyStore     = attribute.Key("tokenkeep.store")
	keyResult    = attribute.Key("tokenkeep.refresh.result")
	keyOperation = attribute.Key("tokenkeep.operation.name")
	keyError     = attribute.Key("error.type")
)

// seconds returns the bucket boundaries of the histograms, in seconds. One boundary is 30 seconds,
// the default LeaseTTL.
func seconds() metric.HistogramOption {
	return metric.WithExplicitBucketBoundaries(.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60)
}

// Options selects the providers of tracers and meters. The zero value selects the global providers.
type Options struct {
	// TracerProvider receives the spans. If TracerProvider is nil, New uses
	// otel.GetTracerProvider.
	TracerProvider trace.TracerProvider

	// MeterProvider receives the metrics. If MeterProvider is nil, New uses
	// otel.GetMeterProvider.
	MeterProvider metric.MeterProvider
}

// New returns an Observer, which any number of stores can share. A nil opts is the same as the zero
// Options. New returns an error only if the MeterProvider refuses an instrument.
func New(opts *Options) (*tokenstore.Observer, error) {
	o := cmp.Or(opts, &Options{})
	tracers, meters := o.TracerProvider, o.MeterProvider
	if tracers == nil {
		tracers = otel.GetTracerProvider()
	}
	if meters == nil {
		meters = otel.GetMeterProvider()
	}
	w := &watcher{tracer: tracers.Tracer(Scope)}
	if err := w.instruments(meters.Meter(Scope)); err != nil {
		return nil, err
	}
	return &tokenstore.Observer{Refresh: w.refresh, Call: w.call}, nil
}

// A watcher holds the tracer and the instruments of an Observer.
type watcher struct {
	tracer    trace.Tracer
	refreshes metric.Int64Counter
	waits     metric.Float64Histogram
	requests  metric.Float64Histogram
	lags      metric.Float64Histogram
	calls     metric.Float64Histogram
}

func (w *watcher) instruments(m metric.Meter) error {
	var errs [5]error
	w.refreshes, errs[0] = m.Int64Counter("tokenkeep.refreshes",
		metric.WithUnit("{refresh}"), metric.WithDescription("Refreshes of records by this process, by result."))
	w.waits, errs[1] = m.Float64Histogram("tokenkeep.refresh.wait.duration", seconds(),
		metric.WithUnit("s"), metric.WithDescription("Time until this process had the right to ask the authorization server, or the refresh ended without it."))
	w.requests, errs[2] = m.Float64Histogram("tokenkeep.refresh.request.duration", seconds(),
		metric.WithUnit("s"), metric.WithDescription("Time that the authorization server took to answer."))
	w.lags, errs[3] = m.Float64Histogram("tokenkeep.refresh.adoption.lag", seconds(),
		metric.WithUnit("s"), metric.WithDescription("Time from the commit of a token by another process to its adoption by this one."))
	w.calls, errs[4] = m.Float64Histogram("tokenkeep.call.duration", seconds(),
		metric.WithUnit("s"), metric.WithDescription("Duration of the calls of a store to its backend."))
	return errors.Join(errs[:]...)
}

// refresh implements observe.Observer.Refresh.
func (w *watcher) refresh(ctx context.Context, store string) (context.Context, func(observe.Refreshed)) {
	of := keyStore.String(store)
	ctx, span := w.tracer.Start(ctx, "refresh "+store, trace.WithAttributes(of))
	return ctx, func(e observe.Refreshed) {
		result := keyResult.String(string(e.Result))
		end(span, e.Class, result)
		all := metric.WithAttributeSet(attribute.NewSet(failed(e.Class, of, result)...))
		w.refreshes.Add(ctx, 1, all)
		w.waits.Record(ctx, e.Waited.Seconds(), metric.WithAttributeSet(attribute.NewSet(of, result)))
		if e.Asked > 0 {
			w.requests.Record(ctx, e.Asked.Seconds(), all)
		}
		if e.Lag > 0 {
			w.lags.Record(ctx, e.Lag.Seconds(), metric.WithAttributeSet(attribute.NewSet(of)))
		}
	}
}

// call implements observe.Observer.Call.
func (w *watcher) call(ctx context.Context, c observe.Call) (context.Context, func(observe.Called)) {
	of, op := keyStore.String(c.Store), keyOperation.String(string(c.Operation))
	ctx, span := w.tracer.Start(ctx, string(c.Operation)+" "+c.Store,
		trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(of, op))
	return ctx, func(e observe.Called) {
		end(span, e.Class)
		w.calls.Record(ctx, e.Took.Seconds(), metric.WithAttributeSet(attribute.NewSet(failed(e.Class, of, op)...)))
	}
}

// failed returns the given attributes. If class is not empty, failed adds class as the attribute
// error.type.
func failed(class observe.Class, attributes ...attribute.KeyValue) []attribute.KeyValue {
	if class == "" {
		return attributes
	}
	return append(attributes, keyError.String(string(class)))
}

// end adds attributes to a span, and ends the span. The parameter class is the class of the
// operation's error, or "" if the operation succeeded.
func end(span trace.Span, class observe.Class, attributes ...attribute.KeyValue) {
	span.SetAttributes(failed(class, attributes...)...)
	switch class {
	case "", observe.ClassNotFound, observe.ClassExists, observe.ClassConflict, observe.ClassCanceled:
	default:
		span.SetStatus(codes.Error, string(class))
	}
	span.End()
}
