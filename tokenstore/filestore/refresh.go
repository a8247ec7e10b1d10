package filestore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// lastRefreshPoll is the longest pause of one who waits for another process's
// refresh.
const lastRefreshPoll = 50 * time.Millisecond

// Refresh implements tokenstore.Refresher. See the package documentation under
// "Refreshing".
//
// The context of mint ends after LeaseTTL. What mint has brought is then stored
// though the caller's context is done: it may be the only copy of a new refresh
// token. If that fails it is tried again for LeaseTTL, and then returned with an
// error matching tokenstore.ErrNotPersisted; so it is at once if the record was
// deleted meanwhile.
func (s *Store) Refresh(ctx context.Context, id string, stale tokenstore.Secret, mint func(context.Context, tokenstore.Token) (tokenstore.Token, error)) (tokenstore.Token, error) {
	t, err := s.refresh(ctx, id, stale, mint)
	return t, wrap("refresh", id, err)
}

func (s *Store) refresh(ctx context.Context, id string, stale tokenstore.Secret, mint func(context.Context, tokenstore.Token) (tokenstore.Token, error)) (tokenstore.Token, error) {
	if err := ctx.Err(); err != nil {
		return tokenstore.Token{}, err
	}
	if id == "" || mint == nil {
		return tokenstore.Token{}, fmt.Errorf("%w: Refresh needs an ID and a function", tokenstore.ErrInvalidToken)
	}
	if err := tokenstore.Validate(tokenstore.Token{ID: id}); err != nil {
		return tokenstore.Token{}, err
	}
	for {
		f, leader := s.flights.join(id)
		if leader {
			return s.lead(ctx, f, refresher{Store: s, id: id, stale: stale, mint: mint})
		}
		select {
		case <-ctx.Done():
			return tokenstore.Token{}, ctx.Err()
		case <-f.landed:
		}
		// The leader's context is not ours, and neither is what it found stale.
		canceled := errors.Is(f.err, context.Canceled) || errors.Is(f.err, context.DeadlineExceeded)
		if !canceled && (f.err != nil || f.token.AccessToken != stale) {
			return f.token, f.err
		}
	}
}

// lead is a refresh that others of this process may be waiting for. They are told
// though mint panics.
func (s *Store) lead(ctx context.Context, f *flight, r refresher) (t tokenstore.Token, err error) {
	err = context.Canceled
	defer func() { s.flights.land(r.id, f, t, err) }()
	return r.run(ctx)
}

// A refresher is one Refresh of one process.
type refresher struct {
	*Store
	id    string
	stale tokenstore.Secret
	mint  func(context.Context, tokenstore.Token) (tokenstore.Token, error)
}

// errReplaced means that the credentials which mint used are not the record's any
// more, and what it brought is not worth keeping.
var errReplaced = errors.New("the credentials were replaced meanwhile")

// run returns the token as soon as there is a fresh one, whoever made it.
func (r *refresher) run(ctx context.Context) (tokenstore.Token, error) {
	for range updates {
		t, err := r.once(ctx)
		if !errors.Is(err, errReplaced) {
			return t, err
		}
	}
	return tokenstore.Token{}, fmt.Errorf("%w: %w", tokenstore.ErrConflict, errReplaced)
}

// once returns a fresh token, or fails with errReplaced if it has to be tried
// again.
func (r *refresher) once(ctx context.Context) (tokenstore.Token, error) {
	f, t, err := r.acquire(ctx)
	if f == nil {
		return t, err
	}
	keep := false // what the lock file holds
	defer func() {
		if keep {
			unlock(f)
		} else {
			removeLockFile(f)
		}
	}()
	// Others may have been here while this one waited.
	_, current, err := r.look()
	if err != nil || r.good(current) {
		return current, err
	}
	last := readRefusal(f)
	if err := last.refuses(current, r.o.Now()); err != nil {
		keep = true
		return tokenstore.Token{}, err
	}

	mintCtx, cancel := context.WithTimeout(ctx, r.o.LeaseTTL)
	minted, err := r.mint(mintCtx, current)
	cancel()
	if err == nil {
		if err = tokenstore.Validate(minted); err == nil && minted.AccessToken == "" {
			err = fmt.Errorf("%w: the answer has no access token", tokenstore.ErrInvalidToken)
		}
	}
	if err != nil {
		if refused := last.next(current, err, r.o.Now()); refused != nil {
			keep = true
			if err := refused.write(f); err != nil {
				r.o.Logger.WarnContext(ctx, "filestore: a refusal could not be kept", "id", r.id)
			}
		}
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return tokenstore.Token{}, err
	}
	storeCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.o.LeaseTTL)
	defer cancel()
	return r.commit(storeCtx, current, minted)
}

// acquire takes the right to refresh the record. It returns no file, but the
// token, if there is a fresh one meanwhile.
func (r *refresher) acquire(ctx context.Context) (*os.File, tokenstore.Token, error) {
	seen, t, err := r.look()
	if err != nil || r.good(t) {
		return nil, t, err
	}
	path, err := r.refreshLock(r.id)
	if err != nil {
		return nil, tokenstore.Token{}, err
	}
	patience := r.o.LeaseTTL + r.o.LockTimeout
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	poll := backOff{firstPoll, lastRefreshPoll}
	for {
		f, err := tryLockFile(path)
		if err != nil {
			return nil, tokenstore.Token{}, classed(err)
		}
		if f != nil {
			return f, tokenstore.Token{}, nil
		}
		if err := sleep(waiting, poll.next()); err != nil {
			if ctx.Err() == nil {
				err = fmt.Errorf("%w: another process has been refreshing it for %v", tokenstore.ErrUnavailable, patience)
			}
			return nil, tokenstore.Token{}, err
		}
		// The result is there before the lock is free.
		if info, err := os.Stat(r.path); err == nil && sameState(info, seen.info) {
			continue
		}
		if seen, t, err = r.look(); err != nil || r.good(t) {
			return nil, t, err
		}
	}
}

// look returns the record as it is now.
func (r *refresher) look() (*view, tokenstore.Token, error) {
	v, err := r.read()
	if err != nil {
		return nil, tokenstore.Token{}, err
	}
	i, err := v.choose(tokenstore.Token{ID: r.id})
	if err != nil {
		return nil, tokenstore.Token{}, err
	}
	return v, v.records[i].Token, nil
}

// good reports whether t has an access token other than the stale one that has
// not expired, as far as is known.
func (r *refresher) good(t tokenstore.Token) bool {
	return t.AccessToken != "" && t.AccessToken != r.stale && (t.ExpiresAt.IsZero() || r.o.Now().Before(t.ExpiresAt))
}

// refreshLock returns the path of the file that is locked while the record with
// the ID is being refreshed.
func (s *Store) refreshLock(id string) (string, error) {
	path, err := resolve(s.path)
	if err != nil {
		return "", err
	}
	digest := sha256.Sum256([]byte(id))
	return path + "." + hex.EncodeToString(digest[:8]) + ".refresh.lock", nil
}

// commit stores what mint returned for the record used.
func (r *refresher) commit(ctx context.Context, used, minted tokenstore.Token) (tokenstore.Token, error) {
	minted.ID, minted.UserName, minted.ClientID = "", "", ""
	usable := tokenstore.Merge(used, minted)
	poll := backOff{10 * time.Millisecond, time.Second}
	for {
		t, err := r.commitOnce(ctx, used, minted)
		switch {
		case err == nil, errors.Is(err, errReplaced):
			return t, err
		case errors.Is(err, tokenstore.ErrNotFound):
			return usable, fmt.Errorf("%w: the record was deleted meanwhile: %w", tokenstore.ErrNotPersisted, err)
		case errors.Is(err, tokenstore.ErrUnavailable), errors.Is(err, tokenstore.ErrConflict), errors.Is(err, tokenstore.ErrCorrupt):
			// The file could be read when mint was called: if it is corrupt, an
			// SDK is probably in the middle of writing it.
			if sleep(ctx, poll.next()) == nil {
				continue
			}
		}
		r.o.Logger.ErrorContext(ctx, "filestore: a refreshed token was not stored", "id", r.id)
		return usable, fmt.Errorf("%w: %w", tokenstore.ErrNotPersisted, err)
	}
}

// commitOnce tries to store what mint returned for the record used, which may
// have been changed since mint used it.
func (r *refresher) commitOnce(ctx context.Context, used, minted tokenstore.Token) (t tokenstore.Token, err error) {
	err = r.update(ctx, func(v *view) (changed bool, err error) {
		i, err := v.choose(tokenstore.Token{ID: r.id})
		if err != nil {
			return false, err
		}
		now := v.records[i].Token
		there := stillThere(used, now)
		if (!there || !better(minted, used, now)) && r.good(now) {
			t = now
			return false, nil
		}
		if !there {
			return false, errReplaced
		}
		t = tokenstore.Merge(now, minted)
		return t != now, v.put(i, t)
	})
	return t, err
}

// better reports whether minted, got with the credentials of used, is worth
// storing over now.
func better(minted, used, now tokenstore.Token) bool {
	return now.AccessToken == used.AccessToken ||
		minted.RefreshToken != "" && minted.RefreshToken != used.RefreshToken ||
		minted.ExpiresAt.After(now.ExpiresAt)
}

// stillThere reports whether the credential that a refresh of used needs is
// still the one of now. It is not if the ID has come to name another record.
func stillThere(used, now tokenstore.Token) bool {
	if used.UserName != "" && used.UserName != now.UserName || used.ClientID != now.ClientID {
		return false
	}
	if used.RefreshToken != "" {
		return used.RefreshToken == now.RefreshToken
	}
	return used.GrantToken == now.GrantToken && now.RefreshToken == ""
}

// forgetRefusal removes what is kept of a refusal about a record that was
// deleted, unless the record is being refreshed just now: then whoever does it
// removes it.
func (s *Store) forgetRefusal(id string) {
	path, err := s.refreshLock(id)
	if err != nil {
		return
	}
	if _, err := os.Lstat(path); err != nil {
		return
	}
	if f, err := tryLockFile(path); err == nil && f != nil {
		removeLockFile(f)
	}
}
