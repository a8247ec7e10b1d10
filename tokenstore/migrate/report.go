package migrate

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// Classes of the errors that Ready and Run return, for errors.Is.
var (
	ErrConflicts = errors.New("conflicting records")                  // records have problems; nothing was written, unless ErrPartial matches too
	ErrPartial   = errors.New("only part of the work is done")        // some records were not verified, or not removed from the source
	ErrSameStore = errors.New("source and target are the same store") // nothing was written
)

// A Report describes a plan and its outcome.
type Report struct {
	Records   int `json:"records"`   // records of the source
	Merged    int `json:"merged"`    // records of the source that are merged into others
	Create    int `json:"create"`    // records that the target does not have
	Update    int `json:"update"`    // records that the target has in another state
	Unchanged int `json:"unchanged"` // records that the target already has
	Kept      int `json:"kept"`      // records that the target has in another state, which Run keeps
	Written   int `json:"written"`
	Verified  int `json:"verified"` // with Merge: records that were saved, even without a change
	Deleted   int `json:"deleted"`  // records removed from the source

	IDs      []IDChange   `json:"ids"`
	Problems []Problem    `json:"-"`
	Failed   []Failure    `json:"-"`
	Steps    []StepReport `json:"-"`

	// Unread joins the errors for the target's records that cannot be read, or is nil. Run does
	// not change these records.
	Unread error `json:"-"`
}

// A Problem is the reason why a record of the source cannot be copied.
type Problem struct {
	Kind     Kind
	Record   int // index of the record in the result of GetTokens; -1 if the record cannot be read
	ID, User string
	Err      error
}

// A Failure is a record that was not saved, not verified, or not removed from the source.
type Failure struct {
	Record   int // index of the record in the result of GetTokens
	ID, User string
	Err      error
}

// An IDChange holds the different IDs of a record in the source and in the target.
type IDChange struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// A StepReport describes a step that has ended: the number of records that the step processed,
// and its duration.
type StepReport struct {
	Step    Step
	Records int
	Time    time.Duration
}

// A Kind classifies a Problem.
type Kind string

// The values of Problem.Kind.
const (
	KindDuplicate  Kind = "duplicate"  // the source has several records that would be the same in the target
	KindConflict   Kind = "conflict"   // the record conflicts with a record of the target
	KindUnusable   Kind = "unusable"   // the record is invalid, or the target cannot hold it
	KindUnreadable Kind = "unreadable" // the source cannot read the record; Run copies the other records
)

// A problem is an error with the Kind of a Problem. It matches ErrConflicts.
type problem struct {
	kind Kind
	error
}

func (p problem) Is(target error) bool { return target == ErrConflicts }
func (p problem) Unwrap() error        { return p.error }

func problemf(kind Kind, format string, args ...any) error {
	return problem{kind, fmt.Errorf(format, args...)}
}

// standsInTheWay reports whether err is not nil. If so, it adds err to the report as a problem
// of r.
func (m *migration) standsInTheWay(r record, err error) bool {
	if err == nil {
		return false
	}
	p := Problem{Kind: KindUnusable, Record: r.index, ID: r.ID, User: r.UserName, Err: err}
	if of := (problem{}); errors.As(err, &of) {
		p.Kind, p.Err = of.kind, of.error
	}
	m.report.Problems = append(m.report.Problems, p)
	return true
}

// planned sets the numbers of planned records and actions in the report. If saved is set, it counts
// only the actions of items that are done.
func (m *migration) planned(saved bool) {
	r := &m.report
	r.Records, r.Merged = len(r.Problems), 0
	var actions [keep + 1]int
	for _, it := range m.items {
		r.Records += len(it.from)
		r.Merged += len(it.from) - 1
		if it.done || !saved {
			actions[it.action]++
		}
	}
	r.Create, r.Update, r.Unchanged, r.Kept = actions[create], actions[update], actions[none], actions[keep]
}

// count sets the numbers of written, verified and deleted records in the report.
func (m *migration) count() {
	r := &m.report
	r.Written, r.Verified, r.Deleted = 0, 0, 0
	for _, it := range m.items {
		if it.written {
			r.Written++
		}
		if it.done {
			r.Verified++
		}
		if it.gone {
			r.Deleted += len(it.from)
		}
	}
}

// finish reports the records that failed, and the records that have another ID in the target.
func (m *migration) finish() {
	r := &m.report
	for _, it := range m.items {
		from := it.from[0]
		if it.err != nil && !errors.Is(it.err, context.Canceled) {
			r.Failed = append(r.Failed, Failure{from.index, from.ID, from.UserName, it.err})
		}
		for _, t := range it.from {
			if it.done && it.want.ID != t.ID {
				r.IDs = append(r.IDs, IDChange{t.ID, it.want.ID})
			}
		}
	}
}

// abandoned returns the error for a migration that ended early because of err.
func (r *Report) abandoned(err error) error {
	return fmt.Errorf("%w: %d of %d records are written and %d verified, and the same migration goes on from there: %w",
		ErrPartial, r.Written, r.Create+r.Update, r.Verified, err)
}

// err returns the error for a migration whose steps all ran. It returns nil if every record is
// verified and, if requested, removed.
func (r *Report) err() error {
	missing := r.Records - r.Merged - r.Verified
	switch {
	case missing > 0:
		return fmt.Errorf("%w: %d of %d records are verified; %w", ErrPartial, r.Verified, r.Records-r.Merged, r.why())
	case len(r.Failed) > 0:
		return fmt.Errorf("%w: all records are verified, but not all are removed from the source; %w", ErrPartial, r.why())
	}
	return nil
}

// why joins the errors of the records that failed or could not be read, at most 20 of them.
func (r *Report) why() error {
	const most = 20
	var errs []error
	for _, f := range r.Failed {
		errs = append(errs, fmt.Errorf("record %s: %w", strconv.Quote(f.ID), f.Err))
	}
	for _, p := range r.Problems {
		if p.Kind == KindUnreadable {
			errs = append(errs, p.Err)
		}
	}
	if len(errs) == 0 {
		return errors.New("the others have problems")
	}
	if more := len(errs) - most; more > 0 {
		errs = append(errs[:most:most], fmt.Errorf("and %d more", more))
	}
	return fmt.Errorf("the others:\n%w", errors.Join(errs...))
}

// same reports whether all fields of a and b are equal. It compares times to the millisecond.
func same(a, b tokenstore.Token) bool { return a.Fields() == b.Fields() }
