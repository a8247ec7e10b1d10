package migrate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/internal/sdkid"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/candidates"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rules"
)

// An item is a record that is to be in the target.
type item struct {
	from []record // of the source: more than one if duplicates are merged

	// token is the token to save. It has an ID only if the ID is to be kept.
	token tokenstore.Token

	// want is the record that the target is to have in the end. Its ID is known once
	// the record is there.
	want tokenstore.Token

	action  action
	written bool  // it was saved
	err     error // why it is not in the target
	done    bool  // the target has it as it should be
	gone    bool  // it was removed from the source
}

// A record is one of the source.
type record struct {
	tokenstore.Token

	index int // in the result of GetTokens
}

// An action is what Run does with an item.
type action int

const (
	create action = iota // the target does not have it
	update               // the target has it in another state, which is changed
	none                 // the target has it as it should be
	keep                 // the target has it in another state, which is kept
)

// precedence is the order in which records are saved. The key that a record is looked
// up by may describe another one too: a user without a client describes any record of
// the user, an access token alone any record that has it. So records are saved in order
// of how specific their key is: user without client, user with client, token with
// client, token.
func precedence(t tokenstore.Token) int {
	switch key := rules.KeyOf(withoutID(t).Fields()); {
	case key == rules.KeyUser && t.ClientID == "":
		return 0
	case key == rules.KeyUser:
		return 1
	case key == rules.KeyGrant:
		return 2
	}
	return 3
}

// plan decides what becomes of the records of the source.
func (m *migration) plan(ctx context.Context, source []tokenstore.Token, unreadable error, target []tokenstore.Token) error {
	m.sharedIDs = shared(source)
	m.addUnreadable(unreadable)
	records := make([]record, len(source))
	for i, t := range source {
		records[i] = record{t, i}
	}
	taken := map[string]*item{} // by the ID that it is to be created with
	if m.o.OnConflict == Merge {
		m.group(records, taken)
		return nil
	}
	slices.SortFunc(records, func(a, b record) int {
		return cmp.Or(cmp.Compare(precedence(a.Token), precedence(b.Token)), sdkid.Compare(a.ID, b.ID), cmp.Compare(a.index, b.index))
	})
	m.group(records, taken)
	if err := m.fit(ctx); err != nil {
		return fmt.Errorf("target: %w", err)
	}
	there := indexOf(target...)
	m.items = slices.DeleteFunc(m.items, func(it *item) bool {
		err := m.decide(it, there)
		if err == nil {
			err = m.takeID(it, taken)
		}
		return m.standsInTheWay(it.from[0], err)
	})
	return nil
}

// shared returns the IDs that several of the records have.
func shared(tokens []tokenstore.Token) map[string]bool {
	seen, shared := map[string]bool{}, map[string]bool{}
	for _, t := range tokens {
		shared[t.ID] = shared[t.ID] || seen[t.ID]
		seen[t.ID] = true
	}
	maps.DeleteFunc(shared, func(_ string, several bool) bool { return !several })
	return shared
}

// addUnreadable adds a problem for each error of records that cannot be read.
func (m *migration) addUnreadable(err error) {
	if err == nil {
		return
	}
	all := []error{err}
	var joined interface {
		error
		Unwrap() []error
	}
	if errors.As(err, &joined) {
		all = joined.Unwrap()
	}
	for _, err := range all {
		m.report.Problems = append(m.report.Problems, Problem{Kind: KindUnreadable, Record: -1, Err: err})
	}
}

// group makes an item of each record, and one of several if they would be one in the
// target. With Merge all of them are going to be saved, so they take their IDs here.
func (m *migration) group(records []record, taken map[string]*item) {
	before := indexOf() // the i-th record is that of the i-th item
	for _, r := range records {
		it := &item{from: []record{r}, token: r.Token}
		if !m.o.KeepIDs {
			it.token.ID = ""
		}
		like := withoutID(r.Token).Fields()
		plan, err := before.Plan(like)
		if m.o.Duplicates == Keep {
			plan.Record, err = -1, tokenstore.Validate(r.Token)
		}
		switch {
		case errors.Is(err, tokenstore.ErrNotFound), errors.Is(err, tokenstore.ErrInvalidToken), errors.Is(err, tokenstore.ErrTooLarge):
			err = unusable(err)
		case err == nil && plan.Record < 0:
			if m.o.OnConflict == Merge {
				err = m.takeID(it, taken)
			}
			if err == nil {
				add(before, r.Token)
				m.items = append(m.items, it)
			}
		case err != nil:
			err = problemf(KindDuplicate, "it cannot be told apart from %s", m.names(before.Near(like)))
		case m.o.Duplicates != Merge || len(plan.Absorb) > 0:
			err = problemf(KindDuplicate, "it is the same record as %s", m.names(append([]int{plan.Record}, plan.Absorb...)))
		default:
			into := m.items[plan.Record]
			into.from = append(into.from, r)
			into.token = absorb(into.token, r.Token)
			before.Put(plan.Record, rules.Candidate{Fields: into.token.Fields(), Updated: before.Records[plan.Record].Updated})
		}
		m.standsInTheWay(r, err)
	}
}

// indexOf returns an index of records.
func indexOf(tokens ...tokenstore.Token) *candidates.Index {
	x := &candidates.Index{}
	for _, t := range tokens {
		add(x, t)
	}
	return x
}

// add adds a record to an index. Of two records, the one added later is the newer one.
func add(x *candidates.Index, t tokenstore.Token) {
	i := len(x.Records)
	x.Put(i, rules.Candidate{Fields: t.Fields(), Updated: time.UnixMilli(int64(i))})
}

// names names the records of items in an error.
func (m *migration) names(items []int) string {
	var names []string
	for _, i := range items {
		names = append(names, m.name(m.items[i].from[0]))
	}
	return strings.Join(names, ", ")
}

// name names a record of the source in an error.
func (m *migration) name(r record) string {
	if m.o.Label != nil {
		return m.o.Label(r.index)
	}
	return strconv.Quote(r.ID)
}

// absorb returns the result of merging two records of a user.
func absorb(into, from tokenstore.Token) tokenstore.Token {
	return tokenstore.FromFields(rules.Absorb(into.Fields(), from.Fields()))
}

func withoutID(t tokenstore.Token) tokenstore.Token {
	t.ID = ""
	return t
}

// unusable returns the problem of a record that cannot be saved.
func unusable(err error) error {
	if errors.Is(err, tokenstore.ErrNotFound) {
		err = errNoToken
	}
	return problem{KindUnusable, err}
}

var errNoToken = errors.New("it has neither an access nor a refresh nor a grant token")

// fit takes the IDs from items that the target can hold only without them, and drops
// the items that it cannot hold at all.
func (m *migration) fit(ctx context.Context) error {
	f, ok := m.to.(fitter)
	if !ok {
		return nil
	}
	errs, err := f.Fits(ctx, tokens(m.items))
	if err != nil {
		return err
	}
	var without []*item // items that were tried again without their IDs
	var again []int
	for i, it := range m.items {
		if errs[i] != nil && it.token.ID != "" {
			it.token.ID = ""
			without, again = append(without, it), append(again, i)
		}
	}
	errsAgain, err := f.Fits(ctx, tokens(without))
	if err != nil {
		return err
	}
	for n, i := range again {
		errs[i] = errsAgain[n]
	}
	var fitting []*item
	for i, it := range m.items {
		if errs[i] == nil {
			fitting = append(fitting, it)
			continue
		}
		m.standsInTheWay(it.from[0], unusable(errs[i]))
	}
	m.items = fitting
	return nil
}

// tokens returns the tokens to save for the items.
func tokens(items []*item) []tokenstore.Token {
	all := make([]tokenstore.Token, len(items))
	for i, it := range items {
		all[i] = it.token
	}
	return all
}

// decide sets the action for an item if the target holds the records of the index.
func (m *migration) decide(it *item, there *candidates.Index) error {
	like := withoutID(it.token).Fields()
	plan, err := there.Plan(like)
	switch {
	case m.o.Duplicates == Keep && (errors.Is(err, tokenstore.ErrNotFound) || errors.Is(err, tokenstore.ErrInvalidToken)):
		plan.Record = -1 // it has nothing that could tell it from others
	case err != nil:
		var ids []string
		for _, i := range there.Near(like) {
			ids = append(ids, strconv.Quote(there.Records[i].ID))
		}
		return problemf(KindConflict, "the target has more than one record that it may be, or one of another client: %s", strings.Join(ids, ", "))
	}
	it.action, it.want = create, it.token
	if plan.Record < 0 {
		return m.checkID(it, there)
	}
	has := tokenstore.FromFields(there.Records[plan.Record].Fields)
	changed := plan.Action != rules.Nothing
	if it.token.UserName != "" && has.ClientID != it.token.ClientID {
		return problemf(KindConflict, "the target has the user with another client, as %q, and could not tell the two apart", has.ID)
	}
	if it.token.ID != "" && has.ID != it.token.ID {
		if m.o.OnConflict == Stop {
			return problemf(KindConflict, "the target has it under the ID %q", has.ID)
		}
		it.token.ID = ""
	}
	return m.settle(it, has, changed)
}

// checkID takes the ID from an item if another record of the target has it.
func (m *migration) checkID(it *item, there *candidates.Index) error {
	switch {
	case it.token.ID == "" || len(there.Near(codec.Fields{ID: it.token.ID})) == 0:
		return nil
	case m.o.OnConflict == Stop:
		return problemf(KindConflict, "the target has another record under its ID")
	}
	it.token.ID, it.want.ID = "", ""
	return nil
}

// takeID takes the ID from an item if another item is to be created with the ID.
func (m *migration) takeID(it *item, taken map[string]*item) error {
	if it.action != create || it.token.ID == "" {
		return nil
	}
	other, ok := taken[it.token.ID]
	switch {
	case !ok:
		taken[it.token.ID] = it
		return nil
	case m.o.OnConflict != Stop && m.o.OnConflict != Merge:
		it.token.ID, it.want.ID = "", ""
		return nil
	case m.o.Label != nil:
		return problemf(KindDuplicate, "it has the same ID as %s", m.name(other.from[0]))
	case other.token.UserName == "":
		return problemf(KindDuplicate, "another record of the source has the same ID")
	}
	return problemf(KindDuplicate, "it has the same ID as the record of user %q", other.token.UserName)
}

// settle sets the action for an item that the target has as the given record.
func (m *migration) settle(it *item, has tokenstore.Token, changed bool) error {
	it.action, it.want = none, has
	if !changed {
		return nil
	}
	switch m.o.OnConflict {
	case Stop:
		return problemf(KindConflict, "the target has it in another state, as %q", has.ID)
	case Target:
		it.action = keep
		return nil
	case Newer:
		id := it.token.ID
		it.token = absorb(has, it.token)
		it.token.ID = id
		if same(withoutID(it.token), withoutID(has)) {
			it.action = keep
			return nil
		}
	default:
	}
	it.action, it.want = update, tokenstore.Merge(has, it.token)
	return nil
}
