package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/ledger"
)

// examine diagnoses and repairs the named entry. After each repair, examine rereads the entry and
// the entries to which it refers. If a repair fails, examine makes no further repair of the same
// kind. examine returns the findings with the outcome of the repairs.
func (c *checker) examine(ctx context.Context, name string) ([]Finding, error) {
	x := examination{checker: c, name: name, failed: map[Kind]error{}}
	err := c.ledger.Retry(ctx, "check", func(*ledger.View) error { return x.attempt(ctx) })
	if errors.Is(err, driver.ErrConflict) && ctx.Err() == nil {
		// Other writers came first in every attempt.
		for i := range x.findings {
			if f := &x.findings[i]; f.Err == nil && !f.Repaired && c.o.Wants(f.Remedy) {
				f.Err = err
			}
		}
		err = nil
	}
	return x.findings, err
}

// An examination diagnoses and repairs one entry.
type examination struct {
	*checker
	name     string
	findings []Finding // at most one of each kind
	failed   map[Kind]error
	repaired int
}

// attempt diagnoses and repairs the entry. The error is Retryable if another writer came
// first.
func (x *examination) attempt(ctx context.Context) error {
	for {
		problems, id, err := x.look(ctx)
		if err != nil {
			if x.repaired == 0 && x.passes(ctx, x.name, err) {
				x.findings = nil // the faults of the earlier state may be gone
			}
			return err
		}
		x.record(problems, id)
		next := slices.IndexFunc(problems, func(p problem) bool {
			return p.repair != nil && x.o.Wants(p.remedy) && x.failed[p.kind] == nil
		})
		if next < 0 {
			return nil
		}
		if x.repaired >= ledger.MostRepairs {
			return fmt.Errorf("%w: it was repaired %d times", driver.ErrConflict, x.repaired)
		}
		p := problems[next]
		err = p.repair(ctx)
		switch {
		case ledger.Retryable(err):
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			x.failed[p.kind] = err
		default:
			x.repaired++
			x.findings[slices.IndexFunc(x.findings, func(f Finding) bool { return f.Kind == p.kind })].Repaired = true
		}
	}
}

// look returns the current problems of the entry, and the ID of the record in the entry.
func (x *examination) look(ctx context.Context) (problems []problem, id string, err error) {
	r := x.ledger.View(true)
	e, err := r.Read(ctx, ledger.Name(x.name))
	switch {
	case errors.Is(err, driver.ErrNotFound):
		return nil, "", nil
	case err != nil:
		return nil, "", err
	}
	problems, err = x.diagnose(ctx, r, e)
	return problems, e.Token.ID, err
}

// record updates the findings with the current problems of the entry.
func (x *examination) record(problems []problem, id string) {
	still := map[Kind]bool{}
	for _, p := range problems {
		still[p.kind] = true
		i := slices.IndexFunc(x.findings, func(f Finding) bool { return f.Kind == p.kind })
		if i < 0 {
			i = len(x.findings)
			x.findings = append(x.findings, Finding{Kind: p.kind, Name: x.name, ID: id, Detail: p.detail})
		}
		f := &x.findings[i]
		f.Remedy, f.Action, f.Err, f.Repaired = p.remedy, p.action, cmp.Or(x.failed[p.kind], p.err), false
	}
	if x.repaired == 0 {
		// A fault that disappeared without a repair was an intermediate state of another
		// process.
		x.findings = slices.DeleteFunc(x.findings, func(f Finding) bool { return !still[f.Kind] })
	}
	for i := range x.findings {
		if f := &x.findings[i]; !still[f.Kind] {
			f.Repaired, f.Err = true, nil
		}
	}
}
