package initializer

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/internal/extra"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

const (
	maxAnswer = 64 << 10 // maximum size of a response in bytes; token endpoints send less

	// maxLifetime is the longest lifetime accepted from a response.
	maxLifetime = 10 * 365 * 24 * time.Hour
)

// A reply is an HTTP response whose body has been read, up to a limit.
type reply struct {
	status int
	header http.Header
	body   []byte
	cut    bool // the body was too long or incomplete
}

// send sends req, and reads the response with the function read.
func send(c *http.Client, req *http.Request, limit int64) (reply, error) {
	res, err := c.Do(req) //nolint:bodyclose // read closes it.
	if err != nil {
		return reply{}, err
	}
	return read(res, limit)
}

// read reads the body of res, and closes the body. If the body is longer than limit bytes or
// incomplete, read sets cut and returns the beginning of the body. It returns an error only if the
// body is incomplete because the context of the request is done.
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

func (r reply) good() bool { return r.status >= 200 && r.status <= 299 }

// members holds the members of a response as JSON. The keys are the names in lower case, because
// x/oauth2 also ignores the case of names in JSON. Each member is decoded separately, so that a
// member of an unexpected type does not hide a refresh token. The response might contain the only
// copy of that token.
type members map[string]json.RawMessage

// members decodes the body of a response, which is a JSON object or a form. It distinguishes
// objects from forms by the first character, because servers send both with wrong content types.
// For a truncated object, members returns the complete members and false. For a body of any other
// kind, it returns nil and false. It does not return the error of a decoder, because decoders quote
// their input.
func (r reply) members() (members, bool) {
	m := members{}
	ok := r.each(func(name string, value json.RawMessage, _ bool) { m.set(name, value) })
	if len(m) == 0 && !ok {
		m = nil
	}
	return m, ok
}

// each calls f for every member of a JSON object or a form, and reports whether the response is
// valid and complete. It passes the values of a form as JSON strings. The parameter form of f
// reports whether the response is a form.
func (r reply) each(f func(name string, value json.RawMessage, form bool)) bool {
	body := bytes.TrimSpace(bytes.TrimPrefix(bytes.TrimSpace(r.body), []byte("\ufeff")))
	switch {
	case bytes.HasPrefix(body, []byte("{")):
		ok := decodeObject(body, func(name string, value json.RawMessage) { f(name, value, false) })
		return ok && !r.cut
	case r.cut:
		return false
	}
	return decodeForm(string(body), func(name string, value json.RawMessage) { f(name, value, true) })
}

// decodeObject calls f for each member of a JSON object, and ignores any text after the object. It
// reports whether the object is valid and complete.
func decodeObject(text []byte, f func(name string, value json.RawMessage)) bool {
	d := json.NewDecoder(bytes.NewReader(text))
	if _, err := d.Token(); err != nil {
		return false
	}
	for d.More() {
		key, err := d.Token()
		name, ok := key.(string)
		var value json.RawMessage
		if err != nil || !ok || d.Decode(&value) != nil {
			return false
		}
		f(name, value)
	}
	_, err := d.Token()
	return err == nil
}

// decodeForm calls f for each value of a form. Almost any text can be parsed as a form, so
// decodeForm returns false unless text has an access_token or an error. It also returns false
// if text has blanks, quotes or angle brackets.
func decodeForm(text string, f func(name string, value json.RawMessage)) bool {
	if strings.ContainsAny(text, " \t\r\n<>\"") {
		return false // an HTML page is not a form, even if a link in it has a parameter access_token
	}
	// ParseQuery returns the valid pairs even if it returns an error.
	values, _ := url.ParseQuery(text)
	known := func(name string) bool {
		return strings.EqualFold(name, "access_token") || strings.EqualFold(name, "error")
	}
	if !slices.ContainsFunc(slices.Collect(maps.Keys(values)), known) {
		return false
	}
	for name, list := range values {
		for _, v := range list {
			quoted, err := json.Marshal(v)
			if err != nil {
				return false
			}
			f(name, quoted)
		}
	}
	return true
}

// set sets a member. For a repeated member, set keeps the last value other than null and "",
// if there is such a value.
func (m members) set(name string, value json.RawMessage) {
	name = strings.ToLower(name)
	if s := string(value); m[name] == nil || s != "null" && s != `""` {
		m[name] = value
	}
}

// text returns the named member, without surrounding spaces. It returns "" if the member is missing
// or is not a string.
func (m members) text(name string) string {
	var s string
	if json.Unmarshal(m[name], &s) != nil {
		return ""
	}
	return strings.TrimSpace(s)
}

// token returns the named member as a token. It returns "" if the member is missing, is not a
// string, or cannot be stored.
func (m members) token(name string) tokenstore.Secret {
	s := tokenstore.Secret(m.text(name))
	if tokenstore.Validate(tokenstore.Token{AccessToken: s}) != nil {
		return ""
	}
	return s
}

var decimal = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^\+?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?$`) })

// lifetime returns the lifetime of the access token from a member that states seconds as a number
// or as text. It returns 0, which means unknown, if the member cannot be parsed or is less than a
// second: servers send 0 and -1 for a token that does not expire. The result is at most
// maxLifetime.
func (m members) lifetime(name string) time.Duration {
	text := m.text(name)
	if text == "" {
		text = string(m[name])
	}
	if !decimal().MatchString(text) {
		return 0
	}
	n, _ := strconv.ParseFloat(text, 64) // a value out of range is infinite
	if n < 1 {
		return 0
	}
	return time.Duration(min(n, maxLifetime.Seconds()) * float64(time.Second))
}

// beside returns a Token with the TokenType, Scope and IDToken of a response. The Extra of the
// Token contains all other members, except access_token, refresh_token, expires_in and the members
// that the parameter taken names. left is the number of members that beside omitted because the
// record's Extra has no room for these members.
func (r reply) beside(record tokenstore.Token, taken ...string) (t tokenstore.Token, left int) {
	m, others := members{}, map[string]json.RawMessage{}
	taken = append(taken, "access_token", "refresh_token", "expires_in")
	r.each(func(name string, value json.RawMessage, form bool) {
		m.set(name, value)
		lower := strings.ToLower(name)
		switch {
		case slices.Contains(taken, lower):
		case form && others[name] != nil: // x/oauth2 returns the first value
		case form:
			var text string
			_ = json.Unmarshal(value, &text) // each passes the values of a form as JSON strings
			others[name] = extra.Form(text)
		default:
			others[name] = extra.JSON(value)
		}
	})
	kept := extra.Values(string(record.Extra))
	var id string
	for name, field := range map[string]*string{"scope": &t.Scope, "token_type": &t.TokenType, "id_token": &id} {
		text, whole := m.field(name)
		*field = text
		if !whole {
			continue
		}
		maps.DeleteFunc(others, func(other string, _ json.RawMessage) bool { return strings.EqualFold(other, name) })
		if _, known := kept[name]; known && text != "" {
			others[name] = json.RawMessage("null") // null replaces the value that Extra has from an earlier response
		}
	}
	t.IDToken = tokenstore.Secret(id)
	fitting, left := extra.Fit(string(record.Extra), extra.Join(others))
	t.Extra = tokenstore.Secret(fitting)
	return t, left
}

// field returns the text of a member that has a field in the record. whole is false if Extra must
// also keep the member, because the member is not a string, is empty, is too large, or cannot be
// stored in the field.
func (m members) field(name string) (text string, whole bool) {
	var list []string
	switch raw := m[name]; {
	case raw == nil || string(raw) == "null":
		return "", true
	case name == "scope" && json.Unmarshal(raw, &list) == nil:
		text = strings.Join(list, " ") // Twitch sends a list
	default:
		text, whole = m.text(name), true
	}
	if text == "" || len(text) > codec.MaxExtra || tokenstore.Validate(tokenstore.Token{Scope: text}) != nil {
		return "", false
	}
	return text, whole
}
