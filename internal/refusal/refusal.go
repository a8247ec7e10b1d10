// Package refusal decides which refusals of an authorization server are stored, and how long a
// stored refusal prevents further requests.
package refusal

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/stored"
)

// Throttled is Zoho's error code for a throttled refresh token. ThrottleWait is the time for which
// Zoho throttles a refresh token.
const (
	Throttled    = "Access Denied"
	ThrottleWait = 10 * time.Minute
)

// LongestWait is the maximum back-off if the server does not state a time to wait.
const LongestWait = 30 * time.Minute

const (
	firstWait = time.Second
	clockSkew = 5 * time.Minute // the maximum assumed difference between the clocks of two processes
)

// An Answer is a refusal. It has the fields of tokenstore.RefreshError, which this
// package cannot import.
type Answer struct {
	Code       string
	RetryAfter time.Duration
	Permanent  bool
	Client     bool
}

// Error returns a text that contains the code, and the word "permanent" or "temporary".
func (a Answer) Error() string {
	kind := "temporary"
	if a.Permanent {
		kind = "permanent"
	}
	return fmt.Sprintf("refresh refused: %q (%s)", a.Code, kind)
}

// Keep returns the Failure with which a record stores the refusal a. The parameter last is the
// Failure that was stored before, or nil. The parameter named of is the digest of the refused
// credentials. Keep returns nil if the server refuses the client itself, because a corrected
// configuration works immediately.
func Keep(last *stored.Failure, a Answer, of string, now time.Time) *stored.Failure {
	if a.Client || ofClient(a.Code) {
		return nil
	}
	return Note(last, a, of, now, LongestWait)
}

// Note is like Keep, but also returns a Failure if the server refuses the client itself. longest is
// the maximum back-off if the server does not state a time to wait.
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

// Counts returns the refusal in f, and reports whether the refusal still applies to the credentials
// with the given digest. A permanent refusal always applies to the same credentials. A temporary
// refusal does not apply if its remaining time exceeds its original time plus clockSkew, because
// one of the clocks is then wrong. If f is nil, Counts returns false.
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
		return Answer{Code: f.Code, RetryAfter: max(left.Truncate(time.Millisecond), 1)}, true // truncated, so that RetryAfter never exceeds the time that the server stated
	}
	return Answer{}, false
}

// Digest returns an unkeyed digest of the credentials to which a refusal applies.
func Digest(parts ...string) string {
	h := sha256.New()
	for _, part := range parts {
		_, _ = fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// ofClient reports whether code means that the server refuses the client itself rather than the
// credentials of the record.
func ofClient(code string) bool {
	for _, prefix := range []string{"invalid_client", "unauthorized_client", "invalid_redirect_uri"} {
		if strings.HasPrefix(code, prefix) {
			return true
		}
	}
	return false
}
