package rowstore

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/internal/refusal"
	"github.com/tokenkeep/tokenkeep/internal/stored"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/driverkit"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/refreshing"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rules"
)

const (
	attempts    = 10          // maximum number of attempts at a refresh while other callers replace the credentials
	releaseTime = time.Second // limit for storing a refusal and releasing the right after the caller's context is done

	// Bounds of the pauses between attempts to take a lock that another process holds.
	firstPoll = 500 * time.Microsecond
	lastPoll  = 50 * time.Millisecond
)

func engine(store string, o Options) *refreshing.Engine {
	return &refreshing.Engine{
		Store: store, Attempts: attempts, Grace: o.LeaseTTL,
		Digest: refusal.Digest, Now: o.Now, Wait: driverkit.Sleep, Logger: o.Logger,
		Observer: o.Observer, Backend: store,
	}
}

// Refresh implements tokenstore.Refresher.
func (s *Store) Refresh(ctx context.Context, id string, stale tokenstore.Secret, mint func(context.Context, tokenstore.Token) (tokenstore.Token, error)) (tokenstore.Token, error) {
	f, err := s.engine.Refresh(ctx, id, string(stale), &record{Store: s, id: id},
		refreshing.MintOf(mint, tokenstore.FromFields, tokenstore.Token.Fields))
	return tokenstore.FromFields(f), s.Wrap("refresh", id, err)
}

// A record implements refreshing.Record for one call of Refresh or Status.
type record struct {
	*Store
	id    string
	since time.Time // when the wait for another process's lock began; zero if there is no wait
	polls driverkit.Backoff
}

// Read implements refreshing.Record.
func (r *record) Read(ctx context.Context, _ bool) (s refreshing.State, err error) {
	rows, err := r.table.Read(ctx, &codec.Fields{ID: r.id})
	if err != nil {
		return s, err
	}
	s.Fields, err = r.in(rows)
	return s, err
}

func (r *record) in(rows *Rows) (codec.Fields, error) {
	i, err := rows.choose(codec.Fields{ID: r.id})
	if err != nil {
		return codec.Fields{}, err
	}
	return rows.records[i].Fields, nil
}

// Take implements refreshing.Record.
func (r *record) Take(ctx context.Context) (refreshing.Right, error) {
	l, err := r.table.Lock(ctx, r.id)
	if l == nil && err == nil {
		err = r.wait(ctx)
	}
	if l == nil || err != nil {
		return nil, err
	}
	r.since = time.Time{}
	return &right{record: r, lock: l}, nil
}

// wait pauses before the next attempt to take the lock, which another process holds. Once the
// waits have taken LeaseTTL plus LockTimeout, the error matches tokenstore.ErrUnavailable.
func (r *record) wait(ctx context.Context) error {
	if r.since.IsZero() {
		r.since, r.polls = time.Now(), driverkit.Backoff{Pause: firstPoll, Longest: lastPoll}
	}
	patience := r.o.LeaseTTL + r.o.LockTimeout
	left, pause := patience-time.Since(r.since), r.polls.Next()
	err := driverkit.Sleep(ctx, min(pause, left))
	if err == nil && pause >= left {
		err = fmt.Errorf("%w: another process has been refreshing it for %v", tokenstore.ErrUnavailable, patience)
	}
	return err
}

type right struct {
	record *record
	lock   Lock
	kept   *stored.Failure // the refusal in the note of the lock
}

// Read implements refreshing.Right.
func (r *right) Read(ctx context.Context) (s refreshing.State, err error) {
	rows, err := r.lock.Read(ctx, &codec.Fields{ID: r.record.id})
	if err != nil {
		return s, err
	}
	s.Fields, err = r.record.in(rows)
	s.Refusal = r.refusal
	return s, err
}

func (r *right) refusal(ctx context.Context) *stored.Failure {
	var f stored.Failure
	if json.Unmarshal([]byte(r.lock.Note(ctx)), &f) == nil {
		r.kept = &f
	}
	return r.kept
}

// Begin implements refreshing.Right.
func (r *right) Begin() time.Duration { return r.record.o.LeaseTTL }

// Left implements refreshing.Right.
func (r *right) Left() time.Duration { return r.record.o.LeaseTTL }

// Commit implements refreshing.Right.
func (r *right) Commit(ctx context.Context, plan func(codec.Fields) rules.RefreshPlan) (stored codec.Fields, err error) {
	like := codec.Fields{ID: r.record.id}
	err = r.lock.Update(ctx, &like, func(ctx context.Context, rows *Rows) (bool, error) {
		i, err := rows.choose(like)
		if err != nil {
			return false, err
		}
		p := plan(rows.records[i].Fields)
		stored = p.Fields
		if p.Again || !p.Changed {
			return false, nil
		}
		return true, rows.Put(ctx, i, stored)
	})
	return stored, err
}

// Release implements refreshing.Right.
func (r *right) Release(ctx context.Context, keep *stored.Failure) {
	ctx, cancel := refreshing.Outlast(ctx, releaseTime, r.record.o.LockTimeout)
	defer cancel()
	if keep != nil && keep != r.kept {
		text, err := json.Marshal(keep)
		if err == nil {
			err = r.lock.SetNote(ctx, string(text))
		}
		if err != nil {
			r.record.o.Logger.WarnContext(ctx, r.record.name+": a refusal could not be kept", "id", r.record.id)
		}
	}
	r.lock.Release(ctx, keep != nil)
}
