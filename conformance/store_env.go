package conformance

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

func storeCases() []testCase[*storeEnv] {
	return slices.Concat(findCases(), rowCases, mergeCases, saveCases, idCases, inputCases, userCases, deleteCasesOfStore, unchangedCases, searchCases,
		issuerCases, extraCases, listCasesOfStore, corruptCasesOfStore, contextCasesOfStore, secrecyCases, concurrencyCasesOfStore, refreshCases)
}

type storeEnv struct {
	env
	b       Store
	secrets canaries
	mu      sync.Mutex
	ids     []string // IDs to clean up
}

func newStoreEnv(c control, b Store) *storeEnv {
	return &storeEnv{env: newEnv(c, b.Timeout), b: b}
}

// open returns an empty store. When the case ends, a cleanup function deletes the remaining
// records.
func (e *storeEnv) open() *watched {
	e.TB.Helper()
	s := &watched{e, e.b.Open(e.TB)}
	if e.b.Settle != nil {
		e.settle = func() { e.b.Settle(e.TB, s.TokenStore) }
	}
	e.TB.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(e.ctx), caseTimeout)
		defer cancel()
		for _, id := range e.ids {
			_ = s.TokenStore.DeleteToken(ctx, id)
		}
		_ = s.TokenStore.DeleteTokens(ctx)
	})
	return s
}

// reopen returns another handle on the data of s.
func (e *storeEnv) reopen(s *watched) *watched {
	e.TB.Helper()
	return &watched{e, e.b.Reopen(e.TB, s.TokenStore)}
}

// A watched is a store that checks the form of each error that it returns.
type watched struct {
	e *storeEnv
	tokenstore.TokenStore
}

func (s *watched) FindToken(ctx context.Context, like token) (token, error) {
	t, err := s.TokenStore.FindToken(ctx, like)
	return t, s.e.checked("FindToken", err)
}

func (s *watched) FindTokenByID(ctx context.Context, id string) (token, error) {
	t, err := s.TokenStore.FindTokenByID(ctx, id)
	return t, s.e.checked("FindTokenByID", err)
}

func (s *watched) SaveToken(ctx context.Context, t token) (token, error) {
	t, err := s.TokenStore.SaveToken(ctx, t)
	if err == nil {
		s.e.mu.Lock()
		s.e.ids = append(s.e.ids, t.ID)
		s.e.mu.Unlock()
	}
	return t, s.e.checked("SaveToken", err)
}

func (s *watched) DeleteToken(ctx context.Context, id string) error {
	return s.e.checked("DeleteToken", s.TokenStore.DeleteToken(ctx, id))
}

func (s *watched) GetTokens(ctx context.Context) ([]token, error) {
	ts, err := s.TokenStore.GetTokens(ctx)
	return ts, s.e.checked("GetTokens", err)
}

func (s *watched) DeleteTokens(ctx context.Context) error {
	return s.e.checked("DeleteTokens", s.TokenStore.DeleteTokens(ctx))
}

// classes are the classes that an error from a store may match. ErrWrongKeys is not in classes,
// because no case causes that error.
var classes = []error{
	tokenstore.ErrNotFound, tokenstore.ErrAmbiguous, tokenstore.ErrConflict, tokenstore.ErrIDMismatch,
	tokenstore.ErrInvalidToken, tokenstore.ErrTooLarge, tokenstore.ErrDenied, tokenstore.ErrRefused, tokenstore.ErrUnavailable,
	tokenstore.ErrCorrupt, tokenstore.ErrNotPersisted, context.Canceled, context.DeadlineExceeded,
}

// checked checks the form of err, and that the text of err contains no secret. checked returns
// err.
func (e *storeEnv) checked(op string, err error) error {
	if err == nil {
		return nil
	}
	e.TB.Helper()
	if _, ok := errors.AsType[*tokenstore.Error](err); !ok {
		e.TB.Errorf("the error of %s is a %T, not a *tokenstore.Error: %v\n\t%s", op, err, err, quote("TS-30"))
	}
	if !slices.ContainsFunc(classes, func(c error) bool { return errors.Is(err, c) }) {
		e.TB.Errorf("the error of %s matches none of the classes: %v\n\t%s", op, err, quote("TS-30"))
	}
	if e.secrets.in(prints(err)) {
		e.TB.Errorf("the error of %s has a secret in it (%d bytes of text)\n\t%s", op, len(err.Error()), quote("TS-31"))
	}
	return err
}

// secret returns a new secret, which must not appear in errors.
func (e *storeEnv) secret() tokenstore.Secret { return e.long(40) }

// long returns a new secret of n bytes.
func (e *storeEnv) long(n int) tokenstore.Secret {
	a, b := text(20), text(20)
	e.secrets.add(a)
	e.secrets.add(b)
	return tokenstore.Secret(strings.Repeat(a+b, n/40+1)[:n])
}

// of returns a token for the user and the client, with new secrets. The ID, the grant token, and
// the fields from Issuer on are empty.
func (e *storeEnv) of(user, client string) token {
	return token{
		UserName:     user,
		ClientID:     client,
		ClientSecret: e.secret(),
		RefreshToken: e.secret(),
		AccessToken:  e.secret(),
		ExpiresAt:    hour(1),
		RedirectURL:  "https://" + text(8) + ".example.com/callback?a=b&c=d",
		APIDomain:    "https://www.zohoapis.example",
	}
}

// hour returns the time n hours after a fixed time in the year 2090.
func hour(n int) time.Time {
	return time.Date(2090, 1, 1, 0, 0, 0, 123e6, time.UTC).Add(time.Duration(n) * time.Hour)
}

// save saves t and returns the stored record.
func (e *storeEnv) save(s *watched, t token) token {
	e.TB.Helper()
	got, err := s.SaveToken(e.ctx, t)
	if err != nil {
		e.Fatalf("SaveToken: %v", err)
	}
	if got.ID == "" {
		e.Fatalf("SaveToken returned a token without an ID")
	}
	return got
}

// derived returns a regular expression for the IDs that package tokenstore derives.
var derived = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[ugra][a-z2-7]{32}$`) })

// lag returns the time for which a save may stay invisible to a search for the token like.
func (e *storeEnv) lag(like token) time.Duration {
	if derived().MatchString(like.ID) || like.ID == "" && like.UserName != "" && like.ClientID != "" {
		return e.b.ReadLag
	}
	return max(e.b.ReadLag, e.b.ListLag)
}

// search lets the lags pass, so that look-ups by any field find all records. If a lag is too
// long to wait for, search skips the case.
func (e *storeEnv) search() {
	e.TB.Helper()
	lag := max(e.b.ReadLag, e.b.ListLag)
	if lag > patience && e.settle == nil {
		e.TB.Skipf("a search would have to wait for a lag of %v", lag)
	}
	e.lags(lag)
}

// has checks that the record with the ID of want equals want.
func (e *storeEnv) has(s *watched, want token) {
	e.TB.Helper()
	e.hasBy(s, want.ID, want)
}

// hasBy checks that FindTokenByID(id) returns want.
func (e *storeEnv) hasBy(s *watched, id string, want token) {
	e.TB.Helper()
	e.after(e.lag(token{ID: id}), func() error {
		got, err := s.FindTokenByID(e.ctx, id)
		if err != nil {
			return fmt.Errorf("FindTokenByID(%q): %w", id, err)
		}
		return differ(fmt.Sprintf("FindTokenByID(%q)", id), got, want)
	})
}

// lacks checks that no record has one of the IDs.
func (e *storeEnv) lacks(s *watched, ids ...string) {
	e.TB.Helper()
	for _, id := range ids {
		e.after(e.lag(token{ID: id}), func() error {
			if _, err := s.FindTokenByID(e.ctx, id); !errors.Is(err, tokenstore.ErrNotFound) {
				return fmt.Errorf("FindTokenByID(%q) returned error %v, want ErrNotFound", id, err)
			}
			return nil
		})
	}
}

// finds checks that FindToken(like) returns want.
func (e *storeEnv) finds(s *watched, what string, like, want token) {
	e.TB.Helper()
	e.after(e.lag(like), func() error {
		got, err := s.FindToken(e.ctx, like)
		if err != nil {
			return fmt.Errorf("FindToken by %s: %w", what, err)
		}
		return differ("FindToken by "+what, got, want)
	})
}

// misses checks that the error of FindToken(like) matches the class.
func (e *storeEnv) misses(s *watched, what string, like token, class error) {
	e.TB.Helper()
	e.after(e.lag(like), func() error {
		if _, err := s.FindToken(e.ctx, like); !errors.Is(err, class) {
			return fmt.Errorf("FindToken by %s returned error %v, want %q", what, err, class)
		}
		return nil
	})
}

// refuses checks that the error of SaveToken(t) matches the class.
func (e *storeEnv) refuses(s *watched, what string, t token, class error) {
	e.TB.Helper()
	if got, err := s.SaveToken(e.ctx, t); !errors.Is(err, class) {
		e.Errorf("SaveToken of %s returned ID %q and error %v, want %q", what, got.ID, err, class)
	}
}

// keeps checks that GetTokens returns exactly want, in the order of the IDs.
func (e *storeEnv) keeps(s *watched, want ...token) {
	e.TB.Helper()
	want = slices.Clone(want)
	slices.SortFunc(want, func(a, b token) int { return cmp.Compare(a.ID, b.ID) })
	e.after(max(e.b.ListLag, e.b.ReadLag), func() error {
		got, err := s.GetTokens(e.ctx)
		if err != nil {
			return fmt.Errorf("GetTokens: %w", err)
		}
		if len(got) != len(want) {
			return fmt.Errorf("GetTokens returned %d tokens (%q), want %d (%q)", len(got), idsOf(got), len(want), idsOf(want))
		}
		for i := range want {
			if err := differ(fmt.Sprintf("GetTokens, token %d", i), got[i], want[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

func idsOf(ts []token) []string {
	var ids []string
	for _, t := range ts {
		ids = append(ids, t.ID)
	}
	return ids
}

// differ returns an error that names the fields in which got differs from want, or nil if got
// equals want.
func differ(what string, got, want token) error {
	var diffs []string
	for _, f := range fields {
		if g, w := *f.of(&got), *f.of(&want); g != w {
			diffs = append(diffs, fmt.Sprintf("%s is %s, want %s", f.name, brief([]byte(g)), brief([]byte(w))))
		}
	}
	if !got.ExpiresAt.Equal(want.ExpiresAt) {
		diffs = append(diffs, fmt.Sprintf("ExpiresAt is %v, want %v", got.ExpiresAt, want.ExpiresAt))
	}
	if got.ExpiresAt.Location() != time.UTC && !got.ExpiresAt.IsZero() {
		diffs = append(diffs, fmt.Sprintf("ExpiresAt is in %v, want UTC", got.ExpiresAt.Location()))
	}
	if diffs == nil {
		return nil
	}
	return fmt.Errorf("%s: %s", what, strings.Join(diffs, "; "))
}

type field struct {
	name string
	of   func(*token) *string
}

// fields lists the text fields of a token. The order matters, because contents is a subslice.
var fields = []field{
	{"ID", func(t *token) *string { return &t.ID }},
	{"UserName", func(t *token) *string { return &t.UserName }},
	{"ClientID", func(t *token) *string { return &t.ClientID }},
	{"ClientSecret", func(t *token) *string { return (*string)(&t.ClientSecret) }},
	{"RefreshToken", func(t *token) *string { return (*string)(&t.RefreshToken) }},
	{"AccessToken", func(t *token) *string { return (*string)(&t.AccessToken) }},
	{"GrantToken", func(t *token) *string { return (*string)(&t.GrantToken) }},
	{"RedirectURL", func(t *token) *string { return &t.RedirectURL }},
	{"APIDomain", func(t *token) *string { return &t.APIDomain }},
	{"Issuer", func(t *token) *string { return &t.Issuer }},
	{"Resource", func(t *token) *string { return &t.Resource }},
	{"Scope", func(t *token) *string { return &t.Scope }},
	{"TokenType", func(t *token) *string { return &t.TokenType }},
	{"IDToken", func(t *token) *string { return (*string)(&t.IDToken) }},
	{"Extra", func(t *token) *string { return (*string)(&t.Extra) }},
}

// contents lists the text fields that every store keeps, except the fields that identify a record.
var contents = fields[3:9]

type token = tokenstore.Token
