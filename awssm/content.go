package awssm

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// The first line of a text says what the rest is, so that a record is never taken
// for a tombstone, nor either for what another program keeps.
const (
	markRecord    = "tokenkeep record"
	markWithout   = " without " // after markRecord: the labels that the secret had no room for
	markTombstone = "tokenkeep tombstone"
)

// A state is what one version of a secret is.
type state struct {
	place
	created time.Time
	data    []byte
	lacks   []driver.Label // labels of the record that there was no room for
	err     error          // why there is no data

	tombstone *tombstone // if that is because its record was deleted
}

// A tombstone is the content of a secret whose record was deleted.
type tombstone struct {
	// Deleted makes it unlike any other.
	Deleted string `json:"deleted"`

	// Kept says that the secret is to be used again. If it is not set the secret
	// is about to be deleted, and nothing may be written over it.
	Kept bool `json:"kept,omitempty"`
}

// A value is the content of a version as the service takes it: a text or bytes.
type value struct {
	text  *string
	bytes []byte
}

// record returns the value of a record. It is text, because not every server keeps
// bytes well: LocalStack 4.14.0 answers BatchGetSecretValue with a 500 once a
// version was stored as bytes by PutSecretValue, and LocalStack before 4.14 returns
// other bytes. Data that a text cannot carry is stored as bytes, and then there is
// no note of the labels that the secret lacks.
func record(data []byte, lacks []driver.Label) value {
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

// sent returns what errors must not repeat of a value.
func (v value) sent() []byte {
	if v.text != nil {
		return []byte(*v.text)
	}
	return v.bytes
}

// content returns what is in a version.
func content(path string, p place, created *time.Time, v value) state {
	st := state{place: p}
	if created != nil {
		st.created = *created
	}
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
