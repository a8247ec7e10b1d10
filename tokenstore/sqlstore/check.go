package sqlstore

import (
	"context"
	"fmt"
	"iter"
	"slices"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rowset"
)

var _ tokenstore.Checker = (*Store)(nil)

// Check implements tokenstore.Checker. It reports rows that cannot be read, IDs
// that the SDKs cannot, columns with little room, and records that are the same. MergeDuplicates makes one
// record of those, in one transaction. The ID that is given up is forgotten,
// because the SDKs' table has no room for it. Purge is Scrub, if the database has room
// that may hold what was removed. Permissions and Grace have no meaning here: New has
// looked at the table already.
func (s *Store) Check(ctx context.Context, opts *tokenstore.CheckOptions) iter.Seq2[tokenstore.Finding, error] {
	return func(yield func(tokenstore.Finding, error) bool) {
		var o tokenstore.CheckOptions
		if opts != nil {
			o = *opts
		}
		problems, n, err := s.problems(ctx, o)
		if err != nil {
			yield(tokenstore.Finding{}, wrap("check", "", err))
			return
		}
		if o.Progress != nil {
			o.Progress(n)
		}
		for _, p := range problems {
			if !yield(p.Finding, nil) {
				return
			}
		}
		if f, is := s.table.narrow(); is && !yield(f, nil) {
			return
		}
		if f, err := s.remnants(ctx, o); err != nil {
			yield(tokenstore.Finding{}, wrap("check", "", err))
		} else if f.Kind != "" {
			yield(f, nil)
		}
	}
}

// remnants returns the finding that something may be left of what was removed, with
// what has become of it, or the zero Finding.
func (s *Store) remnants(ctx context.Context, o tokenstore.CheckOptions) (tokenstore.Finding, error) {
	what, err := s.dialect.remnants(ctx, s)
	if err != nil || what == "" {
		return tokenstore.Finding{}, err
	}
	f := tokenstore.Finding{Kind: tokenstore.KindDue, Detail: what, Remedy: tokenstore.RemedyPurge, Action: "write the database again"}
	if o.Purge {
		f.Err = s.Scrub(ctx)
		f.Repaired = f.Err == nil
	}
	return f, nil
}

// problems returns what is wrong, with what has become of it, and the number of
// rows.
func (s *Store) problems(ctx context.Context, o tokenstore.CheckOptions) ([]rowset.Problem, int, error) {
	if err := ctx.Err(); err != nil {
		return nil, 0, err
	}
	if (o.MergeDuplicates || o.Purge) && !o.Repair {
		return nil, 0, fmt.Errorf("%w: MergeDuplicates and Purge go with Repair", tokenstore.ErrInvalidToken)
	}
	v, err := s.read(ctx, s.db, all)
	if err != nil {
		return nil, 0, err
	}
	problems := v.problems(s.anyID)
	if o.MergeDuplicates && slices.ContainsFunc(problems, mergeable) {
		err := s.update(ctx, nil, func(ctx context.Context, x *tx) (changed bool, err error) {
			v, err := x.read(ctx, all)
			if err != nil {
				return false, err
			}
			problems = v.problems(s.anyID)
			return x.merge(ctx, v, problems)
		})
		if ctx.Err() != nil {
			return nil, 0, ctx.Err()
		}
		for i := range problems {
			if mergeable(problems[i]) {
				problems[i].Err, problems[i].Repaired = err, err == nil
			}
		}
	}
	return problems, len(v.Records), nil
}

func (v *view) problems(anyID bool) []rowset.Problem {
	return v.Problems(func(i int) string { return fmt.Sprintf("row %q", v.rows[i].ID) }, anyID)
}

func mergeable(p rowset.Problem) bool { return p.Remedy == tokenstore.RemedyMerge }

// merge makes one record of those that are the same.
func (x *tx) merge(ctx context.Context, v *view, problems []rowset.Problem) (changed bool, err error) {
	merged := map[int]tokenstore.Token{}
	var gone []string
	for _, p := range problems {
		if !mergeable(p) {
			continue
		}
		into, ok := merged[p.Into]
		if !ok {
			into = v.Records[p.Into].Token
		}
		merged[p.Into] = tokenstore.Absorb(into, v.Records[p.Other].Token)
		gone = append(gone, v.rows[p.Other].ID)
	}
	if len(gone) == 0 {
		return false, nil
	}
	// The others go first: a table may forbid that two rows have one user.
	if err := x.remove(ctx, gone...); err != nil {
		return false, err
	}
	for i, t := range merged {
		if err := x.check(tokenstore.Plan{Record: i, Token: t}); err != nil {
			return false, err
		}
		if err := x.replace(ctx, v.rows[i], v.Records[i].Token, t); err != nil {
			return false, err
		}
	}
	return true, nil
}
