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
// The right to call mint is a lease, which a process wins by compare-and-swap: in the
// record, or in a note beside the record if the driver is a driver.Leaser. Of the
// goroutines of a Store that refresh the same record, one takes part. The others wait
// for it, each with its own context. Other processes read the record in pauses of at
// most half a second.
//
// If a process dies while it holds a lease, waiters have to watch the lease for its
// full length, which is LeaseTTL at most. A Store remembers across calls how long it
// has watched a lease. A caller with an earlier deadline stores that time in the
// record, so that even calls of three seconds outlast a lease.
//
// The context of mint ends before the lease does, by a sixth of LeaseTTL but at most
// five seconds. A caller with a deadline takes a lease that ends with the deadline. The
// context of its mint ends before that, by a sixth of the remaining time but at most
// one second. Refresh does not call mint in the last half second before the deadline,
// or in the last third of the caller's time if that is less. An abandoned request may
// lose a refresh token.
//
// A process that is suspended for longer than that margin, just after mint has checked
// its context, may call the authorization server after another process has. No store
// can rule that out.
//
// Where the service limits the writes of a day (driver.Properties.DailyWrites), a
// refresh takes two of them: one for the lease and one for the token. If the record has
// no room for both, Refresh fails with an error matching ErrUnavailable before it calls
// mint. After mint has returned a token, Refresh tries to store it however many writes
// are left.
//
// If mint returns a *RefreshError, Refresh stores it and returns it to other callers
// until another attempt may succeed. A permanent error counts until the refresh token,
// grant token or client secret changes, a temporary one for RetryAfter. A RetryAfter of
// 0 stands for one second, and for twice as long after each further refusal, up to half
// an hour. Refresh stores no other error, and no refusal of the client itself: see
// RefreshError.Client. Codes that begin with "invalid_client", "unauthorized_client" or
// "invalid_redirect_uri" refuse the client too.
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

// newEngine returns the engine that runs the refreshes of the store.
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
