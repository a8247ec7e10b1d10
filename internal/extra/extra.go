// Package extra converts the additional members of token responses between three representations:
// the JSON or form of a response, codec.Fields.Extra of a record, and the values that the Extra
// method of an oauth2.Token returns. In this package, an Extra is the text of a codec.Fields.Extra.
package extra

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// whole is the suffix of number literals that Values returns as an int64. x/oauth2 returns whole
// numbers in form-encoded responses as int64, and all other numbers as float64. The suffix does not
// change the value of a number. If a server writes such a literal, the function JSON removes the
// suffix.
const whole = "e0"

// Form returns a form value as JSON. The result is a number if x/oauth2 returns a number for the
// value, and otherwise a string.
func Form(value string) json.RawMessage {
	switch text := strings.TrimSpace(value); strings.Count(text, ".") {
	case 0:
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			return Int(n)
		}
	case 1:
		if f, err := strconv.ParseFloat(text, 64); err == nil {
			return marshal(f)
		}
	}
	return marshal(value)
}

// Int returns n as a number literal that Values returns as an int64.
func Int(n int64) json.RawMessage { return json.RawMessage(strconv.FormatInt(n, 10) + whole) }

func marshal(v any) json.RawMessage {
	text, err := json.Marshal(v)
	if err != nil {
		return json.RawMessage("null") // JSON cannot represent infinity
	}
	return text
}

// Join returns an Extra with the given members. It leaves out members that an Extra cannot hold,
// such as a member that is nested too deeply. If an object within a member repeats a name, Join
// keeps only the last value, as x/oauth2 does.
func Join(members map[string]json.RawMessage) string {
	joined := ""
	for name, value := range members {
		joined = codec.MergeExtra(joined, one(name, value))
	}
	return joined
}

// one returns an Extra with one member, or "" if an Extra cannot hold the member.
func one(name string, value json.RawMessage) string {
	quoted := string(marshal(name))
	text, err := codec.CanonicalExtra("{" + quoted + ":" + string(value) + "}")
	if err == nil {
		return text
	}
	v, ok := decode(value)
	if !ok {
		return ""
	}
	text, err = codec.CanonicalExtra("{" + quoted + ":" + string(marshal(v)) + "}")
	if err != nil {
		return ""
	}
	return text
}

// JSON converts value, a member of a JSON token response, to a member of an Extra. The result
// differs from value only if value has the form that Int returns. In that case, the function
// removes the suffix, so that Values returns a float64.
func JSON(value json.RawMessage) json.RawMessage {
	if n, ok := isInt(json.Number(value)); ok {
		return marshal(n)
	}
	return value
}

// decode decodes a JSON value, keeping the literals of its numbers.
func decode(value json.RawMessage) (v any, ok bool) {
	d := json.NewDecoder(bytes.NewReader(value))
	d.UseNumber()
	return v, d.Decode(&v) == nil
}

// isInt returns the number in literal, and reports whether literal has the form that Int
// returns.
func isInt(literal json.Number) (int64, bool) {
	digits, ok := strings.CutSuffix(literal.String(), whole)
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	return n, err == nil
}

// Values returns the members of the Extra text, with the types that x/oauth2 returns. If text is
// not a JSON object, the map is empty but not nil.
func Values(text string) map[string]any {
	values := map[string]any{}
	v, ok := decode(json.RawMessage(text))
	members, isObject := v.(map[string]any)
	if !ok || !isObject {
		return values
	}
	for name, member := range members {
		if literal, ok := member.(json.Number); ok {
			if n, ok := isInt(literal); ok {
				values[name] = n
				continue
			}
		}
		values[name] = plain(member)
	}
	return values
}

// plain returns v with its numbers replaced by float64s, and with numbers out of range
// replaced by nil. It modifies the slices and maps in v.
func plain(v any) any {
	switch v := v.(type) {
	case json.Number:
		f, err := v.Float64()
		if err != nil {
			return nil
		}
		return f
	case []any:
		for i := range v {
			v[i] = plain(v[i])
		}
	case map[string]any:
		for name := range v {
			v[name] = plain(v[name])
		}
	}
	return v
}

// Fit returns the part of the Extra text that can be merged into record, the Extra of a record,
// without exceeding codec.MaxExtra. Fit leaves out the largest members first. The result left is
// the number of omitted members. If the record has a member that Fit leaves out, fitting has null
// for that member, because the record would otherwise keep the old value of the member.
func Fit(record, text string) (fitting string, left int) {
	if len(codec.MergeExtra(record, text)) <= codec.MaxExtra {
		return text, 0
	}
	var members map[string]json.RawMessage
	if json.Unmarshal([]byte(text), &members) != nil {
		return "", 0
	}
	old := Values(record)
	bySize := slices.SortedFunc(maps.Keys(members), func(a, b string) int { return len(members[b]) - len(members[a]) })
	for _, name := range bySize {
		delete(members, name)
		left++
		if _, known := old[name]; known {
			members[name] = json.RawMessage("null")
		}
		if fitting = Join(members); len(codec.MergeExtra(record, fitting)) <= codec.MaxExtra {
			return fitting, left
		}
	}
	return "", left
}

// Token returns t as an x/oauth2 token whose Extra method returns the members that Members
// returns.
func Token(t tokenstore.Token) *oauth2.Token {
	o := &oauth2.Token{
		AccessToken: string(t.AccessToken), RefreshToken: string(t.RefreshToken),
		TokenType: t.TokenType, Expiry: t.ExpiresAt,
	}
	return o.WithExtra(Members(t))
}

// Members returns the members of t.Extra. For each field of a token response that t.Extra lacks,
// such as access_token or scope, Members adds the field of t, unless that field is empty.
func Members(t tokenstore.Token) map[string]any {
	values := Values(string(t.Extra))
	for name, text := range map[string]string{
		"access_token": string(t.AccessToken), "refresh_token": string(t.RefreshToken), "token_type": t.TokenType,
		"id_token": string(t.IDToken), "scope": t.Scope, "api_domain": t.APIDomain,
	} {
		if values[name] == nil && text != "" {
			values[name] = text
		}
	}
	return values
}
