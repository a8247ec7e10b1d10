package driver

import "context"

// withoutRetries is the context key of WithoutRetries.
type withoutRetries struct{}

// WithoutRetries returns a copy of ctx for calls that a driver must not repeat if the
// service throttles them. The caller then learns of the throttling immediately, and repeats
// the call itself.
func WithoutRetries(ctx context.Context) context.Context {
	return context.WithValue(ctx, withoutRetries{}, true)
}

// Retries reports whether a driver may repeat a call with ctx that the service throttles. It
// returns false if ctx is derived from a context that WithoutRetries returned.
func Retries(ctx context.Context) bool { return ctx.Value(withoutRetries{}) == nil }
