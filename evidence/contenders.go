package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/internal/zohoaccounts"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// The contenders: this module, and ways to keep tokens without this module.
const (
	tokenkeep = "tokenkeep"
	perUser   = "secret per user" // golang.org/x/oauth2, with one secret for each user
	oneBlob   = "one blob"        // golang.org/x/oauth2, with one JSON object for all users
	listScan  = "list and scan"   // one secret for each user; a search reads all secrets
)

// contenderNames lists the contenders in the order of the tables.
var contenderNames = []string{tokenkeep, perUser, oneBlob, listScan}

const (
	coldStart  = "cold start to first token"
	byID       = "find by ID"
	byClient   = "find by user and client"
	byUser     = "find by user alone"
	byRefresh  = "find by refresh token"
	byAccess   = "find by access token"
	saveAccess = "save a new access token"
	renewToken = "cold start, token expired"
	listAll    = "list"
)

// comparedBy lists the operations in the order of the tables.
var comparedBy = []string{coldStart, byID, byClient, byUser, byRefresh, byAccess, saveAccess, renewToken, listAll}

// betweenWrites is the time by which the clock advances before each operation that writes. AWS
// limits the versions of a secret to 100 a day, and the comparison does not test that limit.
const betweenWrites = 3 * time.Hour

// A world is a service and an authorization server. The service holds the tokens of many
// users in tokenkeep's form. Unless alone is set, the service also holds the tokens in the forms
// of the other contenders.
type world struct {
	worldOptions
	*bed
	clock  clock
	zoho   *zohoaccounts.Server
	store  *tokenstore.Store
	wanted tokenstore.Token // the record to find, which belongs to the user in the middle
	noBlob bool             // all tokens together exceed the maximum size of a secret
	saves  atomic.Int64
}

type worldOptions struct {
	users  int
	strict bool // refresh tokens rotate
	alone  bool // only tokenkeep's records exist
}

// newWorld starts a service, and stores tokens for o.users users.
func newWorld(ctx context.Context, service string, o worldOptions) (*world, error) {
	w := &world{worldOptions: o, zoho: zohoaccounts.New(&zohoaccounts.Options{Strict: o.strict})}
	w.zoho.AddClient(zohoaccounts.Client{ID: testClient, Secret: testSecret})
	var err error
	if w.bed, err = newBed(service, w.clock.Now, false); err != nil {
		return nil, err
	}
	if w.store, err = w.open(&tokenstore.Options{Now: w.clock.Now}); err == nil {
		err = w.fill(ctx)
	}
	if err != nil {
		w.close()
		return nil, fmt.Errorf("%s: fill with %d: %w", service, o.users, err)
	}
	return w, nil
}

func (w *world) fill(ctx context.Context) error {
	middle := w.users / 2
	refresh, _ := w.zoho.Tokens(zohoaccounts.Consent{ClientID: testClient, Email: "user@example.com", ZGID: "6001"})
	rows := make(map[string]row, w.users)
	tokens := make([]tokenstore.Token, w.users)
	for i := range tokens {
		tokens[i] = numbered(i, far)
		if i == middle {
			tokens[i].RefreshToken = tokenstore.Secret(refresh)
		}
		rows[tokens[i].UserName] = rowOf(tokens[i])
	}
	err := parallel(w.users, func(i int) error {
		saved, err := w.store.SaveToken(ctx, tokens[i])
		if err != nil {
			return err
		}
		if i == middle {
			w.wanted = saved
		}
		if w.alone {
			return nil
		}
		return w.putRow(ctx, rows[tokens[i].UserName])
	})
	if err == nil && !w.alone {
		err = w.putBlob(ctx, rows)
	}
	if errors.Is(err, errTooLarge) {
		w.noBlob, err = true, nil
	}
	w.meter.take()
	w.forget()
	return err
}

// A row is a token in the form in which a program that does not use tokenkeep stores it.
type row struct {
	UserName     string    `json:"user_name"`
	ClientID     string    `json:"client_id"`
	RefreshToken string    `json:"refresh_token"`
	AccessToken  string    `json:"access_token"`
	Expiry       time.Time `json:"expiry"`
	APIDomain    string    `json:"api_domain"`
}

func rowOf(t tokenstore.Token) row {
	return row{t.UserName, t.ClientID, string(t.RefreshToken), string(t.AccessToken), t.ExpiresAt, t.APIDomain}
}

// slot returns the name of a user's secret. The name contains a digest, because some services
// do not accept all characters of a user name.
func slot(user string) string {
	sum := sha256.Sum256([]byte(user))
	return barePrefix + "/" + hex.EncodeToString(sum[:16])
}

func (w *world) getRow(ctx context.Context) (row, error) {
	var r row
	data, err := w.bare.get(ctx, slot(w.wanted.UserName))
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	return r, err
}

func (w *world) putRow(ctx context.Context, r row) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return w.bare.put(ctx, slot(r.UserName), data)
}

// blobName is the name of the secret that holds the tokens of all users.
const blobName = "shared/all"

func (w *world) getBlob(ctx context.Context) (map[string]row, error) {
	var rows map[string]row
	data, err := w.bare.get(ctx, blobName)
	if err == nil {
		err = json.Unmarshal(data, &rows)
	}
	return rows, err
}

func (w *world) putBlob(ctx context.Context, rows map[string]row) error {
	data, err := json.Marshal(rows)
	if err != nil {
		return err
	}
	return w.bare.put(ctx, blobName, data)
}

// A contender is a way to keep tokens. The map do contains the operations that the contender
// supports. If the map reset has a function for an operation, the function runs before each run
// of the operation, and is not measured.
type contender struct {
	name  string
	do    map[string]func(context.Context) error
	reset map[string]func(context.Context) error
}

func (w *world) contenders() []contender {
	all := []contender{w.tokenkeep(), w.perUser(), w.oneBlob(), w.listScan()}
	if w.noBlob {
		all[2].do = nil
	}
	return all
}

// is checks the result of a search. It returns err if err is not nil, an error if t is not the
// wanted record, and nil otherwise.
func (w *world) is(t tokenstore.Token, err error) error {
	if err == nil && t.ID != w.wanted.ID {
		err = wrongAnswer("another record")
	}
	return err
}

func (w *world) isRow(r row, err error) error {
	if err == nil && r.UserName != w.wanted.UserName {
		err = wrongAnswer("another user")
	}
	return err
}

// likes returns a map from each search operation to the token to search for.
func (w *world) likes() map[string]tokenstore.Token {
	return map[string]tokenstore.Token{
		byID:      {ID: w.wanted.ID},
		byClient:  {UserName: w.wanted.UserName, ClientID: w.wanted.ClientID},
		byUser:    {UserName: w.wanted.UserName},
		byRefresh: {ClientID: w.wanted.ClientID, RefreshToken: w.wanted.RefreshToken},
		byAccess:  {AccessToken: w.wanted.AccessToken},
	}
}

func (w *world) tokenkeep() contender {
	c := contender{name: tokenkeep, do: map[string]func(context.Context) error{
		coldStart:  w.start,
		renewToken: w.start,
		saveAccess: func(ctx context.Context) error {
			return w.is(w.store.SaveToken(ctx, w.next(far)))
		},
		listAll: func(ctx context.Context) error {
			tokens, err := w.store.GetTokens(ctx)
			return w.complete(len(tokens), err)
		},
	}, reset: map[string]func(context.Context) error{
		byAccess:  w.restore,
		coldStart: w.restore,
		saveAccess: func(context.Context) error {
			w.clock.advance(betweenWrites)
			return nil
		},
		renewToken: func(ctx context.Context) error {
			w.clock.advance(betweenWrites)
			w.zoho.Advance(betweenWrites)
			_, err := w.store.SaveToken(ctx, w.next(time.UnixMilli(1000)))
			w.clock.advance(betweenWrites)
			return err
		},
	}}
	for op, like := range w.likes() {
		c.do[op] = func(ctx context.Context) error { return w.is(w.store.FindToken(ctx, like)) }
	}
	return c
}

// next returns a token with a new access token, to save in the wanted record.
func (w *world) next(expires time.Time) tokenstore.Token {
	return tokenstore.Token{UserName: w.wanted.UserName, ClientID: w.wanted.ClientID, ExpiresAt: expires,
		AccessToken: tokenstore.Secret(fmt.Sprintf("1000.access-saved-%d.0123456789abcdef0123456789abcdef", w.saves.Add(1)))}
}

// restore saves the original access token of the wanted record, by which the operations find the
// record.
func (w *world) restore(ctx context.Context) error {
	_, err := w.store.SaveToken(ctx, tokenstore.Token{UserName: w.wanted.UserName, ClientID: w.wanted.ClientID, AccessToken: w.wanted.AccessToken, ExpiresAt: far})
	return err
}

// start opens a store and gets an access token, like a new process that has only the user name
// and the client's credentials.
func (w *world) start(ctx context.Context) error {
	s, err := w.open(&tokenstore.Options{Now: w.clock.Now})
	if err != nil {
		return err
	}
	conf := initializer.Config{
		Environment: initializer.US.Production(),
		Store:       s,
		Token:       tokenstore.Token{UserName: w.wanted.UserName, ClientID: testClient, ClientSecret: testSecret},
		HTTPClient:  w.zoho.Client(),
		Now:         w.clock.Now,
	}
	if w.strict {
		// The stored records have no issuer, like records of Zoho.
		conf.Environment, conf.OAuth2, conf.Issuer = initializer.Environment{}, w.oauth2(), initializer.NoIssuer
	}
	client, err := initializer.New(ctx, conf)
	if err != nil {
		return err
	}
	return w.is(client.Token(ctx))
}

func (w *world) oauth2() *oauth2.Config {
	return &oauth2.Config{ClientID: testClient, ClientSecret: testSecret, Endpoint: oauth2.Endpoint{
		TokenURL: "https://accounts.zoho.com/oauth/v2/token", AuthStyle: oauth2.AuthStyleInParams,
	}}
}

// fresh returns r with a valid access token from golang.org/x/oauth2, and reports whether
// the token changed.
func (w *world) fresh(ctx context.Context, r row) (row, bool, error) {
	ctx = context.WithValue(ctx, oauth2.HTTPClient, w.zoho.Client())
	t, err := w.oauth2().TokenSource(ctx, &oauth2.Token{AccessToken: r.AccessToken, RefreshToken: r.RefreshToken, Expiry: r.Expiry}).Token()
	if err != nil {
		return r, false, err
	}
	renewed := t.AccessToken != r.AccessToken
	r.AccessToken, r.RefreshToken, r.Expiry = t.AccessToken, t.RefreshToken, t.Expiry
	return r, renewed, nil
}

func (w *world) perUser() contender {
	get := func(ctx context.Context) error { return w.isRow(w.getRow(ctx)) }
	return contender{name: perUser, do: map[string]func(context.Context) error{
		coldStart:  w.startPerUser,
		renewToken: w.startPerUser,
		byClient:   get,
		saveAccess: func(ctx context.Context) error { return w.putRow(ctx, rowOf(w.wanted)) },
		listAll:    func(ctx context.Context) error { return w.complete(w.scan(ctx, func(row) bool { return false })) },
	}, reset: map[string]func(context.Context) error{
		coldStart:  func(ctx context.Context) error { return w.putRow(ctx, rowOf(w.wanted)) },
		saveAccess: w.later,
		renewToken: func(ctx context.Context) error {
			_ = w.later(ctx)
			return w.putRow(ctx, w.expired())
		},
	}}
}

func (w *world) later(context.Context) error {
	w.clock.advance(betweenWrites)
	w.zoho.Advance(betweenWrites)
	return nil
}

func (w *world) expired() row {
	r := rowOf(w.wanted)
	r.Expiry = time.UnixMilli(1000)
	return r
}

// startPerUser reads the user's secret. If the access token has expired, startPerUser
// refreshes the token and writes the secret.
func (w *world) startPerUser(ctx context.Context) error {
	r, err := w.getRow(ctx)
	if err != nil {
		return err
	}
	r, renewed, err := w.fresh(ctx, r)
	if err != nil || !renewed {
		return w.isRow(r, err)
	}
	return w.isRow(r, w.putRow(ctx, r))
}

func (w *world) oneBlob() contender {
	c := contender{name: oneBlob, do: map[string]func(context.Context) error{
		coldStart:  w.startBlob,
		renewToken: w.startBlob,
		saveAccess: func(ctx context.Context) error {
			rows, err := w.getBlob(ctx)
			if err != nil {
				return err
			}
			rows[w.wanted.UserName] = rowOf(w.wanted)
			return w.putBlob(ctx, rows)
		},
		listAll: func(ctx context.Context) error {
			rows, err := w.getBlob(ctx)
			return w.complete(len(rows), err)
		},
	}, reset: map[string]func(context.Context) error{
		saveAccess: w.later,
		renewToken: func(ctx context.Context) error {
			_ = w.later(ctx)
			rows, err := w.getBlob(ctx)
			if err != nil {
				return err
			}
			rows[w.wanted.UserName] = w.expired()
			return w.putBlob(ctx, rows)
		},
	}}
	for op, like := range w.likes() {
		if op == byID {
			continue // rows have no IDs
		}
		c.do[op] = func(ctx context.Context) error {
			rows, err := w.getBlob(ctx)
			if err != nil {
				return err
			}
			for _, r := range rows {
				if matches(r, like) {
					return w.isRow(r, nil)
				}
			}
			return tokenstore.ErrNotFound
		}
	}
	return c
}

func (w *world) startBlob(ctx context.Context) error {
	rows, err := w.getBlob(ctx)
	if err != nil {
		return err
	}
	r, renewed, err := w.fresh(ctx, rows[w.wanted.UserName])
	if err != nil || !renewed {
		return w.isRow(r, err)
	}
	rows[w.wanted.UserName] = r
	return w.isRow(r, w.putBlob(ctx, rows))
}

// matches reports whether r matches like: each field that is set in like has the same value in r.
func matches(r row, like tokenstore.Token) bool {
	return (like.UserName == "" || r.UserName == like.UserName) &&
		(like.ClientID == "" || r.ClientID == like.ClientID) &&
		(like.RefreshToken == "" || r.RefreshToken == string(like.RefreshToken)) &&
		(like.AccessToken == "" || r.AccessToken == string(like.AccessToken))
}

// scan reads the users' secrets until the function found returns true or no secrets are left.
// scan returns the number of secrets that were read.
func (w *world) scan(ctx context.Context, found func(row) bool) (int, error) {
	n := 0
	for data, err := range w.bare.all(ctx) {
		if err != nil {
			return n, err
		}
		var r row
		if err := json.Unmarshal(data, &r); err != nil {
			return n, err
		}
		n++
		if found(r) {
			return n, nil
		}
	}
	return n, nil
}

// complete returns err. If err is nil and n is not the number of users, complete returns an
// error.
func (w *world) complete(n int, err error) error {
	if err == nil && n != w.users {
		err = wrongAnswer(fmt.Sprintf("%d of %d", n, w.users))
	}
	return err
}

// listScan returns a contender that always reads all secrets. Otherwise the time would
// depend on the position of the record in the list.
func (w *world) listScan() contender {
	c := contender{name: listScan, do: map[string]func(context.Context) error{}}
	for op, like := range w.likes() {
		if op == byID || op == byClient {
			continue // rows have no IDs, and a look-up by user and client reads a secret by its name
		}
		c.do[op] = func(ctx context.Context) error {
			var got row
			n, err := w.scan(ctx, func(r row) bool {
				if matches(r, like) {
					got = r
				}
				return false
			})
			if err = w.complete(n, err); err != nil {
				return err
			}
			return w.isRow(got, nil)
		}
	}
	return c
}
