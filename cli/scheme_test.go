package cli

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/tokenkeep/tokenkeep/cli/scheme"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

// runWith runs a program with the given schemes in place of those in package stores.
func (e env) runWith(t *testing.T, stdin string, schemes []scheme.Scheme, args ...string) result {
	t.Helper()
	var out, errs bytes.Buffer
	code := Run(t.Context(), Process{args, e.lookup, strings.NewReader(stdin), &out, &errs}, schemes...)
	return result{code, out.String(), errs.String()}
}

// A box is a driver in memory. Get counts as a call to a service. If the field err is not nil, Get
// returns err.
type box struct {
	*memstore.Driver

	err error
}

func (b box) Properties() driver.Properties {
	p := b.Driver.Properties()
	p.Name = "boxes"
	return p
}

func (b box) Get(ctx context.Context, name string) (driver.Secret, error) {
	scheme.CountCall(ctx)
	if b.err != nil {
		return driver.Secret{}, b.err
	}
	return b.Driver.Get(ctx, name)
}

// boxScheme returns a scheme. All its URLs open boxes on the same memory. If err is not nil, the
// method Get of each box returns err.
func boxScheme(err error) scheme.Scheme {
	memory := memstore.NewDriver()
	return scheme.Scheme{
		Name: "box", Form: "box:NAME", Text: "a box", Service: "boxes",
		Open: func(_ context.Context, o *scheme.Opening) (*scheme.Opened, error) {
			if o.Rest == "" {
				return nil, scheme.Usagef("boxes: a name is needed")
			}
			return &scheme.Opened{Driver: box{memory.Reopen(), err}, Counted: true}, nil
		},
	}
}

func TestScheme(t *testing.T) {
	t.Parallel()
	s := boxScheme(nil)
	e := env{envStore: "box:a"}
	if r := e.runWith(t, `{"user_name":"ann","client_id":"c","refresh_token":"`+canary+`"}`, []scheme.Scheme{s}, "save"); r.code != 0 {
		t.Fatalf("save: %+v", r)
	}
	r := e.runWith(t, "", []scheme.Scheme{s}, "get", "--user", "ann", "--client", "c")
	if r.code != 0 || !strings.Contains(r.out, "ann") || shown(r.out+r.err) != "" {
		t.Errorf("get: %+v", r)
	}
	if r := e.runWith(t, "", []scheme.Scheme{s}, "ls", "--store", "box:"); r.code != 2 || !strings.Contains(r.err, "tokenkeep: a name is needed") {
		t.Errorf("no name: %+v", r)
	}
	if r := e.runWith(t, "", []scheme.Scheme{s}, "migrate", "--from", "box:a", "--to", "box:b"); r.code != 2 || !strings.Contains(r.err, "same store") {
		t.Errorf("two URLs of one place: %+v", r)
	}
	if r := e.runWith(t, "", []scheme.Scheme{s}, "policy"); r.code != 2 {
		t.Errorf("policy of a program without policies: %+v", r)
	}
}

func TestSchemeCalls(t *testing.T) {
	t.Parallel()
	counts, silent := boxScheme(nil), boxScheme(nil)
	silent.Name = "silent"
	open := silent.Open
	silent.Open = func(ctx context.Context, o *scheme.Opening) (*scheme.Opened, error) {
		s, err := open(ctx, o)
		s.Counted = false
		return s, err
	}
	e := env{envStore: "silent:a"}
	both := []scheme.Scheme{counts, silent}
	if r := e.runWith(t, `{"user_name":"ann","client_id":"c","refresh_token":"r"}`, both, "save"); r.code != 0 {
		t.Fatalf("save: %+v", r)
	}
	r := e.runWith(t, "", both, "migrate", "--from", "silent:a", "--to", "box:a", "--json")
	if r.code != 0 {
		t.Fatalf("migrate: %+v", r)
	}
	calls := map[string]bool{}
	for _, s := range decode[migrateReport](t, r.out).Steps {
		calls[string(s.Name)] = s.Calls != nil && *s.Calls > 0
	}
	if calls["read source"] || !calls["verify"] {
		t.Errorf("the steps with calls are %v", calls)
	}
}

// TestSchemeAdvice checks that the command prints the advice of a scheme with errors from its
// driver.
func TestSchemeAdvice(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		err            error
		signIn, denied string
		want           string
	}{
		{errors.Join(driver.ErrDenied, driver.ErrCredentials), "open the box", "", "no permission is missing: open the box\n"},
		{errors.Join(driver.ErrDenied, driver.ErrCredentials), "open the box", "ask", "no permission is missing: open the box\n"},
		{driver.ErrDenied, "open the box", "ask its owner", "tokenkeep: ask its owner\n"},
		{driver.ErrDenied, "open the box", "", "doctor --permissions"},
		{driver.ErrDenied, "", "ask its owner", "tokenkeep: ask its owner\n"},
		{errors.Join(driver.ErrDenied, driver.ErrCredentials), "", "ask its owner", "tokenkeep: ask its owner\n"},
	} {
		s := boxScheme(fmt.Errorf("boxes: get: %w", test.err))
		s.SignIn, s.Denied = test.signIn, test.denied
		r := env{envStore: "box:a"}.runWith(t, "", []scheme.Scheme{s}, "get", "--user", "ann", "--client", "c")
		if r.code != 7 || !strings.Contains(r.err, test.want) {
			t.Errorf("%+v: %+v", test, r)
		}
	}
}

// TestSchemeClose checks that the command closes everything that a scheme opened, even if the
// command cannot use the store.
func TestSchemeClose(t *testing.T) {
	t.Parallel()
	for _, e := range []env{{}, {envKeys: writeFile(t, "keys.json", canary)}} {
		var opened, closed atomic.Int64
		s := boxScheme(nil)
		open := s.Open
		s.Open = func(ctx context.Context, o *scheme.Opening) (*scheme.Opened, error) {
			opened.Add(1)
			s, err := open(ctx, o)
			s.Close = func() error { closed.Add(1); return nil }
			return s, err
		}
		r := e.with(envStore, "box:a").runWith(t, "", []scheme.Scheme{s}, "ls")
		if (r.code == 0) != (e[envKeys] == "") || opened.Load() != 1 || closed.Load() != 1 || shown(r.out+r.err) != "" {
			t.Errorf("%d opened, %d closed: %+v", opened.Load(), closed.Load(), r)
		}
	}
}

func TestSchemePolicy(t *testing.T) {
	t.Parallel()
	s := boxScheme(nil)
	s.Policy = &scheme.Policy{
		Name: "boxes", Argument: "NAME", Short: "Print who may open a box",
		New: func(flags *flag.FlagSet) func(string, bool) (string, error) {
			who := flags.String("who", "all", "`USER` of the box")
			return func(name string, terraform bool) (string, error) {
				return fmt.Sprintln(name, *who, terraform), nil
			}
		},
	}
	for want, args := range map[string][]string{
		"a all false\n":      {"policy", "boxes", "a"},
		"a ann true\n":       {"policy", "boxes", "a", "--who", "ann", "--terraform"},
		"--who USER":         {"policy", "boxes", "--help"},
		"Print who may open": {"policy", "--help"},
	} {
		if r := (env{}).runWith(t, "", []scheme.Scheme{s}, args...); r.code != 0 || !strings.Contains(r.out, want) {
			t.Errorf("%q: %+v", args, r)
		}
	}
}

func TestSchemesAreChecked(t *testing.T) {
	t.Parallel()
	good := boxScheme(nil)
	for name, change := range map[string]func(*scheme.Scheme){
		"the name of a built-in kind": func(s *scheme.Scheme) { s.Name = "mem" },
		"the name of another":         func(s *scheme.Scheme) { s.Name = "box" },
		"the alias of another":        func(s *scheme.Scheme) { s.Alias = "box" },
		"no name":                     func(s *scheme.Scheme) { s.Name = "" },
		"a name in capitals":          func(s *scheme.Scheme) { s.Name = "Box" },
		"an alias with a colon":       func(s *scheme.Scheme) { s.Alias = "b:" },
		"no form":                     func(s *scheme.Scheme) { s.Form = "" },
		"no text":                     func(s *scheme.Scheme) { s.Text = "" },
		"no function":                 func(s *scheme.Scheme) { s.Open = nil },
	} {
		s := boxScheme(nil)
		s.Name = "other"
		change(&s)
		if r := (env{}).runWith(t, "", []scheme.Scheme{good, s}, "version"); r.code != 2 || !strings.Contains(r.err, "this program has") {
			t.Errorf("%s: %+v", name, r)
		}
	}
	for _, nothing := range []*scheme.Opened{nil, {}} {
		s := boxScheme(nil)
		s.Open = func(context.Context, *scheme.Opening) (*scheme.Opened, error) { return nothing, nil }
		if r := (env{envStore: "box:a"}).runWith(t, "", []scheme.Scheme{s}, "ls"); r.code != 1 || !strings.Contains(r.err, "no store") {
			t.Errorf("a scheme that returns %v: %+v", nothing, r)
		}
	}
}

func TestVersionInPrograms(t *testing.T) {
	t.Parallel()
	for want, info := range map[string]*debug.BuildInfo{
		"v1.2.3":  {Main: debug.Module{Path: module, Version: "v1.2.3"}},
		"(devel)": {Main: debug.Module{Path: module}},
		"v1.0.1":  {Main: debug.Module{Path: "example.com/box", Version: "v9.0.0"}, Deps: []*debug.Module{{Path: module, Version: "v1.0.1"}}},
		"v1.0.2": {
			Main: debug.Module{Path: "example.com/box"},
			Deps: []*debug.Module{{Path: module, Version: "v1.0.1", Replace: &debug.Module{Path: "example.com/fork", Version: "v1.0.2"}}},
		},
	} {
		if got := versionIn(info); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// A small is a box with a maximum record size of 4 KiB.
type small struct{ box }

func (s small) Properties() driver.Properties {
	p := s.box.Properties()
	p.MaxSize = 4 << 10
	return p
}

// TestSchemeMaxSize checks that a migration finds a token that is too large for the driver before
// it saves any token.
func TestSchemeMaxSize(t *testing.T) {
	t.Parallel()
	from, to := boxScheme(nil), boxScheme(nil)
	to.Name, to.Form = "small", "small:NAME"
	open := to.Open
	to.Open = func(ctx context.Context, o *scheme.Opening) (*scheme.Opened, error) {
		opened, err := open(ctx, o)
		if err == nil {
			opened.Driver = small{opened.Driver.(box)}
		}
		return opened, err
	}
	both := []scheme.Scheme{from, to}
	e := env{envStore: "box:a"}
	for user, refresh := range map[string]string{"ann": "r", "eve": strings.Repeat("r", 5<<10)} {
		if r := e.runWith(t, `{"user_name":"`+user+`","client_id":"c","refresh_token":"`+refresh+`"}`, both, "save"); r.code != 0 {
			t.Fatalf("save: %+v", r)
		}
	}
	if r := e.runWith(t, "", both, "migrate", "--from", "box:a", "--to", "small:a"); r.code == 0 || !strings.Contains(r.err+r.out, "4096") {
		t.Errorf("migrate: %+v", r)
	}
	if r := e.runWith(t, "", both, "ls", "--store", "small:a", "--json"); r.code != 0 || strings.Contains(r.out, "user_name") {
		t.Errorf("ls: %+v", r)
	}
}
