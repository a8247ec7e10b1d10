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
)

// identities returns what two records must not have in common: digests of the
// user and client, of each token with its client, and of the ID that the caller
// chose.
func (s *Store) identities(t Token, own string) []string {
	var keys []string
	if t.UserName != "" {
		keys = append(keys, s.userName(t.UserName, t.ClientID))
	}
	keys = append(keys, s.tokenNames(t)...)
	if own != "" {
		keys = append(keys, s.nameOfID(own))
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
	err := c.retry(ctx, "check", func(*reader) error {
		r := c.reader(true)
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
		var a again
		switch {
		case err == nil:
			return again{errors.New("merged, and to be read back")}
		case errors.As(err, &a), ctx.Err() != nil:
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
func (c *checker) sharing(ctx context.Context, r *reader, key string, names []string) ([]record, error) {
	for _, name := range names {
		if err := r.seek(ctx, name, r.read); err != nil {
			return nil, err
		}
	}
	records, err := r.records(ctx)
	if err != nil {
		return nil, err
	}
	records = slices.DeleteFunc(records, func(rec record) bool {
		return !slices.Contains(c.identities(rec.current, rec.own), key)
	})
	c.best(records)
	return records, nil
}

// best puts the record first that others become part of: a user's under the name
// that the user and client derive, else another user's, else one with a client,
// else the newest.
func (c *checker) best(records []record) {
	rank := func(rec record) int {
		t := rec.current
		switch {
		case t.UserName != "" && rec.name == c.userName(t.UserName, t.ClientID):
			return 0
		case t.UserName != "":
			return 1
		case t.ClientID != "":
			return 2
		}
		return 3
	}
	slices.SortFunc(records, func(a, b record) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), b.updated().Compare(a.updated()), cmp.Compare(a.name, b.name))
	})
}

// compareRecords reports in which way the records are the same as the first of
// them, and returns those that can become part of it.
func (c *checker) compareRecords(key string, records []record) (findings []Finding, rest []record) {
	if len(records) < 2 {
		return nil, nil
	}
	into := records[0]
	for _, rec := range records[1:] {
		f := Finding{Name: rec.name, ID: rec.current.ID, Kind: KindDuplicate, Remedy: RemedyMerge, Action: "merge them"}
		other := fmt.Sprintf("it is the same as %q", into.current.ID)
		if into.name != into.current.ID || rec.current.ID == into.current.ID {
			other += fmt.Sprintf(" (secret %q)", into.name)
		}
		f.Detail = other
		switch {
		case SameRecord(into.current, rec.current) && c.mergeable(into):
			rest = append(rest, rec)
		case SameRecord(into.current, rec.current):
			f.Remedy, f.Action = RemedyManual, ""
			f.Detail = other + ", and neither has the name that its user and client derive"
		case key[0] == 'i':
			f.Kind, f.Remedy, f.Action = KindDuplicateID, RemedyManual, ""
			f.Detail = fmt.Sprintf("the secret %q has the ID %s too", into.name, strconv.Quote(into.current.ID))
		default:
			f.Kind, f.Remedy, f.Action = KindTokenShared, RemedyManual, ""
			f.Detail = fmt.Sprintf("%q, of another user or client, holds the same token", into.current.ID)
		}
		findings = append(findings, f)
	}
	return findings, rest
}

// mergeable reports whether others may become part of the record: it has the name
// that others look for.
func (c *checker) mergeable(into record) bool {
	return !c.names.against() && c.fits(into.entry)
}

// mergeRecords makes the records in rest part of into.
func (c *checker) mergeRecords(ctx context.Context, r *reader, into record, rest []record) error {
	merged := into.current
	for _, rec := range rest {
		if rec.record.Lease != nil || len(rec.record.Joining) > 0 {
			return fmt.Errorf("%w: %q is being refreshed, or a record is moving to it; check again", ErrUnavailable, rec.name)
		}
		merged = Absorb(merged, rec.current)
	}
	v := saver{Store: c.Store, nonce: nonce()}
	_, err := v.commit(ctx, r, into, merged, rest)
	return err
}
