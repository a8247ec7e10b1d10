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

// An item is a record that Run saves in the target, or expects the target to have.
type item struct {
	from []record // the source records of the item; several if duplicates are merged

	// token is the token to save. token has an ID only if the target should keep the ID.
	token tokenstore.Token

	// want is the record that the target should hold in the end. The ID of want is known once
	// the target holds the record.
	want tokenstore.Token

	action  action
	written bool  // Run has saved the item
	err     error // why the last step failed for the item
	done    bool  // the target holds want
	gone    bool  // the source records of the item were removed
}

// A record is a record of the source with its index.
type record struct {
	tokenstore.Token

	index int // index in the result of GetTokens
}

// An action is the effect of Run on an item.
type action int

const (
	create action = iota // the target does not have the record
	update               // the target has the record in another state, which Run changes
	none                 // the target already has the record
	keep                 // the target has the record in another state, which Run keeps
)

// precedence returns the rank of t in the order in which records are saved. A search for a
// saved record may also find another record. A search for a user without a client ID finds any
// record of the user with the same issuer and resource. In that search, an empty issuer or
// resource matches any value. A search for only an access token finds any record that has the
// token.
//
// If a search for one record might find another record, the other record is therefore saved
// later. Records of users without a client ID come first: those with neither issuer nor
// resource, then those with one of the two, then those with both. Records of users with a
// client ID, tokens with a client ID, and all other tokens follow in this order.
func precedence(t tokenstore.Token) int {
	switch key := rules.KeyOf(withoutID(t).Fields()); {
	case key == rules.KeyUser && t.ClientID == "":
		given := 0
		for _, part := range []string{t.Issuer, t.Resource} {
			if part != "" {
				given++
			}
		}
		return given
	case key == rules.KeyUser:
		return 3
	case key == rules.KeyGrant:
		return 4
	}
	return 5
}

// plan creates the items for the records of the source, and sets the actions of the items.
func (m *migration) plan(ctx context.Context, source []tokenstore.Token, unreadable error, target []tokenstore.Token) error {
	m.sharedIDs = shared(source)
	m.addUnreadable(unreadable)
	records := make([]record, len(source))
	for i, t := range source {
		records[i] = record{t, i}
	}
	taken := map[string]*item{} // items that will be created, by ID
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

// addUnreadable adds a problem for each record of the source that cannot be read. err joins
// the errors of these records, or is nil.
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

// group creates an item for each record. If Duplicates is Merge, it creates a single item for
// records that would be one record in the target. If Duplicates is Stop, it reports such
// duplicates as problems. If OnConflict is Merge, Run saves all items, so group also adds the IDs
// of the items to the map taken.
func (m *migration) group(records []record, taken map[string]*item) {
	before := indexOf() // the i-th record belongs to the i-th item
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

// indexOf returns an index of tokens, in which later tokens are newer.
func indexOf(tokens ...tokenstore.Token) *candidates.Index {
	x := &candidates.Index{}
	for _, t := range tokens {
		add(x, t)
	}
	return x
}

// add adds t to x as the newest record.
func add(x *candidates.Index, t tokenstore.Token) {
	i := len(x.Records)
	x.Put(i, rules.Candidate{Fields: t.Fields(), Updated: time.UnixMilli(int64(i))})
}

// names returns the names of the items with the given indices, for an error text.
func (m *migration) names(items []int) string {
	var names []string
	for _, i := range items {
		names = append(names, m.name(m.items[i].from[0]))
	}
	return strings.Join(names, ", ")
}

// name returns the name of a record of the source, for an error text.
func (m *migration) name(r record) string {
	if m.o.Label != nil {
		return m.o.Label(r.index)
	}
	return strconv.Quote(r.ID)
}

func absorb(into, from tokenstore.Token) tokenstore.Token {
	return tokenstore.FromFields(rules.Absorb(into.Fields(), from.Fields()))
}

func withoutID(t tokenstore.Token) tokenstore.Token {
	t.ID = ""
	return t
}

// unusable returns the problem of a record that cannot be saved because of err.
func unusable(err error) error {
	if errors.Is(err, tokenstore.ErrNotFound) {
		err = errNoToken
	}
	return problem{KindUnusable, err}
}

var errNoToken = errors.New("it has no access, refresh or grant token")

// fit removes the ID from each item that the target can hold only without the ID. If the target
// cannot hold an item even without the ID, fit drops the item and reports a problem.
func (m *migration) fit(ctx context.Context) error {
	f, ok := m.to.(fitter)
	if !ok {
		return nil
	}
	errs, err := f.Fits(ctx, tokens(m.items))
	if err != nil {
		return err
	}
	var without []*item // items to try again without their IDs
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

func tokens(items []*item) []tokenstore.Token {
	all := make([]tokenstore.Token, len(items))
	for i, it := range items {
		all[i] = it.token
	}
	return all
}

// decide sets the action of an item, or returns a problem. The parameter there is the index of the
// target's records.
func (m *migration) decide(it *item, there *candidates.Index) error {
	like := withoutID(it.token).Fields()
	plan, err := there.Plan(like)
	switch {
	case m.o.Duplicates == Keep && (errors.Is(err, tokenstore.ErrNotFound) || errors.Is(err, tokenstore.ErrInvalidToken)):
		plan.Record = -1 // no field identifies the record
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
	if it.token.UserName != "" && rules.ClientOf(has.Fields()) != rules.ClientOf(it.token.Fields()) {
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

// checkID removes the ID from an item if another record of the target has the ID. If OnConflict
// is Stop, checkID returns a problem instead.
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

// takeID removes the ID from an item if another item will be created with the same ID. If
// OnConflict is Stop or Merge, takeID returns a problem instead.
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

// settle sets the action of an item, or returns a problem. The parameter has is the record of the
// item in the target. The parameter changed reports whether a save of the item would change that
// record.
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
