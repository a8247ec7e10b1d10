package sdk

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tokenkeep/tokenkeep/internal/fakeaws"
	"github.com/tokenkeep/tokenkeep/internal/languages"
	"github.com/tokenkeep/tokenkeep/internal/zohoaccounts"
)

// A step is an action of an SDK's process, together with its expected result. In the strings
// of ID, With, has and list, ${NAME} stands for the element NAME of life.values. For example,
// ${ann.id} is the ID of the token ann after the last step that used ann.
type step struct {
	what   string
	before func(l *life)
	languages.Step
	want want
}

// A want is the expected result of a step. The fields code, class and asks are always checked:
// their zero values mean that the step causes no exception and no request. If no exception is
// expected, the fields none and same are always checked for find_token, and the field list is
// always checked for get_tokens. The field calls is always checked for get_token. Any other field
// is checked only if it is not zero.
type want struct {
	calls    []string          // the methods that get_token calls, in this order
	like     string            // the name of another token, whose ID and access token are expected
	has      map[string]string // members of the token that was found; "-" means that the member is empty
	alive    bool              // the access token is valid
	none     bool              // find_token returns null
	same     bool              // find_token returns the token that it was called with
	list     []string          // the IDs of the tokens that get_tokens returns
	statuses []int             // the HTTP statuses of the requests to the API
	code     string
	class    string
	asks     int // requests at the token endpoint
}

// A life holds the fakes that one process and its agent use, and the values of earlier steps.
type life struct {
	*languages.Bed
	aws    *fakeaws.Server
	values map[string]string
}

// replay runs steps in a process of p, and checks their results. The process uses an agent
// that listens on address and has the given flags.
func replay(t *testing.T, p languages.Program, address string, steps []step, flags ...string) {
	t.Parallel()
	aws := fakeaws.New(nil)
	t.Cleanup(aws.Close)
	l := &life{Bed: languages.NewBed(t, onAWS(aws)), aws: aws, values: map[string]string{}}
	process := p.Steps(t, l.Bed, l.Serve(address, flags...))
	for _, s := range steps {
		if s.before != nil {
			s.before(l)
		}
		asked := l.asked()
		res, err := process.Do(l.expand(s.Step))
		if err != nil {
			t.Fatalf("%s: %v", s.what, err)
		}
		for _, problem := range l.check(s, res, l.asked()-asked) {
			t.Errorf("%s: %s", s.what, problem)
		}
		l.note(s.On, res)
	}
	if err := process.End(); err != nil {
		t.Error(err)
	}
}

func (l *life) asked() int { return l.Zoho.Count(zohoaccounts.Refresh, zohoaccounts.Exchange) }

func (l *life) text(s string) string {
	return os.Expand(s, func(name string) string { return l.values[name] })
}

func (l *life) expand(s languages.Step) languages.Step {
	s.ID = l.text(s.ID)
	s.With = maps.Clone(s.With)
	for name, value := range s.With {
		s.With[name] = l.text(value)
	}
	return s
}

// note stores the values of res to which later steps can refer.
func (l *life) note(on string, res languages.Result) {
	for name, value := range res.Token {
		l.values[on+"."+name] = value
	}
	if res.Access != "" {
		l.values[on+".access_token"] = res.Access
	}
}

// check returns the differences between res and the expected result of s.
func (l *life) check(s step, res languages.Result, asks int) (problems []string) {
	differs := func(what string, got, want any) {
		if fmt.Sprint(got) != fmt.Sprint(want) {
			problems = append(problems, fmt.Sprintf("%s %v, and not %v", what, got, want))
		}
	}
	w := s.want
	got := res.Found
	if s.Do == "get_token" {
		got = maps.Clone(res.Token)
		got["access_token"] = res.Access
		differs("the SDK calls", res.Calls, w.calls)
	}
	differs("the code is", res.Code, w.code)
	differs("the class is", res.Class, w.class)
	differs("the exception quotes a token:", strings.Contains(res.Error, "secret-1"), false)
	differs("the requests at the token endpoint are", asks, w.asks)
	if s.Do == "find_token" && w.code == "" {
		differs("it is none:", res.None, w.none)
		differs("it is the same:", res.Same, w.same)
	}
	for name, value := range w.has {
		if value == "-" {
			value = ""
		}
		differs(name+" is", got[name], l.text(value))
	}
	if w.like != "" {
		differs("the ID is", got["id"], l.values[w.like+".id"])
		differs("the access token is", got["access_token"], l.values[w.like+".access_token"])
	}
	if w.alive {
		differs("the access token is good:", l.Zoho.Alive(got["access_token"]), true)
	}
	if w.list != nil || s.Do == "get_tokens" && w.code == "" {
		for i, id := range w.list {
			w.list[i] = l.text(id)
		}
		differs("the list is", res.List, w.list)
	}
	if w.statuses != nil {
		differs("the statuses are", res.Statuses, w.statuses)
	}
	if len(problems) > 0 && res.Error != "" {
		problems = append(problems, "the exception says "+res.Error)
	}
	return problems
}

// TestRecordedFlows checks that recordedLife or withoutUser contains every flow that was recorded
// with the official SDK.
func TestRecordedFlows(t *testing.T) {
	t.Parallel()
	const trace = "../initializer/testdata/lifecycle-trace.txt"
	text, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	titles := regexp.MustCompile(`(?m)^(?:== |  -- )(.*?):?$|^(\w+\(\)):$`).FindAllStringSubmatch(string(text), -1)
	if len(titles) < 15 {
		t.Errorf("%s has %d flows", trace, len(titles))
	}
	steps := append(recordedLife(), withoutUser()...)
	for _, title := range titles {
		if !slices.ContainsFunc(steps, func(s step) bool { return s.what == title[1]+title[2] }) {
			t.Errorf("the flow %q is not replayed", title[1]+title[2])
		}
	}
}
