package fakegcp

import (
	"strings"

	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"
)

// A filter reports whether the fields of a resource match an expression. Expressions have the form
// of the documented examples (docs: filtering), such as
//
//	name:asecret OR name:bsecret
//	labels.environment=production AND NOT labels.team:*
//	state:ENABLED
//
// Parentheses are allowed. The documentation does not define the precedence of AND and OR, so an
// expression with both must have parentheses.
type filter func(field func(path string) (string, bool)) bool

// secretFields returns a function that looks up a field of m by the path of the field. The function
// returns false if m does not have the field.
func secretFields(m *secretmanagerpb.Secret) func(string) (string, bool) {
	return func(path string) (string, bool) {
		if path == "name" {
			return m.GetName(), true
		}
		key, ok := strings.CutPrefix(path, "labels.")
		if !ok {
			return "", false
		}
		v, ok := m.GetLabels()[key]
		return v, ok
	}
}

func versionFields(m *secretmanagerpb.SecretVersion) func(string) (string, bool) {
	return func(path string) (string, bool) {
		switch path {
		case "name":
			return m.GetName(), true
		case "state":
			return m.GetState().String(), true
		}
		return "", false
	}
}

func parseFilter(text string) (filter, error) {
	if strings.TrimSpace(text) == "" {
		return func(func(string) (string, bool)) bool { return true }, nil
	}
	p := &parser{tokens: strings.Fields(strings.NewReplacer("(", " ( ", ")", " ) ").Replace(text))}
	f, err := p.expression()
	if err == nil && len(p.tokens) > 0 {
		err = invalid("the filter %q is not valid at %q", text, p.tokens[0])
	}
	return f, err
}

type parser struct{ tokens []string }

func (p *parser) next() string {
	if len(p.tokens) == 0 {
		return ""
	}
	t := p.tokens[0]
	p.tokens = p.tokens[1:]
	return t
}

func (p *parser) expression() (filter, error) {
	all, err := p.term()
	if err != nil {
		return nil, err
	}
	operator := ""
	for len(p.tokens) > 0 && p.tokens[0] != ")" {
		op := p.next()
		switch {
		case op != "AND" && op != "OR":
			return nil, invalid("the filter has %q in the place of AND or OR", op)
		case operator != "" && op != operator:
			return nil, invalid("the filter has AND and OR without parentheses")
		}
		operator = op
		left := all
		right, err := p.term()
		if err != nil {
			return nil, err
		}
		all = func(field func(string) (string, bool)) bool {
			if op == "AND" {
				return left(field) && right(field)
			}
			return left(field) || right(field)
		}
	}
	return all, nil
}

func (p *parser) term() (filter, error) {
	switch t := p.next(); t {
	case "NOT":
		f, err := p.term()
		return func(field func(string) (string, bool)) bool { return !f(field) }, err
	case "(":
		f, err := p.expression()
		if err == nil && p.next() != ")" {
			err = invalid("the filter lacks a parenthesis")
		}
		return f, err
	default:
		return restriction(t)
	}
}

// restriction parses one comparison. The operand ":*" matches if the field exists. For the
// field "name", ":" matches if the name contains the text. All other comparisons match if the
// values are equal.
func restriction(t string) (filter, error) {
	i := strings.IndexAny(t, "=:")
	if i < 1 {
		return nil, invalid("the filter has %q in the place of a comparison", t)
	}
	path, operator, want := t[:i], t[i], strings.Trim(t[i+1:], `"`)
	label := strings.HasPrefix(path, "labels.")
	if want == "" || path != "name" && path != "state" && !label {
		return nil, invalid("the filter cannot compare %q", t)
	}
	return func(field func(string) (string, bool)) bool {
		have, ok := field(path)
		switch {
		case !ok:
			return false
		case operator == ':' && want == "*":
			return true
		case operator == ':' && path == "name":
			return strings.Contains(have, want)
		}
		return have == want
	}, nil
}
