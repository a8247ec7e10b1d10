package driver

import "context"

// withoutRetries is the context key of WithoutRetries.
type withoutRetries struct{}

// WithoutRetries returns a copy of ctx for calls that a driver must not repeat if the service
// throttles them. The driver then returns the error immediately, and the caller repeats the
// call.
func WithoutRetries(ctx context.Context) context.Context {
	return context.WithValue(ctx, withoutRetries{}, true)
}

// Retries reports whether a driver may repeat a throttled call whose context is ctx. Retries
// returns false if ctx is derived from a context that WithoutRetries returned.
func Retries(ctx context.Context) bool { return ctx.Value(withoutRetries{}) == nil }
