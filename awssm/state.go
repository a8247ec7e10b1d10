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

// A place identifies one version of one secret. A secret that is created again has another
// ARN, and writes to the old ARN fail.
type place struct{ arn, id string }

func (p place) version() driver.Version { return driver.Version(p.arn + " " + p.id) }

func parse(v driver.Version) (place, bool) {
	arn, id, ok := strings.Cut(string(v), " ")
	return place{arn, id}, ok && arn != "" && id != ""
}

// next returns the place of the version that follows p. The service stores only one value under
// each version ID. Writers that have read the same version use the same ID, so only the first
// writer succeeds. The versions that follow each other in this way form a chain.
func (p place) next() place { return place{p.arn, token("succ", p.arn, p.id)} }

// farthest is the largest number that distance returns.
const farthest = 128

// distance returns the number of steps in a chain from the place a to the place b. distance returns
// 0 if that number exceeds farthest, or if the chain does not lead to b.
func distance(a, b place) int {
	for n := range farthest {
		if a = a.next(); a == b {
			return n + 1
		}
	}
	return 0
}

// token returns a version ID of 64 characters that is derived from parts. The ID is also the
// ClientRequestToken of the write.
func token(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		_, _ = fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// first returns the ID of the first version of the secret at path. The ID is derived from the path,
// so a driver can read a new secret by that ID before reads by name show it. The first versions of
// all incarnations have the same ID, but the incarnations have different ARNs.
func first(path string) string { return token("first", path) }

// The first line of a value shows whether the value is a record or a tombstone. Without this
// line, the driver could mistake a record for a tombstone, or another program's value for a
// record or a tombstone.
const (
	markRecord    = "tokenkeep record"
	markWithout   = " without " // follows markRecord, before the labels for which the secret had no room
	markTombstone = "tokenkeep tombstone"
)

// A state is one version of a secret, with its content.
type state struct {
	place
	path    string
	created time.Time
	data    []byte
	lacks   []driver.Label // labels for which the secret had no room
	err     error          // the reason why data is nil
	read    time.Time      // time of the read; zero if the state is used immediately

	tombstone *tombstone // set if the record was deleted
}

// A tombstone is the content of a secret whose record was deleted.
type tombstone struct {
	// Deleted is a random string that makes the tombstone unique.
	Deleted string `json:"deleted"`

	// Kept reports whether the secret stays for reuse. If Kept is false, the secret is about to be
	// deleted, and no writer may replace the tombstone.
	Kept bool `json:"kept,omitempty"`
}

// A value is the content of a version as the service stores it: text or bytes.
type value struct {
	text  *string
	bytes []byte
}

// encode returns the value of a record. The parameter lacks holds the labels for which the secret
// has no room. encode prefers text, because some servers do not handle bytes correctly. LocalStack
// 4.14.0 answers BatchGetSecretValue with status 500 after PutSecretValue has stored bytes. Earlier
// versions of LocalStack return bytes that differ from the stored bytes. If data is not valid
// UTF-8, or is too long with the first line, encode returns bytes, which do not list the labels.
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

func (t tombstone) value() value {
	text, _ := json.Marshal(t) // cannot fail: t holds only a string and a bool
	return value{text: aws.String(markTombstone + "\n" + string(text))}
}

// sent returns the text or the bytes of v. Errors must not quote this data.
func (v value) sent() []byte {
	if v.text != nil {
		return []byte(*v.text)
	}
	return v.bytes
}

// decode returns the state of the version that is at place p and has the value v. Every binary
// value is a record. If v is a tombstone, the err field of the state matches ErrNotFound. If v is
// neither a record nor a tombstone, the err field matches ErrCorrupt.
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
		st.tombstone = parseTombstone(aws.ToString(v.text)) // the value may be a tombstone without its first line
	}
	if st.tombstone != nil {
		st.err = fmt.Errorf("%w: %s was deleted", driver.ErrNotFound, path)
	} else {
		st.err = fmt.Errorf("%w: %s", driver.ErrCorrupt, path)
	}
	return st
}

// lacking returns the labels in head, and reports whether head is the first line of a record.
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

// parseTombstone returns the tombstone in text, or nil if text is not a tombstone.
func parseTombstone(text string) *tombstone {
	var t tombstone
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if d.Decode(&t) != nil || t.Deleted == "" || d.More() {
		return nil
	}
	return &t
}

// tagSpace is the prefix of the key of each tag that represents a label. The value of the tag
// is the time at which a write added the tag.
const tagSpace = "tokenkeep:"

// maxTags is the maximum number of tags of a secret.
const maxTags = 50

func tagPrefix(l driver.Label) string { return tagSpace + l.Key + ":" + l.Value + ":" }

func tagKey(l driver.Label) string { return tagPrefix(l) + l.Nonce }

// labelOf returns the label that a tag with the given key represents. If the tag represents no
// label, the second result is false.
func labelOf(tag string) (driver.Label, bool) {
	parts := strings.Split(tag, ":")
	if len(parts) != 4 || parts[0]+":" != tagSpace {
		return driver.Label{}, false
	}
	return driver.Label{Key: parts[1], Value: parts[2], Nonce: parts[3]}, true
}

func labelsOf(tags []types.Tag) []driver.Label {
	var labels []driver.Label
	for _, t := range tags {
		if l, ok := labelOf(aws.ToString(t.Key)); ok {
			labels = append(labels, l)
		}
	}
	return labels
}

// abandoned returns the labels of the tags that are too old to belong to a write in progress.
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

// tagsOf returns the tags that represent labels. The value of each tag is the given time.
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

// A sightings holds a sighting for each version that a driver has recently read or written. The
// keys are hashes of the versions. If there are more than maxSightings versions, some versions are
// discarded early. Before a write over a discarded version, the driver makes an unnecessary read.
type sightings struct {
	mu          sync.Mutex
	seed        maphash.Seed
	began       time.Time // start of the young generation
	young, aged map[uint64]sighting
}

// A sighting holds the time at which the driver read or wrote a version, and the labels for
// which the secret had no room.
type sighting struct {
	at    time.Time
	lacks []driver.Label
}

// maxSightings is the maximum number of versions in one generation.
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

// since reports whether the driver read or wrote v at the given time or later. since also returns
// the labels for which the secret of v had no room.
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

// A pool assigns nonces to the labels that the writes of a driver add. No two concurrent writes
// use the same nonce.
type pool struct {
	mu     sync.Mutex
	issued issued                  // labels for writes that have not begun
	left   map[leftKey][]leftNonce // nonces of labels that may remain on a secret, for reuse
}

// issued maps labels to the time of their first use. The zero Time means that no write has
// used the label.
type issued map[driver.Label]time.Time

// A leftKey identifies the labels that a write can reuse. A write reuses a label only over the
// same base, because a write over another base may still be removing the label.
type leftKey struct {
	base       driver.Version
	key, value string
}

// A leftNonce is the nonce of a label that a write may have left on a secret.
type leftNonce struct {
	nonce string
	first time.Time // when a write first used the nonce
}

const (
	// reuse is the time after the first use of a label during which another write can reuse the
	// label. That write takes up to labelLife/2, and must end before tidy removes the label after
	// labelLife.
	reuse = labelLife / 4

	// maxPool is the number of entries above which a pool clears one of its maps.
	maxPool = 1 << 12
)

// relabel returns a copy of the labels in added, with nonces for a write over base. relabel reuses
// nonces that earlier writes over base may have left on the secret.
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

// use returns the elements of labels that the pool has issued, and removes these labels from the
// pool.
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

// leave adds to the pool the labels that the change c may have left on its secret. A later write
// can reuse these labels. leave ignores the labels of a Create, because the next Create may have
// another base.
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
