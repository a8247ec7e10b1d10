package tokenstore

import (
	"cmp"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"slices"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

const (
	alphabet    = "abcdefghijklmnopqrstuvwxyz234567"
	digestSize  = 32 // characters: 160 bits
	nonceSize   = 10 // bytes: 16 characters
	maxNonces   = 8
	maxEarlier  = 2  // of each kind: the first and the last
	maxIDs      = 10 // that found the record once, and have labels
	maxJoining  = 8  // records disappearing into one at a time
	nameLetters = "ugra"
)

var encoding = base32.NewEncoding(alphabet).WithPadding(base32.NoPadding)

// digest returns a digest of kind and parts in 32 characters. Each part is
// preceded by its length, so that ("a", "bc") and ("ab", "c") differ.
func digest(key []byte, kind string, parts ...string) string {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(kind))
	for _, p := range parts {
		var size [8]byte
		binary.BigEndian.PutUint64(size[:], uint64(len(p)))
		h.Write(size[:])
		h.Write([]byte(p))
	}
	return encoding.EncodeToString(h.Sum(nil))[:digestSize]
}

// nonce returns 80 random bits in 16 characters.
func nonce() string {
	var b [nonceSize]byte
	_, _ = rand.Read(b[:]) // never fails, by its documentation
	return encoding.EncodeToString(b[:])
}

// A record's name is a letter and a digest of what identifies it: "u" for a user
// and client, "g", "r" and "a" for a record that has no user when it is created
// and is known by its grant, refresh or access token.

func (s *Store) userName(user, client string) string {
	return "u" + digest(s.o.NameKey, "u", user, client)
}

func (s *Store) grantName(client string, grant Secret) string {
	return "g" + digest(s.o.NameKey, "g", client, string(grant))
}

func (s *Store) refreshName(client string, refresh Secret) string {
	return "r" + digest(s.o.NameKey, "r", client, string(refresh))
}

func (s *Store) accessName(access Secret) string {
	return "a" + digest(s.o.NameKey, "a", string(access))
}

// derive returns the name of the record that is created for t, which has one of
// the three tokens.
func (s *Store) derive(t Token) string {
	switch {
	case t.UserName != "":
		return s.userName(t.UserName, t.ClientID)
	case t.GrantToken != "":
		return s.grantName(t.ClientID, t.GrantToken)
	case t.RefreshToken != "":
		return s.refreshName(t.ClientID, t.RefreshToken)
	}
	return s.accessName(t.AccessToken)
}

// derived reports whether id has the form of a derived name.
func derived(id string) bool {
	if len(id) != 1+digestSize || !slices.Contains([]byte(nameLetters), id[0]) {
		return false
	}
	for _, c := range []byte(id[1:]) {
		if !slices.Contains([]byte(alphabet), c) {
			return false
		}
	}
	return true
}

// A term is what can be searched for: a kind of label, and the digest by NameKey
// of what is labelled. Labels are digests of terms by an index key. The digest by
// NameKey in between lets a record keep an earlier token's term, from which its
// label can be computed under any index key, without the token itself.
type term struct{ key, print string }

func (s *Store) userTerm(user string) term {
	return term{"user", digest(s.o.NameKey, "user", user)}
}

// nameOfID returns what a record notes of an ID that it once had: a derived ID
// is its own name, and the caller's own is put in the form of one.
func (s *Store) nameOfID(id string) string {
	if derived(id) {
		return id
	}
	return "i" + digest(s.o.NameKey, "id", id)
}

// idTerm returns the term of an ID that a record has besides its name: one of the
// caller's own, or a derived one that Rekey has kept.
func (s *Store) idTerm(id string) term { return term{"id", digest(s.o.NameKey, "id", id)} }

// formerTerms returns the terms by which a record is found that had the derived ID
// id, or still has it under another name.
func (s *Store) formerTerms(id string) []term {
	var terms []term
	if t, ok := nameTerm(id); ok {
		terms = append(terms, t)
	}
	for _, under := range s.namings() {
		terms = append(terms, under.idTerm(id))
	}
	return terms
}

// nameTerm returns the term that what is behind a derived name is searched by.
// The name of a user's record has none.
func nameTerm(name string) (term, bool) {
	key := map[byte]string{'g': "grant", 'r': "refresh", 'a': "access", 'i': "id"}[name[0]]
	return term{key, name[1:]}, key != ""
}

// terms returns everything that r, stored under name, is to be found by.
func (s *Store) terms(r codec.Record) []term {
	var terms []term
	if r.Alias != nil {
		// By anything else the record is found that it leads to.
		r = codec.Record{Fields: codec.Fields{ID: r.ID}, IDs: r.IDs}
	}
	if r.UserName != "" {
		terms = append(terms, s.userTerm(r.UserName))
	}
	if r.ClientID != "" {
		terms = append(terms, term{"client", digest(s.o.NameKey, "client", r.ClientID)})
	}
	if r.ID != "" {
		terms = append(terms, s.idTerm(r.ID))
	}
	for _, id := range r.IDs {
		if id[0] == 'u' { // of a record that Rekey has renamed
			terms = append(terms, s.idTerm(id))
		}
	}
	names := slices.Concat(r.IDs, r.Earlier, s.tokenNames(entry{record: r}.token()))
	for _, ref := range append(slices.Clone(r.Joining), r.Absorbed...) {
		names = append(names, ref.Name)
	}
	for _, name := range names {
		if t, ok := nameTerm(name); ok {
			terms = append(terms, t)
		}
	}
	return terms
}

// labels returns the labels for r. Those that base has keep their nonces: they
// are there already. The others get the given one.
func (s *Store) labels(r codec.Record, base []codec.Label, nonce string) []codec.Label {
	var labels []codec.Label
	for _, t := range s.terms(r) {
		l := codec.Label{Key: t.key, Value: digest(s.o.IndexKeys[0], t.key, t.print), Nonce: nonce}
		same := func(b codec.Label) bool { return b.Key == l.Key && b.Value == l.Value }
		if slices.ContainsFunc(labels, same) {
			continue
		}
		if i := slices.IndexFunc(base, same); i >= 0 {
			l = base[i]
		}
		labels = append(labels, l)
	}
	slices.SortFunc(labels, compareLabels)
	return labels
}

func compareLabels(a, b codec.Label) int {
	return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Value, b.Value), cmp.Compare(a.Nonce, b.Nonce))
}

// queries returns the labels to search for, under all index keys.
func (s *Store) queries(terms []term) []driver.Label {
	var labels []driver.Label
	for _, key := range s.o.IndexKeys {
		for _, t := range terms {
			labels = append(labels, driver.Label{Key: t.key, Value: digest(key, t.key, t.print)})
		}
	}
	return labels
}

func driverLabels(labels []codec.Label) []driver.Label {
	d := make([]driver.Label, 0, len(labels))
	for _, l := range labels {
		d = append(d, driver.Label(l))
	}
	return d
}
