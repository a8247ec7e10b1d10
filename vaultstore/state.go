package vaultstore

import (
	"encoding/base64"
	"encoding/json"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/driverkit"
)

// The names of fields. Each version of a secret has exactly one field. fieldRecord holds a
// record as text. fieldBase64 holds a record that is not valid UTF-8, in base64. fieldDeleted
// holds a random string that makes a tombstone unique.
const (
	fieldRecord  = "record"
	fieldBase64  = "record_base64"
	fieldDeleted = "deleted"
)

type field struct{ name, value string }

func encode(data []byte) field {
	if utf8.Valid(data) {
		return field{fieldRecord, string(data)}
	}
	return field{fieldBase64, base64.StdEncoding.EncodeToString(data)}
}

// A state is one version of a secret.
type state struct {
	number    int // 0 if there is no version
	created   time.Time
	version   driver.Version
	data      []byte
	tombstone string // random string of a tombstone
	err       error  // the reason why data is nil; matches ErrNotFound or ErrCorrupt
}

// decode sets the content of st from fields. If the fields do not have the form that this
// package writes, decode leaves st unchanged.
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

// behind reports whether st is, or may be, older than the given version. The parameter lags reports
// whether reads may lag. If a secret was deleted with its metadata, Vault numbers new versions from
// 1 again, but the new versions have later times. If st has no version, the secret was deleted or,
// if reads may lag, is not visible yet.
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

// version returns the driver.Version for the number and the creation time of a KV version. Vault
// returns the number and the time for each write and read, but compares only the number. The time
// makes a Version unique even if another tool deletes a secret with its metadata, after which Vault
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

// folder returns the path of the folder with the index entries for l. An entry is a separate
// secret with metadata only.
func (s *secrets) folder(l driver.Label) string {
	return s.mount + "/metadata/" + s.prefix + "/index/" + l.Key + "/" + l.Value
}

func (s *secrets) entry(name string, l driver.Label) string {
	return s.folder(l) + "/" + name + "." + l.Nonce
}

var legalNonce = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z2-7]{16}$`) })

// parseEntry returns the name and the nonce in key, the last path element of an entry. ok is
// false if key has another form.
func parseEntry(key string) (name, nonce string, ok bool) {
	name, nonce, ok = strings.Cut(key, ".")
	return name, nonce, ok && driverkit.LegalName(name) && legalNonce().MatchString(nonce)
}
