package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// A migrateReport is what became of a migration. With --json it is printed as it
// is here.
type migrateReport struct {
	From      string           `json:"from"`
	To        string           `json:"to"`
	DryRun    bool             `json:"dry_run"`
	Records   int              `json:"records"`   // of the source
	Merged    int              `json:"merged"`    // of them, into others
	Create    int              `json:"create"`    // what the target did not have
	Update    int              `json:"update"`    // what it had in another state
	Unchanged int              `json:"unchanged"` // what it had as it should be
	Kept      int              `json:"kept"`      // what it had in another state, which was kept
	Problems  []problem        `json:"problems"`
	Written   int              `json:"written"`
	Verified  int              `json:"verified"`
	Deleted   int              `json:"deleted"` // from the source
	Failed    []migrateFailure `json:"failed"`
	IDs       []idChange       `json:"ids"` // those that changed
	Steps     []migrateStep    `json:"steps"`

	errs []error
}

type migrateFailure struct {
	ID    string `json:"id"` // in the source
	User  string `json:"user,omitempty"`
	Error string `json:"error"`
	Class string `json:"class"`
}

type idChange struct {
	From string `json:"from"`
	To   string `json:"to"`
}

type migrateStep struct {
	Name    string  `json:"name"`
	Records int     `json:"records"`
	Seconds float64 `json:"seconds"`
	Calls   *int64  `json:"calls"` // null: the store does not count them
}

func newMigrateReport(o migrateOptions) migrateReport {
	return migrateReport{
		From: o.from, To: o.to, DryRun: o.dryRun,
		Problems: []problem{}, Failed: []migrateFailure{}, IDs: []idChange{},
	}
}

// planned notes what the plan is.
func (r *migrateReport) planned(p *migrationPlan) {
	r.Problems = append(r.Problems, p.problems...)
	r.Records = len(p.problems)
	for _, it := range p.items {
		r.Records += len(it.from)
		r.Merged += len(it.from) - 1
		switch it.action {
		case actionCreate:
			r.Create++
		case actionUpdate:
			r.Update++
		case actionNone:
			r.Unchanged++
		case actionKeep:
			r.Kept++
		}
	}
}

// written notes and returns how many records were written.
func (r *migrateReport) written(p *migrationPlan) int {
	r.Written = 0
	for _, it := range p.items {
		if it.written {
			r.Written++
		}
	}
	return r.Written
}

// deleted notes and returns how many records of the source are gone.
func (r *migrateReport) deleted(p *migrationPlan) int {
	r.Deleted = 0
	for _, it := range p.items {
		if it.gone {
			r.Deleted += len(it.from)
		}
	}
	return r.Deleted
}

// finished notes what became of each record.
func (r *migrateReport) finished(p *migrationPlan) {
	r.Verified = verified(p.items)
	for _, it := range p.items {
		from := it.from[0]
		if it.err != nil && !errors.Is(it.err, context.Canceled) {
			r.errs = append(r.errs, fmt.Errorf("record %s: %w", strconv.Quote(from.ID), it.err))
			r.Failed = append(r.Failed, migrateFailure{from.ID, from.UserName, it.err.Error(), classOf(it.err).name})
		}
		for _, t := range it.from {
			if it.done && it.want.ID != t.ID {
				r.IDs = append(r.IDs, idChange{t.ID, it.want.ID})
			}
		}
	}
}

// brokenOff returns the error of a migration that did not come to its end.
func (r *migrateReport) brokenOff(err error) error {
	return fmt.Errorf("%w: %d of %d records are written and %d verified, and the same command goes on from there: %w",
		errPartial, r.Written, r.Create+r.Update, r.Verified, err)
}

// err returns the error of a migration that came to its end.
func (r *migrateReport) err() error {
	missing := r.Records - r.Merged - r.Verified
	switch {
	case missing > 0:
		return fmt.Errorf("%w: %d of %d records are verified; %w", errPartial, r.Verified, r.Records-r.Merged, r.why())
	case len(r.errs) > 0:
		return fmt.Errorf("%w: all records are verified, but not all are removed from the source; %w", errPartial, r.why())
	}
	return nil
}

func (r *migrateReport) why() error {
	errs := r.errs
	for _, p := range r.Problems {
		if p.Kind == problemUnreadable {
			errs = append(errs, errors.New(p.Error))
		}
	}
	if len(errs) == 0 {
		return errors.New("the others stand in the way")
	}
	return fmt.Errorf("the others:\n%w", problems(errs))
}

// print writes the report to standard output.
func (m *migration) print() error {
	r := &m.report
	if m.json {
		return m.printJSON(r)
	}
	m.printf("%s\n", r.summary())
	if len(r.Problems) > 0 {
		m.printf("\n%s", r.problemTable())
	}
	t := table{}
	t.row("STEP", "RECORDS", "TIME", "CALLS")
	for _, s := range r.Steps {
		calls := "-"
		if s.Calls != nil {
			calls = strconv.FormatInt(*s.Calls, 10)
		}
		t.row(s.Name, strconv.Itoa(s.Records), (time.Duration(s.Seconds*1000) * time.Millisecond).String(), calls)
	}
	m.printf("\n%s", t.String())
	switch {
	case r.DryRun:
		m.printf("\nnothing was written: this was a dry run\n")
	case m.plan.inTheWay() > 0 && !m.o.skipBad:
		m.printf("\nnothing was written\n")
	default:
		m.printf("\n%d of %d records verified%s\n", r.Verified, r.Records-r.Merged, r.changedIDs())
		if r.Deleted > 0 {
			m.printf("%s\n", copiesStay)
		}
	}
	return nil
}

// summary says what the plan was.
func (r *migrateReport) summary() string {
	text := fmt.Sprintf("%d records: %d new", r.Records, r.Create)
	for _, part := range []struct {
		n    int
		what string
	}{
		{r.Unchanged, "there already"}, {r.Update, "to be updated"}, {r.Kept, "left as the target has them"},
		{r.Merged, "merged into others"}, {len(r.Problems), "in the way"},
	} {
		if part.n > 0 {
			text += fmt.Sprintf(", %d %s", part.n, part.what)
		}
	}
	return text
}

// problemTable lists problems for people. --json has all of them.
func (r *migrateReport) problemTable() string {
	const most = 50
	t := table{indent: "  "}
	t.row("PROBLEM", "ID", "USER", "")
	for i, p := range r.Problems {
		if i == most {
			t.row(fmt.Sprintf("and %d more: see --json", len(r.Problems)-most))
			break
		}
		t.row(p.Kind, orDash(p.ID), orDash(p.User), clean(p.Error))
	}
	return t.String()
}

// changedIDs says how many records have another ID now.
func (r *migrateReport) changedIDs() string {
	text := ""
	if n := len(r.IDs); n > 0 {
		text = fmt.Sprintf(", %d under another ID", n)
	}
	if r.Deleted > 0 {
		text += fmt.Sprintf(", %d removed from %s and %d left there", r.Deleted, clean(r.From), r.Records-r.Deleted)
	}
	return text
}
