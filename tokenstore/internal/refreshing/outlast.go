package refreshing

import (
	"context"
	"time"
)

// Outlast returns a context that outlasts ctx by the duration given by while. The context ends
// at the latest after the duration given by most. Use the context for a step that must complete
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
