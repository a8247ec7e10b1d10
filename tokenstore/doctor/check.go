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

// errStopped ends an iteration that the caller has left.
var errStopped = errors.New("stopped")

// Check checks the store whose entries l has: see the method Check of a
// tokenstore.Store. It reads all records, and once more those that look as if
// something were wrong: what it reports it has read as fresh as the backend allows.
// It keeps digests of all records in memory, and no token.
//
// Each repair performs the step that the next writer would, by compare-and-swap. An
// interrupted promotion is completed, never rolled back. Repairs can be interrupted
// at any point and done again. Check never writes over or deletes what it cannot
// read. It leaves a record alone whose name does not fit, because the keys that
// Check was given may be the wrong ones.
//
// If the driver is a driver.Inspector the check includes what it keeps beside the
// secrets. For other drivers labels are compared only with what the records say.
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

// A checker is one Check.
type checker struct {
	ledger *ledger.Ledger
	o      CheckOptions
	yield  func(Finding, error) bool
	looked int

	seen   map[string]sighting       // of every secret that was listed and read
	unread map[string]error          // why the others could not be
	beside map[string][]driver.Label // what Inspect found beside the secrets

	abandoned map[string][]driver.Label // of these, what no write under way has added

	// Whether the keys of the check are those that the store is used with.
	names, labels evidence
}

// A sighting is what is remembered of a secret.
type sighting struct {
	born     string
	target   *stored.Ref
	alias    bool
	misnamed bool
	suspect  bool           // has to be read again
	labels   []driver.Label // that it was committed with
	keys     []string       // by which it may turn out to be the same as another
	terms    []ledger.Term  // that it is labelled with
}

// evidence counts what fits the keys, and what does not.
type evidence struct{ fits, misfits int }

// against reports whether nothing fits and something does not.
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

// steps returns what the check does, in order. If the keys do not fit, that is to try
// the permissions: all else that it found would be due to the keys.
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

// marker reports that the store is under other keys than the check was given. It
// returns whether the keys fit.
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
	return true, nil // the steps to come report what they cannot read
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

// foreign reports that the keys look like those of another store. Nothing is repaired
// then: programs with the right keys would not find what is written.
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

// examineSuspects reads again what looked as if something were wrong, reports what
// is, and repairs it. Names that do not fit come last: they may be those of
// duplicates, which are gone by then.
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

// suspectTarget reports whether an entry that leads to another has to be looked
// at: unless it is an alias of a record that is not found in any other way by the
// alias's name.
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
