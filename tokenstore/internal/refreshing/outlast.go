package refreshing

import (
	"context"
	"time"
)

// Outlast returns a context that ends when the duration while has passed since ctx was done,
// but at the latest after the duration most. Use the context for a step that must complete
// even if the caller has stopped waiting.
func Outlast(ctx context.Context, while, most time.Duration) (context.Context, context.CancelFunc) {
	long, cancel := context.WithTimeout(context.WithoutCancel(ctx), most)
	late := time.AfterFunc(most, cancel)
	stop := context.AfterFunc(ctx, func() { late.Reset(while) })
	return long, func() {
		stop()
		late.Stop()
		cancel()
	}
}
