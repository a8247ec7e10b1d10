package agent_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/tokenkeep/tokenkeep/agent"
	"github.com/tokenkeep/tokenkeep/codec"
)

// A schema is an object in the OpenAPI document.
type schema map[string]any

func openAPI(t *testing.T) schema {
	t.Helper()
	var d schema
	if err := json.Unmarshal(agent.Document(), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// at returns the object at a path in the document, with references resolved. If there is no such
// object, at returns nil.
func (d schema) at(path ...string) schema {
	here := d
	for _, name := range path {
		next, ok := here[name].(map[string]any)
		if !ok {
			return nil
		}
		here = d.resolve(next)
	}
	return here
}

func (d schema) resolve(s schema) schema {
	if to, ok := s["$ref"].(string); ok {
		return d.at(strings.Split(strings.TrimPrefix(to, "#/"), "/")...)
	}
	return s
}

// conforms returns a description of one difference between v and the schema s, or "" if v conforms.
// A keyword of s that the method word does not support is also a difference.
func (d schema) conforms(s schema, v any) string {
	s = d.resolve(s)
	for word, says := range s {
		if bad := d.word(s, word, says, v); bad != "" {
			return bad
		}
	}
	return ""
}

func (d schema) word(s schema, word string, says, v any) string {
	switch word {
	case "description":
	case "type":
		if is := typeOf(v); is != says && !(says == "number" && is == "integer") {
			return fmt.Sprintf("%v is not a %v", is, says)
		}
	case "const":
		if v != says {
			return fmt.Sprintf("it is not %v", says)
		}
	case "enum":
		if !slices.Contains(says.([]any), v) {
			return fmt.Sprintf("%v is not one of %v", v, says)
		}
	case "pattern":
		if !regexp.MustCompile(says.(string)).MatchString(v.(string)) {
			return "it does not match " + says.(string)
		}
	case "exclusiveMinimum":
		if n, err := v.(json.Number).Float64(); err != nil || n <= says.(float64) {
			return "it is too small"
		}
	case "items":
		for _, item := range v.([]any) {
			if bad := d.conforms(says.(map[string]any), item); bad != "" {
				return bad
			}
		}
	case "required":
		for _, name := range says.([]any) {
			if _, ok := v.(map[string]any)[name.(string)]; !ok {
				return fmt.Sprintf("there is no %v", name)
			}
		}
	case "properties", "additionalProperties":
		return d.members(s, v)
	default:
		return "the schema has a word that is not checked: " + word
	}
	return ""
}

func (d schema) members(s schema, v any) string {
	object, _ := v.(map[string]any)
	properties, _ := s["properties"].(map[string]any)
	for name, member := range object {
		of, ok := properties[name].(map[string]any)
		if !ok && s["additionalProperties"] == false {
			return "there is a member " + name
		}
		if !ok {
			continue
		}
		if bad := d.conforms(of, member); bad != "" {
			return name + ": " + bad
		}
	}
	return ""
}

func typeOf(v any) string {
	switch v := v.(type) {
	case map[string]any:
		return "object"
	case []any:
		return "array"
	case string:
		return "string"
	case bool:
		return "boolean"
	case json.Number:
		if _, err := v.Int64(); err == nil {
			return "integer"
		}
		return "number"
	}
	return "null"
}

// check checks that the document describes the status and the body of a response, and that the
// body is JSON.
func (d schema) check(t *testing.T, method, path string, res *http.Response, body []byte) {
	t.Helper()
	of := d.at("paths", path, strings.ToLower(method), "responses", strconv.Itoa(res.StatusCode))
	if of == nil && res.StatusCode >= 400 { // the document does not list the path or the error
		of = d.at("components", "responses", strconv.Itoa(res.StatusCode))
	}
	if of == nil {
		t.Errorf("%s %s: the document has no status %d", method, path, res.StatusCode)
		return
	}
	if got := res.Header.Get("Content-Type"); got != "application/json" {
		t.Errorf("%s %s: the type is %q", method, path, got)
	}
	if method == http.MethodHead {
		return
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	var v any
	if err := decoder.Decode(&v); err != nil {
		t.Errorf("%s %s: %v: %s", method, path, err, body)
		return
	}
	if bad := d.conforms(d.resolve(of).at("content", "application/json", "schema"), v); bad != "" {
		t.Errorf("%s %s: the answer with status %d is not as the document says: %s", method, path, res.StatusCode, bad)
	}
}

func TestDocument(t *testing.T) {
	t.Parallel()
	d := openAPI(t)
	var columns []string
	for field := range (codec.Fields{}).All() {
		columns = append(columns, field.Column)
	}
	for _, name := range []string{"Like", "Token"} {
		var has []string
		for member := range d.at("components", "schemas", name, "properties") {
			has = append(has, member)
		}
		slices.Sort(has)
		want := slices.Sorted(slices.Values(columns))
		if !slices.Equal(has, want) {
			t.Errorf("%s has the members %v, and tokens have %v", name, has, want)
		}
	}
	for path, item := range d["paths"].(map[string]any) {
		for _, op := range item.(map[string]any) {
			for status, of := range op.(map[string]any)["responses"].(map[string]any) {
				if d.resolve(of.(map[string]any)) == nil {
					t.Errorf("%s: the answer with status %s is nowhere", path, status)
				}
			}
		}
	}
}

func TestConforms(t *testing.T) {
	t.Parallel()
	d := openAPI(t)
	for _, c := range []struct {
		name, json string
		ok         bool
	}{
		{"Record", `{"token":{"id":"a","expiry_time":"12"}}`, true},
		{"Record", `{"token":{"id":"a","expiry_time":"12x"}}`, false},
		{"Record", `{"token":{"id":"a","other":"12"}}`, false},
		{"Record", `{"token":{"user_name":"a"}}`, false},
		{"Record", `{"token":{"id":"a"},"not_persisted":false}`, false},
		{"Record", `{}`, false},
		{"List", `{"tokens":[{"id":1}],"unreadable":[]}`, false},
		{"Error", `{"error":"x","class":"nonsense"}`, false},
		{"Error", `{"error":"x","class":"other","retry_after":0}`, false},
		{"Error", `{"error":"x","class":"other","retry_after":0.5}`, true},
	} {
		decoder := json.NewDecoder(strings.NewReader(c.json))
		decoder.UseNumber()
		var v any
		if err := decoder.Decode(&v); err != nil {
			t.Fatal(err)
		}
		if bad := d.conforms(d.at("components", "schemas", c.name), v); (bad == "") != c.ok {
			t.Errorf("%s %s: %q", c.name, c.json, bad)
		}
	}
}
