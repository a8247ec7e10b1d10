package tokenstore

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/ledger"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rules"
)

// SaveToken implements TokenStore.
func (s *Store) SaveToken(ctx context.Context, t Token) (Token, error) {
	saved, err := s.save(ctx, t.Fields())
	return FromFields(saved), s.error("save", t.ID, err)
}

func (s *Store) save(ctx context.Context, f codec.Fields) (saved codec.Fields, err error) {
	if err := s.begin(ctx); err != nil {
		return codec.Fields{}, err
	}
	if err := rules.Validate(f); err != nil {
		return codec.Fields{}, err
	}
	one := saver{Store: s, Writer: s.ledger.Writer(), token: f}
	err = s.ledger.Retry(ctx, "save", func(v *ledger.View) (err error) {
		saved, err = one.attempt(ctx, v)
		return err
	})
	if err != nil {
		return codec.Fields{}, err
	}
	return saved, nil
}

// A saver is one SaveToken.
type saver struct {
	*Store
	*ledger.Writer
	token codec.Fields
}

// attempt tries to save once.
func (s *saver) attempt(ctx context.Context, v *ledger.View) (codec.Fields, error) {
	records, err := s.targets(ctx, v)
	if err != nil {
		return codec.Fields{}, err
	}
	plan, err := s.plan(v, records)
	if err != nil {
		return codec.Fields{}, err
	}
	switch plan.Action {
	case rules.Create:
		return s.create(ctx, v, plan.Fields)
	case rules.GiveUser:
		return codec.Fields{}, s.giveUser(ctx, v, records, plan)
	case rules.Change:
		return s.Commit(ctx, v, records[plan.Record], plan.Fields, unleased(records, plan.Absorb))
	case rules.Nothing:
		if into := records[plan.Record]; len(into.Frozen) > 0 {
			return s.Commit(ctx, v, into, plan.Fields, nil)
		}
	}
	return plan.Fields, nil
}

// plan decides what the attempt does. On a View that may be out of date it neither
// refuses the token nor decides to do nothing.
func (s *saver) plan(v *ledger.View, records []ledger.Entry) (rules.Plan, error) {
	candidates := s.candidates(records)
	plan, err := rules.PlanSave(s.token, candidates)
	unread := v.Unread()
	creates := err == nil && plan.Action == rules.Create
	final := unread != nil || err != nil || plan.Action == rules.Nothing || creates && ledger.Name(plan.ID).Derived()
	switch {
	case final && !v.Current():
		return plan, ledger.ErrLookAgain
	case unread != nil && (err != nil || creates || !rules.Settled(s.token, candidates[plan.Record])):
		// The token may belong to the unreadable record: a save neither creates a second
		// record beside it, nor changes another in its place.
		return plan, unread
	case creates:
		return plan, s.checkNames(v, records, plan.Fields)
	}
	return plan, err
}

// checkNames refuses to create a record if the record that was created under that name
// now belongs to a user or another client.
func (s *saver) checkNames(v *ledger.View, records []ledger.Entry, f codec.Fields) error {
	i := slices.IndexFunc(records, func(rec ledger.Entry) bool {
		return slices.ContainsFunc(s.Namers(), func(n ledger.Namer) bool { return rec.Had(n.Of(f)) })
	})
	switch {
	case i < 0:
		return nil
	case !v.Fresh():
		// Another process may have deleted the record since v read it.
		return ledger.ErrLookAgain
	}
	return fmt.Errorf("%w: the record that was created with this token is %q, of a user or another client", ErrIDMismatch, records[i].Token.ID)
}

// targets returns the records that the token may be merged into.
func (s *saver) targets(ctx context.Context, v *ledger.View) ([]ledger.Entry, error) {
	if s.token.ID == "" {
		return s.match(ctx, v, s.token, nil)
	}
	names, terms := s.Keys(s.token)
	if s.MovedTo != "" {
		names = append(names, s.MovedTo)
	}
	records, err := v.Search(ctx, names, terms)
	if err != nil {
		return nil, err
	}
	found := rules.ByID(s.token.ID, s.candidates(records))
	user := s.token
	user.ID = ""
	switch {
	case len(found) == 0 && v.Unread() != nil:
		return nil, nil
	case len(found) == 0:
		// The ID is new. The user, or the token, must be new too.
		if ledger.Name(s.token.ID).Derived() {
			terms = append(terms, s.FormerTerms(s.token.ID)...)
		}
		return s.match(ctx, v, user, terms)
	case user.UserName != "" && records[found[0]].Token.UserName == "":
		// The record gets its user, who may have a record already.
		user.ClientID = cmp.Or(user.ClientID, records[found[0]].Token.ClientID)
		return s.match(ctx, v, user, nil)
	}
	return records, nil
}

// match returns the records that v has already read and those that f, which has no ID,
// may be merged into. These are the records that f describes, the record with the name
// that f derives, and the records that hold the token behind that name.
func (s *saver) match(ctx context.Context, v *ledger.View, f codec.Fields, terms []ledger.Term) ([]ledger.Entry, error) {
	names, more := s.Keys(f)
	if f.UserName != "" || rules.HasCredential(f) {
		for _, n := range s.Namers() {
			if name := n.Of(f); !slices.Contains(names, name) {
				names = append(names, name)
				more = append(more, ledger.Terms(name)...)
			}
		}
	}
	return v.Search(ctx, names, append(terms, more...))
}

// candidates converts the records to the candidates of package rules.
func (s *saver) candidates(records []ledger.Entry) []rules.Candidate {
	candidates := s.Candidates(records, s.token)
	for i, rec := range records {
		c := &candidates[i]
		if s.MovedTo != "" && rec.Name == s.MovedTo {
			c.Former.ID = true
		}
		if a := s.token.AccessToken; a != "" && a != c.AccessToken {
			c.Former.AccessToken = slices.ContainsFunc(s.Namers(), func(n ledger.Namer) bool { return rec.Had(n.Access(a)) })
		}
	}
	return candidates
}

// create stores f as a new record.
func (s *saver) create(ctx context.Context, v *ledger.View, f codec.Fields) (codec.Fields, error) {
	n, err := s.NamerForNew(ctx)
	if err != nil {
		return codec.Fields{}, err
	}
	name := n.Of(f)
	if f.ID == string(name) {
		f.ID = ""
	}
	if ledger.Name(f.ID).Derived() {
		return codec.Fields{}, fmt.Errorf("%w: its ID has the form of a derived one, and is not known", ErrInvalidToken)
	}
	return s.CommitNew(ctx, v, name, f)
}

// giveUser moves a record without a user to the record of its user.
func (s *saver) giveUser(ctx context.Context, v *ledger.View, records []ledger.Entry, plan rules.Plan) error {
	if err := s.Fits(records[plan.Record], plan.Fields); err != nil {
		return err
	}
	return s.Promote(ctx, v, records[plan.Gives], plan.UserName, plan.ClientID)
}

// unleased returns the records that no process is refreshing. A process that refreshes
// a record could not find it after it was merged into another.
func unleased(records []ledger.Entry, among []int) []ledger.Entry {
	var free []ledger.Entry
	for _, i := range among {
		if records[i].Lease == nil {
			free = append(free, records[i])
		}
	}
	return free
}
