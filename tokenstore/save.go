package tokenstore

import (
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
	f, err = rules.Canonical(f)
	if err != nil {
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

// A saver runs one call of SaveToken or Create for a token.
type saver struct {
	*Store
	*ledger.Writer
	token codec.Fields
}

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

// plan returns the plan for the attempt. If v may be out of date, plan returns
// ledger.ErrLookAgain instead of:
//   - an error, or a plan that writes nothing
//   - a plan that creates a record with an ID in the form of a derived ID
//   - any plan, if v has found an unreadable record
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
		// The token may belong to an unreadable record. Creating or changing another record
		// could leave the token in two records.
		return plan, unread
	case creates:
		return plan, s.checkNames(v, records, plan.Fields)
	}
	return plan, err
}

// checkNames checks the names that derive from f, the fields of a record to create. It returns
// an error if one of the records was created under such a name and later got a user or
// another client. The error matches ErrIDMismatch, or is ledger.ErrLookAgain if v does not
// read the newest states.
func (s *saver) checkNames(v *ledger.View, records []ledger.Entry, f codec.Fields) error {
	i := slices.IndexFunc(records, func(rec ledger.Entry) bool {
		return slices.ContainsFunc(s.Namers(), func(n ledger.Namer) bool { return rec.Had(n.Of(f)) })
	})
	switch {
	case i < 0:
		return nil
	case !v.Fresh():
		// Another process may have deleted the record after v read it.
		return ledger.ErrLookAgain
	}
	return fmt.Errorf("%w: the record that was created with this token is %q, of a user or another client", ErrIDMismatch, records[i].Token.ID)
}

// targets returns the records into which s.token may be merged. The result may include other
// records.
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
		// A new ID is refused if the user or token already has a record.
		if ledger.Name(s.token.ID).Derived() {
			terms = append(terms, s.FormerTerms(s.token.ID)...)
		}
		return s.match(ctx, v, user, terms)
	case user.UserName != "" && records[found[0]].Token.UserName == "":
		// The record gets a user, who may already have a record.
		user = rules.WithIdentity(user, rules.Identity(user).Or(rules.Identity(records[found[0]].Token)))
		return s.match(ctx, v, user, nil)
	}
	return records, nil
}

// match returns the records into which f, which has no ID, may be merged. These are the
// records that f describes, the record whose name derives from f, and the records with the
// token from which that name derives. match also returns all other records that v has read,
// and the records with a label for an element of terms.
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

func (s *saver) candidates(records []ledger.Entry) []rules.Candidate {
	candidates := s.Candidates(records, s.token)
	for i, rec := range records {
		c := &candidates[i]
		if s.MovedTo != "" && rec.Name == s.MovedTo {
			c.Former.ID = true
		}
		if a := s.token.AccessToken; a != "" && a != c.AccessToken {
			c.Former.AccessToken = slices.ContainsFunc(s.Namers(), func(n ledger.Namer) bool { return n.HadAccess(rec, a) })
		}
	}
	return candidates
}

// create stores f as a new record, and returns the stored fields. The error matches
// ErrInvalidToken if the ID of f has the form of a derived ID but is not the name of the new
// record.
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
		return codec.Fields{}, fmt.Errorf("%w: its ID has the form of a derived ID but is unknown", ErrInvalidToken)
	}
	return s.CommitNew(ctx, v, name, f)
}

// giveUser moves a record without a user to the record of the user in the plan. giveUser
// always returns an error: after a move, the error makes ledger.Retry repeat the attempt.
func (s *saver) giveUser(ctx context.Context, v *ledger.View, records []ledger.Entry, plan rules.Plan) error {
	if err := s.Fits(records[plan.Record], plan.Fields); err != nil {
		return err
	}
	return s.Promote(ctx, v, records[plan.Gives], plan.Fields)
}

// unleased returns the records that do not hold a lease. It considers only the records whose
// indices are in the parameter among. A record with a lease must not be merged, because the process
// that refreshes the record could not find the record afterwards.
func unleased(records []ledger.Entry, among []int) []ledger.Entry {
	var free []ledger.Entry
	for _, i := range among {
		if records[i].Lease == nil {
			free = append(free, records[i])
		}
	}
	return free
}
