package vaultstore

import (
	"encoding/base64"
	"encoding/json"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/driverkit"
)

// The one field of a secret: a record as text or, if it is not valid UTF-8, in base64; or
// a random text, which makes a tombstone unlike any other.
const (
	fieldRecord  = "record"
	fieldBase64  = "record_base64"
	fieldDeleted = "deleted"
)

type field struct{ name, value string }

// encode returns the field of a record.
func encode(data []byte) field {
	if utf8.Valid(data) {
		return field{fieldRecord, string(data)}
	}
	return field{fieldBase64, base64.StdEncoding.EncodeToString(data)}
}

// A state is one version of a secret.
type state struct {
	number    int // 0: there is no version
	created   time.Time
	version   driver.Version
	data      []byte
	tombstone string // the random text of one
	err       error  // why there is no data: ErrNotFound or ErrCorrupt
}

// decode sets the content of a state. It sets none if the fields are not in the form that
// this package writes.
func (st *state) decode(fields map[string]json.RawMessage) {
	if len(fields) != 1 {
		return
	}
	for name, raw := range fields {
		var text *string
		if json.Unmarshal(raw, &text) != nil || text == nil || *text == "" {
			return
		}
		switch name {
		case fieldRecord:
			st.data = []byte(*text)
		case fieldBase64:
			if data, err := base64.StdEncoding.Strict().DecodeString(*text); err == nil {
				st.data = data
			}
		case fieldDeleted:
			st.tombstone = *text
		}
	}
}

// holds reports whether f is the content of the state.
func (st state) holds(f field) bool {
	return st.tombstone != "" && f == field{fieldDeleted, st.tombstone} || st.data != nil && f == encode(st.data)
}

func (st state) secret() (driver.Secret, error) {
	if st.err != nil {
		return driver.Secret{}, st.err
	}
	return driver.Secret{Payload: driver.Payload{Data: st.data}, Version: st.version, Updated: st.created}, nil
}

// behind reports whether st is older than a known version. A secret that was removed with
// its metadata counts from 1 again, at a later time. A secret without any version was
// removed, or has not arrived if reads lag.
func (st state) behind(than driver.Version, lags bool) bool {
	number, created, ok := parse(than)
	switch {
	case !ok || st.number >= number:
		return false
	case st.number == 0:
		return lags
	}
	return st.created.Before(created)
}

// A version is the number of a KV version and the time of its creation. Vault tells both
// whenever it writes or reads one. It compares the number alone. The time keeps a Version
// unlike any other even if another tool deletes a secret with its metadata, so that Vault
// counts from 1 again.
func version(number int, created string) driver.Version {
	return driver.Version(strconv.Itoa(number) + " " + created)
}

func parse(v driver.Version) (number int, created time.Time, ok bool) {
	n, at, _ := strings.Cut(string(v), " ")
	number, err := strconv.Atoi(n)
	if err != nil || number < 1 {
		return 0, time.Time{}, false
	}
	created, err = time.Parse(time.RFC3339Nano, at)
	return number, created, err == nil
}

// A label is an entry of the index: a secret of its own, which has metadata only.
func (s *secrets) folder(l driver.Label) string {
	return s.mount + "/metadata/" + s.prefix + "/index/" + l.Key + "/" + l.Value
}

func (s *secrets) entry(name string, l driver.Label) string {
	return s.folder(l) + "/" + name + "." + l.Nonce
}

var legalNonce = regexp.MustCompile(`^[a-z2-7]{16}$`)

// parseEntry returns the name and the nonce in the last element of the path of an entry.
func parseEntry(key string) (name, nonce string, ok bool) {
	name, nonce, ok = strings.Cut(key, ".")
	return name, nonce, ok && driverkit.LegalName(name) && legalNonce.MatchString(nonce)
}
