package conformance

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// input returns invalid tokens by the name of the fault. Each token has only one fault.
func (e *storeEnv) input() map[string]token {
	bad := map[string]token{}
	add := func(what string, alter func(t *token)) {
		t := e.of("bob", "c1")
		t.GrantToken = e.secret()
		alter(&t)
		bad[what] = t
	}
	for _, f := range fields {
		for what, value := range map[string]string{
			"invalid UTF-8":     "\xff\xfe" + text(4),
			"half a character":  text(4) + "é"[:1],
			"a surrogate":       "\xed\xa0\x80",
			"a NUL":             text(4) + "\x00",
			"a line feed":       text(4) + "\n" + text(4),
			"a carriage return": "\r" + text(4),
			"a tab":             "a\tb",
			"a DEL":             "a\x7f",
			"a C1 control":      "a\u0085b",
			"the redacted text": fmt.Sprint(tokenstore.Secret("x")),
		} {
			add(f.name+" with "+what, func(t *token) { *f.of(t) = value })
		}
	}
	add("an ID of 256 bytes", func(t *token) { t.ID = strings.Repeat("x", 256) })
	add("an ID of 256 bytes in 128 characters", func(t *token) { t.ID = strings.Repeat("é", 128) })
	add("an ID of 10,000 bytes", func(t *token) { t.ID = strings.Repeat("x", 10_000) })
	add("an expiry in the year 10000", func(t *token) { t.ExpiresAt = hour(0).AddDate(10000-2090, 0, 0) })
	add("an expiry at the epoch", func(t *token) { t.ExpiresAt = hour(0).AddDate(-120, 0, 0).Truncate(24 * 3600e9) })
	add("an expiry before the epoch", func(t *token) { t.ExpiresAt = hour(0).AddDate(-200, 0, 0) })
	return bad
}

var inputCases = []testCase[*storeEnv]{
	{"TS-22", "bad input is refused before anything is written", func(e *storeEnv) {
		s := e.open()
		kept := e.save(s, e.of("ann", "c1"))
		before := e.writes(s)
		for what, t := range e.input() {
			e.refuses(s, what, t, tokenstore.ErrInvalidToken)
		}
		if n := e.writes(s) - before; n != 0 {
			e.Errorf("%d writes for input that was refused", n)
		}
		e.keeps(s, kept)
	}},
	{"TS-22", "bad input does not reach a record that exists", func(e *storeEnv) {
		s := e.open()
		t := e.of("bob", "c1")
		record := e.save(s, t)
		for what, t := range e.input() {
			e.refuses(s, what, t, tokenstore.ErrInvalidToken)
			if t.ID == "" {
				t.ID = record.ID
				e.refuses(s, what+" and its ID", t, tokenstore.ErrInvalidToken)
			}
		}
		e.has(s, record)
		e.keeps(s, record)
	}},
	{"TS-22", "an ID that no record can have is not found", func(e *storeEnv) {
		s := e.open()
		for _, id := range []string{"", strings.Repeat("x", 256), strings.Repeat("x", 10_000), "\xff", "a\x00b"} {
			if _, err := s.FindTokenByID(e.ctx, id); !errors.Is(err, tokenstore.ErrNotFound) && !errors.Is(err, tokenstore.ErrInvalidToken) {
				e.Errorf("FindTokenByID of %d bytes that no ID has returned error %v", len(id), err)
			} else if len(err.Error()) > 1000 {
				e.Errorf("the error of FindTokenByID of %d bytes has %d", len(id), len(err.Error()))
			}
		}
	}},
	{"TS-22", "a record that is too large is refused and the one before it stays", func(e *storeEnv) {
		large, ok := e.large()
		if !ok {
			return
		}
		s := e.open()
		record := e.save(s, e.of("ann", "c1"))
		before := e.writes(s)
		for _, key := range []token{{ID: record.ID}, {UserName: "ann", ClientID: "c1"}, {UserName: "bob"}, {ClientID: "c1"}} {
			t := large
			t.ID, t.UserName, t.ClientID = key.ID, key.UserName, key.ClientID
			e.refuses(s, "a record that is too large", t, tokenstore.ErrTooLarge)
		}
		if n := e.writes(s) - before; n != 0 {
			e.Errorf("%d writes for records that were refused", n)
		}
		e.keeps(s, record)
	}},
	{"TS-22", "a record that grows too large is refused and stays as it was", func(e *storeEnv) {
		large, ok := e.large()
		if !ok {
			return
		}
		s := e.open()
		record := e.save(s, e.of("ann", "c1"))
		refused := false
		for _, f := range contents {
			t := token{ID: record.ID}
			*f.of(&t) = *f.of(&large)
			if *f.of(&t) == "" {
				continue
			}
			got, err := s.SaveToken(e.ctx, t)
			if err == nil {
				record = got
			} else {
				refused = true
				e.wants("SaveToken of a field that makes a record too large", err, tokenstore.ErrTooLarge)
			}
			e.has(e.reopen(s), record)
		}
		if !refused {
			e.Errorf("a record of more than %d bytes was saved field by field", e.maxRecord())
		}
	}},
	{"TS-22", "a field of more than 32 KiB is too large", func(e *storeEnv) {
		s := e.open()
		record := e.save(s, e.of("ann", "c1"))
		for _, f := range slices.Concat(fields[1:3], contents) {
			t := e.of("bob", "c2")
			*f.of(&t) = string(e.long(32<<10 + 1))
			e.refuses(s, "32 KiB + 1 of "+f.name, t, tokenstore.ErrTooLarge)
		}
		e.keeps(s, record)
	}},
}

func (e *storeEnv) maxRecord() int {
	if e.b.MaxRecord == 0 {
		return 64 << 10
	}
	return e.b.MaxRecord
}

// large returns a token that is too large for the store, even though each individual field is
// valid. large returns false if the store has no limit, or if only a token with an invalid field
// can exceed the limit.
func (e *storeEnv) large() (token, bool) {
	const most = 30 << 10 // maximum size of one field in bytes
	size := e.maxRecord()/len(contents) + 1
	if e.maxRecord() < 0 || size > most {
		return token{}, false
	}
	var t token
	for _, f := range contents {
		*f.of(&t) = string(e.long(size))
	}
	return t, true
}

// writes returns the number of writes that the backend has received, or 0 if Store.Writes
// is nil.
func (e *storeEnv) writes(s *watched) int64 {
	if e.b.Writes == nil {
		return 0
	}
	return e.b.Writes(e.TB, s.TokenStore)
}

// wants fails the case unless err matches one of classes.
func (e *storeEnv) wants(op string, err error, classes ...error) {
	e.TB.Helper()
	if !slices.ContainsFunc(classes, func(class error) bool { return errors.Is(err, class) }) {
		e.Errorf("%s returned error %v, want %q", op, err, classes)
	}
}
