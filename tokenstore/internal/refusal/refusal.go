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
	wait := firstBackOff << min(f.Count-1, 20)
	switch {
	case a.Code == throttled:
		wait = max(a.RetryAfter, throttleWait)
	case a.RetryAfter > 0:
		wait = a.RetryAfter
	}
	f.Retry = now.Add(min(wait, lastBackOff)).UnixMilli()
	return f
}

// Counts returns the answer that is kept in f, if it still counts for the
// credentials with the digest of. A time further off than any that is kept is a
// clock's mistake.
func Counts(f *codec.Failure, of string, now time.Time) (Answer, bool) {
	if f == nil || f.Of != of {
		return Answer{}, false
	}
	left := time.UnixMilli(f.Retry).Sub(now)
	switch {
	case f.Permanent:
		return Answer{Code: f.Code, Permanent: true}, true
	case left > 0 && left <= lastBackOff:
		return Answer{Code: f.Code, RetryAfter: left}, true
	}
	return Answer{}, false
}

// ofClient reports whether a code refuses the client, and not what the record
// holds: that is mended in a configuration, and then at once.
func ofClient(code string) bool {
	for _, prefix := range []string{"invalid_client", "unauthorized_client", "invalid_redirect_uri"} {
		if strings.HasPrefix(code, prefix) {
			return true
		}
	}
	return false
}
