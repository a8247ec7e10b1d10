package cli

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore/migrate"
)

// A migrateReport is the outcome of a migration. With --json, the command prints this struct.
type migrateReport struct {
	From   string `json:"from"`
	To     string `json:"to"`
	DryRun bool   `json:"dry_run"`
	*migrate.Report

	Problems []problem        `json:"problems"`
	Failed   []migrateFailure `json:"failed"`
	Steps    []migrateStep    `json:"steps"`
}

type problem struct {
	Kind  migrate.Kind `json:"kind"`
	ID    string       `json:"id,omitempty"` // the ID in the source
	User  string       `json:"user,omitempty"`
	Error string       `json:"error"`
}

type migrateFailure struct {
	ID    string `json:"id"` // the ID in the source
	User  string `json:"user,omitempty"`
	Error string `json:"error"`
	Class string `json:"class"`
}

type migrateStep struct {
	Name    migrate.Step `json:"name"`
	Records int          `json:"records"`
	Seconds float64      `json:"seconds"`
	Calls   *int64       `json:"calls"` // number of calls; null if the calls are not counted
}

func (w *watch) report() *migrateReport {
	r := &migrateReport{
		From: w.o.from, To: w.o.to, DryRun: w.o.dryRun, Report: w.m.Report(),
		Problems: []problem{}, Failed: []migrateFailure{},
	}
	for _, p := range r.Report.Problems {
		r.Problems = append(r.Problems, problem{p.Kind, p.ID, p.User, p.Err.Error()})
	}
	for _, f := range r.Report.Failed {
		r.Failed = append(r.Failed, migrateFailure{f.ID, f.User, f.Err.Error(), classOf(f.Err).name})
	}
	end := w.calls.Load()
	for _, s := range slices.Backward(r.Report.Steps) {
		step := migrateStep{Name: s.Step, Records: s.Records, Seconds: s.Time.Round(time.Millisecond).Seconds()}
		calls := end - w.began[s.Step]
		if on := w.store(s.Step); on != nil && on.counted {
			step.Calls = &calls
		}
		end = w.began[s.Step]
		r.Steps = append(r.Steps, step)
	}
	slices.Reverse(r.Steps)
	return r
}

// store returns the store that decides whether the report counts the calls of a step. For a step
// without calls, it returns nil.
func (w *watch) store(s migrate.Step) *store {
	switch s {
	case migrate.StepReadSource, migrate.StepDelete:
		return w.from
	case migrate.StepPlan:
		return nil
	default:
		return w.to
	}
}

// printMigration prints the report. The parameter blocked reports whether problems prevented the
// migration.
func (a *app) printMigration(r *migrateReport, blocked bool) error {
	if a.json {
		return a.printJSON(r)
	}
	a.printf("%s\n", r.summary())
	if len(r.Problems) > 0 {
		a.printf("\n%s", r.problemTable())
	}
	t := table{}
	t.row("STEP", "RECORDS", "TIME", "CALLS")
	for _, s := range r.Steps {
		calls := "-"
		if s.Calls != nil {
			calls = strconv.FormatInt(*s.Calls, 10)
		}
		t.row(string(s.Name), strconv.Itoa(s.Records), (time.Duration(s.Seconds*1000) * time.Millisecond).String(), calls)
	}
	a.printf("\n%s", t.String())
	switch {
	case r.DryRun:
		a.printf("\nnothing was written: this was a dry run\n")
	case blocked:
		a.printf("\nnothing was written\n")
	default:
		a.printf("\n%d of %d records verified%s\n", r.Verified, r.Records-r.Merged, r.changedIDs())
		if r.Deleted > 0 {
			a.printf("%s\n", copiesStay)
		}
	}
	return nil
}

// summary returns a text that says how many records the plan creates, updates, merges or leaves
// unchanged.
func (r *migrateReport) summary() string {
	text := fmt.Sprintf("%d records: %d new", r.Records, r.Create)
	for _, part := range []struct {
		n    int
		what string
	}{
		{r.Unchanged, "there already"}, {r.Update, "to be updated"}, {r.Kept, "left as the target has them"},
		{r.Merged, "merged into others"}, {len(r.Problems), "with problems"},
	} {
		if part.n > 0 {
			text += fmt.Sprintf(", %d %s", part.n, part.what)
		}
	}
	return text
}

// problemTable returns a table of at most 50 problems.
func (r *migrateReport) problemTable() string {
	const most = 50
	t := table{indent: "  "}
	t.row("PROBLEM", "ID", "USER", "")
	for i, p := range r.Problems {
		if i == most {
			t.row(fmt.Sprintf("and %d more: see --json", len(r.Problems)-most))
			break
		}
		t.row(string(p.Kind), orDash(p.ID), orDash(p.User), clean(p.Error))
	}
	return t.String()
}

// changedIDs returns a text that says how many records have a new ID, how many were removed from
// the source, and how many were left there.
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
