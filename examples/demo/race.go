package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

const (
	racers   = 8
	raceUser = "nina@example.com:60999999"
)

// raceStep saves a record of one new user from several processes at the same time.
func (d *demo) raceStep(ctx context.Context) error {
	d.title(fmt.Sprintf("%d processes save one new user at the same moment", racers), "tokenkeep save")
	brought := contributions()
	orders := make([]saveOrder, len(brought))
	for i, t := range brought {
		orders[i] = orderOf(t)
	}
	answers, err := together[string](ctx, d, roleSave, orders)
	if err != nil {
		return err
	}
	ids := map[string]bool{}
	for _, id := range succeeded(d, answers) {
		ids[id] = true
	}
	tokens, err := d.store.GetTokens(ctx)
	if err != nil {
		return err
	}
	tokens = slices.DeleteFunc(tokens, func(t tokenstore.Token) bool { return t.UserName != raceUser })
	d.check(len(tokens) == 1 && len(ids) == 1, "%d record, which all of them know by the same ID", len(tokens))
	if len(tokens) == 0 {
		return nil
	}
	d.check(complete(tokens[0], brought), "nothing is lost: each brought something else (a secret, a URL, an access token, …)")
	return nil
}

// A saveOrder is the input of a process that saves a record. A tokenstore.Secret does not
// marshal its value, so the token's secrets are separate fields.
type saveOrder struct {
	Token                               tokenstore.Token
	Client, Refresh, Access, GrantToken string
}

func orderOf(t tokenstore.Token) saveOrder {
	o := saveOrder{t, string(t.ClientSecret), string(t.RefreshToken), string(t.AccessToken), string(t.GrantToken)}
	o.Token.ClientSecret, o.Token.RefreshToken, o.Token.AccessToken, o.Token.GrantToken = "", "", "", ""
	return o
}

// save saves the token of o in s, and returns the ID of the record.
func (o saveOrder) save(ctx context.Context, s store) (id string, err error) {
	t := o.Token
	t.ClientSecret, t.RefreshToken = tokenstore.Secret(o.Client), tokenstore.Secret(o.Refresh)
	t.AccessToken, t.GrantToken = tokenstore.Secret(o.Access), tokenstore.Secret(o.GrantToken)
	saved, err := s.SaveToken(ctx, t)
	return saved.ID, err
}

// contributions returns a token for each process to save. All tokens have the same user,
// client and refresh token. Each token has one additional field, or an access token with its
// expiry.
func contributions() []tokenstore.Token {
	secret := func() tokenstore.Secret { return tokenstore.Secret("1000." + rand.Text()) }
	all := tokenstore.Token{UserName: raceUser, ClientID: "1000.DEMOCLIENT", RefreshToken: secret()}
	tokens := slices.Repeat([]tokenstore.Token{all}, racers)
	tokens[0].ClientSecret = secret()
	tokens[1].GrantToken = secret()
	tokens[2].RedirectURL = "https://example.com/callback"
	tokens[3].APIDomain = "https://www.zohoapis.com"
	for i := range tokens[4:] {
		tokens[4+i].AccessToken = secret()
		tokens[4+i].ExpiresAt = time.Now().Add(time.Hour + time.Duration(i)*time.Second).UTC().Truncate(time.Millisecond)
	}
	return tokens
}

// complete reports whether got has the fields of the first four tokens in brought, and the access
// token and the expiry of a single other token.
func complete(got tokenstore.Token, brought []tokenstore.Token) bool {
	for _, last := range brought[4:] {
		want := brought[0]
		for _, t := range append(slices.Clone(brought[1:4]), last) {
			want = tokenstore.Merge(want, t)
		}
		want.ID = got.ID
		if got == want {
			return true
		}
	}
	return false
}
