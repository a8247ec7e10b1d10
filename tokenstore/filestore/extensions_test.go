package filestore

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
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

// openExtended opens a store with two records of the same user and client at two servers.
func openExtended(t *testing.T) (s *Store, one, two tokenstore.Token) {
	t.Helper()
	s, err := New(filepath.Join(t.TempDir(), "tokens.csv"), nil)
	if err != nil {
		t.Fatal(err)
	}
	one, two = extended("ann", "https://one.example"), extended("ann", "https://two.example")
	for _, token := range []*tokenstore.Token{&one, &two} {
		saved, err := s.SaveToken(t.Context(), *token)
		if err != nil {
			t.Fatal(err)
		}
		token.ID = saved.ID
		if saved != *token {
			t.Fatalf("saved %+v, want %+v", saved, *token)
		}
	}
	return s, one, two
}

func find(t *testing.T, s *Store, id string) tokenstore.Token {
	t.Helper()
	found, err := s.FindTokenByID(t.Context(), id)
	if err != nil {
		t.Error(err)
	}
	return found
}

// rewrite replaces old texts in the token file with other texts, as a program that uses an SDK does.
func rewrite(t *testing.T, s *Store, old, with string) {
	t.Helper()
	data := readFile(t, s.file.path)
	if !bytes.Contains(data, []byte(old)) {
		t.Fatalf("the file has no %q", old)
	}
	if err := os.WriteFile(s.file.path, bytes.ReplaceAll(data, []byte(old), []byte(with)), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestExtensions checks that the store keeps the fields without a column, in two records of one
// user and client at two servers. It also checks which fields apply after a program that uses an
// SDK has changed the rows.
func TestExtensions(t *testing.T) {
	t.Parallel()
	s, one, two := openExtended(t)
	again, err := New(s.file.path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, token := range []tokenstore.Token{one, two} {
		is, err := again.FindToken(t.Context(), tokenstore.Token{UserName: "ann", ClientID: "c", Issuer: token.Issuer, Resource: token.Resource})
		if err != nil || is != token {
			t.Errorf("found the record %q, %v, want %s", is.ID, err, token.ID)
		}
	}
	for line := range strings.Lines(string(readFile(t, s.file.path))) {
		if strings.Contains(line, "Bearer") || strings.Count(line, ",") != 9 {
			t.Errorf("a line that the SDKs do not expect: %s", line)
		}
	}

	rewrite(t, s, "a https://one.example", "sdk") // an access token of the same consent
	is := find(t, s, one.ID)
	if is.Issuer != one.Issuer || is.Resource != one.Resource || is.Scope+is.TokenType+string(is.IDToken+is.Extra) != "" {
		t.Errorf("the fields of another access token are applied, or the issuer is not: %q, %q", is.Issuer, is.Scope)
	}
	rewrite(t, s, "sdk", "a https://one.example")
	if find(t, s, one.ID) != one {
		t.Error("the fields are not applied to the token that they came with")
	}
	rewrite(t, s, "r https://one.example,a https://one.example", "sdk,sdk") // another consent
	if find(t, s, one.ID).Issuer != "" {
		t.Error("the issuer of another refresh token is applied")
	}
	if _, err := s.SaveToken(t.Context(), tokenstore.Token{ID: one.ID, APIDomain: "https://b.example"}); err != nil {
		t.Error(err)
	}
	rewrite(t, s, "sdk,sdk", "r https://one.example,a https://one.example")
	if find(t, s, one.ID).Issuer != "" {
		t.Error("what did not belong to the record was kept for later")
	}
	rewrite(t, s, two.ID+",ann,", two.ID+",bob,") // the ID of another user
	if is := find(t, s, two.ID); is.UserName != "bob" || is.Issuer != "" || is.Extra != "" {
		t.Error("the fields of another user are applied")
	}
	if err := s.DeleteToken(t.Context(), two.ID); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(s.file.path + Beside); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what no row needs is left: %v", err)
	}
}

// TestExtensions_CrashPoints checks that an interrupted write of both files leaves complete
// records. A write that stops before the replacement of the token file leaves the old records. A
// write that stops after the replacement leaves the new records.
func TestExtensions_CrashPoints(t *testing.T) {
	t.Parallel()
	s, one, two := openExtended(t)
	before := readFile(t, s.file.path)
	next := one
	next.AccessToken, next.IDToken, next.Scope = "a next", "next", "next"

	// A directory at the path of the temporary file prevents the replacement of the token file.
	if err := os.Mkdir(s.file.path+".writing", 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := s.SaveToken(t.Context(), next); !errors.Is(err, tokenstore.ErrRefused) {
		t.Fatal(err)
	}
	both := readFile(t, s.file.path+Beside)
	if !bytes.Equal(readFile(t, s.file.path), before) || !bytes.Contains(both, []byte("next")) {
		t.Fatal("the write did not end between the two files")
	}
	if find(t, s, one.ID) != one || find(t, s, two.ID) != two {
		t.Error("a write that has ended early has changed a record")
	}
	if err := os.Remove(s.file.path + ".writing"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.SaveToken(t.Context(), next); err != nil {
		t.Fatal(err)
	}
	exact := readFile(t, s.file.path+Beside)
	if bytes.Contains(exact, []byte("h.p.s\"")) && bytes.Count(exact, []byte("h.p.s")) != 1 {
		t.Error("what was replaced is left in the file")
	}
	if err := os.WriteFile(s.file.path+Beside, both, 0o600); err != nil {
		t.Fatal(err)
	}
	if find(t, s, one.ID) != next || find(t, s, two.ID) != two {
		t.Error("a write that has ended before the last step is not read as it was committed")
	}
	if _, err := s.SaveToken(t.Context(), tokenstore.Token{ID: two.ID, Scope: "c"}); err != nil {
		t.Fatal(err)
	}
	two.Scope = "c"
	if find(t, s, one.ID) != next || find(t, s, two.ID) != two || bytes.Count(readFile(t, s.file.path+Beside), []byte("\n{")) != 2 {
		t.Error("the next write does not remove what is left")
	}
}

// TestExtensions_Check checks that Check reports and repairs stray extensions and a mode
// that lets other users read the second file.
func TestExtensions_Check(t *testing.T) {
	t.Parallel()
	s, one, two := openExtended(t)
	rewrite(t, s, "r https://two.example", "sdk")
	if err := os.Chmod(s.file.path+Beside, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, o := range []*doctor.CheckOptions{nil, {Repair: true, Purge: true}} {
		var kinds []string
		for f, err := range s.Check(t.Context(), o) {
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasSuffix(f.Name, Beside) && f.Repaired == (o != nil) {
				kinds = append(kinds, string(f.Kind))
			}
		}
		if !slices.Contains(kinds, string(doctor.KindDue)) || runtime.GOOS != "windows" && !slices.Contains(kinds, string(doctor.KindFileMode)) {
			t.Errorf("findings: %v", kinds)
		}
	}
	for f := range s.Check(t.Context(), nil) {
		t.Errorf("after the repair: %v", f.Kind)
	}
	if find(t, s, one.ID) != one || find(t, s, two.ID).Issuer != "" {
		t.Error("the repair has changed a record")
	}
}

// TestExtensions_Refresh checks that Refresh stores the fields of a token response that have no
// column, and merges Extra into the Extra of the record.
func TestExtensions_Refresh(t *testing.T) {
	t.Parallel()
	s, one, _ := openExtended(t)
	minted := tokenstore.Token{AccessToken: "next", RefreshToken: "r next", ExpiresAt: time.UnixMilli(5e12).UTC(), TokenType: "DPoP", Extra: `{"n":2}`}
	refreshed, err := s.Refresh(t.Context(), one.ID, one.AccessToken, func(ctx context.Context, t tokenstore.Token) (tokenstore.Token, error) {
		return minted, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if is := find(t, s, one.ID); is != refreshed || is.TokenType != "DPoP" || is.Issuer != one.Issuer || is.Scope != "" && is.Scope != one.Scope ||
		is.Extra != `{"instance_url":"https://na1.example","n":2}` {
		t.Errorf("found %+v, the refresh returned %+v", is.Fields(), refreshed.Fields())
	}
}

// TestExtensions_Damaged checks that searches and saves fail if the second file is malformed,
// and that they do not overwrite the file.
func TestExtensions_Damaged(t *testing.T) {
	t.Parallel()
	s, one, _ := openExtended(t)
	name := s.file.path + Beside
	whole := readFile(t, name)
	for _, damaged := range [][]byte{whole[:len(whole)/2], []byte("{}"), nil, bytes.Replace(whole, []byte(`{"v":1`), []byte(`{"v":2`), 1)} {
		if err := os.WriteFile(name, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		_, findErr := s.FindTokenByID(t.Context(), one.ID)
		_, saveErr := s.SaveToken(t.Context(), tokenstore.Token{UserName: "new", AccessToken: "a"})
		if !errors.Is(findErr, tokenstore.ErrCorrupt) || !errors.Is(saveErr, tokenstore.ErrCorrupt) || strings.Contains(findErr.Error(), "Bearer") {
			t.Errorf("%v; %v", findErr, saveErr)
		}
		if !bytes.Equal(readFile(t, name), damaged) {
			t.Error("it was written over")
		}
	}
	if err := os.WriteFile(name, bytes.Replace(whole, []byte(`"issuer"`), []byte(`"issuer" `), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	if find(t, s, one.ID) != one {
		t.Error("a file with another blank is not read")
	}
}

// TestExtensions_Torn checks that a reader never finds fields of different states, or a
// record without its issuer, while a writer replaces both files.
func TestExtensions_Torn(t *testing.T) {
	t.Parallel()
	s, one, _ := openExtended(t)
	reader, err := New(s.file.path, nil)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		var err error
		for i := 0; i < 100 && err == nil; i++ {
			_, err = s.SaveToken(t.Context(), tokenstore.Token{ID: one.ID, AccessToken: tokenstore.Secret(strings.Repeat("x", i+1)), Scope: strings.Repeat("x", i+1)})
		}
		done <- err
	}()
	for {
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
			return
		default:
		}
		is := find(t, reader, one.ID)
		if is.Issuer != one.Issuer || is.AccessToken != one.AccessToken && string(is.AccessToken) != is.Scope {
			t.Fatalf("the access token %q has the scope %q, and the issuer %q", string(is.AccessToken), is.Scope, is.Issuer)
		}
	}
}

func TestExtensions_Servers(t *testing.T) {
	t.Parallel()
	for seed := range uint64(50) {
		s, err := New(filepath.Join(t.TempDir(), "tokens.csv"), nil)
		if err != nil {
			t.Fatal(err)
		}
		storetest.Servers(t, seed, 25, s)
	}
}
