// Package refusal says what is kept of an authorization server's refusal of a
// refresh, and for how long it counts.
package refusal

import (
	"strings"
	"time"

	"github.com/tokenkeep/tokenkeep/codec"
)

const (
	throttled    = "Access Denied"  // Zoho's word for it
	throttleWait = 10 * time.Minute // Zoho's window
	firstBackOff = time.Second
	lastBackOff  = 30 * time.Minute
	clockSkew    = 5 * time.Minute // by how much the clocks of two processes differ at most
)

// An Answer is a tokenstore.RefreshError, which this package cannot import.
type Answer struct {
	Code       string
	RetryAfter time.Duration
	Permanent  bool
	Client     bool
}

// Keep returns what is kept of an answer about the credentials with the digest of,
// after last; or nil if it is of no use to others.
func Keep(last *codec.Failure, a Answer, of string, now time.Time) *codec.Failure {
	if a.Client || ofClient(a.Code) {
		return nil
	}
	f := &codec.Failure{Code: a.Code, Permanent: a.Permanent, At: now.UnixMilli(), Count: 1, Of: of}
	if last != nil && last.Of == of {
		f.Count += last.Count
	}
	wait := min(firstBackOff<<min(f.Count-1, 20), lastBackOff)
	switch {
	case a.Code == throttled:
		wait = max(a.RetryAfter, throttleWait)
	case a.RetryAfter > 0:
		wait = a.RetryAfter
	}
	f.Retry = now.Add(wait + time.Millisecond - 1).UnixMilli() // not a moment sooner
	return f
}

// Counts returns the answer that is kept in f, if it still counts for the
// credentials with the digest of. If more is left than was to be waited at first, one
// of the clocks was wrong by more than clocks differ, and it does not count.
func Counts(f *codec.Failure, of string, now time.Time) (Answer, bool) {
	if f == nil || f.Of != of {
		return Answer{}, false
	}
	left := time.UnixMilli(f.Retry).Sub(now)
	most := time.UnixMilli(f.Retry).Sub(time.UnixMilli(f.At)) + clockSkew
	switch {
	case f.Permanent:
		return Answer{Code: f.Code, Permanent: true}, true
	case left > 0 && left <= most:
		return Answer{Code: f.Code, RetryAfter: max(left.Truncate(time.Millisecond), 1)}, true // as kept, no more than was said
	}
	return Answer{}, false
}

// ofClient reports whether a code refuses the client, and not what the record
// holds: that is repaired in a configuration, and then at once.
func ofClient(code string) bool {
	for _, prefix := range []string{"invalid_client", "unauthorized_client", "invalid_redirect_uri"} {
		if strings.HasPrefix(code, prefix) {
			return true
		}
	}
	return false
}
