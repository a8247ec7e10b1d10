package ledger

import (
	"cmp"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"slices"
	"strings"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/internal/stored"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rules"
)

const (
	alphabet   = "abcdefghijklmnopqrstuvwxyz234567"
	digestSize = 32 // characters: 160 bits
	nonceSize  = 10 // bytes: 16 characters
)

var encoding = base32.NewEncoding(alphabet).WithPadding(base32.NoPadding)

// Digest returns the HMAC-SHA-256 of kind and parts under key, truncated to 160 bits, in 32
// characters. It also digests the length of each part, so that ("a", "bc") and ("ab", "c")
// have different digests.
func Digest(key []byte, kind string, parts ...string) string {
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

// Nonce returns 80 random bits in 16 characters.
func Nonce() string {
	var b [nonceSize]byte
	_, _ = rand.Read(b[:]) // rand.Read never returns an error
	return encoding.EncodeToString(b[:])
}

// A Kind identifies the kind of value from which a Name derives. It is the first letter of
// the Name.
type Kind string

// The kinds of names. The name of a record can have any of these kinds except OfID.
const (
	OfUser    Kind = "u" // a user and client
	OfGrant   Kind = "g" // a grant token and its client
	OfRefresh Kind = "r" // a refresh token and its client
	OfAccess  Kind = "a" // an access token
	OfID      Kind = "i" // an ID that a caller chose
)

var ofRecords = []Kind{OfUser, OfGrant, OfRefresh, OfAccess}

// A Name is the name of an entry, or stands for an ID that a record has or had. A Name that
// this package derives consists of the letter of a Kind and a digest.
type Name string

// Kind returns the first letter of n, or "" if n is empty.
func (n Name) Kind() Kind { return Kind(n[:min(len(n), 1)]) }

// Derived reports whether n has the form of a record's name.
func (n Name) Derived() bool {
	outside := func(c rune) bool { return !strings.ContainsRune(alphabet, c) }
	return len(n) == 1+digestSize && slices.Contains(ofRecords, n.Kind()) && !strings.ContainsFunc(string(n), outside)
}

// termKeys maps the kind of a name to the key of the labels by which searches find records
// that have or had the name. OfUser has no key, because searches read the record of a user
// and client by name.
var termKeys = map[Kind]string{OfGrant: "grant", OfRefresh: "refresh", OfAccess: "access", OfID: "id"}

// Term returns the term by which searches find a record that has or had the name n. It
// returns false if termKeys lacks the kind of n.
func (n Name) Term() (Term, bool) {
	key, ok := termKeys[n.Kind()]
	if !ok {
		return Term{}, false
	}
	return Term{key, string(n[1:])}, true
}

// A Term is a search term: the key of a label, and a digest of the indexed text under a name
// key. The value of the label is a digest of Term.Digest under an index key. A record can
// therefore keep the Term of an earlier token without the token, and the label of that Term
// can be computed under any index key.
type Term struct{ Key, Digest string }

// Terms returns the terms of those names that have a term.
func Terms(names ...Name) []Term {
	var terms []Term
	for _, name := range names {
		if t, ok := name.Term(); ok {
			terms = append(terms, t)
		}
	}
	return terms
}

func (t Term) label(key []byte) driver.Label {
	return driver.Label{Key: t.Key, Value: Digest(key, t.Key, t.Digest)}
}

// A Namer derives names and terms under one name key. The zero Namer has no key.
type Namer struct{ key []byte }

// name returns the name of the given kind that derives from parts. If the client has an issuer or a
// resource, the name also derives from both. For any other client, the name derives from parts
// alone, so that stored names stay valid.
func (n Namer) name(kind Kind, at rules.Client, parts ...string) Name {
	if at.Issuer != "" || at.Resource != "" {
		parts = append(parts, at.Issuer, at.Resource)
	}
	return Name(string(kind) + Digest(n.key, string(kind), parts...))
}

// User returns the name of the record of a user and client.
func (n Namer) User(user string, c rules.Client) Name { return n.name(OfUser, c, user, c.ID) }

// Grant returns the name of a record that is created for the client and the grant token,
// without a user.
func (n Namer) Grant(c rules.Client, token string) Name { return n.name(OfGrant, c, c.ID, token) }

// Refresh returns the name of a record that is created for the client and the refresh token,
// without a user or a grant token.
func (n Namer) Refresh(c rules.Client, token string) Name {
	return n.name(OfRefresh, c, c.ID, token)
}

// Access is like AccessAt for a client with neither Issuer nor Resource. Searches by the access
// token use the term of this name, regardless of the client of the record.
func (n Namer) Access(token string) Name { return n.name(OfAccess, rules.Client{}, token) }

// AccessAt returns the name of a record that is created with only the access token, without a
// user. The name depends on c.Issuer and c.Resource, but not on c.ID.
func (n Namer) AccessAt(c rules.Client, token string) Name { return n.name(OfAccess, c, token) }

// Of returns the name under which a record is created for f. f must have a user or one of the
// three tokens.
func (n Namer) Of(f codec.Fields) Name {
	switch {
	case f.UserName != "":
		return n.User(f.UserName, rules.ClientOf(f))
	case f.GrantToken != "":
		return n.Grant(rules.ClientOf(f), f.GrantToken)
	case f.RefreshToken != "":
		return n.Refresh(rules.ClientOf(f), f.RefreshToken)
	}
	return n.AccessAt(rules.ClientOf(f), f.AccessToken)
}

// Tokens returns the names whose terms find f by its tokens. The names for the grant token
// and the refresh token depend on the client of f, but the name for the access token does not.
func (n Namer) Tokens(f codec.Fields) []Name {
	var names []Name
	if f.GrantToken != "" {
		names = append(names, n.Grant(rules.ClientOf(f), f.GrantToken))
	}
	if f.RefreshToken != "" {
		names = append(names, n.Refresh(rules.ClientOf(f), f.RefreshToken))
	}
	if f.AccessToken != "" {
		names = append(names, n.Access(f.AccessToken))
	}
	return names
}

// ID returns the name that stands for id: id itself if id has the form of a record's name,
// and otherwise a name of the kind OfID.
func (n Namer) ID(id string) Name {
	if Name(id).Derived() {
		return Name(id)
	}
	return Name(OfID) + Name(Digest(n.key, "id", id))
}

// idTerm returns the term of an ID that is not the name of its record, because a caller chose
// the ID or Rekey renamed the record.
func (n Namer) idTerm(id string) Term { return Term{"id", Digest(n.key, "id", id)} }

func (n Namer) userTerm(user string) Term { return Term{"user", Digest(n.key, "user", user)} }

func (n Namer) clientTerm(id string) Term { return Term{"client", Digest(n.key, "client", id)} }

// Terms returns the terms by which searches find the record r.
func (n Namer) Terms(r stored.Record) []Term {
	var terms []Term
	if r.Alias != nil {
		// A redirect needs only the terms of its IDs: by any other term, searches find the
		// record that the redirect leads to.
		r = stored.Record{Fields: codec.Fields{ID: r.ID}, IDs: r.IDs}
	}
	if r.UserName != "" {
		terms = append(terms, n.userTerm(r.UserName))
	}
	if r.ClientID != "" {
		terms = append(terms, n.clientTerm(r.ClientID))
	}
	if r.ID != "" {
		terms = append(terms, n.idTerm(r.ID))
	}
	for _, id := range r.IDs {
		if Name(id).Kind() == OfUser { // Rekey renamed the record
			terms = append(terms, n.idTerm(id))
		}
	}
	if r.NoAccess {
		r.AccessToken = ""
	}
	names := slices.Concat(namesOf(r.IDs), namesOf(r.Earlier), n.Tokens(r.Fields))
	for _, ref := range slices.Concat(r.Joining, r.Absorbed) {
		names = append(names, Name(ref.Name))
	}
	return append(terms, Terms(names...)...)
}

func namesOf(texts []string) []Name {
	names := make([]Name, 0, len(texts))
	for _, s := range texts {
		names = append(names, Name(s))
	}
	return names
}

// before returns the clients that a record without a user may have had before its client
// became c: c itself, and c without one or more of its parts.
func before(c rules.Client) []rules.Client {
	var all []rules.Client
	for i := range 8 {
		was := c
		for part, text := range []*string{&was.ID, &was.Issuer, &was.Resource} {
			if i>>part&1 != 0 {
				*text = ""
			}
		}
		if !slices.Contains(all, was) {
			all = append(all, was)
		}
	}
	return all
}

// HadAccess reports whether e, or an entry that has moved to e, was created with the given
// access token, but without a user or another token.
func (n Namer) HadAccess(e Entry, token string) bool {
	return slices.ContainsFunc(before(rules.ClientOf(e.Token)), func(c rules.Client) bool { return e.Had(n.AccessAt(c, token)) })
}

// Namer returns the Namer of the current name key.
func (l *Ledger) Namer() Namer { return Namer{l.NameKeys[0]} }

// Namers returns the Namers of all name keys, the current one first.
func (l *Ledger) Namers() []Namer {
	namers := make([]Namer, 0, len(l.NameKeys))
	for _, key := range l.NameKeys {
		namers = append(namers, Namer{key})
	}
	return namers
}

// FormerTerms returns the terms by which searches find a record with the derived ID id. The
// record had this ID, or has the ID under another name.
func (l *Ledger) FormerTerms(id string) []Term {
	terms := Terms(Name(id))
	for _, n := range l.Namers() {
		terms = append(terms, n.idTerm(id))
	}
	return terms
}

// queries returns the labels of the terms under all index keys.
func (l *Ledger) queries(terms []Term) []driver.Label {
	var labels []driver.Label
	for _, key := range l.IndexKeys {
		for _, t := range terms {
			labels = append(labels, t.label(key))
		}
	}
	return labels
}

// labels returns the labels for r. A label that base also has keeps its nonce. Any other
// label gets a nonce that derives from the nonce of w and the incarnation of r. If
// base.Former contains the label with the derived nonce, the label gets a random nonce
// instead, because another writer may be removing the former label.
//
// The labels of two incarnations differ at least in the nonce. A process that deletes an
// incarnation may remove labels late, after w has created the entry again. The removal must
// not affect the labels of the new incarnation.
func (w *Writer) labels(r, base stored.Record) []stored.Label {
	var labels []stored.Label
	sum := sha256.Sum256([]byte(w.nonce + r.Born))
	nonce := encoding.EncodeToString(sum[:nonceSize])
	for _, t := range w.Namer().Terms(r) {
		label := stored.Label(t.label(w.IndexKeys[0]))
		label.Nonce = nonce
		same := func(b stored.Label) bool { return b.Key == label.Key && b.Value == label.Value }
		if slices.ContainsFunc(labels, same) {
			continue
		}
		if i := slices.IndexFunc(base.Labels, same); i >= 0 {
			label = base.Labels[i]
		} else if slices.Contains(base.Former, label) {
			label.Nonce = w.NewNonce()
		}
		labels = append(labels, label)
	}
	slices.SortFunc(labels, compareLabels)
	return labels
}

func compareLabels(a, b stored.Label) int {
	return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Value, b.Value), cmp.Compare(a.Nonce, b.Nonce))
}

func driverLabels(labels []stored.Label) []driver.Label {
	d := make([]driver.Label, 0, len(labels))
	for _, l := range labels {
		d = append(d, driver.Label(l))
	}
	return d
}

// Keys returns the names to read and the terms to look up, under all name keys, in a search for the
// token like.
func (l *Ledger) Keys(like codec.Fields) (names []Name, terms []Term) {
	namers := l.Namers()
	for _, n := range namers {
		of, by := n.keys(like)
		names, terms = append(names, of...), append(terms, by...)
	}
	if len(namers) > 1 {
		slices.Sort(names)
		names = slices.Compact(names) // a derived ID is the same name under all keys
	}
	return names, terms
}

// SearchKeys returns the names to read and the terms to look up, under all name keys, to find all
// records of the user of the token like. If the token has no user, the terms find all records with
// the client ID of the token. If the token has a user and a client ID, and the driver's searches
// lag, the names are the possible names of the record with exactly that user and client. Otherwise,
// there are no names.
func (l *Ledger) SearchKeys(like codec.Fields) (names []Name, terms []Term) {
	for _, n := range l.Namers() {
		if like.UserName == "" {
			terms = append(terms, n.clientTerm(like.ClientID))
			continue
		}
		terms = append(terms, n.userTerm(like.UserName))
		if like.ClientID != "" && l.Properties.ListLag != 0 {
			names = append(names, n.User(like.UserName, rules.ClientOf(like)))
		}
	}
	return names, terms
}

func (n Namer) keys(like codec.Fields) (names []Name, terms []Term) {
	switch rules.KeyOf(like) {
	case rules.KeyID:
		if id := Name(like.ID); id.Derived() {
			return []Name{id}, nil
		}
		return nil, []Term{n.idTerm(like.ID)}
	case rules.KeyUser:
		names = []Name{n.User(like.UserName, rules.ClientOf(like))}
		if like.ClientID == "" {
			terms = []Term{n.userTerm(like.UserName)}
		}
		return names, terms
	case rules.KeyAccess:
		names = []Name{n.Access(like.AccessToken)}
		if of := n.AccessAt(rules.ClientOf(like), like.AccessToken); of != names[0] {
			names = append(names, of)
		}
	case rules.KeyGrant:
		like.AccessToken = ""
		names = n.Tokens(like)
	case rules.KeyNone:
	}
	return names, Terms(names...)
}

// Candidates converts records to candidates of package rules, for a search for the token like.
func (l *Ledger) Candidates(records []Entry, like codec.Fields) []rules.Candidate {
	candidates := make([]rules.Candidate, 0, len(records))
	for _, rec := range records {
		c := rules.Candidate{Fields: rec.Token, Updated: rec.WrittenAt()}
		for _, n := range l.Namers() {
			n.former(&c, rec, like)
		}
		candidates = append(candidates, c)
	}
	return candidates
}

// former sets each of c.Former.ID, c.Former.GrantToken and c.Former.RefreshToken if rec formerly
// had the value of that field in like. An ID that derives from a current token of rec also counts
// as a former ID.
func (n Namer) former(c *rules.Candidate, rec Entry, like codec.Fields) {
	was := &c.Former
	if like.ID != "" && c.ID != like.ID {
		was.ID = was.ID || rec.Had(n.ID(like.ID)) || slices.Contains(n.Tokens(rec.Token), Name(like.ID))
	}
	if t := like.GrantToken; t != "" && t != c.GrantToken {
		was.GrantToken = was.GrantToken || rec.Had(n.Grant(rules.ClientOf(c.Fields), t))
	}
	if t := like.RefreshToken; t != "" && t != c.RefreshToken {
		was.RefreshToken = was.RefreshToken || rec.Had(n.Refresh(rules.ClientOf(c.Fields), t))
	}
}
