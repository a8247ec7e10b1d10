package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/tokenkeep/tokenkeep/cli/scheme"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

const (
	envStore = "TOKENKEEP_STORE"
	envKeys  = scheme.EnvKeys
)

// A store is an open tokenstore.TokenStore, with the properties that commands need.
type store struct {
	tokenstore.TokenStore

	// place identifies the store: two URLs with equal places refer to the same store. place is
	// empty if the store cannot be identified.
	place string

	driver driver.Secrets // nil if the store has no driver

	counted bool          // whether calls to the service are counted: see scheme.CountCall
	lag     time.Duration // the larger of the driver's ListLag and ReadLag, but at most settleTime
	close   func() error  // nil if the store has no resources to close

	// writable opens the store again for writing, and creates the store if necessary. If writable
	// is nil, the open store accepts writes.
	writable func(ctx context.Context) (*store, error)
}

// Close closes the store and releases its other resources.
func (s *store) Close() error {
	if s.close == nil {
		return nil
	}
	return s.close()
}

// builtIn returns the schemes that every program has: mem and file.
func builtIn() []scheme.Scheme { return []scheme.Scheme{memScheme(), fileScheme()} }

// checkSchemes returns an error if a scheme lacks a required field, if a name or an alias is
// malformed, or if two schemes share a name or an alias.
func checkSchemes(schemes []scheme.Scheme) error {
	seen := map[string]bool{"": true}
	for _, s := range schemes {
		for _, name := range []string{s.Name, cmp.Or(s.Alias, s.Name+"-")} {
			if seen[name] {
				return fmt.Errorf("this program has two kinds of store called %q", name)
			}
			seen[name] = true
		}
		if !plainName().MatchString(s.Name) || s.Alias != "" && !plainName().MatchString(s.Alias) || s.Form == "" || s.Text == "" || s.Open == nil {
			return fmt.Errorf("this program has a kind of store, %q, without a valid Name, Alias, Form, Text or Open", s.Name)
		}
	}
	return nil
}

// open opens the store that --store or the environment names.
func (a *app) open(ctx context.Context) (*store, error) {
	name := a.storeName()
	if name == "" {
		return nil, usagef("no store: give --store or set %s; see 'tokenkeep help stores'", envStore)
	}
	return a.openURL(ctx, name)
}

// storeName returns the store URL from --store or the environment. Reports quote the URL, because
// the schemes of this module accept no URL with a password.
func (a *app) storeName() string { return cmp.Or(a.storeURL, a.env(envStore)) }

// openURL opens the store with the given URL. It returns a usage error if the program has no
// scheme for the URL.
func (a *app) openURL(ctx context.Context, name string) (*store, error) {
	name, rest, ok := strings.Cut(name, ":")
	if !ok {
		return nil, usagef("the store has no scheme, such as %s; see 'tokenkeep help stores'", a.exampleURL())
	}
	var names []string
	for _, s := range a.schemes {
		if name == s.Name || s.Alias != "" && name == s.Alias {
			return a.openScheme(ctx, s, rest)
		}
		names = append(names, s.Name)
	}
	all := strings.Join(names, ", ")
	if name == "postgres" || name == "postgresql" {
		return nil, usagef("PostgreSQL is not supported; there are %s: see 'tokenkeep help stores'", all)
	}
	return nil, usagef("there is no kind of store called %s%s; there are %s: see 'tokenkeep help stores'",
		echoed(name, "that"), didYouMean(name, names), all)
}

// exampleURL returns an example for an error message: the Form of the first scheme with Slashes
// or, if no scheme has Slashes, of the last scheme.
func (a *app) exampleURL() string {
	form := ""
	for _, s := range a.schemes {
		if form = s.Form; s.Slashes {
			break
		}
	}
	return form
}

// openScheme opens a store of the kind s. The parameter rest is the part of the URL after the
// colon.
func (a *app) openScheme(ctx context.Context, s scheme.Scheme, rest string) (*store, error) {
	if s.Slashes && !strings.HasPrefix(rest, "///") {
		rest = strings.TrimPrefix(rest, "//")
	}
	if err := checkRest(s, rest); err != nil {
		return nil, err
	}
	opened, err := s.Open(ctx, &scheme.Opening{
		Rest: rest, Getenv: a.env, MustExist: a.isThere, ReadOnly: a.readOnly, Note: a.note, Observer: a.observer,
	})
	if err != nil {
		return nil, withoutPackage(err, s.Service)
	}
	return a.opened(opened, s.Service)
}

// opened returns a store for o, the result of Scheme.Open. The parameter service is the name of the
// service, which is omitted at the beginning of errors. If the keys cannot be used, opened closes o
// and returns a usage error.
func (a *app) opened(o *scheme.Opened, service string) (*store, error) {
	if o == nil || o.Driver == nil && o.Store == nil {
		return nil, errors.New("this kind of store returned no store")
	}
	s := &store{TokenStore: o.Store, place: o.Place, counted: o.Counted}
	var main any = o.Store
	if o.Driver != nil {
		opts, err := a.storeOptions()
		var on *tokenstore.Store
		if err == nil {
			on, err = tokenstore.New(o.Driver, opts)
		}
		if err != nil {
			return nil, errors.Join(scheme.Usage(withoutPackage(err, service)), closeAll(o.Driver, o.Close))
		}
		p := o.Driver.Properties()
		s.TokenStore, s.driver, main = driverStore{on, opts, p.MaxSize}, o.Driver, on
		s.place = cmp.Or(o.Place, p.Place)
		s.lag = min(settleTime, max(p.ListLag, p.ReadLag))
	}
	s.close = func() error { return closeAll(main, o.Close) }
	if o.Writable != nil {
		s.writable = func(ctx context.Context) (*store, error) {
			w, err := o.Writable(ctx)
			if err != nil {
				return nil, withoutPackage(err, service)
			}
			return a.opened(w, service)
		}
	}
	return s, nil
}

// closeAll closes main if main is an io.Closer. Afterwards, closeAll calls the function then
// unless that function is nil. It joins the errors from both calls.
func closeAll(main any, then func() error) (err error) {
	if c, ok := main.(io.Closer); ok {
		err = c.Close()
	}
	if then != nil {
		err = errors.Join(err, then())
	}
	return err
}

// A driverStore is a tokenstore.Store with the method Fits.
type driverStore struct {
	*tokenstore.Store

	opts    *tokenstore.Options
	maxSize int // Properties.MaxSize of the driver
}

// A limited is a driver in memory with the maximum record size of another driver.
type limited struct {
	*memstore.Driver

	maxSize int
}

func (l limited) Properties() driver.Properties {
	p := l.Driver.Properties()
	p.MaxSize = l.maxSize
	return p
}

// Fits returns an element for each token: nil if the store can hold the token, or an error that
// says why not. Fits saves each token to a separate store in memory with the same options and the
// same maximum record size.
func (s driverStore) Fits(ctx context.Context, tokens []tokenstore.Token) ([]error, error) {
	errs := make([]error, len(tokens))
	for i, t := range tokens {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		one, err := tokenstore.New(limited{memstore.NewDriver(), s.maxSize}, s.opts)
		if err != nil {
			return nil, err
		}
		_, errs[i] = one.SaveToken(ctx, t)
	}
	return errs, nil
}

// emptyParam matches a URL parameter with an empty value.
var emptyParam = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`[?&]([a-z-]{1,20})=(&|$)`) })

// checkRest returns a usage error if a parameter or the user in rest is empty. It also returns a
// usage error if rest begins with exactly two slashes but s.Form does not contain "//".
func checkRest(s scheme.Scheme, rest string) error {
	if m := emptyParam().FindStringSubmatch(rest); m != nil {
		return usagef("the parameter %s of the store is empty", m[1])
	}
	slashes := len(rest) - len(strings.TrimLeft(rest, "/"))
	switch {
	case strings.Contains(s.Form, "//") && strings.HasPrefix(rest, "//@"):
		return usagef("the user of the store is empty: it is written as %s", s.Form)
	case slashes == 2 && !strings.Contains(s.Form, "//"):
		return usagef(`%s: takes no "//" after it: the store is written as %s`, s.Name, s.Form)
	}
	return nil
}

// reading returns a copy of the app. The copy opens only existing stores, and opens them
// read-only.
func (a *app) reading() *app {
	b := a.changing()
	b.readOnly = true
	return b
}

// changing returns a copy of the app. The copy opens only existing stores, so that a misspelled
// name does not create a store.
func (a *app) changing() *app {
	b := *a
	b.isThere = true
	return &b
}

func (a *app) withStore(ctx context.Context, use func(*store) error) (err error) {
	s, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return use(s)
}

// settleTime is the maximum time for which a migration keeps trying to read back a written record,
// if reads from the target lag. After that time, the record counts as lost.
const settleTime = 2 * time.Minute

func storesHelp(schemes []scheme.Scheme) string {
	t := table{indent: "  "}
	var slashes []string
	var example string
	for _, s := range schemes {
		lines := strings.Split(s.Text, "\n")
		t.row(s.Form, lines[0])
		for _, more := range lines[1:] {
			t.row("", more)
		}
		if s.Slashes {
			slashes = append(slashes, s.Name)
			example = cmp.Or(example, strings.Replace(s.Form, ":", "://", 1))
		}
	}
	also := ""
	if last := len(slashes) - 1; last >= 0 {
		also = strings.TrimPrefix(strings.Join(slashes[:last], ", ")+" and "+slashes[last], " and ") +
			" may also be written with slashes: " + example + ".\n\n"
	}
	return `How --store, or TOKENKEEP_STORE, names a store:

` + t.String() + `
Keys of names, labels and encryption come from the file that TOKENKEEP_KEYS_FILE
names; "tokenkeep keys new" writes one. All programs that use one store use the same keys.
Files and tables cannot use keys.

` + also + `If a file or table does not exist, save, import and migrate create it when they
write to it. For all other commands it is an error.
`
}
