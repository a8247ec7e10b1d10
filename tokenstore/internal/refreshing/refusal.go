package refreshing

import (
	"errors"
	"time"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/internal/refusal"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// refused returns the refusal that was kept, if it still counts for t.
func refused(last *codec.Failure, t tokenstore.Token, now time.Time) error {
	a, ok := refusal.Counts(last, credentials(t), now)
	if !ok {
		return nil
	}
	e := tokenstore.RefreshError(a)
	return &e
}

// kept returns what is kept of err, which refreshing t has come to after last; nil
// if that is of no use to others.
func kept(last *codec.Failure, t tokenstore.Token, err error, now time.Time) *codec.Failure {
	var e *tokenstore.RefreshError
	if !errors.As(err, &e) {
		return nil
	}
	return refusal.Keep(last, refusal.Answer(*e), credentials(t), now)
}

// credentials returns a digest of what a refusal is about.
func credentials(t tokenstore.Token) string {
	return refusal.Digest(t.ClientID, string(t.ClientSecret), string(t.RefreshToken), string(t.GrantToken))
}
