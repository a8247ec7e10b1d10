package gcpsm

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// alias is the alias of the version that is a secret's state.
const alias = "current"

// A payload begins with a line that tells it from what somebody else has put
// there, and from a version of the same number in an earlier or later life.
const (
	magic    = "tokenkeep1 "
	lifeSize = 16
	header   = len(magic) + lifeSize + len("\n")
)

var base32Lower = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// newLife returns 80 random bits.
func newLife() string {
	var b [lifeSize * 5 / 8]byte
	_, _ = rand.Read(b[:]) // never fails, by its documentation
	return base32Lower.EncodeToString(b[:])
}

func frame(life string, data []byte) []byte {
	return slices.Concat([]byte(magic), []byte(life), []byte("\n"), data)
}

func unframe(payload []byte) (life string, data []byte, ok bool) {
	if len(payload) <= header || string(payload[:len(magic)]) != magic || payload[header-1] != '\n' {
		return "", nil, false
	}
	return string(payload[len(magic) : header-1]), payload[header:], true
}

// digest returns 80 bits of a digest of what a version holds. Records hold random
// nonces, so that nobody can guess one and compare.
func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return base32Lower.EncodeToString(sum[:10])
}

// A state is one version of a secret in one of its lives: between a creation and
// a deletion, after which numbers begin at 1 again. The digest tells it from one
// of the same number that a writer has added who took a later life for its own.
type state struct {
	life   string
	number int64
	digest string
	data   []byte
}

func (s state) version() driver.Version {
	return driver.Version(s.life + "." + strconv.FormatInt(s.number, 10) + "." + s.digest)
}

func parse(v driver.Version) (state, bool) {
	parts := strings.Split(string(v), ".")
	if len(parts) != 3 {
		return state{}, false
	}
	number, err := strconv.ParseInt(parts[1], 10, 64)
	return state{life: parts[0], number: number, digest: parts[2]}, err == nil && number > 0
}

func (s state) same(t state) bool {
	return s.life == t.life && s.number == t.number && s.digest == t.digest
}

// annotation is the key of the annotation that an account is kept in.
const annotation = "tokenkeep"

// An account is what the driver notes beside a secret, in one annotation.
type account struct {
	Life    string `json:"life"`
	Writes  int64  `json:"writes"`            // that changed the account: puts metadata of one life in order
	Current int64  `json:"current,omitempty"` // the version that the last commit made the state; 0: none yet
	Digest  string `json:"digest,omitempty"`  // of its data
	Etag    string `json:"etag,omitempty"`    // of it, as a version
	Note    string `json:"note,omitempty"`    // see driver.Leaser
	Due     []due  `json:"due,omitempty"`     // what is to be destroyed, in the order of numbers
}

// A due is a version that is not the state any more, or never was, or a range of
// such.
type due struct {
	Number int64  `json:"n"`
	To     int64  `json:"to,omitempty"`   // the last one of a range
	Etag   string `json:"etag,omitempty"` // "": not known
	Since  int64  `json:"since"`          // by the service's clock, in seconds
}

// metadata is a secret with the account in it.
type metadata struct {
	secret  *secretmanagerpb.Secret
	account account
	number  int64 // that the alias means; 0: there is no alias
	ours    bool  // the account is one
}

func read(m *secretmanagerpb.Secret) metadata {
	r := metadata{secret: m, number: m.GetVersionAliases()[alias]}
	r.ours = json.Unmarshal([]byte(m.GetAnnotations()[annotation]), &r.account) == nil && len(r.account.Life) == lifeSize
	return r
}

// state returns the state of the secret, without its data. If somebody has moved
// the alias its digest is not known.
func (m metadata) state() state {
	s := state{life: m.account.Life, number: m.number}
	if m.number == m.account.Current {
		s.digest = m.account.Digest
	}
	return s
}

// is reports whether s is the state of the secret.
func (m metadata) is(s state) bool {
	now := m.state()
	return now.same(s) || now.digest == "" && now.number > 0 && now.life == s.life && now.number == s.number
}

// empty reports whether the secret was created and never had a state: somebody is
// about to give it one, or has died before that.
func (m metadata) empty() bool { return m.ours && m.number == 0 && m.account.Current == 0 }

// newer reports whether m was read from a later time than n, as far as can be
// told.
func (m metadata) newer(n metadata) bool {
	a, b := m.secret.GetCreateTime().AsTime(), n.secret.GetCreateTime().AsTime()
	return cmp.Or(a.Compare(b), cmp.Compare(m.account.Writes, n.account.Writes)) > 0
}

// commit returns the secret once v, which holds p, is its state.
func (m metadata) commit(v added, p driver.Payload, extra map[string]string, pending []due) *secretmanagerpb.Secret {
	a := m.account
	a.Due = pending
	for _, old := range []due{
		{Number: m.account.Current, Etag: m.account.Etag, Since: v.at.Unix()},
		{Number: m.number, Since: v.at.Unix()}, // if somebody has moved the alias
	} {
		if old.Number > 0 && !slices.ContainsFunc(a.Due, func(d due) bool { return d.Number == old.Number }) {
			a.Due = append(a.Due, old)
		}
	}
	// What was added since the state was committed is of writers who are gone, or
	// who will find that this one came first.
	if first := m.number + 1; first < v.number {
		d := due{Number: first, Since: v.at.Unix()}
		if v.number-1 > first {
			d.To = v.number - 1
		}
		a.Due = append(a.Due, d)
	}
	a.Due = fewer(a.Due)
	a.Current, a.Digest, a.Etag = v.number, digest(p.Data), v.etag
	if p.Drop == a.Note {
		a.Note = ""
	}
	next := m.annotate(a)
	next.Labels = maps.Clone(m.secret.GetLabels())
	maps.DeleteFunc(next.Labels, ours)
	next.Labels = merge(next.Labels, extra)
	for _, l := range p.Labels {
		k, v := encode(l)
		next.Labels[k] = v
	}
	next.VersionAliases = merge(m.secret.GetVersionAliases(), map[string]int64{alias: v.number})
	return next
}

// annotate returns the secret with another account, for an update of this state.
func (m metadata) annotate(a account) *secretmanagerpb.Secret {
	a.Writes++
	text, err := json.Marshal(a)
	if err != nil {
		panic(fmt.Sprintf("gcpsm: an account cannot be encoded: %v", err)) // it is numbers and strings
	}
	return &secretmanagerpb.Secret{
		Etag:        m.secret.GetEtag(),
		Annotations: merge(m.secret.GetAnnotations(), map[string]string{annotation: string(text)}),
	}
}

func merge[V any](a, b map[string]V) map[string]V {
	c := make(map[string]V, len(a)+len(b))
	maps.Copy(c, a)
	maps.Copy(c, b)
	return c
}

const (
	// maxDue is how many entries an account has: annotations have less than 16
	// KiB.
	maxDue = 64

	// slot is the time within which versions were replaced that become one range
	// if there are too many entries.
	slot = 10 * time.Minute
)

// fewer sorts what is due and makes ranges of it if there are too many entries:
// of those that get ripe at about the same time, and if that does not suffice, as
// when the permission to destroy is missing, of the oldest. Of what is in a range
// the etags are asked for when it is ripe.
func fewer(all []due) []due {
	slices.SortFunc(all, func(a, b due) int { return cmp.Compare(a.Number, b.Number) })
	if len(all) <= maxDue {
		return all
	}
	join := func(a, b due) due {
		return due{Number: a.Number, To: max(a.To, b.Number, b.To), Since: max(a.Since, b.Since)}
	}
	some := all[:1:1]
	for _, d := range all[1:] {
		if end := &some[len(some)-1]; end.Since/int64(slot/time.Second) == d.Since/int64(slot/time.Second) {
			*end = join(*end, d)
		} else {
			some = append(some, d)
		}
	}
	for len(some) > maxDue {
		some[1] = join(some[0], some[1])
		some = some[1:]
	}
	return some
}

// ripe reports whether no reader can need the version any more.
func (d due) ripe(now time.Time) bool { return now.Sub(time.Unix(d.Since, 0)) >= grace }

// A label is the label "<kind>_<24 characters of the digest>" with the value
// "<the other 8>": keys have at most 63 characters, and the filters that are
// documented compare values. Nonces are not kept: labels change in the same
// moment as the state, so that nobody removes another writer's.
const inKey = 24

func encode(l driver.Label) (key, value string) {
	return l.Key + "_" + l.Value[:inKey], l.Value[inKey:]
}

var (
	ourKey   = regexp.MustCompile(`^[a-z][a-z0-9_]{0,31}_[a-z2-7]{24}$`)
	ourValue = regexp.MustCompile(`^[a-z2-7]{8}$`)
)

// ours reports whether a label is one that a record is found by.
func ours(key, value string) bool { return ourKey.MatchString(key) && ourValue.MatchString(value) }

// sightings are the metadata that were last seen of some secrets. They hold no
// token. A write that carries an etag from there is decided by the service as any
// other; what is gained is the read before it, and that a read which lags behind
// this program's own writes is recognized.
type sightings struct {
	mu sync.Mutex
	of map[string]metadata
}

// maxSightings is how many there are at most: an account and some labels each.
const maxSightings = 256

func (s *sightings) get(name string) (metadata, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, ok := s.of[name]
	return m, ok
}

// put notes m, unless something newer is known, and returns what is newest.
func (s *sightings) put(name string, m metadata) metadata {
	s.mu.Lock()
	defer s.mu.Unlock()
	if have, ok := s.of[name]; ok && have.newer(m) {
		return have
	}
	if len(s.of) >= maxSightings {
		for other := range s.of {
			delete(s.of, other)
			break
		}
	}
	s.of[name] = m
	return m
}

func (s *sightings) drop(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.of, name)
}
