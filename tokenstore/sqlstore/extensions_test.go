package sqlstore

import (
	"errors"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/doctor"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/storetest"
)

func extended(user, issuer string) tokenstore.Token {
	return tokenstore.Token{
		UserName: user, ClientID: "c", ClientSecret: "s", RefreshToken: tokenstore.Secret("r " + issuer), AccessToken: tokenstore.Secret("a " + issuer),
		ExpiresAt: time.UnixMilli(4e12).UTC(), APIDomain: "https://api.example", Issuer: issuer, Resource: "https://api.example",
		Scope: "a b", TokenType: "Bearer", IDToken: "h.p.s", Extra: `{"instance_url":"https://na1.example","n":1.50}`,
	}
}

// TestExtensions checks that the store keeps the fields without a column, in two records of one
// user and client at two servers. It also checks which fields apply after a program that uses an
// SDK has changed the rows.
func TestExtensions(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b *backend) {
		s := b.open(t, nil)
		one, two := extended("ann", "https://one.example"), extended("ann", "https://two.example")
		for _, token := range []*tokenstore.Token{&one, &two} {
			saved, err := s.SaveToken(t.Context(), *token)
			if err != nil {
				t.Fatal(err)
			}
			token.ID = saved.ID
			if saved != *token {
				t.Errorf("saved %+v, want %+v", saved.Fields(), token.Fields())
			}
		}
		found := func(s *Store, like tokenstore.Token) tokenstore.Token {
			t.Helper()
			found, err := s.FindToken(t.Context(), like)
			if err != nil {
				t.Error(err)
			}
			return found
		}
		again := b.open(t, nil)
		for _, token := range []tokenstore.Token{one, two} {
			if is := found(again, tokenstore.Token{UserName: "ann", ClientID: "c", Issuer: token.Issuer, Resource: token.Resource}); is != token {
				t.Errorf("found the record %s with other fields, want %s", is.ID, token.ID)
			}
		}

		// A program that uses an SDK replaces the access token.
		b.exec(t, "UPDATE %s SET access_token = 'sdk' WHERE id = '"+one.ID+"'")
		is := found(s, tokenstore.Token{ID: one.ID})
		if is.Issuer != one.Issuer || is.Resource != one.Resource || is.Scope+is.TokenType+string(is.IDToken+is.Extra) != "" {
			t.Errorf("fields of another access token are applied: %q", is.Scope)
		}
		// The program restores the access token, and the fields apply again.
		b.exec(t, "UPDATE %s SET access_token = 'a https://one.example' WHERE id = '"+one.ID+"'")
		if is := found(s, tokenstore.Token{ID: one.ID}); is != one {
			t.Error("the fields are not applied to the token that they came with")
		}
		// The program replaces the refresh token and the access token with tokens of another consent.
		b.exec(t, "UPDATE %s SET refresh_token = 'sdk', access_token = 'sdk' WHERE id = '"+one.ID+"'")
		if is := found(s, tokenstore.Token{ID: one.ID}); is.Issuer != "" {
			t.Error("the issuer of another refresh token is applied")
		}
		if _, err := s.SaveToken(t.Context(), tokenstore.Token{ID: one.ID, APIDomain: "https://b.example"}); err != nil {
			t.Error(err)
		}
		b.exec(t, "UPDATE %s SET refresh_token = 'r https://one.example', access_token = 'a https://one.example' WHERE id = '"+one.ID+"'")
		if is := found(s, tokenstore.Token{ID: one.ID}); is.Issuer != "" {
			t.Error("what did not belong to the record was kept for later")
		}
		// The program removes a row, and adds a row of another user with the same ID.
		b.exec(t, "DELETE FROM %s WHERE id = '"+two.ID+"'")
		b.exec(t, "INSERT INTO %s (id, user_name, client_id, refresh_token, access_token) VALUES ('"+two.ID+"', 'bob', 'c', 'r https://two.example', 'a https://two.example')")
		if is := found(s, tokenstore.Token{UserName: "bob", ClientID: "c"}); is.Issuer != "" || is.Extra != "" {
			t.Error("fields of a removed row are applied to another user's")
		}
		if err := s.DeleteToken(t.Context(), two.ID); err != nil {
			t.Error(err)
		}
		if n := len(b.rows(t, "SELECT extension FROM %s"+extensionsSuffix)); n != 0 {
			t.Errorf("%d extensions are left", n)
		}
	})
}

func TestExtensions_Check(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b *backend) {
		s := b.open(t, nil)
		for _, user := range []string{"ann", "bob"} {
			if _, err := s.SaveToken(t.Context(), extended(user, "https://one.example")); err != nil {
				t.Fatal(err)
			}
		}
		b.exec(t, "DELETE FROM %s WHERE user_name = 'ann'")
		findings := 0
		for f, err := range s.Check(t.Context(), &doctor.CheckOptions{Repair: true, Purge: true}) {
			if err != nil {
				t.Fatal(err)
			}
			if f.Name == b.name()+extensionsSuffix {
				findings++
				if f.Kind != doctor.KindDue || !f.Repaired {
					t.Errorf("finding %+v", f)
				}
			}
		}
		if left := len(b.rows(t, "SELECT extension FROM %s"+extensionsSuffix)); findings != 1 || left != 1 {
			t.Errorf("%d findings, %d extensions are left", findings, left)
		}
	})
}

// TestExtensions_Damaged checks that a damaged extension makes its record unreadable, but no
// other record.
func TestExtensions_Damaged(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b *backend) {
		s := b.open(t, nil)
		for _, user := range []string{"ann", "bob"} {
			if _, err := s.SaveToken(t.Context(), extended(user, "https://one.example")); err != nil {
				t.Fatal(err)
			}
		}
		b.exec(t, "UPDATE %s"+extensionsSuffix+" SET extension = '{\"s3cret\":' WHERE row_id = '1'")
		if _, err := s.FindTokenByID(t.Context(), "1"); !errors.Is(err, tokenstore.ErrCorrupt) {
			t.Error(err)
		}
		if _, err := s.FindTokenByID(t.Context(), "2"); err != nil {
			t.Error(err)
		}
	})
}

// TestExtensions_Refused checks that SaveToken refuses fields that have no column if there is no
// table of extensions. SaveToken must succeed once another store has created the table.
func TestExtensions_Refused(t *testing.T) {
	t.Parallel()
	b := sqliteFile(t)
	s := b.open(t, nil)
	b.exec(t, "DROP TABLE %s"+extensionsSuffix)
	s.db.table.extensions.Store(false)
	if _, err := s.SaveToken(t.Context(), extended("ann", "https://one.example")); !errors.Is(err, tokenstore.ErrInvalidToken) || len(b.rows(t, "SELECT id FROM %s")) != 0 {
		t.Errorf("the save of a field without a place: %v", err)
	}
	b.open(t, nil) // creates the table of extensions
	if _, err := s.SaveToken(t.Context(), extended("ann", "https://one.example")); err != nil {
		t.Errorf("after it was created: %v", err)
	}
}

func TestExtensions_Servers(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b *backend) {
		for seed := range uint64(5) {
			storetest.Servers(t, seed, 40, b.open(t, nil)) // on the table that the previous run left
		}
	})
}
