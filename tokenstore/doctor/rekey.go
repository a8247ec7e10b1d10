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
	// Rekey rewrites the secrets that are not under the present keys, and yields each
	// record once. opts may be nil.
	//
	// An error that is yielded with a Name concerns that record alone, which keeps its
	// old keys. The record cannot be read or written (an *UnreadableError, ErrDenied,
	// ErrRefused), or its name does not fit the keys (ErrIDMismatch). An error without
	// a Name ends the iteration.
	Rekey(ctx context.Context, opts *RekeyOptions) iter.Seq2[Rekeyed, error]
}

// RekeyOptions configures Rekey.
type RekeyOptions struct {
	// DryRun yields the secrets that would be rewritten, and writes nothing.
	DryRun bool
}

// Rekeyed says what Rekey has done about one secret.
type Rekeyed struct {
	Name string // of the secret
	ID   string // of the record

	// Rewritten says that the secret was not under the present keys, and was rewritten
	// and read back. In a dry run it says that the secret would be rewritten.
	Rewritten bool
}

// Rekey rewrites the secrets that are not under the present keys of l: see the method
// Rekey of a tokenstore.Store. A lease lasts at most leaseTTL.
func Rekey(ctx context.Context, l *ledger.Ledger, leaseTTL time.Duration, opts *RekeyOptions) iter.Seq2[Rekeyed, error] {
	return func(yield func(Rekeyed, error) bool) {
		k := rekeyer{checker: checker{ledger: l}, leaseTTL: leaseTTL, yield: yield, told: map[string]bool{}, lease: ledger.Nonce()}
		if opts != nil {
			k.dry = opts.DryRun
		}
		if err := k.run(ctx); err != nil && !errors.Is(err, errStopped) {
			yield(Rekeyed{}, err)
		}
	}
}

// rekeyPasses bounds the passes over the store. The last two must rewrite nothing: the
// second of them begins after the store says that it is under the new keys.
const rekeyPasses = 6

// A rekeyer runs one Rekey.
type rekeyer struct {
	checker
	leaseTTL time.Duration
	dry      bool
	yield    func(Rekeyed, error) bool
	told     map[string]bool // names that were yielded
	lease    string          // of the records that are renamed, where it is a note
	left     bool            // a record is under other keys and could not be written
	settled  bool            // records are created by NameKey
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
	return fmt.Errorf("%w: another process goes on writing with other keys", driver.ErrConflict)
}

// pass goes over the store once, and returns how many secrets were rewritten.
func (k *rekeyer) pass(ctx context.Context) (rewritten int, err error) {
	var batch []ledger.Entry
	flush := func() error {
		for _, r := range inParallel(batch, func(e ledger.Entry) rekeyed { return k.rekey(ctx, e) }) {
			if r.Rewritten {
				rewritten++
			}
			if r.quiet && r.err == nil {
				continue
			}
			if err := k.tell(ctx, r.Rekeyed, r.err); err != nil {
				return err
			}
			k.told[r.to] = true
		}
		batch = batch[:0]
		return nil
	}
	for e, err := range k.ledger.Entries(ctx) {
		if err != nil {
			if err := k.tell(ctx, Rekeyed{Name: string(e.Name)}, err); err != nil {
				return rewritten, err
			}
			continue
		}
		if batch = append(batch, e); len(batch) == checkWorkers {
			if err := flush(); err != nil {
				return rewritten, err
			}
		}
	}
	return rewritten, flush()
}

type rekeyed struct {
	Rekeyed
	err   error
	to    string // the name that the record has got
	quiet bool   // it is a redirect: only its record is yielded
}

// tell yields the outcome for a secret, once. It returns an error that ends the
// iteration.
func (k *rekeyer) tell(ctx context.Context, r Rekeyed, err error) error {
	if err != nil && (ctx.Err() != nil || !ledger.OfOne(err) && !errors.Is(err, rules.ErrIDMismatch)) {
		return err
	}
	// A secret that no key decrypts does not need the old keys.
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

// rekey rewrites a listed entry if that is needed, until it is under the present keys.
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
		r.err = fmt.Errorf("%w: the name %q does not fit Options.NameKey", rules.ErrIDMismatch, listed.Name)
		return r
	case k.dry:
		r.Rewritten = true
		return r
	}
	r.err = k.ledger.Retry(ctx, "rekey", func(*ledger.View) error { return k.rewrite(ctx, listed.Name, &r) })
	return r
}

// rewrite does the next step for the named entry, which then has to be read back.
func (k *rekeyer) rewrite(ctx context.Context, name ledger.Name, r *rekeyed) error {
	e, err := k.ledger.Newest(ctx, name, ledger.Entry{})
	switch {
	case errors.Is(err, driver.ErrNotFound):
		return nil
	case err != nil:
		return err
	case r.Rewritten && k.rotated(e):
		return nil // read back
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

// current reports whether e is under the present keys, as far as can be told.
func (k *rekeyer) current(e ledger.Entry) bool {
	if _, ok := k.ledger.Codec.(codec.Rotating); !ok {
		return false
	}
	return k.rotated(e)
}

// rotated reports whether nothing shows that e is not under the present keys.
func (k *rekeyer) rotated(e ledger.Entry) bool {
	if rotating, ok := k.ledger.Codec.(codec.Rotating); ok && !rotating.Current(string(e.Name), e.Secret().Data) {
		return false
	}
	if e.Moved != nil {
		return len(k.ledger.NameKeys) == 1 // it is about to become a redirect
	}
	if k.misplaced(e) {
		return false
	}
	is := k.ledger.CompareLabels(k.ledger.Namer(), e.Record)
	return len(is.Old)+len(is.Unkeyed)+len(is.Unknown)+len(is.Missing)+len(is.Stale) == 0
}

// complete makes a redirect of an entry that has moved, because it cannot be written
// over.
func (k *rekeyer) complete(ctx context.Context, e ledger.Entry) error {
	problems, err := k.moved(ctx, k.ledger.View(true), e, *e.Moved)
	if err != nil {
		return err
	}
	for _, p := range problems {
		if p.repair == nil {
			return fmt.Errorf("%w: %q %s", driver.ErrCorrupt, e.Name, p.detail)
		}
		if err := p.repair(ctx); err != nil {
			return err
		}
	}
	return nil
}
