package tokenstore_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/doctor"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

// An earlier holds the secrets that a version of this module without the field Token.Issuer
// wrote, and the records in these secrets.
type earlier struct {
	Secrets []struct {
		Name, Data, Incarnation string
		Labels                  []driver.Label
	}
	Records []struct {
		ID, UserName, ClientID, ClientSecret, RefreshToken, AccessToken, GrantToken, RedirectURL, APIDomain string
		ExpiresAt                                                                                           time.Time
	}
	Former map[string]string // by user: the ID that the record had without a user, or the ID of a record with a refusal
}

var earlierNow = time.Date(2026, 1, 1, 0, 1, 0, 0, time.UTC)

// openEarlier returns the content of the named file, a driver with its secrets, a function
// that opens a store on these secrets, and the records.
func openEarlier(t *testing.T, name string) (e earlier, d *memstore.Driver, open func() *tokenstore.Store, records []token) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "earlier", name))
	if err == nil {
		err = json.Unmarshal(data, &e)
	}
	if err != nil {
		t.Fatal(err)
	}
	d = memstore.NewDriver()
	for _, s := range e.Secrets {
		if _, err := d.Create(t.Context(), s.Name, driver.Payload{Data: []byte(s.Data), Labels: s.Labels, Incarnation: s.Incarnation}); err != nil {
			t.Fatal(err)
		}
	}
	opts := &tokenstore.Options{Now: func() time.Time { return earlierNow }}
	if name == "keyed.json" {
		opts.NameKey, opts.IndexKeys = []byte("0123456789abcdef"), [][]byte{[]byte("fedcba9876543210")}
	}
	for _, r := range e.Records {
		records = append(records, token{
			ID: r.ID, UserName: r.UserName, ClientID: r.ClientID, ClientSecret: tokenstore.Secret(r.ClientSecret), RefreshToken: tokenstore.Secret(r.RefreshToken),
			AccessToken: tokenstore.Secret(r.AccessToken), GrantToken: tokenstore.Secret(r.GrantToken), ExpiresAt: r.ExpiresAt, RedirectURL: r.RedirectURL, APIDomain: r.APIDomain,
		})
	}
	return e, d, func() *tokenstore.Store { return storeOn(t, d.Reopen(), opts) }, records
}

// keysOf returns tokens that describe r, each by different fields of r.
func keysOf(r token) map[string]token {
	keys := map[string]token{"ID": {ID: r.ID}}
	if r.UserName != "" {
		keys["user and client"] = token{UserName: r.UserName, ClientID: r.ClientID}
	}
	if r.GrantToken != "" {
		keys["code"] = token{ClientID: r.ClientID, GrantToken: r.GrantToken}
	}
	if r.RefreshToken != "" && r.ClientID != "" {
		keys["refresh token"] = token{ClientID: r.ClientID, RefreshToken: r.RefreshToken}
	}
	if r.AccessToken != "" {
		keys["access token"] = token{AccessToken: r.AccessToken}
	}
	return keys
}

// TestEarlier checks that a Store can read, search, refresh and write the records that a
// version of this module without the field Token.Issuer wrote.
func TestEarlier(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"plain.json", "keyed.json"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, d, open, records := openEarlier(t, name)
			if got, err := open().GetTokens(t.Context()); err != nil || !slices.Equal(got, records) {
				t.Fatalf("the store holds %+v, %v, want\n%+v", got, err, records)
			}
			for _, r := range records {
				for by, like := range keysOf(r) {
					if got, err := open().FindToken(t.Context(), like); err != nil || got != r {
						t.Errorf("%s of %q finds %+v, %v", by, r.UserName, got, err)
					}
					if like.ID == "" && like.AccessToken == "" {
						like.Issuer = "https://as.example"
						if got, err := open().FindToken(t.Context(), like); !errors.Is(err, tokenstore.ErrNotFound) {
							t.Errorf("%s of %q at an issuer finds %+v, %v", by, r.UserName, got, err)
						}
					}
				}
			}
			for user, like := range map[string]token{
				"eve": {ID: e.Former["eve"]}, "gil": {ID: e.Former["gil"]}, "cid": {ClientID: "1000.A", RefreshToken: "refresh5"},
			} {
				if got, err := open().FindToken(t.Context(), like); err != nil || !strings.HasPrefix(got.UserName, user) {
					t.Errorf("an earlier key of %s finds %+v, %v", user, got, err)
				}
			}
			for _, s := range e.Secrets {
				if now, err := d.Get(t.Context(), s.Name); err != nil || string(now.Data) != s.Data {
					t.Errorf("the secret %q was written by a read, %v", s.Name, err)
				}
			}
			refreshEarlier(t, open, e, records)
			writeEarlier(t, d, open)
		})
	}
}

// refreshEarlier refreshes each expired record that has a refresh token, and checks the
// results. The stored refusal of one record must still count.
func refreshEarlier(t *testing.T, open func() *tokenstore.Store, e earlier, records []token) {
	t.Helper()
	for _, r := range records {
		if r.RefreshToken == "" || r.ExpiresAt.After(earlierNow) {
			continue
		}
		calls, brought := 0, token{AccessToken: "new-" + r.AccessToken, ExpiresAt: earlierNow.Add(time.Hour)}
		got, err := open().Refresh(t.Context(), r.ID, r.AccessToken, func(_ context.Context, used token) (token, error) {
			calls++
			if used != r {
				t.Errorf("mint got %+v, want %+v", used, r)
			}
			return brought, nil
		})
		if r.ID == e.Former["fay"] {
			if refusal, ok := errors.AsType[*tokenstore.RefreshError](err); !ok || !refusal.Permanent || calls != 0 {
				t.Errorf("the refusal that was kept: %v, %d calls of mint", err, calls)
			}
			continue
		}
		if err != nil || calls != 1 || got != tokenstore.Merge(r, brought) {
			t.Errorf("%q is refreshed as %+v, %v, %d calls of mint", r.UserName, got, err, calls)
		}
	}
}

// writeEarlier changes each record, and saves a second record for each user at another
// authorization server. FindToken must then find both records, and Check must find only
// interrupted promotions.
func writeEarlier(t *testing.T, d *memstore.Driver, open func() *tokenstore.Store) {
	t.Helper()
	records, err := open().GetTokens(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range records {
		r.APIDomain += "/new"
		if got := saved(t, open(), token{ID: r.ID, APIDomain: r.APIDomain}); got != r {
			t.Errorf("%q is saved as %+v", r.UserName, got)
		}
		records[i] = r
	}
	for named, err := range d.List(t.Context()) {
		if err != nil || !strings.HasPrefix(string(named.Data), `{"v":1,`) {
			t.Errorf("the secret %q is not of version 1, %v", named.Name, err)
		}
	}
	for _, r := range records {
		if r.UserName == "" {
			continue
		}
		other := token{UserName: r.UserName, ClientID: r.ClientID, Issuer: "https://as.example", RefreshToken: "other-" + r.RefreshToken}
		got := saved(t, open(), other)
		if other.ID = got.ID; got != other || got.ID == r.ID {
			t.Errorf("beside %q is saved %+v", r.UserName, got)
		}
		for _, want := range []token{r, other} {
			like := token{UserName: r.UserName, ClientID: r.ClientID, Issuer: want.Issuer}
			if found, err := open().FindToken(t.Context(), like); err != nil || found != want {
				t.Errorf("%q at %q finds %+v, %v", r.UserName, want.Issuer, found, err)
			}
		}
	}
	for _, f := range check(t, open(), doctor.CheckOptions{Repair: true}) {
		if f.Kind != doctor.KindPromotionUnfinished && f.Kind != doctor.KindPromotionStale {
			t.Errorf("doctor finds %+v", f)
		}
	}
}
