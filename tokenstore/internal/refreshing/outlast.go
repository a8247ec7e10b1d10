package refreshing

import (
	"context"
	"time"
)

// Outlast returns a context that ends a while after ctx is done, and after most at the
// latest. It is for a step that is needed even if the caller has gone.
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
