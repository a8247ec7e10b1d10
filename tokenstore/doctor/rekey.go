package doctor

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/ledger"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rules"
)

// A Rekeyer is a store whose records can be rewritten under new keys.
type Rekeyer interface {
	// Rekey rewrites the secrets that are not under the current keys, and yields each record
	// once. A nil opts counts as the zero value.
	//
	// An error that is yielded with a Name concerns only the record with that name. That record
	// keeps its old keys. If the record cannot be read or written, the error wraps a
	// *tokenstore.UnreadableError, or matches ErrDenied, ErrRefused or ErrCorrupt of package
	// tokenstore. If the name of the record does not fit the keys, the error matches
	// tokenstore.ErrIDMismatch. An error without a Name ends the iteration.
	Rekey(ctx context.Context, opts *RekeyOptions) iter.Seq2[Rekeyed, error]
}

// RekeyOptions configures Rekey.
type RekeyOptions struct {
	// DryRun makes Rekey write nothing.
	DryRun bool
}

// A Rekeyed is the result of Rekey for one secret.
type Rekeyed struct {
	Name string // the name of the secret
	ID   string // the ID of the record

	// Rewritten is set if the secret was rewritten and read back. In a dry run, Rewritten is
	// set if Rekey without DryRun would rewrite the secret.
	Rewritten bool
}

// Rekey rewrites the secrets that are not under the current keys of l: see the method Rekey
// of a tokenstore.Store. leaseTTL is the duration of the leases that Rekey takes.
func Rekey(ctx context.Context, l *ledger.Ledger, leaseTTL time.Duration, opts *RekeyOptions) iter.Seq2[Rekeyed, error] {
	return func(yield func(Rekeyed, error) bool) {
		k := rekeyer{checker: checker{ledger: l}, leaseTTL: leaseTTL, yield: yield, told: map[string]bool{}, lease: l.NewNonce()}
		if opts != nil {
			k.dry = opts.DryRun
		}
		if err := k.run(ctx); err != nil && !errors.Is(err, errStopped) {
			yield(Rekeyed{}, err)
		}
	}
}

// rekeyPasses is the maximum number of passes over the store. Rekey ends after a pass without
// a rewrite, if the marker already names only the current keys. If the codec is not a
// codec.Rotating, rewrites do not count.
const rekeyPasses = 6

// A rekeyer runs one call of Rekey.
type rekeyer struct {
	checker
	leaseTTL time.Duration
	dry      bool
	yield    func(Rekeyed, error) bool
	told     map[string]bool // names of secrets that were yielded
	lease    string          // ID of the leases that claim takes
	left     bool            // a record that could not be read or written may be under old keys
	settled  bool            // new records are named under the current name key
}

func (k *rekeyer) run(ctx context.Context) error {
	var err error
	if k.settled, err = k.ledger.AnnounceKeys(ctx, k.dry); err != nil {
		return err
	}
	_, rotating := k.ledger.Codec.(codec.Rotating)
	for range rekeyPasses {
		rewritten, err := k.pass(ctx)
		if err != nil || k.dry || k.left {
			return err
		}
		if rewritten > 0 && rotating {
			continue
		}
		k.settled = true
		changed, err := k.ledger.SettleKeys(ctx)
		if err != nil || !changed {
			return err
		}
	}
	return fmt.Errorf("%w: another process keeps writing with other keys", driver.ErrConflict)
}

// pass processes all secrets once, and returns the number of secrets that it rewrote.
func (k *rekeyer) pass(ctx context.Context) (rewritten int, err error) {
	tell := func(r rekeyed) error {
		if r.Rewritten {
			rewritten++
		}
		if r.quiet && r.err == nil {
			return nil
		}
		err := k.tell(ctx, r.Rekeyed, r.err)
		k.told[r.to] = k.told[r.to] || err == nil
		return err
	}
	var batch []ledger.Entry // entries that need further calls
	pacer := newPacer()
	flush := func() error {
		results, err := inParallel(ctx, pacer, batch, func(ctx context.Context, e ledger.Entry, r *rekeyed) error {
			rewritten := r.Rewritten // set if the previous call, which was throttled, rewrote e
			*r = k.rekey(ctx, e)
			r.Rewritten = r.Rewritten || rewritten
			return r.err
		})
		for _, r := range results {
			if err == nil {
				err = tell(r)
			}
		}
		batch = batch[:0]
		return err
	}
	for e, err := range k.ledger.Entries(ctx) {
		switch {
		case err != nil && ledger.OnlyUnreadable(err) == nil:
			return rewritten, err // the list has ended, regardless of the class of err
		case err != nil:
			err = k.tell(ctx, Rekeyed{Name: string(e.Name)}, err)
		case e.Alias == nil && k.current(e):
			err = tell(k.rekey(ctx, e))
		default:
			if batch = append(batch, e); len(batch) == checkBatch {
				err = flush()
			}
		}
		if err != nil {
			return rewritten, err
		}
	}
	return rewritten, flush()
}

type rekeyed struct {
	Rekeyed
	err   error
	to    string // the new name of the record
	quiet bool   // the secret is a redirect, which is yielded only with an error
}

// tell yields the outcome for a secret, at most once. An error from tell ends the iteration.
func (k *rekeyer) tell(ctx context.Context, r Rekeyed, err error) error {
	if err != nil && (ctx.Err() != nil || !ledger.OfOne(err) && !errors.Is(err, rules.ErrIDMismatch)) {
		return err
	}
	// A secret that no key of the store can decode does not need the old keys.
	k.left = k.left || err != nil && !errors.Is(err, driver.ErrCorrupt)
	if k.told[r.Name] {
		return nil
	}
	k.told[r.Name] = true
	if !k.yield(r, err) {
		return errStopped
	}
	return nil
}

// rekey rewrites a listed entry until the entry is under the current keys. In a dry run, it
// only reports whether the entry needs a rewrite.
func (k *rekeyer) rekey(ctx context.Context, listed ledger.Entry) rekeyed {
	r := rekeyed{Rekeyed: Rekeyed{Name: string(listed.Name), ID: listed.Token.ID}}
	switch {
	case listed.Alias != nil && len(k.ledger.NameKeys) > 1 && k.current(listed):
		r.Rewritten, r.err = k.alias(ctx, listed)
		r.quiet = true
		return r
	case k.current(listed):
		return r
	case listed.Target() == nil && k.misnamed(listed) != "" && !k.misplaced(listed):
		r.err = fmt.Errorf("%w: the name %q was not made with the key for names", rules.ErrIDMismatch, listed.Name)
		return r
	case k.dry:
		r.Rewritten = true
		return r
	}
	r.err = k.ledger.Retry(ctx, "rekey", func(*ledger.View) error { return k.rewrite(ctx, listed.Name, &r) })
	return r
}

// rewrite makes the next write for the named entry. It then returns a Retryable error, so
// that the next call reads the entry back.
func (k *rekeyer) rewrite(ctx context.Context, name ledger.Name, r *rekeyed) error {
	e, err := k.ledger.Newest(ctx, name, ledger.Entry{})
	switch {
	case errors.Is(err, driver.ErrNotFound):
		return nil
	case err != nil:
		return err
	case r.Rewritten && k.rotated(e):
		return nil // the entry was read back
	case !r.Rewritten && k.current(e):
		return nil
	case e.Moved != nil:
		err = k.complete(ctx, e)
	case k.misplaced(e):
		r.to = string(k.ledger.Namer().Of(e.Token))
		err = k.rename(ctx, e)
	default:
		_, err = k.ledger.Rewrite(ctx, e, nil)
	}
	if err != nil {
		return ledger.Lost(err)
	}
	r.Rewritten = true
	return ledger.Again(errors.New("written, and to be read back"))
}

// current reports whether e is certainly under the current keys. It returns false if the
// codec is not a codec.Rotating.
func (k *rekeyer) current(e ledger.Entry) bool {
	if _, ok := k.ledger.Codec.(codec.Rotating); !ok {
		return false
	}
	return k.rotated(e)
}

// rotated reports whether the form, the name and the labels of e fit the current keys.
func (k *rekeyer) rotated(e ledger.Entry) bool {
	if rotating, ok := k.ledger.Codec.(codec.Rotating); ok && !rotating.Current(string(e.Name), e.Secret().Data) {
		return false
	}
	if e.Moved != nil {
		return len(k.ledger.NameKeys) == 1 // e will become a redirect
	}
	if k.misplaced(e) {
		return false
	}
	is := k.ledger.CompareLabels(k.ledger.Namer(), e.Record)
	return len(is.Old)+len(is.Unkeyed)+len(is.Unknown)+len(is.Missing)+len(is.Stale) == 0
}

// complete finishes the move of the frozen entry e, because a frozen entry must not be
// rewritten.
func (k *rekeyer) complete(ctx context.Context, e ledger.Entry) error {
	problems, err := k.moved(ctx, k.ledger.View(true), e, *e.Moved)
	if err != nil {
		return err
	}
	for _, p := range problems {
		if p.err != nil {
			return p.err
		}
		if p.repair == nil {
			return fmt.Errorf("%w: %q %s", driver.ErrCorrupt, e.Name, p.detail)
		}
		if err := p.repair(ctx); err != nil {
			return err
		}
	}
	return nil
}
