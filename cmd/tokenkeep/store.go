package main

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// Environment variables.
const (
	envStore = "TOKENKEEP_STORE"
	envKeys  = "TOKENKEEP_KEYS_FILE"
)

// A store is an open token store.
type store struct {
	tokenstore.TokenStore

	// place is where the records are, in the same words for every way of naming it; ""
	// if no other program can open it.
	place string

	counted bool          // calls to a service are counted: see countCalls
	lag     time.Duration // how long what was written may take to be read everywhere
	close   func() error  // nil: there is nothing to close

	// writable returns the store as it can be written to, if it was opened for a plan;
	// otherwise it is nil. The store is made if it is not there.
	writable func(ctx context.Context) (*store, error)
}

// Close closes the store, and what was opened for it.
func (s *store) Close() error {
	if s.close == nil {
		return nil
	}
	return s.close()
}

// A scheme is a kind of store that --store can name.
type scheme struct {
	name string // what stands before the colon
	also string // what may stand there, too
	form string // as it is written
	text string // what it is

	// open returns the store that rest, what stands behind the colon, names. What
	// is wrong with rest is a usage error.
	open func(ctx context.Context, a *app, rest string) (*store, error)
}

// schemes are the kinds of store. Each has a file of its own and a line here.
var schemes = []scheme{
	memScheme,
	fileScheme,
	sqliteScheme,
	mysqlScheme,
	vaultScheme,
	awssmScheme,
	gcpsmScheme,
}

// schemeForms returns how stores are written, for a line of help.
func schemeForms() string {
	var forms []string
	for _, s := range schemes {
		forms = append(forms, s.form)
	}
	return strings.Join(forms, ", ")
}

// open returns the store that --store or the environment names.
func (a *app) open(ctx context.Context) (*store, error) {
	name := a.storeName()
	if name == "" {
		return nil, usagef("no store: give --store or set %s; see 'tokenkeep help stores'", envStore)
	}
	return a.openURL(ctx, name)
}

// storeName returns the URL of the store that --store or the environment names. If
// it can be opened it holds no password: those are refused.
func (a *app) storeName() string { return cmp.Or(a.storeURL, a.env(envStore)) }

// openURL returns the store that a URL names. Errors repeat no more of it than its
// scheme.
func (a *app) openURL(ctx context.Context, name string) (*store, error) {
	name, rest, ok := strings.Cut(name, ":")
	if !ok {
		return nil, usagef("the store has no scheme; it is written as one of %s", schemeForms())
	}
	if name == "postgres" || name == "postgresql" {
		return nil, usagef("PostgreSQL is not supported: a database is written as %s or %s", sqliteScheme.form, mysqlScheme.form)
	}
	var names []string
	for _, s := range schemes {
		if name != s.name && (s.also == "" || name != s.also) {
			names = append(names, s.name)
			continue
		}
		if err := s.check(rest); err != nil {
			return nil, err
		}
		return s.open(ctx, a, rest)
	}
	return nil, usagef("there is no kind of store called %s%s; stores are written as %s",
		echoed(name, "that"), didYouMean(name, names), schemeForms())
}

// emptyParam finds a parameter of a URL that is given and empty.
var emptyParam = regexp.MustCompile(`[?&]([a-z-]{1,20})=(&|$)`)

// check reports what is wrong with rest, whatever the kind of store.
func (s scheme) check(rest string) error {
	if m := emptyParam.FindStringSubmatch(rest); m != nil {
		return usagef("the parameter %s of the store is given and empty", m[1])
	}
	slashes := len(rest) - len(strings.TrimLeft(rest, "/"))
	switch {
	case strings.Contains(s.form, "//") && strings.HasPrefix(rest, "//@"):
		return usagef("the user of the store is given and empty: it is written as %s", s.form)
	case slashes == 2 && !strings.Contains(s.form, "//"):
		return usagef(`%s: has no "//" behind it: the store is written as %s`, s.name, s.form)
	}
	return nil
}

// reading returns an app whose store is there, and is not written to.
func (a *app) reading() *app {
	b := a.changing()
	b.readOnly = true
	return b
}

// changing returns an app whose store is there: a typing error in its name does not make
// a new one.
func (a *app) changing() *app {
	b := *a
	b.isThere = true
	return &b
}

// withStore opens the store for the time that use runs.
func (a *app) withStore(ctx context.Context, use func(*store) error) (err error) {
	s, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return use(s)
}

// query cuts the parameters from rest, which is what a URL has behind its scheme,
// and returns them. Each of the names may stand there once, and others not at all.
func query(rest string, names ...string) (string, map[string]string, error) {
	rest, text, found := strings.Cut(rest, "?")
	values, err := url.ParseQuery(text)
	params := map[string]string{}
	for name, all := range values {
		if !slices.Contains(names, name) || len(all) != 1 || all[0] == "" {
			err = errors.New("unknown")
			break
		}
		params[name] = all[0]
	}
	if err != nil || found && text == "" {
		return "", nil, usagef("the parameters after ? are %s, each at most once, with a value, joined by &", strings.Join(names, ", "))
	}
	return rest, params, nil
}

// settleTime is how long a record of a service whose reads lag may take to be read
// as it was written, before it counts as lost.
const settleTime = 2 * time.Minute

// loopback reports whether a host is this machine.
func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// An endpoint is an address that takes the place of a service's own.
type endpoint struct {
	url   *url.URL
	plain bool // http, on this machine: an emulator, which asks for no credentials
}

// parseEndpoint reads an endpoint. Tokens that go over a network are encrypted.
func parseEndpoint(text string) (endpoint, error) {
	if !strings.Contains(text, "://") {
		text = "https://" + text
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Hostname() == "" || u.User != nil || u.Scheme != "http" && u.Scheme != "https":
		return endpoint{}, usagef("the endpoint is not written as https://HOST:PORT or http://localhost:PORT")
	case u.Scheme == "http" && !loopback(u.Hostname()):
		return endpoint{}, usagef("an endpoint without TLS has to be on this machine: tokens would go over the network as they are")
	}
	return endpoint{u, u.Scheme == "http"}, nil
}

// storesHelp is the help on stores.
func storesHelp() string {
	t := table{indent: "  "}
	for _, s := range schemes {
		lines := strings.Split(s.text, "\n")
		t.row(s.form, lines[0])
		for _, more := range lines[1:] {
			t.row("", more)
		}
	}
	return `How --store, or TOKENKEEP_STORE, names a store:

` + t.String() + `
Keys of names, labels and encryption come from the file that TOKENKEEP_KEYS_FILE
names; "tokenkeep keys new" writes one. All programs that use one store use the same keys.
Files and tables have no room for them.

A file or table that is not there is made by save, import and migrate when they
write to it. To all other commands that is an error.

An endpoint, of LocalStack or an emulator, may be plain http on this machine; then
it is asked without credentials, unless AWS_ACCESS_KEY_ID or AWS_PROFILE is set.
`
}
