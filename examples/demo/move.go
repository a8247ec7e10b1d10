package main

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/sdkid"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/filestore"
)

// sdkFile is a file that the FileStore of Zoho's Python SDK wrote. Its records are made up.
//
//go:embed sdk_tokens.csv
var sdkFile []byte

// moveInStep saves the records of the SDK's file in the store.
func (d *demo) moveInStep(ctx context.Context) error {
	d.title("Move in, with a token file of Zoho's Python SDK", "tokenkeep import sdk_tokens.csv --keep-ids")
	rows, err := sdkTokens(ctx)
	if err != nil {
		return err
	}
	for _, row := range rows {
		if _, err := d.store.SaveToken(ctx, row); err != nil {
			return err
		}
	}
	tokens, err := d.store.GetTokens(ctx)
	if err != nil {
		return err
	}
	d.check(len(tokens) == len(rows), "%d of %d rows are records now", len(tokens), len(rows))
	slices.SortFunc(tokens, byID)
	const some = 3
	d.list(tokens[:min(some, len(tokens))])
	return nil
}

// sdkTokens returns the records of the SDK's file, ordered by ID.
func sdkTokens(ctx context.Context) ([]tokenstore.Token, error) {
	var tokens []tokenstore.Token
	err := inFile(func(name string, s *filestore.Store) error {
		if err := os.WriteFile(name, sdkFile, 0o600); err != nil {
			return err
		}
		var err error
		tokens, err = s.GetTokens(ctx)
		return err
	})
	slices.SortFunc(tokens, byID)
	return tokens, err
}

// inFile calls the function use with the name and the store of a token file in a new directory, and
// then removes the directory.
func inFile(use func(name string, s *filestore.Store) error) error {
	dir, err := os.MkdirTemp("", "tokenkeep-demo-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	name := filepath.Join(dir, "tokens.csv")
	s, err := filestore.New(name, nil)
	if err != nil {
		return err
	}
	return use(name, s)
}

// byID compares two records by ID. IDs that an SDK could have assigned come first, in numeric
// order.
func byID(a, b tokenstore.Token) int { return sdkid.Compare(a.ID, b.ID) }

// list prints tokens in a table like that of "tokenkeep ls".
func (d *demo) list(tokens []tokenstore.Token) {
	w := tabwriter.NewWriter(d.out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "       ID\tUSER\tCLIENT\tTOKENS\tEXPIRES")
	for _, t := range tokens {
		var has []string
		for _, kind := range []struct {
			name   string
			secret tokenstore.Secret
		}{{"access", t.AccessToken}, {"refresh", t.RefreshToken}, {"grant", t.GrantToken}} {
			if kind.secret != "" {
				has = append(has, kind.name)
			}
		}
		id := t.ClientID
		client := id[:min(12, len(id))] + "…" + id[max(0, len(id)-4):]
		age := int(time.Since(t.ExpiresAt).Hours() / 24)
		_, _ = fmt.Fprintf(w, "       %s\t%s\t%s\t%s\t%dd ago\n", t.ID, t.UserName, client, strings.Join(has, " "), age)
	}
	_, _ = fmt.Fprintln(w, "       …")
	_ = w.Flush()
}

// demoRow is the index of the row for which findStep searches. The user name in the row
// contains a comma and an apostrophe.
const demoRow = 2

// findStep finds one record by its ID, by its user, and by two of its tokens.
func (d *demo) findStep(ctx context.Context) error {
	d.title("Find a record by everything it is known by", "tokenkeep get")
	rows, err := sdkTokens(ctx)
	if err != nil {
		return err
	}
	want := rows[demoRow]
	for _, by := range []struct {
		what string
		like tokenstore.Token
	}{
		{"by its ID, " + want.ID, tokenstore.Token{ID: want.ID}},
		{"by its user, " + want.UserName, tokenstore.Token{UserName: want.UserName}},
		{"by its refresh token and client", tokenstore.Token{ClientID: want.ClientID, RefreshToken: want.RefreshToken}},
		{"by its access token", tokenstore.Token{AccessToken: want.AccessToken}},
	} {
		got, err := d.store.FindToken(ctx, by.like)
		d.check(err == nil && got == want, "%s", by.what)
	}
	d.say("       secrets are masked wherever they are printed: refresh token %v", want.RefreshToken)
	return nil
}

// moveOutStep exports the records to a token file, and compares the file with sdkFile.
func (d *demo) moveOutStep(ctx context.Context) error {
	d.title("Move out again, to a file that the SDK can read", "tokenkeep export exported.csv --keep-ids")
	before, err := sdkTokens(ctx)
	if err != nil {
		return err
	}
	tokens, err := d.store.GetTokens(ctx)
	if err != nil {
		return err
	}
	slices.SortFunc(tokens, byID)
	return inFile(func(name string, s *filestore.Store) error {
		for _, t := range tokens {
			if _, ok := sdkid.Number(t.ID); !ok {
				t.ID = "" // filestore assigns a number
			}
			if _, err := s.SaveToken(ctx, t); err != nil {
				return err
			}
		}
		after, err := s.GetTokens(ctx)
		if err != nil {
			return err
		}
		exported, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		slices.SortFunc(after, byID)
		equal := 0
		for i := range before {
			if i < len(after) && before[i] == after[i] {
				equal++
			}
		}
		d.check(len(after) == len(before)+2, "%d rows: those of the SDK, and two new users'", len(after))
		d.check(equal == len(before), "%d of %d rows of the SDK are equal, field by field", equal, len(before))
		d.check(bytes.HasPrefix(exported, sdkFile), "they are equal byte for byte, with their quotes, umlauts and line ends")
		return nil
	})
}
