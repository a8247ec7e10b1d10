// Package refusal decides which refusals of an authorization server are kept, and
// for how long they count.
package refusal

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/stored"
)

// Zoho throttles a refresh token for ThrottleWait, and answers Throttled.
const (
	Throttled    = "Access Denied"
	ThrottleWait = 10 * time.Minute
)

// LongestWait is the longest back-off if the server does not say how long clients are
// to wait.
const LongestWait = 30 * time.Minute

const (
	firstWait = time.Second
	clockSkew = 5 * time.Minute // the clocks of two processes differ by this much at most
)

// An Answer is a refusal. It has the fields of a tokenstore.RefreshError, which this
// package cannot import.
type Answer struct {
	Code       string
	RetryAfter time.Duration
	Permanent  bool
	Client     bool
}

// Error returns the text: the code and whether the refusal is permanent.
func (a Answer) Error() string {
	kind := "temporary"
	if a.Permanent {
		kind = "permanent"
	}
	return fmt.Sprintf("refresh refused: %q (%s)", a.Code, kind)
}

// Keep returns the failure to store for an answer that follows last. of is the digest
// of the credentials that were refused. Keep returns nil if the server refuses the
// client, because a correction of the configuration ends such a refusal at once.
func Keep(last *stored.Failure, a Answer, of string, now time.Time) *stored.Failure {
	if a.Client || ofClient(a.Code) {
		return nil
	}
	return Note(last, a, of, now, LongestWait)
}

// Note returns the failure to store for any answer, with a back-off of at most longest.
func Note(last *stored.Failure, a Answer, of string, now time.Time, longest time.Duration) *stored.Failure {
	f := &stored.Failure{Code: a.Code, Permanent: a.Permanent, At: now.UnixMilli(), Count: 1, Of: of}
	if last != nil && last.Of == of {
		f.Count += last.Count
	}
	wait := min(firstWait<<min(f.Count-1, 20), longest)
	switch {
	case a.Code == Throttled:
		wait = max(a.RetryAfter, ThrottleWait)
	case a.RetryAfter > 0:
		wait = a.RetryAfter
	}
	f.Retry = now.Add(wait + time.Millisecond - 1).UnixMilli() // rounded up
	return f
}

// Counts returns the answer in f, and reports whether it still counts for the
// credentials with the digest of. It does not count if more time is left than f was
// kept for, plus the skew of clocks, because one of the clocks was wrong.
func Counts(f *stored.Failure, of string, now time.Time) (Answer, bool) {
	if f == nil || f.Of != of {
		return Answer{}, false
	}
	left := time.UnixMilli(f.Retry).Sub(now)
	most := time.UnixMilli(f.Retry).Sub(time.UnixMilli(f.At)) + clockSkew
	switch {
	case f.Permanent:
		return Answer{Code: f.Code, Permanent: true}, true
	case left > 0 && left <= most:
		return Answer{Code: f.Code, RetryAfter: max(left.Truncate(time.Millisecond), 1)}, true // as kept: never more than the server said
	}
	return Answer{}, false
}

// Digest returns an unkeyed digest of the credentials that a refusal is about.
func Digest(parts ...string) string {
	h := sha256.New()
	for _, part := range parts {
		_, _ = fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// ofClient reports whether a code refuses the client itself and not the credentials of
// the record.
func ofClient(code string) bool {
	for _, prefix := range []string{"invalid_client", "unauthorized_client", "invalid_redirect_uri"} {
		if strings.HasPrefix(code, prefix) {
			return true
		}
	}
	return false
}
