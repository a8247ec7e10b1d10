package conformance

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"
)

// canaries holds secrets that must not appear in text. canaries has several forms of each
// secret: the secret itself, hexadecimal, decimal bytes and base64.
type canaries struct {
	mu    sync.Mutex
	forms map[string][]string // by their first bytes
}

// beginning is the length in bytes of the keys of canaries.forms.
const beginning = 12

// add adds the forms of a secret. The secret must have at least 16 bytes and no upper-case
// letters.
func (c *canaries) add(secret string) {
	forms := []string{secret, hex.EncodeToString([]byte(secret)), strings.Trim(fmt.Sprint([]byte(secret)), "[]")}
	for shift := range 3 {
		// The base64 form of a secret depends on the offset, modulo 3, of the secret in the
		// encoded data.
		inner := secret[shift:]
		forms = append(forms, base64.StdEncoding.EncodeToString([]byte(inner[:len(inner)/3*3])))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.forms == nil {
		c.forms = map[string][]string{}
	}
	for _, form := range forms {
		c.forms[form[:beginning]] = append(c.forms[form[:beginning]], form)
	}
}

// in reports whether text contains a form of one of the secrets.
func (c *canaries) in(text string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, text := range []string{text, strings.ToLower(text)} {
		for i := range len(text) - beginning + 1 {
			for _, form := range c.forms[text[i:i+beginning]] {
				if strings.HasPrefix(text[i:], form) {
					return true
				}
			}
		}
	}
	return false
}

// prints returns v formatted with each of the usual verbs of package fmt.
func prints(v any) string {
	var b strings.Builder
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x", "%X"} {
		fmt.Fprintf(&b, format+"\n", v)
	}
	return b.String()
}
