package initializer

import "strings"

// A challenge is an authentication challenge from a WWW-Authenticate field.
type challenge struct {
	scheme string            // in lower case
	params map[string]string // by name in lower case
}

// parseChallenges returns the list of challenges in a WWW-Authenticate field (RFC 9110, 11.6.1).
// Each challenge has a scheme and either a token68 or a list of parameters. Commas separate the
// elements of both lists, and elements may be empty. parseChallenges skips text that does not match
// the grammar, up to the next comma.
func parseChallenges(field string) (list []challenge) {
	l := &lexer{field}
	for l.rest != "" {
		l.skip(" \t,")
		name := l.token()
		if name == "" {
			l.skipElement()
			continue
		}
		spaced := l.skip(" \t")
		if !l.has('=') {
			// A scheme, possibly followed by a token68 or the first parameter.
			list = append(list, challenge{strings.ToLower(name), map[string]string{}})
			if spaced && l.token68() {
				l.skipElement()
			}
			continue
		}
		value, ok := l.value()
		if ok && len(list) > 0 {
			params := list[len(list)-1].params
			if name = strings.ToLower(name); params[name] == "" {
				params[name] = value
			}
		}
		if !ok {
			l.skipElement()
		}
	}
	return list
}

// A lexer reads a field from its beginning, and keeps the remaining text in rest.
type lexer struct{ rest string }

// skip skips leading characters that are in set, and reports whether it skipped any.
func (l *lexer) skip(set string) bool {
	trimmed := strings.TrimLeft(l.rest, set)
	some := len(trimmed) < len(l.rest)
	l.rest = trimmed
	return some
}

func (l *lexer) has(c byte) bool { return l.rest != "" && l.rest[0] == c }

// while consumes and returns the leading characters for which ok returns true.
func (l *lexer) while(ok func(byte) bool) string {
	n := 0
	for n < len(l.rest) && ok(l.rest[n]) {
		n++
	}
	taken := l.rest[:n]
	l.rest = l.rest[n:]
	return taken
}

func (l *lexer) token() string { return l.while(isTokenChar) }

// token68 consumes a token68 that extends to the end of the list element. It returns false, and
// consumes nothing, if there is no token68.
func (l *lexer) token68() bool {
	before := l.rest
	text := l.while(func(c byte) bool { return isAlphaNumeric(c) || strings.IndexByte("-._~+/", c) >= 0 })
	l.skip("=")
	l.skip(" \t")
	if text != "" && (l.rest == "" || l.has(',')) {
		return true
	}
	l.rest = before
	return false
}

// value consumes an equals sign and the token or quoted string after it. It returns false if the
// value is missing or the quoted string is not closed.
func (l *lexer) value() (string, bool) {
	l.rest = l.rest[1:]
	l.skip(" \t")
	if !l.has('"') {
		v := l.token()
		return v, v != ""
	}
	var b strings.Builder
	for i := 1; i < len(l.rest); i++ {
		switch c := l.rest[i]; {
		case c == '"':
			l.rest = l.rest[i+1:]
			return b.String(), true
		case c == '\\' && i+1 < len(l.rest):
			i++
			b.WriteByte(l.rest[i])
		default:
			b.WriteByte(c)
		}
	}
	l.rest = "" // the quoted string is not closed
	return "", false
}

// skipElement skips the remainder of a list element, including quoted commas.
func (l *lexer) skipElement() {
	for l.rest != "" && !l.has(',') {
		if l.has('"') {
			l.rest = "=" + l.rest
			_, _ = l.value()
			continue
		}
		l.rest = l.rest[1:]
	}
}

func isAlphaNumeric(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// isTokenChar reports whether c is a tchar of RFC 9110, 5.6.2.
func isTokenChar(c byte) bool {
	return isAlphaNumeric(c) || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}
