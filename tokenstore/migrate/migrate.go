package migrate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/bulk"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// A Policy determines what happens to a record that the target has in another state, or to
// duplicate records of the source.
type Policy string

// The policies. Options describes which policies each field accepts.
const (
	Stop   Policy = "stop"   // the report lists the record as a problem; the default
	Source Policy = "source" // the fields that the source has replace those of the target
	Target Policy = "target" // the record of the target is kept unchanged
	Newer  Policy = "newer"  // the fields of the record with the later expiry take precedence

	// Merge saves each record as SaveToken does, with the same result as saves in the order of
	// the source. Records of different users are saved concurrently. The target is neither
	// read for the plan nor compared at the end.
	//
	// As a policy for duplicates, Merge merges the duplicates into one record.
	Merge Policy = "merge"

	Keep Policy = "keep" // duplicates remain separate records
)

// Options configures a migration. A nil *Options counts as the zero value. With the zero value,
// the target chooses the IDs, Run does not change the source, and Run writes nothing if there
// is a problem other than KindUnreadable.
type Options struct {
	// OnConflict is the policy for a record that the target has in another state: Stop,
	// Source, Target, Newer or Merge.
	OnConflict Policy

	// Duplicates is the policy for records of the source that would be one record in the
	// target: Stop, Merge or Keep. Keep is for a target that accepts duplicates. With Keep,
	// Run also copies records without a token.
	Duplicates Policy

	// KeepIDs keeps each ID of the source that the target accepts.
	KeepIDs bool

	// SkipBad lets Run copy the other records if some records have problems.
	SkipBad bool

	// DeleteSource removes from the source the records that were verified in the target
	// and have not changed since Plan. The source must be a ConditionalDeleter, and both stores
	// must have the method SameAs. OnConflict must not be Merge, because Run then verifies
	// nothing.
	DeleteSource bool

	// Lag is the maximum time for which a read may miss a written record: the larger of the
	// target's ListLag and ReadLag. Unless the target has SaveAll, Run repeats a read until the
	// result equals the written record, or until Lag has passed.
	Lag time.Duration

	// Writable, if it is not nil, is called once before the first write and returns the
	// target to write to. Writable is for a target that was opened read-only for the plan.
	Writable func(context.Context) (tokenstore.TokenStore, error)

	// Label returns the name that errors contain for the i-th record of the source. If Label is
	// nil, errors contain the quoted ID.
	Label func(i int) string

	// Progress, if it is not nil, is called at the beginning of every step, and when records
	// of the step are done. The calls of Progress do not overlap.
	Progress func(Progress)
}

// A Step is a part of a migration.
type Step string

// The values of Progress.Step and StepReport.Step, in the order of the steps.
const (
	StepReadSource Step = "read source"
	StepReadTarget Step = "read target"
	StepPlan       Step = "plan"
	StepTellApart  Step = "tell apart" // prove that the stores are different
	StepWrite      Step = "write"
	StepVerify     Step = "verify"
	StepDelete     Step = "delete source"
)

// A Progress describes the progress of a step.
type Progress struct {
	Step Step
	Done int // number of records done
	All  int // number of records of the step; 0 if the number is not known yet
}

// A Reader is the source of a migration. If some records cannot be read, GetTokens returns
// the other records together with an error.
type Reader interface {
	GetTokens(ctx context.Context) ([]tokenstore.Token, error)
}

// A ConditionalDeleter is a store that can remove a record only if the record has not changed
// since the caller read it.
type ConditionalDeleter interface {
	// DeleteIfUnchanged removes the record with the ID of t if all fields of the record equal
	// those of t, with times compared to the millisecond. Otherwise, DeleteIfUnchanged changes
	// nothing, and the error matches tokenstore.ErrConflict. It returns nil if no record has
	// the ID. It does not remove a record that another process saves concurrently.
	DeleteIfUnchanged(ctx context.Context, t tokenstore.Token) error
}

// A saver is a store that saves many records with one call.
type saver interface {
	SaveAll(ctx context.Context, tokens []tokenstore.Token) ([]tokenstore.Token, error)
}

// A creator is a store that creates a record without looking for it first.
type creator interface {
	Create(ctx context.Context, t tokenstore.Token) (saved tokenstore.Token, created bool, err error)
}

// A finder is a store that finds many records with few calls.
type finder interface {
	FindTokens(ctx context.Context, like []tokenstore.Token) ([]tokenstore.Token, error)
}

// A deleter is a store that removes many records with one call. It keeps records that have
// changed.
type deleter interface {
	DeleteAll(ctx context.Context, tokens []tokenstore.Token) (int, error)
}

// A fitter is a store that can report which records it can hold.
type fitter interface {
	Fits(ctx context.Context, tokens []tokenstore.Token) ([]error, error)
}

// A comparer is a store that can report whether another store is the same store.
type comparer interface {
	SameAs(ctx context.Context, other tokenstore.TokenStore) (bool, error)
}

// A Migration is a plan and, after Run, the outcome of the plan. Package fmt does not print
// the tokens in a Migration.
type Migration struct{ m *migration }

// A migration is the state of a Migration. A Migration holds only a pointer to this state, so
// that package fmt does not print tokens.
type migration struct {
	from   Reader
	to     tokenstore.TokenStore
	o      Options
	items  []*item
	report Report
	mu     sync.Mutex // held while Progress is called

	// sharedIDs are the IDs that several records of the source have. A removal by such an ID
	// might remove the wrong record.
	sharedIDs map[string]bool
}

// Plan reads the source and the records of the target that may match. It then decides how to
// copy each record of the source. Plan writes nothing. It returns an error if an argument is
// invalid, or if a store cannot be read. Report.Unread joins the errors for the target's records
// that Plan could not read. Run does not change these records.
//
// If OnConflict is [Merge], Plan does not read the target. The target may then be nil if
// Options.Writable is set.
func Plan(ctx context.Context, from Reader, to tokenstore.TokenStore, opts *Options) (*Migration, error) {
	m := &migration{from: from, to: to, report: Report{IDs: []IDChange{}}}
	if opts != nil {
		m.o = *opts
	}
	m.o.OnConflict, m.o.Duplicates = cmp.Or(m.o.OnConflict, Stop), cmp.Or(m.o.Duplicates, Stop)
	if err := m.check(); err != nil {
		return nil, err
	}
	if m.o.DeleteSource && m.o.OnConflict == Merge {
		return nil, errors.New("migrate: DeleteSource needs a target that is compared, and Merge compares none")
	}
	var source, target []tokenstore.Token
	var unreadable error
	err := m.step(ctx, StepReadSource, func(ctx context.Context) (_ int, err error) {
		source, unreadable, err = bulk.Readable(from.GetTokens(ctx))
		return len(source), err
	})
	if err != nil {
		return nil, fmt.Errorf("source: %w", err)
	}
	if m.o.OnConflict != Merge {
		err = m.step(ctx, StepReadTarget, func(ctx context.Context) (_ int, err error) {
			target, m.report.Unread, err = bulk.Readable(m.readTarget(ctx, source))
			return len(target), err
		})
		if err != nil {
			return nil, fmt.Errorf("target: %w", err)
		}
	}
	err = m.step(ctx, StepPlan, func(ctx context.Context) (int, error) {
		return len(source), m.plan(ctx, source, unreadable, target)
	})
	if err != nil {
		return nil, err
	}
	m.planned(false)
	return &Migration{m}, nil
}

// readTarget returns the records of the target that may match records of the source. If the
// target is not a finder, readTarget returns all records of the target.
func (m *migration) readTarget(ctx context.Context, source []tokenstore.Token) ([]tokenstore.Token, error) {
	f, ok := m.to.(finder)
	if !ok {
		return m.to.GetTokens(ctx)
	}
	var like []tokenstore.Token
	for _, t := range source {
		like = append(like, withoutID(t))
		if m.o.KeepIDs {
			like = append(like, tokenstore.Token{ID: t.ID})
		}
	}
	return f.FindTokens(ctx, like)
}

// check returns an error if an argument of Plan is invalid.
func (m *migration) check() error {
	switch {
	case !slices.Contains([]Policy{Stop, Source, Target, Newer, Merge}, m.o.OnConflict):
		return fmt.Errorf("migrate: OnConflict cannot be %q", m.o.OnConflict)
	case !slices.Contains([]Policy{Stop, Merge, Keep}, m.o.Duplicates):
		return fmt.Errorf("migrate: Duplicates cannot be %q", m.o.Duplicates)
	case m.to == nil && (m.o.OnConflict != Merge || m.o.Writable == nil):
		return errors.New("migrate: there is no target")
	}
	return nil
}

// Report returns the plan and, once Run has returned, the outcome of the plan. Run changes the
// Report.
func (m *Migration) Report() *Report { return &m.m.report }

// Ready returns an error that matches ErrConflicts if SkipBad is not set and a record has a
// problem other than KindUnreadable. Run would then write nothing. Otherwise, Ready returns nil.
func (m *Migration) Ready() error { return m.m.ready() }

func (m *migration) ready() error {
	n := 0
	for _, p := range m.report.Problems {
		if p.Kind != KindUnreadable {
			n++
		}
	}
	if n == 0 || m.o.SkipBad {
		return nil
	}
	return fmt.Errorf("%w: %d of %d records have problems: nothing was written", ErrConflicts, n, m.report.Records)
}

// Run executes the plan. If Ready returns an error, Run writes nothing and returns that error.
// The error matches ErrPartial if a record of the source is not verified in the target, or was
// not removed from the source as requested. With Options.DeleteSource, Run writes nothing
// unless SameAs proves that source and target are different stores. If source and target are
// the same store, the error matches ErrSameStore.
func (m *Migration) Run(ctx context.Context) (*Report, error) {
	return m.Report(), m.m.run(ctx)
}

func (m *migration) run(ctx context.Context) error {
	if err := m.ready(); err != nil {
		return err
	}
	if m.o.Writable != nil {
		to, err := m.o.Writable(ctx)
		if err != nil {
			return fmt.Errorf("target: %w", err)
		}
		m.to = to
	}
	if m.o.DeleteSource && len(m.items) > 0 {
		if err := m.step(ctx, StepTellApart, m.tellApart); err != nil {
			return fmt.Errorf("nothing was written: %w", err)
		}
	}
	err := m.step(ctx, StepWrite, m.write)
	if err == nil && m.o.OnConflict != Merge {
		err = m.step(ctx, StepVerify, m.verify)
	}
	if err == nil && m.o.DeleteSource {
		err = m.step(ctx, StepDelete, m.deleteSource)
	}
	m.finish()
	if err == nil {
		err = m.report.err()
	} else {
		err = m.report.abandoned(err)
	}
	if m.o.OnConflict == Merge {
		m.planned(true)
	}
	return err
}

// tellApart returns an error unless the source is a ConditionalDeleter and SameAs proves that
// source and target are different stores. If source and target were one store, a removal from the
// source would also remove the record from the target.
func (m *migration) tellApart(ctx context.Context) (int, error) {
	_, removes := m.from.(ConditionalDeleter)
	_, knowsItself := m.from.(comparer)
	from, isStore := m.from.(tokenstore.TokenStore)
	to, ok := m.to.(comparer)
	switch {
	case !removes:
		return 0, errors.New("the source cannot remove a record on the condition that it has not changed")
	case !knowsItself || !isStore || !ok:
		return 0, errors.New("one of the two stores cannot tell whether it is the other one")
	}
	same, err := to.SameAs(ctx, from)
	if err == nil && same {
		err = ErrSameStore
	}
	return 0, err
}

// step calls the function do for one step, and adds a StepReport to the report.
func (m *migration) step(ctx context.Context, step Step, do func(context.Context) (records int, err error)) error {
	m.track(step, 0)
	began := time.Now()
	records, err := do(ctx)
	m.report.Steps = append(m.report.Steps, StepReport{step, records, time.Since(began)})
	return err
}

// track reports the beginning of a step to Progress. The parameter all is the number of records of
// the step, or 0 if the number is unknown. The function add reports n further completed records.
func (m *migration) track(step Step, all int) (add func(n int)) {
	done := 0
	add = func(n int) {
		if m.o.Progress == nil {
			return
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		done += n
		m.o.Progress(Progress{step, done, all})
	}
	add(0)
	return add
}
