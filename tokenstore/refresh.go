package tokenstore

import (
	"context"
	"time"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/internal/handover"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/lease"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/ledger"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/refreshing"
)

// Refresh implements Refresher.
//
// The right to call mint is a lease, which a process takes by compare-and-swap. If the driver
// is a driver.Leaser and the record has a user, a note beside the record holds the lease.
// Otherwise, the record itself holds the lease. If several goroutines concurrently use the
// same Store to refresh a record, only one of them competes for the lease. The other
// goroutines wait for the result, each until its own context is done. A waiting process reads
// the record repeatedly, with pauses. If the record says how long the last refresh took, a
// pause ends when the current refresh is expected to end. Otherwise, and after that time, the
// pauses grow to at most 1.5 seconds.
//
// If the service throttles calls, Refresh keeps reading with growing pauses for LeaseTTL,
// because another process may store a token. If the service still throttles calls after
// LeaseTTL, the error matches ErrThrottled. If the service throttles the write of the new
// token, the holder of the lease repeats the write. The holder stops once the lease is
// LeaseTTL old, but tries for at least a sixth of LeaseTTL.
//
// If a process dies while it holds a lease, another process takes over the lease after
// watching the lease for its full length. The length of a lease is at most LeaseTTL. A
// lease that ended at least five minutes ago can be taken over immediately. Between calls, a
// Store remembers how long it has watched a lease. A waiter whose deadline is near stores in
// the lease how long the lease has been watched. A series of short calls can therefore also
// outlast a lease.
//
// The context that is passed to mint ends earlier than the lease, by five seconds or a sixth of
// LeaseTTL, whichever is shorter. If the caller has a deadline, the lease ends no later than the
// deadline. The context of mint then ends earlier than the deadline, by one second or a sixth of
// the remaining time, whichever is shorter. Refresh does not call mint in the last half second
// before the deadline. If less than 1.5 seconds remained when Refresh was called, the last third
// of that time takes the place of the half second. A request that begins so late could be
// interrupted after the server has replaced the refresh token.
//
// A process may be suspended just after mint has checked its context. If the lease ends
// meanwhile, two processes may call the authorization server. No store can prevent the
// second call.
//
// Some services limit the daily writes of a secret (driver.Properties.DailyWrites). A refresh
// uses one write for the lease and one for the token. If too few writes are left, Refresh
// does not call mint, and fails with an error matching ErrUnavailable. After mint has
// returned a token, Refresh tries to store the token regardless of the number of writes left.
//
// If mint returns a *RefreshError, Refresh stores the error and returns it to other callers
// until another attempt may succeed. A permanent error counts until the refresh token, grant
// token or client secret changes. If Refresh took over the lease of another process, a
// permanent error counts only for LeaseTTL. A temporary error counts for RetryAfter. If
// RetryAfter is 0, a temporary error counts for one second, and for twice as long after each
// further refusal, up to half an hour. An error with the code "Access Denied" that is not
// permanent counts for at least ten minutes, because Zoho throttles a refresh token for that
// time. Refresh stores no other error, and no refusal of the client itself: see
// RefreshError.Client. Codes that begin with "invalid_client", "unauthorized_client" or
// "invalid_redirect_uri" count as refusals of the client.
func (s *Store) Refresh(ctx context.Context, id string, stale Secret, mint func(context.Context, Token) (Token, error)) (Token, error) {
	f, err := s.refresh(ctx, id, stale, refreshing.MintOf(mint, FromFields, Token.Fields))
	return FromFields(f), s.error("refresh", id, err)
}

func (s *Store) refresh(ctx context.Context, id string, stale Secret, mint refreshing.Mint) (codec.Fields, error) {
	if err := s.begin(ctx); err != nil {
		return codec.Fields{}, err
	}
	var read *ledger.Entry
	if e, ok := handover.Take(ctx, s, id).(ledger.Entry); ok {
		read = &e
	}
	return s.engine.Refresh(ctx, id, string(stale), s.leases.Record(ctx, id, read), mint)
}

func (s *Store) newEngine() *refreshing.Engine {
	return &refreshing.Engine{
		Store:    "tokenstore",
		Attempts: s.ledger.Attempts,
		Grace:    s.o.LeaseTTL,
		Patience: s.o.LeaseTTL,
		Digest: func(parts ...string) string {
			return ledger.Digest(s.o.NameKey, "credentials", parts...)
		},
		Now:    s.ledger.Now,
		Wait:   func(ctx context.Context, d time.Duration) error { return s.ledger.Wait(ctx, d) },
		Logger: s.ledger.Logger,

		Observer: s.o.Observer,
		Backend:  s.ledger.Properties.Name,
	}
}

func (s *Store) newLeases() *lease.Leases {
	return &lease.Leases{Ledger: s.ledger, TTL: s.o.LeaseTTL, Find: func(ctx context.Context, v *ledger.View, id string) (ledger.Entry, error) {
		rec, _, err := s.only(ctx, v, codec.Fields{ID: id})
		return rec, err
	}}
}
