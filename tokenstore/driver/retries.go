package driver

import "context"

// withoutRetries is the key of WithoutRetries.
type withoutRetries struct{}

// WithoutRetries returns a context for calls whose caller wants to learn immediately
// that the service throttles. The caller can make a cheaper call meanwhile, and repeats
// the throttled call itself.
func WithoutRetries(ctx context.Context) context.Context {
	return context.WithValue(ctx, withoutRetries{}, true)
}

// Retries reports whether a driver may repeat a call that the service throttles. It may
// unless ctx is from WithoutRetries.
func Retries(ctx context.Context) bool { return ctx.Value(withoutRetries{}) == nil }
