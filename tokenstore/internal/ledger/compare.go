package ledger

import (
	"context"
	"slices"

	"github.com/tokenkeep/tokenkeep/internal/stored"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rules"
)

// Fits reports whether n derives the name of e from the user and client of e, or from the
// tokens that e was created with. Fits also returns true if the name cannot be checked. That is the
// case if the name may derive from an access token or from a replaced token, or if e has neither a
// user nor a token.
func (n Namer) Fits(e Entry) bool {
	f := e.Fields
	if f.UserName != "" || e.Name.Kind() == OfUser {
		return e.Name == n.User(f.UserName, rules.ClientOf(f)) || !rules.HasCredential(f) && f.UserName == ""
	}
	unknown := func(token string) bool {
		return token == "" || slices.ContainsFunc(e.Earlier, func(earlier string) bool { return Name(earlier).Kind() == e.Name.Kind() })
	}
	// Parts of the record's client may have been set after the record was created.
	derives := func(name func(rules.Client, string) Name, token string) bool {
		return unknown(token) || slices.ContainsFunc(before(rules.ClientOf(f)), func(c rules.Client) bool { return e.Name == name(c, token) })
	}
	switch e.Name.Kind() {
	case OfGrant:
		return derives(n.Grant, f.GrantToken)
	case OfRefresh:
		return derives(n.Refresh, f.RefreshToken)
	default:
		return e.Name.Derived()
	}
}

// A Labels is a result of CompareLabels. The slices hold the Keys of labels.
type Labels struct {
	Fitting int      // number of labels under the first index key
	Old     []string // labels under another index key of the Ledger
	Unkeyed []string // labels under no key
	Unknown []string // labels under an unknown index key
	Missing []string // labels that the record should have but lacks
	Stale   []string // labels that the record should not have
}

// CompareLabels compares the labels of r with the labels that the index keys derive from the
// terms of r under n.
func (l *Ledger) CompareLabels(n Namer, r stored.Record) Labels {
	var is Labels
	have, accounted := map[driver.Label]bool{}, map[driver.Label]bool{}
	for _, label := range r.Labels {
		have[driver.Label{Key: label.Key, Value: label.Value}] = true
	}
	by := func(t Term, keys ...[]byte) bool {
		return slices.ContainsFunc(keys, func(key []byte) bool {
			label := t.label(key)
			accounted[label] = accounted[label] || have[label]
			return have[label]
		})
	}
	told := map[Term]bool{}
	for _, t := range n.Terms(r) {
		if told[t] {
			continue
		}
		told[t] = true
		switch {
		case by(t, l.IndexKeys[0]):
			is.Fitting++
		case by(t, l.IndexKeys[1:]...):
			is.Old = append(is.Old, t.Key)
		case by(t, nil):
			is.Unkeyed = append(is.Unkeyed, t.Key)
		default:
			is.Missing = append(is.Missing, t.Key)
		}
	}
	for label := range have {
		if accounted[label] {
			continue
		}
		if i := slices.Index(is.Missing, label.Key); i >= 0 {
			is.Missing = slices.Delete(is.Missing, i, i+1)
			is.Unknown = append(is.Unknown, label.Key)
			continue
		}
		is.Stale = append(is.Stale, label.Key)
	}
	return is
}

// Replaces reports whether all IDs that find e also find u, according to the record of u.
func (l *Ledger) Replaces(u, e Entry) bool { return l.replaces(u.Record, e) }

// Labelled reports whether the secret of u carries a label for each ID that finds e and has a term.
// A label can be missing because the service had no room for it, or because an operator removed it.
// If the driver is not a driver.Inspector, Labelled relies on the labels that u was committed with.
func (l *Ledger) Labelled(ctx context.Context, u, e Entry) (bool, error) {
	var want []driver.Label
	for _, name := range l.idsOf(e) {
		t, ok := name.Term()
		if !ok {
			continue
		}
		by := l.queries([]Term{t})
		i := slices.IndexFunc(u.Labels, func(label stored.Label) bool {
			return slices.Contains(by, driver.Label{Key: label.Key, Value: label.Value})
		})
		if i < 0 {
			return false, nil
		}
		want = append(want, driver.Label(u.Labels[i]))
	}
	if l.Inspector == nil || len(want) == 0 {
		return true, nil
	}
	present, err := l.Inspector.Present(ctx, string(u.Name), want)
	missing := slices.ContainsFunc(want, func(label driver.Label) bool { return !Carried(present, label) })
	return err == nil && !missing, err
}

// Carried reports whether the slice beside, the labels of a secret in the service, contains label.
// It compares labels as IsBeside does.
func Carried(beside []driver.Label, label driver.Label) bool {
	return slices.ContainsFunc(beside, func(b driver.Label) bool { return IsBeside(b, label) })
}

// IsBeside reports whether label equals the first parameter, a label of a secret in the service. It
// ignores the nonces if the label of the secret has none.
func IsBeside(beside, label driver.Label) bool {
	return beside.Key == label.Key && beside.Value == label.Value && (beside.Nonce == label.Nonce || beside.Nonce == "")
}
