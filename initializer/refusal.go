package initializer

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/refusal"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// A verdict is a refusal together with its meaning.
type verdict struct {
	*tokenstore.RefreshError
	meaning meaning

	// definite reports whether the server certainly refused the request and granted no token.
	definite bool
}

const leftOut = "initializer: members of an answer were left out, because a record has no room for them"

// A judge interprets the responses of one authorization server.
type judge struct {
	book   book
	now    func() time.Time
	logger *slog.Logger
}

// minted returns the tokens in a response, and the members that the method beside returns for
// record. It logs the number of members that were left out.
func (j judge) minted(ctx context.Context, r reply, m members, record tokenstore.Token, taken ...string) tokenstore.Token {
	t, left := r.beside(record, taken...)
	if left > 0 {
		j.logger.WarnContext(ctx, leftOut, "id", record.ID, "members", left)
	}
	t.AccessToken, t.RefreshToken = m.token("access_token"), m.token("refresh_token")
	return t
}

// rule returns the members of a successful response, or the refusal in any other response. If a
// successful response is truncated or has no usable access token, rule returns the members and a
// refusal. The parameter secrets lists the secrets in the request. The code of a refusal must not
// contain them.
func (j judge) rule(r reply, secrets []string) (members, *verdict) {
	m, ok := r.members()
	code, meaning := j.page(r)
	if ok {
		f := findings{status: r.status, book: j.book}
		f.read(m)
		code, meaning = f.code(append(secrets, m.text("access_token"), m.text("refresh_token")))
	}
	complaint := ok && complains(m)
	switch {
	case ok && r.good() && m.token("access_token") != "" && (!complaint || meaning == meansUnknown):
		// An error of unknown meaning does not make usable tokens invalid.
		return m, nil
	case !complaint || !r.good():
		code, meaning = byStatus(r.status, code, meaning)
	}
	if complaint || !r.good() {
		m = nil
	}
	return m, j.verdict(code, meaning, r)
}

// byStatus returns the code and the meaning of a refusal with the given status. code and m are the
// code and the meaning according to the body.
func byStatus(status int, code string, m meaning) (string, meaning) {
	switch {
	case status == http.StatusTooManyRequests:
		return codeThrottled, meansWait
	case status == http.StatusRequestTimeout, status == http.StatusTooEarly:
		return codeServerError, meansServer
	case status >= 500 && m == meansUnknown:
		return codeServerError, meansServer
	case status >= 400:
		return code, m
	}
	return codeInvalidResponse, meansServer
}

// page returns the code and the meaning of a refusal whose body is neither an object nor a form. If
// the body is not a known code, page uses the status.
func (j judge) page(r reply) (string, meaning) {
	if code, meaning, ok := j.book.look(strings.TrimSpace(string(r.body))); ok && !r.cut {
		return code, meaning
	}
	return httpCode(r.status)
}

// httpCode returns the code and the meaning of a refusal without an error code.
func httpCode(status int) (string, meaning) {
	m := meansUnknown
	if status == http.StatusUnauthorized {
		m = meansClient // RFC 6749, 5.2
	}
	return fmt.Sprintf("http_%d", status), m
}

func (j judge) verdict(code string, m meaning, r reply) *verdict {
	refused := &tokenstore.RefreshError{Code: code, RetryAfter: retryAfter(r.header, j.now()), Permanent: m == meansConsent, Client: m == meansClient}
	if code == codeDenied {
		refused.RetryAfter = max(refused.RetryAfter, refusal.ThrottleWait)
	}
	return &verdict{refused, m, r.status < 500 && m != meansWait && m != meansServer}
}

// complains reports whether the body of a response states an error, whatever the HTTP status is.
func complains(m members) bool {
	for name, raw := range m {
		var v any
		if json.Unmarshal(raw, &v) != nil {
			continue
		}
		switch plain(name) {
		case "error", "errors", "fault", "errorcode", "errortype":
			if truthy(v) {
				return true
			}
		case "ok", "success":
			if v == false {
				return true
			}
		case "status":
			if s, ok := v.(string); ok && slices.Contains([]string{"error", "fail", "failed", "failure"}, strings.ToLower(s)) {
				return true
			}
		}
	}
	return false
}

// truthy reports whether the value of an error member means that an error occurred.
func truthy(v any) bool {
	switch v := v.(type) {
	case nil:
		return false
	case bool:
		return v
	case string:
		return strings.TrimSpace(v) != ""
	case float64:
		return v != 0
	case []any:
		return len(v) > 0
	case map[string]any:
		return len(v) > 0
	}
	return true
}

// A findings holds the possible error codes and the error messages in a response.
type findings struct {
	status int
	book   book
	codes  []string
	text   []string
}

// maxDepth is the maximum nesting of errors, as in {"errors":[{"detail":{"code":"..."}}]}.
const maxDepth = 5

// Names of members in the form that the function plain returns. The more specific names come first.
var (
	codeNames = []string{"error", "errors", "fault", "errorcode", "code", "errorsubcode", "errortype", "type", "errorsubtype", "suberror", "status", "name", "reason", "detail", "details"}
	textNames = []string{"error", "errordescription", "errormessage", "message", "msg", "faultstring", "errorsummary", "description", "detail", "title"}
)

func (f *findings) read(m members) {
	o := map[string]any{}
	for name, raw := range m {
		var v any
		if json.Unmarshal(raw, &v) == nil {
			o[plain(name)] = v
		}
	}
	f.object(o, 0)
}

// object collects the codes and messages in o. The names in o have the form that the function plain
// returns.
func (f *findings) object(o map[string]any, depth int) {
	if depth > maxDepth {
		return
	}
	if field, code := first(o, "field", "resource"), first(o, "code", "reason"); field != "" && code != "" {
		f.codes = append(f.codes, field+"_"+code) // Strava: {"resource":"RefreshToken","field":"refresh_token","code":"invalid"}
	}
	kind := first(o, "type", "errortype")
	for _, name := range codeNames {
		f.value(o[name], kind, depth)
	}
	for _, name := range textNames {
		if s, ok := o[name].(string); ok {
			f.text = append(f.text, s)
		}
	}
}

// value collects the codes and messages in v, the value of an error member. kind is the type that
// the enclosing object states, or empty.
func (f *findings) value(v any, kind string, depth int) {
	switch v := v.(type) {
	case string:
		f.codes = append(f.codes, v)
	case float64:
		// The same number has different meanings on different servers, so the kind is part of
		// the code.
		if kind != "" {
			f.codes = append(f.codes, kind+" "+strconv.FormatFloat(v, 'f', -1, 64))
		}
	case []any:
		for _, each := range v {
			f.value(each, kind, depth+1)
		}
	case map[string]any:
		o := map[string]any{}
		for name, each := range v {
			o[plain(name)] = each
		}
		f.object(o, depth+1)
	}
}

func first(o map[string]any, names ...string) string {
	for _, name := range names {
		if s, ok := o[name].(string); ok && s != "" {
			return s
		}
	}
	return ""
}

var codeForm = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_ .-]{0,63}$`) })

// code returns the error code of a response and its meaning. It returns a known code in the
// spelling that book.look returns. If no known code is specific (see isVague), but a message says
// that the credential is invalid, code returns codeInvalidGrant. Errors and records contain the
// result, so code returns an unknown code only if it has the usual form and contains no secret.
// Otherwise, code returns codeUnknown. If the response has no code, the status determines the
// result.
func (f *findings) code(secrets []string) (string, meaning) {
	vague := ""
	for _, c := range f.codes {
		code, m, ok := f.book.look(c)
		switch {
		case ok && m == meansClient && isVague(code):
			vague = cmp.Or(vague, code)
		case ok:
			return code, m
		}
	}
	if f.saysRefused() {
		return codeInvalidGrant, meansConsent
	}
	if vague != "" {
		return vague, meansClient
	}
	for _, c := range f.codes {
		if codeForm().MatchString(c) && !holdsAny(c, secrets) {
			return c, meansUnknown
		}
	}
	if len(f.codes) > 0 {
		return codeUnknown, meansUnknown
	}
	return httpCode(f.status)
}

// isVague reports whether some servers use code for invalid refresh tokens, even though the class
// of code is ErrClient. DeviantArt uses invalid_request, and Atlassian uses unauthorized_client.
func isVague(code string) bool { return code == "invalid_request" || code == "unauthorized_client" }

var (
	ofCredential = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`\b(refresh ?token|authori[sz]ation code|verification code|matching code)\b`)
	})
	isNotGood = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`\b(invalid|expired|revoked|incorrect|unknown|inactive|not found|not valid|not exist|already used|already been used|been used|no longer valid|reused)\b`)
	})
	ofRequest = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`\b(client|secret|missing|required|parameters?|header|scope|redirect)\b`)
	})
)

// saysRefused reports whether an error message says that the refresh token or the one-time code is
// invalid.
func (f *findings) saysRefused() bool {
	for _, s := range f.text {
		s = strings.ReplaceAll(strings.ToLower(s), "_", " ")
		if ofCredential().MatchString(s) && isNotGood().MatchString(s) && !ofRequest().MatchString(s) {
			return true
		}
	}
	return false
}

// retryAfter returns the longest time in the Retry-After fields, which state seconds or a date. It
// returns 0 if there is no valid field, and at most maxLifetime.
func retryAfter(header http.Header, now time.Time) (wait time.Duration) {
	for _, text := range header.Values("Retry-After") {
		text = strings.TrimSpace(text)
		if decimal().MatchString(text) {
			seconds, _ := strconv.ParseFloat(text, 64) // a value out of range is infinite
			wait = max(wait, time.Duration(min(seconds, maxLifetime.Seconds())*float64(time.Second)))
		} else if at, err := http.ParseTime(text); err == nil {
			wait = max(wait, min(at.Sub(now), maxLifetime))
		}
	}
	return wait
}
