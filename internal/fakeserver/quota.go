package fakeserver

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// A Rate limits the calls that a server accepts. The zero Rate is unlimited.
type Rate struct {
	// Calls is the number of tokens that a bucket gains in each period Per, at a constant rate.
	// Each accepted call takes one token. The bucket is full at first.
	Calls int
	Per   time.Duration

	// Burst is the capacity of the bucket. 0 means Calls.
	Burst int

	// Fixed replaces the bucket with consecutive periods of length Per. The field Calls is then the
	// maximum number of calls that the server accepts in each period.
	Fixed bool
}

// PerSecond returns a Rate of n calls a second.
func PerSecond(n int) Rate { return Rate{Calls: n, Per: time.Second} }

// PerMinute returns a Rate of n calls a minute.
func PerMinute(n int) Rate { return Rate{Calls: n, Per: time.Minute} }

// Quotas holds the remaining calls for each key. In the zero Quotas, all calls remain. Take is
// safe for concurrent use.
type Quotas struct {
	mu      sync.Mutex
	buckets map[string]*rate.Limiter
	periods map[string]time.Time // the start of the current period, for fixed rates
}

// Take takes one call from the quota with the given key and the rate r, and reports whether the
// quota had a call left. The parameter now is the time of the call. The caller must always use the
// same Rate with a key.
func (q *Quotas) Take(now time.Time, key string, r Rate) bool {
	if r == (Rate{}) {
		return true
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.bucket(now, key, r).AllowN(now, 1)
}

// bucket returns the bucket for key. For a new key, and in a new fixed period, the bucket is
// full. The caller must hold q.mu.
func (q *Quotas) bucket(now time.Time, key string, r Rate) *rate.Limiter {
	if q.buckets == nil {
		q.buckets, q.periods = map[string]*rate.Limiter{}, map[string]time.Time{}
	}
	b := q.buckets[key]
	begun := now.Truncate(r.Per)
	switch {
	case r.Fixed && (b == nil || begun.After(q.periods[key])):
		b = rate.NewLimiter(0, r.Calls)
		q.periods[key] = begun
	case b == nil:
		burst := r.Burst
		if burst == 0 {
			burst = r.Calls
		}
		b = rate.NewLimiter(rate.Limit(float64(r.Calls)/r.Per.Seconds()), burst)
	}
	q.buckets[key] = b
	return b
}
