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

// A payload begins with a line that tells it from another program's, and from a version
// of the same number in another incarnation.
const (
	magic           = "tokenkeep1 "
	incarnationSize = 16
	header          = len(magic) + incarnationSize + len("\n")
)

var base32Lower = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// newIncarnation returns 80 random bits.
func newIncarnation() string {
	var b [incarnationSize * 5 / 8]byte
	_, _ = rand.Read(b[:]) // never fails, by its documentation
	return base32Lower.EncodeToString(b[:])
}

// encode returns the payload of a version that holds data.
func encode(incarnation string, data []byte) []byte {
	return slices.Concat([]byte(magic), []byte(incarnation), []byte("\n"), data)
}

// decode returns what the payload of a version holds.
func decode(payload []byte) (incarnation string, data []byte, ok bool) {
	if len(payload) <= header || string(payload[:len(magic)]) != magic || payload[header-1] != '\n' {
		return "", nil, false
	}
	return string(payload[len(magic) : header-1]), payload[header:], true
}

// digest returns 80 bits of a digest of data. Records hold random nonces, so that no
// reader of the metadata can guess one and compare.
func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return base32Lower.EncodeToString(sum[:10])
}

// A state is one version of one incarnation of a secret: after a deletion numbers begin
// at 1 again. The digest tells it from a version of the same number that a writer has
// added to a later incarnation by mistake.
type state struct {
	incarnation string
	number      int64
	digest      string
	data        []byte
}

func (s state) version() driver.Version {
	return driver.Version(s.incarnation + "." + strconv.FormatInt(s.number, 10) + "." + s.digest)
}

func parse(v driver.Version) (state, bool) {
	parts := strings.Split(string(v), ".")
	if len(parts) != 3 {
		return state{}, false
	}
	number, err := strconv.ParseInt(parts[1], 10, 64)
	return state{incarnation: parts[0], number: number, digest: parts[2]}, err == nil && number > 0
}

func (s state) secret() driver.Secret {
	return driver.Secret{Payload: driver.Payload{Data: s.data}, Version: s.version()}
}

func (s state) same(t state) bool {
	return s.incarnation == t.incarnation && s.number == t.number && s.digest == t.digest
}

// annotation is the key of the annotation that holds an account.
const annotation = "tokenkeep"

// An account is the driver's part of the metadata of a secret, in one annotation.
type account struct {
	Incarnation string `json:"life"`
	Writes      int64  `json:"writes"`            // that changed the account: puts metadata of one incarnation in order
	Current     int64  `json:"current,omitempty"` // the version that the last commit made the state; 0: none yet
	Digest      string `json:"digest,omitempty"`  // of its data
	Etag        string `json:"etag,omitempty"`    // of it, as a version
	Note        string `json:"note,omitempty"`    // see driver.Leaser
	Due         []due  `json:"due,omitempty"`     // in the order of numbers
}

// A due is a version to be destroyed, or a range of them: it is not the state any more,
// or never was.
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

func metadataOf(m *secretmanagerpb.Secret) metadata {
	r := metadata{secret: m, number: m.GetVersionAliases()[alias]}
	r.ours = json.Unmarshal([]byte(m.GetAnnotations()[annotation]), &r.account) == nil && len(r.account.Incarnation) == incarnationSize
	return r
}

// state returns the state of the secret, without its data. If another tool has moved the
// alias the digest is not known.
func (m metadata) state() state {
	s := state{incarnation: m.account.Incarnation, number: m.number}
	if m.number == m.account.Current {
		s.digest = m.account.Digest
	}
	return s
}

// is reports whether s is the state of the secret.
func (m metadata) is(s state) bool {
	now := m.state()
	return now.same(s) || now.digest == "" && now.number > 0 && now.incarnation == s.incarnation && now.number == s.number
}

// empty reports whether the secret has never had a state: its creator is about to give
// it one, or has died.
func (m metadata) empty() bool { return m.ours && m.number == 0 && m.account.Current == 0 }

// newer reports whether m is provably of a later time than n.
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
		{Number: m.number, Since: v.at.Unix()}, // if another tool has moved the alias
	} {
		if old.Number > 0 && !slices.ContainsFunc(a.Due, func(d due) bool { return d.Number == old.Number }) {
			a.Due = append(a.Due, old)
		}
	}
	// The versions between the two are of writers who are gone, or who will find that
	// this one came first.
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
		k, v := labelFor(l)
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

	// slot is the time within which versions have to be replaced to become one range, if
	// there are too many entries.
	slot = 10 * time.Minute
)

// fewer sorts versions that are due and, if there are too many entries, makes ranges of
// those that get ripe at about the same time. If that does not suffice, as without the
// permission to destroy, it makes one of the oldest. The etags of the versions in a range
// are asked for when it is ripe.
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

// ripe reports whether readers have had the time to do without the version.
func (d due) ripe(now time.Time) bool { return now.Sub(time.Unix(d.Since, 0)) >= grace }

// ripe returns up to most versions that can be destroyed, one by one, and the rest of what
// is due.
func (m metadata) ripe(now time.Time, most int) (work, pending []due) {
	for _, d := range m.account.Due {
		for ; d.To > d.Number && d.ripe(now) && len(work) < most; d.Number++ {
			if d.Number != m.number {
				work = append(work, due{Number: d.Number, Since: d.Since})
			}
		}
		if d.To == d.Number {
			d.To = 0
		}
		if d.To == 0 && d.ripe(now) && len(work) < most && d.Number != m.number {
			work = append(work, d)
		} else {
			pending = append(pending, d)
		}
	}
	return work, pending
}

// A label of a record is "<kind>_<24 characters of the digest>" with the value "<the
// other 8>": keys have at most 63 characters, and the documented filters compare values.
// Nonces are not kept: labels change together with the state, so that no writer removes
// another one's.
const inKey = 24

func labelFor(l driver.Label) (key, value string) {
	return l.Key + "_" + l.Value[:inKey], l.Value[inKey:]
}

var (
	ourKey   = regexp.MustCompile(`^[a-z][a-z0-9_]{0,31}_[a-z2-7]{24}$`)
	ourValue = regexp.MustCompile(`^[a-z2-7]{8}$`)
)

// ours reports whether a label has the form of those that records are found by.
func ours(key, value string) bool { return ourKey.MatchString(key) && ourValue.MatchString(value) }

// labelsOf returns the labels that records are found by, without nonces.
func labelsOf(labels map[string]string) []driver.Label {
	var found []driver.Label
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		if v := labels[k]; ours(k, v) {
			found = append(found, driver.Label{Key: k[:len(k)-inKey-1], Value: k[len(k)-inKey:] + v})
		}
	}
	return found
}

// A cache holds the metadata that were last seen of some secrets, and no token. The
// service decides about a write with an etag from the cache as about any other. The
// cache saves the read before the write, and shows that a read lags behind this
// program's own writes.
type cache struct {
	mu sync.Mutex
	of map[string]metadata
}

// maxCached is how many secrets a cache holds: an account and some labels each.
const maxCached = 256

func (c *cache) get(name string) (metadata, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m, ok := c.of[name]
	return m, ok
}

// add remembers m, unless newer metadata are known, and returns the newest.
func (c *cache) add(name string, m metadata) metadata {
	c.mu.Lock()
	defer c.mu.Unlock()
	if have, ok := c.of[name]; ok && have.newer(m) {
		return have
	}
	if len(c.of) >= maxCached {
		for other := range c.of {
			delete(c.of, other)
			break
		}
	}
	c.of[name] = m
	return m
}

func (c *cache) drop(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.of, name)
}
