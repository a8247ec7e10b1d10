package awssm

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// A place is one version of one secret. A secret that is created again has another
// ARN, and a write to the old one fails.
type place struct{ arn, id string }

func (p place) version() driver.Version { return driver.Version(p.arn + " " + p.id) }

func parse(v driver.Version) (place, bool) {
	arn, id, ok := strings.Cut(string(v), " ")
	return place{arn, id}, ok && arn != "" && id != ""
}

// next returns the place of the version that replaces this one. The service stores one
// content under one ID: of the writers that have read this version the first succeeds,
// and the others are refused.
func (p place) next() place { return place{p.arn, token("succ", p.arn, p.id)} }

// farthest is how many versions apart two states are still recognized as states of one
// chain.
const farthest = 128

// distance returns how many versions b is after a, or 0 if it is not.
func distance(a, b place) int {
	for n := range farthest {
		if a = a.next(); a == b {
			return n + 1
		}
	}
	return 0
}

// token returns the ID of a version, which is a ClientRequestToken as well, in 64
// characters.
func token(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		_, _ = fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// first returns the ID of the first version of a secret. It follows from the name, so
// that a new secret is found before reads by its name show it. The ARN tells the
// version from the first one of another incarnation.
func first(path string) string { return token("first", path) }

// The first line of a text says what the rest is, so that nothing takes a record for a
// tombstone, or another program's text for either.
const (
	markRecord    = "tokenkeep record"
	markWithout   = " without " // after markRecord: the labels that the secret had no room for
	markTombstone = "tokenkeep tombstone"
)

// A state is one version of a secret.
type state struct {
	place
	path    string
	created time.Time
	data    []byte
	lacks   []driver.Label // labels of the record that there was no room for
	err     error          // why there is no data

	tombstone *tombstone // if the reason is that the record was deleted
}

// A tombstone is the content of a secret whose record was deleted.
type tombstone struct {
	// Deleted makes it unlike any other.
	Deleted string `json:"deleted"`

	// Kept says that the secret is to be used again. Without it the secret is about
	// to be deleted, and nothing may be written over it.
	Kept bool `json:"kept,omitempty"`
}

// A value is the content of a version as the service takes it: a text or bytes.
type value struct {
	text  *string
	bytes []byte
}

// encode returns the value of a record. It is text, because not every server keeps
// bytes well: LocalStack 4.14.0 answers BatchGetSecretValue with a 500 once
// PutSecretValue has stored a version as bytes, and earlier ones return other bytes.
// Data that a text cannot carry is stored as bytes, without the labels that the secret
// lacks.
func encode(data []byte, lacks []driver.Label) value {
	head := markRecord
	for i, l := range lacks {
		if i == 0 {
			head += markWithout
		} else {
			head += " "
		}
		head += strings.TrimPrefix(tagKey(l), tagSpace)
	}
	if !utf8.Valid(data) || len(head)+1+len(data) > maxSize {
		return value{bytes: data}
	}
	return value{text: aws.String(head + "\n" + string(data))}
}

// value returns the value of a tombstone.
func (t tombstone) value() value {
	text, _ := json.Marshal(t) // a string and a bool always marshal
	return value{text: aws.String(markTombstone + "\n" + string(text))}
}

// sent returns the part of a value that errors must not repeat.
func (v value) sent() []byte {
	if v.text != nil {
		return []byte(*v.text)
	}
	return v.bytes
}

// decode returns the state that a version holds.
func decode(path string, p place, created *time.Time, v value) state {
	st := state{place: p, path: path, created: aws.ToTime(created)}
	if v.text == nil && len(v.bytes) > 0 {
		st.data = v.bytes
		return st
	}
	head, body, marked := strings.Cut(aws.ToString(v.text), "\n")
	lacks, isRecord := lacking(head)
	switch {
	case marked && isRecord && body != "":
		st.data, st.lacks = []byte(body), lacks
		return st
	case marked && head == markTombstone:
		st.tombstone = parseTombstone(body)
	default:
		st.tombstone = parseTombstone(aws.ToString(v.text)) // as they were before they had a mark
	}
	if st.tombstone != nil {
		st.err = fmt.Errorf("%w: %s was deleted", driver.ErrNotFound, path)
	} else {
		st.err = fmt.Errorf("%w: %s", driver.ErrCorrupt, path)
	}
	return st
}

// lacking reads the first line of a record.
func lacking(head string) (lacks []driver.Label, ok bool) {
	rest, ok := strings.CutPrefix(head, markRecord)
	if !ok || rest == "" {
		return nil, ok
	}
	rest, ok = strings.CutPrefix(rest, markWithout)
	for key := range strings.SplitSeq(rest, " ") {
		l, isLabel := labelOf(tagSpace + key)
		ok = ok && isLabel
		lacks = append(lacks, l)
	}
	return lacks, ok
}

// parseTombstone returns nil if the text is not a tombstone.
func parseTombstone(text string) *tombstone {
	var t tombstone
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if d.Decode(&t) != nil || t.Deleted == "" || d.More() {
		return nil
	}
	return &t
}

// Labels are tags, one key each, with the time as value.
const tagSpace = "tokenkeep:"

// maxTags is how many tags a secret has.
const maxTags = 50

func tagPrefix(l driver.Label) string { return tagSpace + l.Key + ":" + l.Value + ":" }

func tagKey(l driver.Label) string { return tagPrefix(l) + l.Nonce }

// labelOf returns the label that the key of a tag stands for.
func labelOf(tag string) (driver.Label, bool) {
	parts := strings.Split(tag, ":")
	if len(parts) != 4 || parts[0]+":" != tagSpace {
		return driver.Label{}, false
	}
	return driver.Label{Key: parts[1], Value: parts[2], Nonce: parts[3]}, true
}

// labelsOf returns the labels among tags.
func labelsOf(tags []types.Tag) []driver.Label {
	var labels []driver.Label
	for _, t := range tags {
		if l, ok := labelOf(aws.ToString(t.Key)); ok {
			labels = append(labels, l)
		}
	}
	return labels
}

// abandoned returns the labels among tags that are too old to belong to a write that is
// under way.
func abandoned(tags []types.Tag, now time.Time) []driver.Label {
	var labels []driver.Label
	for _, t := range tags {
		l, ok := labelOf(aws.ToString(t.Key))
		added, err := time.Parse(time.RFC3339, aws.ToString(t.Value))
		if ok && err == nil && now.Sub(added) > labelLife {
			labels = append(labels, l)
		}
	}
	return labels
}

// tagsOf returns the tags of labels that are added now.
func tagsOf(labels []driver.Label, now time.Time) []types.Tag {
	at := aws.String(now.UTC().Format(time.RFC3339))
	var tags []types.Tag
	for _, l := range labels {
		tags = append(tags, types.Tag{Key: aws.String(tagKey(l)), Value: at})
	}
	return tags
}

func keysOf(labels []driver.Label) []string {
	var keys []string
	for _, l := range labels {
		keys = append(keys, tagKey(l))
	}
	return keys
}

// sightings remembers which versions were read or written lately, by a hash. With very
// many it forgets some early: then a base is read again without need.
type sightings struct {
	mu          sync.Mutex
	seed        maphash.Seed
	began       time.Time // of the young
	young, aged map[uint64]sighting
}

// A sighting is when a version was seen, and the labels that its secret had no room for.
type sighting struct {
	at    time.Time
	lacks []driver.Label
}

// maxSightings is how many versions one generation has.
const maxSightings = 1 << 16

func (s *sightings) add(v driver.Version, now sighting) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.young == nil {
		s.seed, s.began, s.young = maphash.MakeSeed(), now.at, map[uint64]sighting{}
	}
	if now.at.Sub(s.began) > baseLife || len(s.young) >= maxSightings {
		s.began, s.aged, s.young = now.at, s.young, map[uint64]sighting{}
	}
	s.young[maphash.String(s.seed, string(v))] = now
}

// since reports whether v was seen at the given time or later, and the labels that its
// secret had no room for.
func (s *sightings) since(v driver.Version, at time.Time) (lacks []driver.Label, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.young == nil {
		return nil, false
	}
	key := maphash.String(s.seed, string(v))
	seen, ok := s.young[key]
	if !ok {
		seen, ok = s.aged[key]
	}
	return seen.lacks, ok && !seen.at.Before(at)
}

// A pool has the nonces of the labels that writes of this process add. It gives a nonce
// to one write at a time.
type pool struct {
	mu     sync.Mutex
	issued issued                  // to writes that have not begun
	left   map[leftKey][]leftNonce // beside a secret, perhaps, and to be used again
}

// issued says when labels were first used: the zero Time if no write has used them.
type issued map[driver.Label]time.Time

// A leftKey is what a label is for. A label is used again only over the same base: the
// clean-up of a write over another one may be under way.
type leftKey struct {
	base       driver.Version
	key, value string
}

// A leftNonce is the nonce of a label that a write has left.
type leftNonce struct {
	nonce string
	first time.Time // when it was first used
}

const (
	// reuse is how long after it was first added a label is used again: tidy removes
	// it after labelLife, and a write takes half of that.
	reuse = labelLife / 4

	// maxPool is how many labels a pool remembers of either kind.
	maxPool = 1 << 12
)

// relabel gives nonces to the labels that a write over base adds.
func (p *pool) relabel(base driver.Version, added []driver.Label, now time.Time) []driver.Label {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.issued == nil || len(p.issued) > maxPool {
		p.issued = issued{}
	}
	labels := slices.Clone(added)
	for i := range labels {
		l := &labels[i]
		key := leftKey{base, l.Key, l.Value}
		left := slices.DeleteFunc(p.left[key], func(n leftNonce) bool { return now.Sub(n.first) > reuse })
		delete(p.left, key)
		if len(left) == 0 {
			l.Nonce = strings.ToLower(rand.Text()[:16])
			p.issued[*l] = time.Time{}
			continue
		}
		l.Nonce = left[0].nonce
		p.issued[*l] = left[0].first
		if len(left) > 1 {
			p.left[key] = left[1:]
		}
	}
	return labels
}

// use returns those of the labels of a write that were issued for it.
func (p *pool) use(labels []driver.Label) issued {
	p.mu.Lock()
	defer p.mu.Unlock()
	used := issued{}
	for _, l := range labels {
		if first, ok := p.issued[l]; ok {
			used[l] = first
			delete(p.issued, l)
		}
	}
	return used
}

// leave remembers labels that a change has left. It forgets those of a creation: the
// base of the next one may be another.
func (p *pool) leave(c change, labels []driver.Label) {
	if c.creates {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.left == nil || len(p.left) > maxPool {
		p.left = map[leftKey][]leftNonce{}
	}
	for _, l := range labels {
		first := c.issued[l]
		if first.IsZero() {
			first = c.begun
		}
		key := leftKey{c.base.version(), l.Key, l.Value}
		p.left[key] = append(p.left[key], leftNonce{l.Nonce, first})
	}
}
