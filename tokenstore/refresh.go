package tokenstore

import (
	"context"
	"time"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/lease"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/ledger"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/refreshing"
)

// Refresh implements Refresher.
//
// The right to call mint is a lease, won by compare-and-swap: in the record, or
// in a note beside it if the driver is a driver.Leaser. Of the goroutines of this
// Store that ask for the same record one takes part, and the others wait for it;
// each with its own context. Those of other processes read the record every half
// second at most.
//
// A process that dies with the lease holds the others up until they have watched
// it for as long as it lasts, which is LeaseTTL at most. A Store remembers what it
// has watched from one call to the next, and a caller whose deadline comes first
// leaves word in the record, so that calls of three seconds see the end of it too.
//
// The context of mint ends a sixth of LeaseTTL, at most five seconds, before the
// lease does. A caller with a deadline takes a lease that ends with the deadline,
// and the context of its mint ends a sixth of what is left, at most one second,
// before that. In the last half second before its deadline, or the last third of its
// time if that is less, Refresh does not call mint: a request that is broken off may
// lose a refresh token.
//
// A process that is frozen for longer, just after mint has looked at its
// context, may call the authorization server when another one has already done
// so: no store can rule that out.
//
// Where the service limits the writes of a day (driver.Properties.DailyWrites) a
// refresh takes two of them, one for the lease and one for the token. If the record
// has no room for both, Refresh fails with an error matching ErrUnavailable before
// mint is called. Once mint has returned a token, Refresh tries to store it whatever
// is left.
//
// A *RefreshError that mint returns is kept and given to all who ask until it is
// worth trying again: a permanent one until the refresh token, grant token or
// client secret changes, and a temporary one for RetryAfter. If RetryAfter is 0 that
// is a second, and twice as long each time it happens again, up to half an hour.
// Refusals of the client itself (codes that begin with "invalid_client", "unauthorized_client",
// "invalid_redirect_uri") are not kept, nor is any other error.
func (s *Store) Refresh(ctx context.Context, id string, stale Secret, mint func(context.Context, Token) (Token, error)) (Token, error) {
	f, err := s.refresh(ctx, id, stale, refreshing.MintOf(mint, FromFields, Token.Fields))
	return FromFields(f), s.error("refresh", id, err)
}

func (s *Store) refresh(ctx context.Context, id string, stale Secret, mint refreshing.Mint) (codec.Fields, error) {
	if err := s.begin(ctx); err != nil {
		return codec.Fields{}, err
	}
	return s.engine.Refresh(ctx, id, string(stale), s.leases.Record(ctx, id), mint)
}

// newEngine returns the refreshes of the store.
func (s *Store) newEngine() *refreshing.Engine {
	return &refreshing.Engine{
		Store:    "tokenstore",
		Attempts: s.ledger.Attempts,
		Grace:    s.o.LeaseTTL,
		Digest: func(parts ...string) string {
			return ledger.Digest(s.o.NameKey, "credentials", parts...)
		},
		Now:    s.ledger.Now,
		Wait:   func(ctx context.Context, d time.Duration) error { return s.ledger.Wait(ctx, d) },
		Logger: s.ledger.Logger,
	}
}

// newLeases returns the leases on the records of the store.
func (s *Store) newLeases() *lease.Leases {
	return &lease.Leases{Ledger: s.ledger, TTL: s.o.LeaseTTL, Find: func(ctx context.Context, v *ledger.View, id string) (ledger.Entry, error) {
		rec, _, err := s.only(ctx, v, codec.Fields{ID: id})
		return rec, err
	}}
}
