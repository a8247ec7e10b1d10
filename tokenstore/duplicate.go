package tokenstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/ledger"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rules"
)

// identities returns what two records must not have in common: digests of the
// user and client, of each token with its client, and of the ID that the caller
// chose.
func (c *checker) identities(f codec.Fields, own string) []string {
	var keys []string
	n := c.ledger.Namer()
	if f.UserName != "" {
		keys = append(keys, string(n.User(f.UserName, f.ClientID)))
	}
	for _, name := range n.Tokens(f) {
		keys = append(keys, string(name))
	}
	if own != "" {
		keys = append(keys, string(n.ID(own)))
	}
	return keys
}

// duplicates reports records that are the same as others, and merges them.
func (c *checker) duplicates(ctx context.Context) error {
	groups := map[string][]string{}
	for _, name := range slices.Sorted(maps.Keys(c.seen)) {
		for _, key := range c.seen[name].keys {
			groups[key] = append(groups[key], name)
		}
	}
	maps.DeleteFunc(groups, func(_ string, names []string) bool { return len(names) < 2 })
	told := map[string]bool{}
	// Users first: what is merged for one reason is not told of for another.
	keys := slices.SortedFunc(maps.Keys(groups), func(a, b string) int {
		return cmp.Or(cmp.Compare(identityRank(a), identityRank(b)), cmp.Compare(a, b))
	})
	for _, key := range keys {
		findings, err := c.group(ctx, key, groups[key])
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

func identityRank(key string) int { return strings.IndexByte("ugrai", key[0]) }

// group reports those of the named records that have the key in common, and merges
// them until no two that can be merged are left.
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
	if errors.Is(err, ErrConflict) && ctx.Err() == nil {
		merged(err)
		err = nil
	}
	return findings, err
}

// sharing returns those of the named records that have the key in common, the best
// of them first.
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

// best puts the record first that others become part of: a user's under the name
// that the user and client derive, else another user's, else one with a client,
// else the newest.
func (c *checker) best(records []ledger.Entry) {
	rank := func(rec ledger.Entry) int {
		t := rec.Token
		switch {
		case t.UserName != "" && rec.Name == c.ledger.Namer().User(t.UserName, t.ClientID):
			return 0
		case t.UserName != "":
			return 1
		case t.ClientID != "":
			return 2
		}
		return 3
	}
	slices.SortFunc(records, func(a, b ledger.Entry) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), b.WrittenAt().Compare(a.WrittenAt()), cmp.Compare(a.Name, b.Name))
	})
}

// compareRecords reports in which way the records are the same as the first of
// them, and returns those that can become part of it.
func (c *checker) compareRecords(key string, records []ledger.Entry) (findings []Finding, rest []ledger.Entry) {
	if len(records) < 2 {
		return nil, nil
	}
	into := records[0]
	for _, rec := range records[1:] {
		f := Finding{Name: string(rec.Name), ID: rec.Token.ID, Kind: KindDuplicate, Remedy: RemedyMerge, Action: "merge them"}
		other := fmt.Sprintf("it is the same as %q", into.Token.ID)
		if string(into.Name) != into.Token.ID || rec.Token.ID == into.Token.ID {
			other += fmt.Sprintf(" (secret %q)", into.Name)
		}
		f.Detail = other
		switch {
		case rules.SameRecord(into.Token, rec.Token) && c.mergeable(into):
			rest = append(rest, rec)
		case rules.SameRecord(into.Token, rec.Token):
			f.Remedy, f.Action = RemedyManual, ""
			f.Detail = other + ", and neither has the name that its user and client derive"
		case key[0] == 'i':
			f.Kind, f.Remedy, f.Action = KindDuplicateID, RemedyManual, ""
			f.Detail = fmt.Sprintf("the secret %q has the ID %s too", into.Name, strconv.Quote(into.Token.ID))
		default:
			f.Kind, f.Remedy, f.Action = KindTokenShared, RemedyManual, ""
			f.Detail = fmt.Sprintf("%q, of another user or client, holds the same token", into.Token.ID)
		}
		findings = append(findings, f)
	}
	return findings, rest
}

// mergeable reports whether others may become part of the record: it has the name
// that others look for.
func (c *checker) mergeable(into ledger.Entry) bool {
	return !c.names.against() && c.ledger.Namer().Fits(into)
}

// mergeRecords makes the records in rest part of into.
func (c *checker) mergeRecords(ctx context.Context, r *ledger.View, into ledger.Entry, rest []ledger.Entry) error {
	merged := into.Token
	for _, rec := range rest {
		if rec.Lease != nil || len(rec.Joining) > 0 {
			return fmt.Errorf("%w: %q is being refreshed, or a record is moving to it; check again", ErrUnavailable, rec.Name)
		}
		merged = rules.Absorb(merged, rec.Token)
	}
	_, err := c.ledger.Writer().Commit(ctx, r, into, merged, rest)
	return err
}
