package conformance

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"
)

// canaries are secrets that must not be seen anywhere, in the forms that they
// may be seen in.
type canaries struct {
	mu    sync.Mutex
	forms map[string][]string // by how they begin
}

// beginning is how much of a form its key is.
const beginning = 12

// add watches for a secret of 16 or more bytes without upper-case letters.
func (c *canaries) add(secret string) {
	forms := []string{secret, hex.EncodeToString([]byte(secret)), strings.Trim(fmt.Sprint([]byte(secret)), "[]")}
	for shift := range 3 {
		// How a secret looks in base64 depends on what stands before it. Groups
		// of three bytes that lie within it always look the same.
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

// in reports whether one of the secrets can be seen in text.
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

// prints returns what is printed of v in the usual ways.
func prints(v any) string {
	var b strings.Builder
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x", "%X"} {
		fmt.Fprintf(&b, format+"\n", v)
	}
	return b.String()
}
