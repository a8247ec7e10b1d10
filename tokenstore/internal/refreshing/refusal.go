package refreshing

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// How long a refusal counts, as in tokenstore.Store.
const (
	throttleWait = 10 * time.Minute // Zoho's window
	firstBackOff = time.Second
	lastBackOff  = 30 * time.Minute
)

// A refusal is why the last attempt failed, if it did.
type refusal struct{ *codec.Failure }

// refuses returns the refusal if it still counts for t.
func (r refusal) refuses(t tokenstore.Token, now time.Time) error {
	if r.Failure == nil || r.Of != credentials(t) {
		return nil
	}
	retry := time.UnixMilli(r.Retry)
	switch {
	case r.Permanent:
		return &tokenstore.RefreshError{Code: r.Code, Permanent: true}
	case now.Before(retry) && retry.Sub(now) <= lastBackOff:
		return &tokenstore.RefreshError{Code: r.Code, RetryAfter: retry.Sub(now)}
	}
	return nil
}

// next returns what is kept of err, which refreshing t has come to after r; nil
// if that is of no use to others.
func (r refusal) next(t tokenstore.Token, err error, now time.Time) *codec.Failure {
	var refused *tokenstore.RefreshError
	if !errors.As(err, &refused) || ofClient(refused.Code) {
		return nil
	}
	f := &codec.Failure{Code: refused.Code, Permanent: refused.Permanent, At: now.UnixMilli(), Count: 1, Of: credentials(t)}
	if r.Failure != nil && r.Of == f.Of {
		f.Count += r.Count
	}
	wait := min(firstBackOff<<min(f.Count-1, 20), lastBackOff)
	switch {
	case f.Code == "Access Denied":
		wait = max(refused.RetryAfter, throttleWait)
	case refused.RetryAfter > 0:
		wait = refused.RetryAfter
	}
	f.Retry = now.Add(min(wait, lastBackOff)).UnixMilli()
	return f
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

// credentials returns a digest of what a refusal is about.
func credentials(t tokenstore.Token) string {
	h := sha256.New()
	for _, part := range []string{t.ClientID, string(t.ClientSecret), string(t.RefreshToken), string(t.GrantToken)} {
		_, _ = fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}
