package doctor

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"

	"github.com/tokenkeep/tokenkeep/internal/stored"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/ledger"
)

// errStopped ends a check when the caller has left the iteration.
var errStopped = errors.New("stopped")

// Check checks the store whose entries l has: see the method Check of a
// tokenstore.Store. It reads all records, and then reads those that look faulty again:
// each finding rests on a state as fresh as the backend allows. Check keeps digests of
// all records in memory, but no token.
//
// Each repair performs the step that the next writer would, by compare-and-swap. An
// interrupted promotion is completed, never rolled back. Repairs can be interrupted at
// any point and repeated. Check never writes over or deletes a secret that it cannot
// read. It leaves a record alone if the name does not fit, because Check may have been
// given the wrong keys.
//
// If the driver is a driver.Inspector, the check includes the data that the driver
// keeps beside the secrets. For other drivers, Check compares labels only with the
// contents of the records.
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

// A checker runs one Check.
type checker struct {
	ledger *ledger.Ledger
	o      CheckOptions
	yield  func(Finding, error) bool
	looked int

	seen   map[string]sighting       // of every secret that was listed and read
	unread map[string]error          // the reasons why the others could not be read
	beside map[string][]driver.Label // the labels that Inspect found beside the secrets

	abandoned map[string][]driver.Label // those of beside that no write under way has added

	// The evidence that the keys of the check are those of the store.
	names, labels evidence
}

// A sighting is what the checker remembers of a secret.
type sighting struct {
	born     string
	target   *stored.Ref
	alias    bool
	misnamed bool
	suspect  bool           // it has to be read again
	labels   []driver.Label // that it was committed with
	keys     []string       // identities that another record may share
	terms    []ledger.Term  // that it is labelled with
}

// evidence counts the names or labels that fit the keys, and those that do not.
type evidence struct{ fits, misfits int }

// against reports whether none fits and some do not.
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

// steps returns the steps of the check, in order. If the keys do not fit, the only step
// tests the permissions, because all other findings would be due to the keys.
func (c *checker) steps(keysFit bool) (steps []func(context.Context) error) {
	inspector, inspects := c.ledger.Driver.(driver.Inspector)
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

// marker reports a store that is under other keys than the check was given. It returns
// whether the keys fit.
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

// emit yields findings.
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

// foreign reports that the keys look like those of another store. It turns repairs off,
// because programs with the right keys would not find the repaired records.
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

// examineSuspects reads again the entries that looked faulty, and reports and repairs
// their faults. Entries with names that do not fit come last: they may be duplicates,
// which are merged by then.
func (c *checker) examineSuspects(ctx context.Context, misnamed bool) error {
	var suspects []string
	for name, at := range c.seen {
		if at.misnamed == misnamed && (at.suspect || at.target != nil && c.suspectTarget(name, at)) {
			suspects = append(suspects, name)
		}
	}
	slices.Sort(suspects)
	for batch := range slices.Chunk(suspects, checkWorkers) {
		results := inParallel(batch, func(name string) (r examined) {
			r.name = name
			r.findings, r.err = c.examine(ctx, name)
			return r
		})
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

// suspectTarget reports whether an entry that leads to another has to be examined. A
// redirect to a listed record need not be, unless searches find the record by the
// redirect's name too.
func (c *checker) suspectTarget(name string, at sighting) bool {
	to, listed := c.seen[at.target.Name]
	if !at.alias || !listed || to.born != at.target.Born || to.target != nil {
		return true
	}
	t, ok := ledger.Name(name).Term()
	return ok && slices.Contains(to.terms, t)
}

// checkWorkers is how many records are repaired or rewritten at once.
const checkWorkers = 16

// inParallel returns f of each item.
func inParallel[T, R any](items []T, f func(T) R) []R {
	results := make([]R, len(items))
	var wait sync.WaitGroup
	for i, item := range items {
		wait.Go(func() { results[i] = f(item) })
	}
	wait.Wait()
	return results
}
