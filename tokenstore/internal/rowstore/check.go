package rowstore

import (
	"context"
	"errors"
	"iter"
	"maps"
	"slices"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/doctor"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rules"
)

// Findings is a sequence of findings. An error ends the sequence.
type Findings = iter.Seq2[doctor.Finding, error]

// An Inspection adds the checks of one kind of store to the check of the rows.
type Inspection struct {
	// Before and After return the findings of the checks that run before and after the check of the
	// rows. Each may be nil.
	Before, After func(doctor.CheckOptions) Findings

	// Corrupt returns the finding to report if reading the table fails with err, which matches
	// tokenstore.ErrCorrupt. If Corrupt is nil, err ends the check.
	Corrupt func(err error) doctor.Finding
}

// Check checks the rows as doctor.Checker specifies, and also runs the checks of the Inspection.
func (s *Store) Check(ctx context.Context, opts *doctor.CheckOptions, besides Inspection) Findings {
	return func(yield func(doctor.Finding, error) bool) {
		o, err := opts.Complete()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		if err != nil {
			yield(doctor.Finding{}, s.Wrap("check", "", err))
			return
		}
		rows := func(o doctor.CheckOptions) Findings { return s.checkRows(ctx, o, besides.Corrupt) }
		for _, part := range []func(doctor.CheckOptions) Findings{besides.Before, rows, besides.After} {
			if part == nil {
				continue
			}
			for f, err := range part(o) {
				if !yield(f, s.Wrap("check", "", err)) || err != nil {
					return
				}
			}
		}
	}
}

// checkRows yields the faults of the rows. If o.MergeDuplicates is set, it first merges
// duplicate records. corrupt is the Corrupt function of the Inspection.
func (s *Store) checkRows(ctx context.Context, o doctor.CheckOptions, corrupt func(error) doctor.Finding) Findings {
	return func(yield func(doctor.Finding, error) bool) {
		rows, err := s.table.Read(ctx, nil)
		if corrupt != nil && errors.Is(err, tokenstore.ErrCorrupt) {
			yield(corrupt(err), nil)
			return
		}
		var problems []problem
		if err == nil {
			problems = rows.problems(s.o.AnyID)
			if o.MergeDuplicates && slices.ContainsFunc(problems, problem.mergeable) {
				problems, err = s.merge(ctx, problems)
			}
		}
		if err != nil {
			yield(doctor.Finding{}, err)
			return
		}
		if o.Progress != nil {
			o.Progress(len(rows.records))
		}
		for _, p := range problems {
			if !yield(p.Finding, nil) {
				return
			}
		}
	}
}

// A problem is a fault of a record. If the fault is an identity that two records share, the field
// other is the index of the faulty record. The field into is the index of the record into which a
// merge puts the faulty record.
type problem struct {
	doctor.Finding
	into, other int
}

func (p problem) mergeable() bool { return p.Remedy == doctor.RemedyMerge }

func (r *Rows) problems(anyID bool) []problem {
	var problems []problem
	for i, c := range r.records {
		f := doctor.Finding{Name: r.Place(i), ID: c.ID, Remedy: doctor.RemedyManual}
		switch _, numeric := codec.IDNumber(c.ID); {
		case r.damage[i] != nil:
			f.Kind, f.Err, f.Detail = doctor.KindUnreadable, r.damage[i], "part of the row cannot be read"
		case !anyID && !numeric:
			f.Kind, f.Detail = doctor.KindIDNotNumeric, "the SDKs fail on a record whose ID is not a number of up to ten digits"
		default:
			continue
		}
		problems = append(problems, problem{Finding: f})
	}
	return append(problems, r.duplicates()...)
}

// merge merges duplicate records under the write lock. It searches for the problems again under
// that lock, and returns the problems with the outcome of the merge. The error is nil unless ctx is
// done.
func (s *Store) merge(ctx context.Context, problems []problem) ([]problem, error) {
	err := s.table.Update(ctx, nil, func(ctx context.Context, rows *Rows) (bool, error) {
		problems = rows.problems(s.o.AnyID)
		return rows.merge(ctx, problems)
	})
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	for i := range problems {
		if problems[i].mergeable() {
			problems[i].Err, problems[i].Repaired = err, err == nil
		}
	}
	return problems, nil
}

func (r *Rows) merge(ctx context.Context, problems []problem) (changed bool, err error) {
	merged := map[int]codec.Fields{}
	current := func(i int) codec.Fields {
		if f, ok := merged[i]; ok {
			return f
		}
		return r.records[i].Fields
	}
	var gone []int
	for _, p := range slices.DeleteFunc(slices.Clone(problems), func(p problem) bool { return !p.mergeable() }) {
		merged[p.into] = rules.Absorb(current(p.into), current(p.other))
		delete(merged, p.other) // an earlier merge may have changed the faulty record
		gone = append(gone, p.other)
	}
	if len(gone) == 0 {
		return false, nil
	}
	// Remove before Put, because a table may forbid two rows with the same user.
	if err := r.Remove(ctx, gone, false); err != nil {
		return false, err
	}
	for _, i := range slices.Sorted(maps.Keys(merged)) {
		if err := r.Put(ctx, i, merged[i]); err != nil {
			return false, err
		}
	}
	return true, nil
}
