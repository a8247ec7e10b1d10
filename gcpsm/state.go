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

// alias is the version alias that points to the state of a secret.
const alias = "current"

// The first line of a payload distinguishes the payload from the payloads of other programs. The
// first line also distinguishes versions that have the same number in different incarnations.
const (
	magic           = "tokenkeep1 "
	incarnationSize = 16
	header          = len(magic) + incarnationSize + len("\n")
)

var base32Lower = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// newIncarnation returns 80 random bits as 16 characters.
func newIncarnation() string {
	var b [incarnationSize * 5 / 8]byte
	_, _ = rand.Read(b[:]) // documented never to fail
	return base32Lower.EncodeToString(b[:])
}

// encode returns the payload of a version with the given data.
func encode(incarnation string, data []byte) []byte {
	return slices.Concat([]byte(magic), []byte(incarnation), []byte("\n"), data)
}

// decode returns the incarnation and the data in a payload. ok is false if the payload does not
// have the form that encode returns.
func decode(payload []byte) (incarnation string, data []byte, ok bool) {
	if len(payload) <= header || string(payload[:len(magic)]) != magic || payload[header-1] != '\n' {
		return "", nil, false
	}
	return string(payload[len(magic) : header-1]), payload[header:], true
}

// digest returns the first 80 bits of the SHA-256 digest of data, in base32. Records contain
// random nonces, so readers of the metadata cannot use the digest to test guesses of a record.
func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return base32Lower.EncodeToString(sum[:10])
}

// A state is one version of one incarnation of a secret. After a deletion, version numbers start at
// 1 again. A writer with an outdated base may add a version to a later incarnation, with the
// earlier incarnation in the payload. The digest distinguishes that version from the version with
// the same number in the earlier incarnation.
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

// An account is the driver's part of the metadata of a secret, stored in one annotation.
type account struct {
	Incarnation string `json:"life"`
	Writes      int64  `json:"writes"`            // number of changes to the account; orders the metadata of one incarnation
	Current     int64  `json:"current,omitempty"` // number of the last committed version; 0 before the first commit
	Digest      string `json:"digest,omitempty"`  // digest of the data in the version Current
	Etag        string `json:"etag,omitempty"`    // etag of the version Current
	Note        string `json:"note,omitempty"`    // see driver.Leaser
	Due         []due  `json:"due,omitempty"`     // sorted by number
}

// due describes a version, or a range of versions, to be destroyed. A due version was replaced, or
// was never the state.
type due struct {
	Number int64  `json:"n"`
	To     int64  `json:"to,omitempty"`   // the last version of a range; 0 for a single version
	Etag   string `json:"etag,omitempty"` // empty if unknown
	Since  int64  `json:"since"`          // Unix time at which the version became due, by the service's clock
}

// metadata holds the metadata of a secret and the decoded account.
type metadata struct {
	secret  *secretmanagerpb.Secret
	account account
	number  int64 // version to which the alias points; 0 if there is no alias
	ours    bool  // whether the annotation is an account
}

func metadataOf(m *secretmanagerpb.Secret) metadata {
	r := metadata{secret: m, number: m.GetVersionAliases()[alias]}
	r.ours = json.Unmarshal([]byte(m.GetAnnotations()[annotation]), &r.account) == nil && len(r.account.Incarnation) == incarnationSize
	return r
}

// state returns the state of the secret, without its data. If another tool has moved the alias,
// the digest is empty.
func (m metadata) state() state {
	s := state{incarnation: m.account.Incarnation, number: m.number}
	if m.number == m.account.Current {
		s.digest = m.account.Digest
	}
	return s
}

// is reports whether s is the state of the secret. If m does not contain the digest of the state,
// only the incarnation and the number must be equal.
func (m metadata) is(s state) bool {
	now := m.state()
	return now.same(s) || now.digest == "" && now.number > 0 && now.incarnation == s.incarnation && now.number == s.number
}

// empty reports whether the secret never had a state. The creator of such a secret has not
// committed yet, or was killed.
func (m metadata) empty() bool { return m.ours && m.number == 0 && m.account.Current == 0 }

// newer reports whether m is provably later than n. m is later if its incarnation is later, or if
// the incarnations are equal and the account in m counts more changes.
func (m metadata) newer(n metadata) bool {
	a, b := m.secret.GetCreateTime().AsTime(), n.secret.GetCreateTime().AsTime()
	return cmp.Or(a.Compare(b), cmp.Compare(m.account.Writes, n.account.Writes)) > 0
}

// commit returns the update that makes the version v the state of the secret. p is the payload of
// that version. extra holds the labels that every secret has, and pending holds the versions that
// remain due.
func (m metadata) commit(v added, p driver.Payload, extra map[string]string, pending []due) *secretmanagerpb.Secret {
	a := m.account
	a.Due = pending
	for _, old := range []due{
		{Number: m.account.Current, Etag: m.account.Etag, Since: v.at.Unix()},
		{Number: m.number, Since: v.at.Unix()}, // differs from Current only if another tool has moved the alias
	} {
		if old.Number > 0 && !slices.ContainsFunc(a.Due, func(d due) bool { return d.Number == old.Number }) {
			a.Due = append(a.Due, old)
		}
	}
	// The versions between the old and the new state belong to writers that have ended, or whose
	// commits the service will refuse after this commit.
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

// annotate returns the update that stores the given account in the secret. The update also
// increases the number of changes in the account by 1.
func (m metadata) annotate(a account) *secretmanagerpb.Secret {
	a.Writes++
	text, err := json.Marshal(a)
	if err != nil {
		panic(fmt.Sprintf("gcpsm: an account cannot be encoded: %v", err)) // cannot happen: an account consists of numbers and strings
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
	// maxDue is the maximum number of due entries in an account. Annotations are limited to
	// 16 KiB.
	maxDue = 64

	// slot is the length of the periods by which the function fewer groups due entries. Versions
	// that became due in the same period can form one range.
	slot = 10 * time.Minute
)

// fewer returns the given entries, sorted by number. If there are more than maxDue entries, the
// function joins adjacent entries that became due in the same slot. If there are still too many
// entries, for example because the permission to destroy is missing, the function joins the oldest
// entries. A range has no etags. The method due requests the etags once the range is ripe.
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

// ripe reports whether d became due at least grace before the given time. Lagging readers may use a
// version until grace has passed.
func (d due) ripe(now time.Time) bool { return now.Sub(time.Unix(d.Since, 0)) >= grace }

// ripe divides the due entries into work and pending. work holds individual versions that are ripe,
// but not the version to which the alias points. The parameter most is the maximum length of work.
// pending holds the remaining entries.
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

// inKey is the number of characters of a digest in the key of a label. The key of a label is
// "<kind>_<24 characters of the digest>", and the value is the other 8 characters. A key has at
// most 63 characters, too few for the longest kind, which has 32 characters, and the whole digest.
// A label needs a value, because the documented filters of ListSecrets compare values. Nonces are
// not stored: labels change together with the state, so no writer removes a label that another
// writer needs.
const inKey = 24

func labelFor(l driver.Label) (key, value string) {
	return l.Key + "_" + l.Value[:inKey], l.Value[inKey:]
}

var (
	ourKey   = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z][a-z0-9_]{0,31}_[a-z2-7]{24}$`) })
	ourValue = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z2-7]{8}$`) })
)

// ours reports whether a label has the form of the labels that the driver adds to find
// records.
func ours(key, value string) bool { return ourKey().MatchString(key) && ourValue().MatchString(value) }

// labelsOf finds the labels of a record among the given labels of its secret, and returns them
// without nonces.
func labelsOf(labels map[string]string) []driver.Label {
	var found []driver.Label
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		if v := labels[k]; ours(k, v) {
			found = append(found, driver.Label{Key: k[:len(k)-inKey-1], Value: k[len(k)-inKey:] + v})
		}
	}
	return found
}

// A cache holds the last known metadata of some secrets, but no token. The service checks an etag
// from the cache in the same way as an etag that was just read. The cache saves the read before a
// write, and shows whether a read lags behind this process's own writes.
//
// If many secrets are written concurrently, the metadata for one write must not displace the
// metadata for another. A cache therefore keeps at least the maxCached/2 most recently used
// secrets.
type cache struct {
	mu     sync.Mutex
	recent map[string]metadata
	older  map[string]metadata // secrets that were last used before the secrets in the map recent
}

// maxCached is the maximum number of secrets in a cache.
const maxCached = 256

func (c *cache) get(name string) (metadata, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.use(name)
}

// use returns the metadata of the named secret, which becomes the most recently used secret. The
// caller must hold c.mu.
func (c *cache) use(name string) (metadata, bool) {
	if m, ok := c.recent[name]; ok {
		return m, true
	}
	m, ok := c.older[name]
	if ok {
		c.put(name, m)
	}
	return m, ok
}

// put stores m as the metadata of the named secret. The caller must hold c.mu.
func (c *cache) put(name string, m metadata) {
	if _, ok := c.recent[name]; !ok && (c.recent == nil || len(c.recent) >= maxCached/2) {
		c.recent, c.older = map[string]metadata{}, c.recent
	}
	c.recent[name] = m
	delete(c.older, name)
}

// add stores m unless the cache has newer metadata. add returns the metadata that the cache then
// holds.
func (c *cache) add(name string, m metadata) metadata {
	c.mu.Lock()
	defer c.mu.Unlock()
	if have, ok := c.use(name); ok && have.newer(m) {
		return have
	}
	c.put(name, m)
	return m
}

func (c *cache) drop(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.recent, name)
	delete(c.older, name)
}
