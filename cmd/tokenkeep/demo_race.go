package main

import (
	"crypto/rand"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

const (
	racers   = 8
	raceUser = "nina@example.com:60999999"
)

// raceStep has processes save the same new user at the same moment.
func (d *demo) raceStep() error {
	d.title(fmt.Sprintf("%d processes save one new user at the same moment", racers), "tokenkeep save")
	brought := contributions()
	d.made = append(d.made, brought[0])
	inputs := make([]any, len(brought))
	for i, t := range brought {
		inputs[i] = toJSON(t, true)
	}
	answers, err := together[recordJSON](d, "demo-save", inputs)
	if err != nil {
		return err
	}
	ids := map[string]bool{}
	for _, saved := range succeeded(d, answers) {
		ids[saved.ID] = true
	}
	tokens, err := d.store.GetTokens(d.ctx)
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

// contributions returns what each process saves: what all of them know, and one
// thing more.
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

// complete reports whether a record has what every process brought, and an access
// token together with its own expiry.
func complete(got tokenstore.Token, brought []tokenstore.Token) bool {
	for _, last := range brought[4:] {
		want := tokenstore.Merge(brought[0], brought[1])
		want = tokenstore.Merge(tokenstore.Merge(want, brought[2]), brought[3])
		want = tokenstore.Merge(want, last)
		want.ID = got.ID
		if sameToken(got, want) {
			return true
		}
	}
	return false
}

// demoSaveCommand is what the processes of the demo run: save, after they have
// said that they are ready.
func (a *app) demoSaveCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "demo-save",
		Short:  "Save a record, as a process of the demo",
		Hidden: true,
		Args:   noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.withStore(c.Context(), func(s store) error {
				if err := a.ready(); err != nil {
					return err
				}
				t, err := a.readRecord(c.Context(), "-")
				if err != nil {
					return err
				}
				return a.save(c.Context(), s, t, false)
			})
		},
	}
}
