package doctor

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/tokenkeep/tokenkeep/internal/pace"
	"github.com/tokenkeep/tokenkeep/internal/stored"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/ledger"
)

// errStopped means that the caller stopped the iteration.
var errStopped = errors.New("stopped")

// Check checks the store of l: see the method Check of a tokenstore.Store. Check reads all records
// once. It then rereads the records that look faulty, in the newest state that the driver can
// prove. Check keeps digests of all records in memory, but no tokens.
//
// Check changes a record only by compare-and-swap. It completes an interrupted promotion, and never
// undoes a promotion. (Package ledger describes promotions.) An interrupted repair can be repeated.
// Check never overwrites or deletes a secret that it cannot read. If the name of a record does not
// fit the keys of l, the keys may be wrong. Check then only completes promotions and merges
// duplicates of the record.
//
// If the driver is a driver.Inspector, the check includes the data that the driver keeps
// beside the secrets. For other drivers, Check examines only the labels that each record was
// committed with.
func Check(ctx context.Context, l *ledger.Ledger, opts *CheckOptions) iter.Seq2[Finding, error] {
	return func(yield func(Finding, error) bool) {
		c := checker{ledger: l, yield: yield, seen: map[string]sighting{}, unread: map[string]error{}, beside: map[string][]driver.Label{}, abandoned: map[string][]driver.Label{}}
		var err error
		if c.o, err = opts.Complete(); err == nil {
			err = c.run(ctx)
		}
		if err != nil && !errors.Is(err, errStopped) {
			yield(Finding{}, err)
		}
	}
}

// A checker runs one call of Check.
type checker struct {
	ledger *ledger.Ledger
	o      CheckOptions
	yield  func(Finding, error) bool
	looked int

	seen   map[string]sighting       // secrets that were listed and read, by name
	unread map[string]error          // reasons why secrets could not be read, by name
	beside map[string][]driver.Label // labels that Inspect found, by the name of the secret

	abandoned map[string][]driver.Label // labels that Inspect reported as abandoned, by the name of the secret

	names, labels evidence // for and against the keys that the check uses
}

// A sighting holds what the checker remembers about a secret.
type sighting struct {
	born     string
	target   *stored.Ref
	alias    bool
	misnamed bool
	suspect  bool           // the secret must be read again
	labels   []driver.Label // labels that the secret may have: those of its state, and former ones
	keys     []string       // identities that another record may share
	terms    []ledger.Term  // terms by which searches find the record
}

// evidence holds the number of names or labels that fit the keys, and the number of misfits.
type evidence struct{ fits, misfits int }

func (e evidence) against() bool { return e.fits == 0 && e.misfits > 0 }

func (c *checker) run(ctx context.Context) error {
	if c.ledger.NameKeys[0] == nil {
		if err := c.emit(Finding{
			Kind: KindStoreUnkeyed, Remedy: RemedyManual,
			Detail: "there is no name key: names and IDs are digests that guesses of user names can be tested against",
		}); err != nil {
			return err
		}
	}
	fits, err := c.marker(ctx)
	if err != nil {
		return err
	}
	for _, step := range c.steps(fits) {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// steps returns the steps of the check, in order. If the keys do not fit, steps returns at
// most the test of permissions, because wrong keys would cause false findings in all other
// steps.
func (c *checker) steps(keysFit bool) (steps []func(context.Context) error) {
	inspector := c.ledger.Inspector
	inspects := inspector != nil
	if c.o.Compare && keysFit {
		steps = append(steps, c.compares)
	}
	if c.o.Permissions && inspects {
		steps = append(steps, func(ctx context.Context) error { return c.permissions(ctx, inspector) })
	}
	if !keysFit {
		return steps
	}
	if inspects {
		steps = append(steps, func(ctx context.Context) error { return c.inspect(ctx, inspector) })
	}
	steps = append(steps, c.survey, c.foreign,
		func(ctx context.Context) error { return c.examineSuspects(ctx, false) },
		c.duplicates,
		func(ctx context.Context) error { return c.examineSuspects(ctx, true) })
	if inspects {
		steps = append(steps, func(ctx context.Context) error { return c.leftOver(ctx, inspector) })
	}
	return steps
}

// marker reads the marker of the store's keys. If the keys of the check do not fit the marker,
// marker reports a finding and returns false. It also reports a corrupt marker.
func (c *checker) marker(ctx context.Context) (fits bool, err error) {
	err = c.ledger.CheckKeys(ctx)
	switch u := ledger.OnlyUnreadable(err); {
	case ctx.Err() != nil:
		return false, ctx.Err()
	case u != nil && errors.Is(err, driver.ErrCorrupt):
		return true, c.cannotRead(u)
	case errors.Is(err, ledger.ErrWrongKeys):
		return false, c.emit(Finding{Kind: KindKeysForeign, Remedy: RemedyManual, Err: err,
			Detail: "the store says that it is under other keys than those that the check was given"})
	}
	return true, nil // the next steps report the secrets that they cannot read
}

func (c *checker) emit(findings ...Finding) error {
	for _, f := range findings {
		if !c.yield(f, nil) {
			return errStopped
		}
	}
	return nil
}

func (c *checker) progress() {
	c.looked++
	if c.o.Progress != nil {
		c.o.Progress(c.looked)
	}
}

// foreign reports a finding if the keys look like those of another store. It then turns
// repairs off, because programs with the right keys would not find the repaired records.
func (c *checker) foreign(context.Context) error {
	f := Finding{Kind: KindKeysForeign, Remedy: RemedyManual}
	switch {
	case c.names.against():
		f.Detail = fmt.Sprintf("none of %d names fits the name key: nothing is repaired", c.names.misfits)
	case c.labels.against():
		f.Remedy, f.Action = RemedyRekey, "rewrite the records, if the keys are the right ones"
		f.Detail = fmt.Sprintf("none of the labels is by one of the index keys, and %d are by another key or none: nothing is repaired", c.labels.misfits)
	default:
		return nil
	}
	c.o.Repair, c.o.MergeDuplicates, c.o.Purge = false, false, false
	return c.emit(f)
}

// examineSuspects examines the entries that look faulty. If misnamed is set, it examines the
// entries whose names do not fit the keys, and otherwise the other entries. The check examines
// misnamed entries last, after merging those that are duplicates.
func (c *checker) examineSuspects(ctx context.Context, misnamed bool) error {
	var suspects []string
	for name, at := range c.seen {
		if at.misnamed == misnamed && (at.suspect || at.target != nil && c.suspectTarget(name, at)) {
			suspects = append(suspects, name)
		}
	}
	slices.Sort(suspects)
	pacer := newPacer()
	for batch := range slices.Chunk(suspects, checkBatch) {
		results, err := inParallel(ctx, pacer, batch, func(ctx context.Context, name string, r *examined) error {
			r.name = name
			r.findings, r.err = c.examine(ctx, name)
			return r.err
		})
		if err != nil {
			return err
		}
		for _, r := range results {
			if err := c.emit(r.findings...); err != nil {
				return err
			}
			if err := c.goOn(ctx, r.name, r.err); err != nil {
				return err
			}
		}
	}
	return nil
}

type examined struct {
	name     string
	findings []Finding
	err      error
}

// suspectTarget reports whether the named entry, which leads to another entry, must be
// examined. A redirect to a listed record is examined only if the record also has the label
// of the redirect's name.
func (c *checker) suspectTarget(name string, at sighting) bool {
	to, listed := c.seen[at.target.Name]
	if !at.alias || !listed || to.born != at.target.Born || to.target != nil {
		return true
	}
	t, ok := ledger.Name(name).Term()
	return ok && slices.Contains(to.terms, t)
}

// checkBatch is the maximum number of entries that are processed together.
const checkBatch = 128

// inParallel concurrently calls f for each item. f sets the result of the item, including
// the error, and returns the error. inParallel calls f again after an error that matches
// driver.ErrThrottled, and returns that error if the error persists.
func inParallel[T, R any](ctx context.Context, p *pace.Pacer, items []T, f func(ctx context.Context, item T, result *R) error) ([]R, error) {
	results := make([]R, len(items))
	err := p.Each(ctx, len(items), func(ctx context.Context, i int) error {
		if err := f(ctx, items[i], &results[i]); throttled(err) {
			return err
		}
		return nil // the result holds the error
	})
	return results, err
}

func newPacer() *pace.Pacer { return pace.New(throttled, 0) }

func throttled(err error) bool { return errors.Is(err, driver.ErrThrottled) }
