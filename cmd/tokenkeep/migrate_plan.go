package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// A migrationPlan says what becomes of each record.
type migrationPlan struct {
	items    []*item
	problems []problem

	// shared are the IDs that several records of the source have. None of these
	// can be removed by its ID.
	shared map[string]bool
}

// An item is a record that is to be in the target.
type item struct {
	from []tokenstore.Token // what the source has of it: more than one if duplicates are merged

	// token is what is saved. It has an ID only if that is to be kept.
	token tokenstore.Token

	// want is what the target is to have in the end. Its ID is known once the
	// record is there.
	want tokenstore.Token

	action  action
	written bool  // it was saved
	err     error // why it is not there
	done    bool  // it was read back, and is as it should be
	gone    bool  // it was removed from the source
}

// An action is what is done with a record.
type action string

const (
	actionCreate action = "create" // the target does not have it
	actionUpdate action = "update" // the target has it in another state, which is changed
	actionNone   action = "none"   // the target has it as it should be
	actionKeep   action = "keep"   // the target has it in another state, which is kept
)

// A problem is what stands in the way of a record.
type problem struct {
	Kind  string `json:"kind"`
	ID    string `json:"id,omitempty"` // in the source
	User  string `json:"user,omitempty"`
	Error string `json:"error"`
}

// The kinds of problem.
const (
	problemDuplicate  = "duplicate"
	problemConflict   = "conflict"
	problemUnusable   = "unusable"
	problemUnreadable = "unreadable"
)

// inTheWay returns how many problems keep everything from being written. A record
// that cannot be read keeps no other.
func (p *migrationPlan) inTheWay() int {
	n := 0
	for _, problem := range p.problems {
		if problem.Kind != problemUnreadable {
			n++
		}
	}
	return n
}

// A conflict is an error that says what kind of problem it is.
type conflict struct {
	kind string
	error
}

func (c conflict) Is(target error) bool { return target == errConflicts }
func (c conflict) Unwrap() error        { return c.error }

func conflictf(kind, format string, args ...any) error {
	return conflict{kind, fmt.Errorf(format, args...)}
}

func problemOf(t tokenstore.Token, err error) problem {
	p := problem{Kind: problemUnusable, ID: t.ID, User: t.UserName, Error: err.Error()}
	var c conflict
	if errors.As(err, &c) {
		p.Kind = c.kind
	}
	return p
}

// order is which records are saved before others. What a record is searched by
// may describe another one too: a user without a client any record of the user,
// an access token alone any record that has it. The one that is meant, or that is
// looser, has to be there first, or must not be.
func order(t tokenstore.Token) int {
	t.ID = ""
	switch key := tokenstore.KeyOf(t); {
	case key == tokenstore.KeyUser && t.ClientID == "":
		return 0
	case key == tokenstore.KeyUser:
		return 1
	case key == tokenstore.KeyGrant:
		return 2
	}
	return 3
}

// plan decides what becomes of the records of the source.
func (o migrateOptions) plan(ctx context.Context, source []tokenstore.Token, unreadable error, target []tokenstore.Token, to store) (*migrationPlan, error) {
	p := &migrationPlan{shared: sharedIDs(source)}
	if unreadable != nil {
		p.problems = append(p.problems, unreadableProblems(unreadable)...)
	}
	slices.SortFunc(source, func(a, b tokenstore.Token) int {
		return cmp.Or(cmp.Compare(order(a), order(b)), compareIDs(a.ID, b.ID))
	})
	o.group(p, source)
	if err := o.fit(ctx, p, to); err != nil {
		return nil, err
	}
	there := newIndex(target...)
	taken := map[string]*item{} // by the ID that it is to be created with
	p.items = slices.DeleteFunc(p.items, func(it *item) bool {
		err := o.decide(it, there)
		if err == nil {
			err = o.takeID(it, taken)
		}
		if err != nil {
			p.problems = append(p.problems, problemOf(it.from[0], err))
		}
		return err != nil
	})
	return p, nil
}

// sharedIDs returns the IDs that several of the records have.
func sharedIDs(tokens []tokenstore.Token) map[string]bool {
	seen, shared := map[string]bool{}, map[string]bool{}
	for _, t := range tokens {
		shared[t.ID] = shared[t.ID] || seen[t.ID]
		seen[t.ID] = true
	}
	maps.DeleteFunc(shared, func(_ string, several bool) bool { return !several })
	return shared
}

// unreadableProblems returns a problem for each error of records that cannot be
// read.
func unreadableProblems(err error) []problem {
	var all []problem
	var joined interface {
		error
		Unwrap() []error
	}
	if errors.As(err, &joined) {
		for _, err := range joined.Unwrap() {
			all = append(all, problem{Kind: problemUnreadable, Error: err.Error()})
		}
		return all
	}
	return []problem{{Kind: problemUnreadable, Error: err.Error()}}
}

// group makes an item of each record, and one of several if they would be one in
// the target.
func (o migrateOptions) group(p *migrationPlan, source []tokenstore.Token) {
	before := newIndex() // the i-th record is that of the i-th item
	for _, t := range source {
		it := &item{from: []tokenstore.Token{t}, token: t}
		if !o.keepIDs {
			it.token.ID = ""
		}
		plan, err := before.plan(withoutID(t))
		switch {
		case errors.Is(err, tokenstore.ErrNotFound), errors.Is(err, tokenstore.ErrInvalidToken), errors.Is(err, tokenstore.ErrTooLarge):
			err = unusable(err)
		case err != nil:
			err = conflictf(problemDuplicate, "it cannot be told apart from %s", idList(before, before.near(withoutID(t))))
		case plan.Record < 0:
			before.add(t)
			p.items = append(p.items, it)
		case !o.mergeDuplicates || len(plan.Absorb) > 0:
			err = conflictf(problemDuplicate, "it is the same record as %s", idList(before, append([]int{plan.Record}, plan.Absorb...)))
		default:
			into := p.items[plan.Record]
			into.from = append(into.from, t)
			into.token = tokenstore.Absorb(into.token, t)
			before.change(plan.Record, into.token)
		}
		if err != nil {
			p.problems = append(p.problems, problemOf(t, err))
		}
	}
}

func withoutID(t tokenstore.Token) tokenstore.Token {
	t.ID = ""
	return t
}

// unusable says why a record cannot be saved.
func unusable(err error) error {
	if errors.Is(err, tokenstore.ErrNotFound) {
		err = errors.New("it has neither an access nor a refresh nor a grant token")
	}
	return conflict{problemUnusable, err}
}

func idList(x *index, rows []int) string {
	var text string
	for i, row := range rows {
		if i > 0 {
			text += ", "
		}
		text += strconv.Quote(x.records[row].Token.ID)
	}
	return text
}

// fit takes the IDs from records that cannot keep them, and drops the records
// that the target cannot hold at all.
func (o migrateOptions) fit(ctx context.Context, p *migrationPlan, to store) error {
	f, ok := to.(fitter)
	if !ok {
		return nil
	}
	tokens := make([]tokenstore.Token, len(p.items))
	for i, it := range p.items {
		tokens[i] = it.token
	}
	errs, err := f.Fits(ctx, tokens)
	if err != nil {
		return fmt.Errorf("--to: %w", err)
	}
	var without []int // their IDs
	var again []tokenstore.Token
	for i, it := range p.items {
		if errs[i] != nil && it.token.ID != "" {
			it.token.ID = ""
			without, again = append(without, i), append(again, it.token)
		}
	}
	errsAgain, err := f.Fits(ctx, again)
	if err != nil {
		return fmt.Errorf("--to: %w", err)
	}
	for n, i := range without {
		errs[i] = errsAgain[n]
	}
	var fitting []*item
	for i, it := range p.items {
		if errs[i] == nil {
			fitting = append(fitting, it)
			continue
		}
		p.problems = append(p.problems, problemOf(it.from[0], unusable(errs[i])))
	}
	p.items = fitting
	return nil
}

// decide sets what is done with an item, if the target holds the records of the
// index.
func (o migrateOptions) decide(it *item, there *index) error {
	plan, err := there.plan(withoutID(it.token))
	if err != nil {
		return conflictf(problemConflict, "the target has more than one record that it may be, or one of another client: %s",
			idList(there, there.near(withoutID(it.token))))
	}
	it.action, it.want = actionCreate, it.token
	if plan.Record < 0 {
		return o.checkID(it, there)
	}
	has := there.records[plan.Record].Token
	if it.token.UserName != "" && has.ClientID != it.token.ClientID {
		return conflictf(problemConflict, "the target has the user with another client, as %q, and could not tell the two apart", has.ID)
	}
	if it.token.ID != "" && has.ID != it.token.ID {
		if o.onConflict == conflictStop {
			return conflictf(problemConflict, "the target has it under the ID %q", has.ID)
		}
		it.token.ID = ""
	}
	return o.settle(it, has, plan)
}

// checkID takes the ID from an item if another record of the target has it.
func (o migrateOptions) checkID(it *item, there *index) error {
	if it.token.ID == "" {
		return nil
	}
	if len(there.byKey[identities(tokenstore.Token{ID: it.token.ID})[0]]) == 0 {
		return nil
	}
	if o.onConflict == conflictStop {
		return conflictf(problemConflict, "the target has another record under its ID")
	}
	it.token.ID, it.want.ID = "", ""
	return nil
}

// takeID takes the ID from an item if another one is to be created with it.
func (o migrateOptions) takeID(it *item, taken map[string]*item) error {
	if it.action != actionCreate || it.token.ID == "" {
		return nil
	}
	other, ok := taken[it.token.ID]
	switch {
	case !ok:
		taken[it.token.ID] = it
		return nil
	case o.onConflict != conflictStop:
		it.token.ID, it.want.ID = "", ""
		return nil
	case other.token.UserName == "":
		return conflictf(problemDuplicate, "another record of the source has the same ID")
	}
	return conflictf(problemDuplicate, "it has the same ID as the record of user %q", other.token.UserName)
}

// settle sets what is done with an item that the target has as the given record.
func (o migrateOptions) settle(it *item, has tokenstore.Token, plan tokenstore.Plan) error {
	it.action, it.want = actionNone, has
	if !plan.Changed {
		return nil
	}
	switch o.onConflict {
	case conflictStop:
		return conflictf(problemConflict, "the target has it in another state, as %q", has.ID)
	case conflictTarget:
		it.action = actionKeep
		return nil
	case conflictNewer:
		id := it.token.ID
		it.token = tokenstore.Absorb(has, it.token)
		it.token.ID = id
		if sameToken(withoutID(it.token), withoutID(has)) {
			it.action = actionKeep
			return nil
		}
	}
	it.action, it.want = actionUpdate, tokenstore.Merge(has, it.token)
	return nil
}
