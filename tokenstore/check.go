package tokenstore

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/ledger"
)

// A Checker is a store that can be checked and mended.
type Checker interface {
	// Check yields what is wrong with the store, in no particular order, and
	// mends what opts asks for. opts may be nil: then it only looks.
	//
	// An error ends the iteration: the store cannot be reached or listed, or ctx is
	// done. What was yielded before it stands. A record that cannot be read is no
	// error but a finding of KindUnreadable, with the reason in Detail and Err. That
	// a fault could not be repaired is not an error either; Finding.Err has it.
	Check(ctx context.Context, opts *CheckOptions) iter.Seq2[Finding, error]
}

// CheckOptions says what Check is to do besides looking.
type CheckOptions struct {
	// Repair mends what can be mended while others read and write.
	Repair bool

	// MergeDuplicates merges records that are the same one: see KindDuplicate.
	// It goes with Repair.
	MergeDuplicates bool

	// Purge removes remains that do no harm but cost something. It is safe only
	// while nothing else writes to the store, and goes with Repair.
	Purge bool

	// Permissions tries each call that the store makes, with a secret of its own
	// that is no record. It writes, whatever Repair says.
	Permissions bool

	// Compare tries whether the server compares before it writes, which every
	// driver promises and some emulators do not do: it creates a secret that is no
	// record twice, and writes and deletes one state of it twice. It writes,
	// whatever Repair says. If the server does not compare nothing is repaired.
	// Stores in files and tables compare by themselves.
	Compare bool

	// Grace is how old a state has to be that every writer passes through before
	// it is taken for one that a writer left behind. 0 means a minute; what is
	// negative, none.
	Grace time.Duration

	// Progress, if it is not nil, is called now and then, by the goroutine that
	// iterates, with the number of secrets that were looked at.
	Progress func(done int)
}

// defaultGrace is longer than any writer takes from one swap to the next.
const defaultGrace = time.Minute

// complete returns a copy of o with defaults in place of zero values.
func (o *CheckOptions) complete() (CheckOptions, error) {
	var c CheckOptions
	if o != nil {
		c = *o
	}
	if (c.MergeDuplicates || c.Purge) && !c.Repair {
		return c, fmt.Errorf("%w: MergeDuplicates and Purge go with Repair", ErrInvalidToken)
	}
	if c.Grace == 0 {
		c.Grace = defaultGrace
	}
	return c, nil
}

// Wants reports whether o asks for the remedy.
func (o CheckOptions) Wants(r Remedy) bool {
	switch r {
	case RemedyRepair:
		return o.Repair
	case RemedyMerge:
		return o.MergeDuplicates
	case RemedyPurge:
		return o.Purge
	case RemedyRekey, RemedyManual:
	}
	return false
}

var _ Checker = (*Store)(nil)

// errStopped ends a check whose findings nobody wants any more.
var errStopped = errors.New("stopped")

// Check implements Checker. It reads all records, and once more those that look
// as if something were wrong: what it reports it has read as fresh as the backend
// allows. It keeps digests of all records in memory, and no token.
//
// Repairs are compare-and-swap like all writes, and are what a writer that comes
// by would do itself: a move to a user's record that was broken off is completed
// and never undone. They can be broken off at any point and done again. What
// cannot be read is never written over or deleted, and a record whose name does
// not fit is left alone, because the keys that Check was given may be the wrong
// ones.
//
// If the driver is a driver.Inspector the check includes what it keeps beside the
// secrets. For other drivers labels are compared only with what the records say.
func (s *Store) Check(ctx context.Context, opts *CheckOptions) iter.Seq2[Finding, error] {
	return func(yield func(Finding, error) bool) {
		c := checker{Store: s, yield: yield, seen: map[string]sighting{}, unread: map[string]error{}, beside: map[string][]driver.Label{}, abandoned: map[string][]driver.Label{}}
		err := s.begin(ctx)
		if err == nil {
			c.o, err = opts.complete()
		}
		if err == nil {
			err = c.run(ctx)
		}
		if err != nil && !errors.Is(err, errStopped) {
			yield(Finding{}, s.error("check", "", err))
		}
	}
}

// A checker is one Check.
type checker struct {
	*Store
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
	target   *codec.Ref
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
	steps := []func(context.Context) error{
		c.survey, c.foreign,
		func(ctx context.Context) error { return c.examineSuspects(ctx, false) },
		c.duplicates,
		func(ctx context.Context) error { return c.examineSuspects(ctx, true) },
	}
	if inspector, ok := c.ledger.Driver.(driver.Inspector); ok {
		steps = slices.Insert(steps, 0, func(ctx context.Context) error { return c.inspect(ctx, inspector) })
		steps = append(steps, func(ctx context.Context) error { return c.leftOver(ctx, inspector) })
		if c.o.Permissions {
			steps = slices.Insert(steps, 0, func(ctx context.Context) error { return c.permissions(ctx, inspector) })
		}
	}
	if c.o.Compare {
		steps = slices.Insert(steps, 0, c.compares)
	}
	fits, err := c.marker(ctx)
	if err != nil {
		return err
	}
	if !fits {
		steps = nil
		if inspector, ok := c.ledger.Driver.(driver.Inspector); ok && c.o.Permissions {
			steps = append(steps, func(ctx context.Context) error { return c.permissions(ctx, inspector) })
		}
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// marker reports that the store is under other keys than the check was given, and
// whether it may go on: all else that it found would be due to that.
func (c *checker) marker(ctx context.Context) (fits bool, err error) {
	err = c.ledger.CheckKeys(ctx)
	switch u := ledger.OnlyUnreadable(err); {
	case ctx.Err() != nil:
		return false, ctx.Err()
	case u != nil && errors.Is(err, ErrCorrupt):
		return true, c.cannotRead(u)
	case errors.Is(err, ErrWrongKeys):
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

// permissions reports what the driver is not allowed to do.
func (c *checker) permissions(ctx context.Context, inspector driver.Inspector) error {
	for p, err := range inspector.Probe(ctx) {
		if err != nil {
			return err
		}
		switch {
		case p.Err == nil:
			continue
		case errors.Is(p.Err, driver.ErrCredentials):
			return p.Err // of every call, and no permission is missing
		}
		f := Finding{
			Kind: KindPermission, Name: p.Call, Remedy: RemedyManual, Err: p.Err,
			Detail: "it is refused; it needs " + p.Needs,
		}
		if !errors.Is(p.Err, ErrDenied) {
			f.Detail = "whether it is allowed could not be found out; it needs " + p.Needs
		}
		if err := c.emit(f); err != nil {
			return err
		}
	}
	return nil
}

// inspect reports and mends what the driver alone can see, and notes the labels
// that really are there.
func (c *checker) inspect(ctx context.Context, inspector driver.Inspector) error {
	for i, err := range inspector.Inspect(ctx) {
		err = ledger.OfListed(ctx, i.Name, err)
		if u := ledger.OnlyUnreadable(err); u != nil {
			if err := c.cannotRead(u); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		if i.Name == ledger.ProbeName {
			continue // a remnant of a check, which the next one uses
		}
		c.beside[i.Name], c.abandoned[i.Name] = i.Labels, i.Abandoned
		for _, fault := range i.Faults {
			f := Finding{Kind: Kind(fault.Kind), Name: i.Name, Detail: fault.Detail, Remedy: remedyOf(fault), Action: fault.Action}
			if c.o.Wants(f.Remedy) {
				f.Err = fault.Mend(ctx)
				f.Repaired = f.Err == nil
				if ctx.Err() != nil {
					return ctx.Err()
				}
			}
			if err := c.emit(f); err != nil {
				return err
			}
			if fault.Kind == driver.FaultEmpty {
				c.unread[i.Name] = ErrCorrupt // it cannot be read, and the finding says why
			}
		}
	}
	return nil
}

func remedyOf(f driver.Fault) Remedy {
	switch {
	case f.Mend == nil:
		return RemedyManual
	case f.Exclusive:
		return RemedyPurge
	}
	return RemedyRepair
}

// survey reads everything once, and notes what has to be read again.
func (c *checker) survey(ctx context.Context) error {
	for e, err := range c.ledger.AllEntries(ctx) {
		switch u := ledger.OnlyUnreadable(err); {
		case u != nil:
			if err := c.cannotRead(u); err != nil {
				return err
			}
		case err != nil:
			return err
		default:
			c.note(e)
		}
		c.progress()
	}
	return nil
}

// cannotRead reports, once, that a secret cannot be read.
func (c *checker) cannotRead(u *UnreadableError) error {
	// What is found by its labels is not known: none of them is left over.
	delete(c.beside, u.Name)
	if c.unread[u.Name] != nil {
		return nil
	}
	c.unread[u.Name] = u
	return c.emit(Finding{Kind: KindUnreadable, Name: u.Name, Remedy: RemedyManual, Err: u, Detail: whyUnreadable(u)})
}

func whyUnreadable(err error) string {
	var u *UnreadableError
	if errors.As(err, &u) {
		err = u.Err
	}
	if errors.Is(err, ErrCorrupt) {
		return "it is there and is not a record that the codec and keys of this store can read"
	}
	return fmt.Sprintf("it is there and cannot be read: %v", err)
}

// passes reports whether err, of a read of the named secret, concerns this secret
// alone, so that the check goes on with the others.
func (c *checker) passes(ctx context.Context, name string, err error) bool {
	return err != nil && ctx.Err() == nil && (ledger.OfOne(err) || c.unread[name] != nil)
}

// goOn reports err, of a read of the named secret, if it concerns this secret
// alone, and returns it otherwise.
func (c *checker) goOn(ctx context.Context, name string, err error) error {
	if c.passes(ctx, name, err) {
		return c.cannotRead(ledger.Unreadable(ledger.Name(name), err))
	}
	return err
}

// note remembers what a listed entry has to do with others.
func (c *checker) note(e ledger.Entry) {
	at := sighting{born: e.Born, target: e.Target(), alias: e.Alias != nil, labels: e.Secret().Labels}
	if at.target == nil {
		at.keys = c.identities(e.Token, e.ID)
		at.terms = c.ledger.Namer().Terms(e.Record)
		switch {
		case e.Name == ledger.ProbeName: // it tells nothing of the keys
		case c.misnamed(e) == "":
			c.names.fits++
			l := c.ledger.CompareLabels(c.ledger.Namer(), e.Record)
			c.labels.fits += l.Fitting
			c.labels.misfits += len(l.Unknown) + len(l.Unkeyed)
		default:
			c.names.misfits++
			at.misnamed = true
		}
		at.suspect = len(c.local(e)) > 0 || len(e.Joining) > 0 || len(c.lacks(e)) > 0
	}
	c.seen[string(e.Name)] = at
}

// lacks returns the labels that e was committed with and Inspect has not found.
func (c *checker) lacks(e ledger.Entry) []driver.Label {
	beside, inspected := c.beside[string(e.Name)]
	if !inspected {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(e.Secret().Labels), func(l driver.Label) bool { return ledger.Carried(beside, l) })
}

// held reports whether a label that is beside a secret is one that its record has.
func held(labels []driver.Label, beside driver.Label) bool {
	return slices.ContainsFunc(labels, func(l driver.Label) bool { return ledger.IsBeside(beside, l) })
}

// foreign reports that the keys look like those of another store, and has nothing
// be mended then: what is written would be found by nobody who has the right ones.
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

// examineSuspects reads again what looked as if something were wrong, reports
// what is, and mends it. Names that do not fit come last: they may be those of
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

// checkWorkers is how many records are mended or written anew at once.
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

// leftOver reports labels that no record has, and removes them.
func (c *checker) leftOver(ctx context.Context, inspector driver.Inspector) error {
	for _, name := range slices.Sorted(maps.Keys(c.beside)) {
		extra, id, err := c.extra(ctx, inspector, name)
		if err := c.goOn(ctx, name, err); err != nil {
			return err
		}
		abandoned := slices.DeleteFunc(slices.Clone(extra), func(l driver.Label) bool { return !slices.Contains(c.abandoned[name], l) })
		recent := slices.DeleteFunc(extra, func(l driver.Label) bool { return slices.Contains(abandoned, l) })
		for _, f := range []struct {
			labels []driver.Label
			remedy Remedy
			of     string
		}{
			{abandoned, RemedyRepair, "of a writer that broke off"},
			{recent, RemedyPurge, "of a writer that broke off or is about to write"},
		} {
			if err := c.removeLabels(ctx, inspector, name, id, f.labels, f.remedy, f.of); err != nil {
				return err
			}
		}
	}
	return nil
}

// removeLabels reports labels beside the named secret that its record does not have,
// and removes them if the remedy is wanted.
func (c *checker) removeLabels(ctx context.Context, inspector driver.Inspector, name, id string, labels []driver.Label, remedy Remedy, of string) error {
	if len(labels) == 0 {
		return nil
	}
	f := Finding{
		Kind: KindLabelLeftOver, Name: name, ID: id, Remedy: remedy, Action: "remove them",
		Detail: fmt.Sprintf("%d labels (%s) that no write has committed, %s", len(labels), kindsOf(labels), of),
	}
	if c.o.Wants(f.Remedy) {
		f.Err = inspector.Unlabel(ctx, name, labels)
		f.Repaired = f.Err == nil
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return c.emit(f)
}

// extra returns the labels beside the named secret that its record does not have,
// and the record's ID.
func (c *checker) extra(ctx context.Context, inspector driver.Inspector, name string) ([]driver.Label, string, error) {
	extra := slices.DeleteFunc(slices.Clone(c.beside[name]), func(l driver.Label) bool {
		return held(c.seen[name].labels, l)
	})
	if len(extra) == 0 {
		return nil, "", nil
	}
	// Others may have written since, and so has this check.
	extra, err := inspector.Present(ctx, name, extra)
	if err != nil || len(extra) == 0 {
		return nil, "", err
	}
	e, err := c.ledger.Newest(ctx, ledger.Name(name), ledger.Entry{})
	switch {
	case errors.Is(err, ErrNotFound):
		return extra, "", nil
	case err != nil:
		return nil, "", err
	}
	return slices.DeleteFunc(extra, func(l driver.Label) bool { return held(e.Secret().Labels, l) }), e.Token.ID, nil
}

// kindsOf returns the keys of labels, each once.
func kindsOf(labels []driver.Label) string {
	keys := make([]string, 0, len(labels))
	for _, l := range labels {
		keys = append(keys, l.Key)
	}
	slices.Sort(keys)
	return strings.Join(slices.Compact(keys), ", ")
}
