package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/duplicates"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/ledger"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rules"
)

// identities returns digests of the values that only one record should have: the user with
// the client, each token of f, and the ID that a caller chose. The parameter own is that ID, or
// empty.
func (c *checker) identities(f codec.Fields, own string) []string {
	var keys []string
	n := c.ledger.Namer()
	if f.UserName != "" {
		keys = append(keys, string(n.User(f.UserName, rules.ClientOf(f))))
	}
	for _, name := range n.Tokens(f) {
		keys = append(keys, string(name))
	}
	if own != "" {
		keys = append(keys, string(n.ID(own)))
	}
	return keys
}

// duplicates reports duplicate records, and merges them if MergeDuplicates is set.
func (c *checker) duplicates(ctx context.Context) error {
	names := slices.Sorted(maps.Keys(c.seen))
	identities := make([][]string, len(names))
	for i, name := range names {
		identities[i] = c.seen[name].keys
	}
	told := map[string]bool{}
	byIdentity := func(a, b duplicates.Group) int { return cmp.Compare(a.Identity, b.Identity) }
	for _, g := range duplicates.Groups(identities, byIdentity) {
		members := make([]string, len(g.Members))
		for i, n := range g.Members {
			members[i] = names[n]
		}
		findings, err := c.group(ctx, g.Identity, members)
		if err != nil {
			return err
		}
		for _, f := range findings {
			pair := f.Name + " " + f.Detail
			if told[pair] {
				continue
			}
			told[pair] = true
			if err := c.emit(f); err != nil {
				return err
			}
		}
	}
	return nil
}

// group reports the named records that share one identity, whose digest is key. If
// MergeDuplicates is set, it merges these records until none of them can be merged into another.
func (c *checker) group(ctx context.Context, key string, names []string) ([]Finding, error) {
	var findings []Finding
	merged := func(err error) {
		for i := range findings {
			if f := &findings[i]; f.Remedy == RemedyMerge {
				f.Err, f.Repaired = err, err == nil
			}
		}
	}
	begun := false
	err := c.ledger.Retry(ctx, "check", func(*ledger.View) error {
		r := c.ledger.View(true)
		records, err := c.sharing(ctx, r, key, names)
		if err != nil {
			return err
		}
		found, rest := c.compareRecords(key, records)
		if !begun {
			findings = found
		}
		if !c.o.Wants(RemedyMerge) {
			return nil
		}
		if len(rest) == 0 {
			if begun {
				merged(nil)
			}
			return nil
		}
		begun = true
		err = c.mergeRecords(ctx, r, records[0], rest)
		switch {
		case err == nil:
			return ledger.Again(errors.New("merged, and to be read back"))
		case ledger.Retryable(err), ctx.Err() != nil:
			return err
		}
		merged(err)
		return nil
	})
	if errors.Is(err, driver.ErrConflict) && ctx.Err() == nil {
		merged(err)
		err = nil
	}
	return findings, err
}

// sharing reads the named records, and returns those whose identities include key, the best
// record first.
func (c *checker) sharing(ctx context.Context, r *ledger.View, key string, names []string) ([]ledger.Entry, error) {
	for _, name := range names {
		if err := r.Seek(ctx, ledger.Name(name), false); err != nil {
			return nil, err
		}
	}
	records, err := r.Records(ctx)
	if err != nil {
		return nil, err
	}
	records = slices.DeleteFunc(records, func(rec ledger.Entry) bool {
		return !slices.Contains(c.identities(rec.Token, rec.ChosenID()), key)
	})
	c.best(records)
	return records, nil
}

// best sorts records so that the first is the record to keep. A user's record whose
// name derives from its user and client comes first. Other records of users follow, then
// records with a client, then all others. Among records of equal rank, the newest comes
// first.
func (c *checker) best(records []ledger.Entry) {
	misnamed := func(rec ledger.Entry) int {
		if rec.Name == c.ledger.Namer().User(rec.Token.UserName, rules.ClientOf(rec.Token)) {
			return 0
		}
		return 1
	}
	slices.SortFunc(records, func(a, b ledger.Entry) int {
		return cmp.Or(cmp.Compare(duplicates.Rank(a.Token), duplicates.Rank(b.Token)), cmp.Compare(misnamed(a), misnamed(b)),
			b.WrittenAt().Compare(a.WrittenAt()), cmp.Compare(a.Name, b.Name))
	})
}

// compareRecords compares each of records[1:] with records[0], and returns a finding for each.
// rest holds the records that can be merged into records[0].
func (c *checker) compareRecords(key string, records []ledger.Entry) (findings []Finding, rest []ledger.Entry) {
	if len(records) < 2 {
		return nil, nil
	}
	into := records[0]
	for _, rec := range records[1:] {
		f := Finding{Name: string(rec.Name), ID: rec.Token.ID, Remedy: RemedyManual}
		switch duplicates.Compare(into.Token, rec.Token, ledger.Name(key).Kind() == ledger.OfID) {
		case duplicates.Same:
			f.Kind, f.Detail = KindDuplicate, fmt.Sprintf("it is the same as %q", into.Token.ID)
			if string(into.Name) != into.Token.ID || rec.Token.ID == into.Token.ID {
				f.Detail += fmt.Sprintf(" (secret %q)", into.Name)
			}
			if !c.mergeable(into) {
				f.Detail += ", and neither has the name that its user and client derive"
				break
			}
			f.Remedy, f.Action = RemedyMerge, "merge them"
			rest = append(rest, rec)
		case duplicates.SameID:
			f.Kind = KindDuplicateID
			f.Detail = fmt.Sprintf("the secret %q has the ID %q too", into.Name, into.Token.ID)
		case duplicates.TokenShared:
			f.Kind = KindTokenShared
			f.Detail = fmt.Sprintf("%q, of another user or client, holds the same token", into.Token.ID)
		}
		findings = append(findings, f)
	}
	return findings, rest
}

// mergeable reports whether other records may be merged into the given record. It returns false if
// the name of the record does not fit the keys, or if the check found only names that do not fit.
func (c *checker) mergeable(into ledger.Entry) bool {
	return !c.names.against() && c.ledger.Namer().Fits(into)
}

// mergeRecords merges the records in rest into another record, the parameter into. The error
// matches driver.ErrUnavailable if a record in rest holds a lease, or if an entry is moving to a
// record in rest. The error is Retryable if another writer came first.
func (c *checker) mergeRecords(ctx context.Context, r *ledger.View, into ledger.Entry, rest []ledger.Entry) error {
	merged := into.Token
	for _, rec := range rest {
		if rec.Lease != nil || len(rec.Joining) > 0 {
			return fmt.Errorf("%w: %q is being refreshed, or a record is moving to it; check again", driver.ErrUnavailable, rec.Name)
		}
		merged = rules.Absorb(merged, rec.Token)
	}
	_, err := c.ledger.Writer().Commit(ctx, r, into, merged, rest)
	return err
}
