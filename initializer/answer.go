package initializer

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

const (
	maxAnswer = 64 << 10 // a token endpoint answers with less than one

	// maxLifetime bounds what an answer may say.
	maxLifetime = 10 * 365 * 24 * time.Hour
)

// A reply is the whole of an HTTP response.
type reply struct {
	status int
	header http.Header
	body   []byte
	cut    bool // the body was too long, or ended too early
}

// send does a request and reads the response.
func send(c *http.Client, req *http.Request, limit int64) (reply, error) {
	res, err := c.Do(req) //nolint:bodyclose // read closes it.
	if err != nil {
		return reply{}, err
	}
	return read(res, limit)
}

// read reads a response and closes its body.
func read(res *http.Response, limit int64) (reply, error) {
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(res.Body, limit+1))
	if res.Request != nil && err != nil {
		if ctx := res.Request.Context(); ctx.Err() != nil {
			return reply{}, ctx.Err()
		}
	}
	return reply{res.StatusCode, res.Header, body, err != nil || int64(len(body)) > limit}, nil
}

// good reports whether the status is one of success.
func (r reply) good() bool { return r.status >= 200 && r.status <= 299 }

// members are those of an answer, each as JSON, by their names in lower case, as
// package json ignores the case of names. They are looked at one by one, so
// that a member of an unexpected type spoils none of the others: the answer may
// hold the only copy of a refresh token.
type members map[string]json.RawMessage

// members decodes a JSON object or a form. The first character tells which it is,
// because servers label both as anything. Of half an object it returns false and
// the members that are whole. It never says what is wrong with a reply, because
// decoders quote what they read.
func (r reply) members() (members, bool) {
	body := bytes.TrimSpace(bytes.TrimPrefix(bytes.TrimSpace(r.body), []byte("\ufeff")))
	switch {
	case bytes.HasPrefix(body, []byte("{")):
		m, ok := decodeObject(body)
		return m, ok && !r.cut
	case r.cut:
		return nil, false
	}
	return decodeForm(string(body))
}

// decodeObject decodes a JSON object and ignores what follows it. Of a member
// that comes twice the last one that is not empty counts.
func decodeObject(text []byte) (members, bool) {
	d := json.NewDecoder(bytes.NewReader(text))
	if _, err := d.Token(); err != nil {
		return nil, false
	}
	m := members{}
	for d.More() {
		key, err := d.Token()
		name, ok := key.(string)
		var value json.RawMessage
		if err != nil || !ok || d.Decode(&value) != nil {
			return m, false
		}
		m.set(name, value)
	}
	_, err := d.Token()
	return m, err == nil
}

// decodeForm decodes a form that has at least one of the members that tell a form
// from other text.
func decodeForm(text string) (members, bool) {
	if strings.ContainsAny(text, " \t\r\n<>\"") {
		return nil, false // a page may have links with tokens in them
	}
	// The part that cannot be parsed is left out, and the others are there.
	values, _ := url.ParseQuery(text)
	m := members{}
	for name, list := range values {
		for _, v := range list {
			quoted, err := json.Marshal(v)
			if err != nil {
				return nil, false
			}
			m.set(name, quoted)
		}
	}
	if m["access_token"] == nil && m["error"] == nil {
		return nil, false
	}
	return m, true
}

func (m members) set(name string, value json.RawMessage) {
	name = strings.ToLower(name)
	if s := string(value); m[name] == nil || s != "null" && s != `""` {
		m[name] = value
	}
}

// text returns a member that is a string, without spaces around it.
func (m members) text(name string) string {
	var s string
	if json.Unmarshal(m[name], &s) != nil {
		return ""
	}
	return strings.TrimSpace(s)
}

// token returns a member that is a token which a store takes.
func (m members) token(name string) tokenstore.Secret {
	s := tokenstore.Secret(m.text(name))
	if tokenstore.Validate(tokenstore.Token{AccessToken: s}) != nil {
		return ""
	}
	return s
}

var decimal = regexp.MustCompile(`^\+?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?$`)

// lifetime returns how long the access token is good, by a member that counts
// seconds as a number or as text. It is 0, which means unknown, if the member cannot
// be read or is less than a second: servers write 0 and -1 for a token that does
// not expire. It is maxLifetime at most.
func (m members) lifetime(name string) time.Duration {
	text := m.text(name)
	if text == "" {
		text = string(m[name])
	}
	if !decimal.MatchString(text) {
		return 0
	}
	n, _ := strconv.ParseFloat(text, 64) // what is out of range is infinite
	if n < 1 {
		return 0
	}
	return time.Duration(min(n, maxLifetime.Seconds()) * float64(time.Second))
}
