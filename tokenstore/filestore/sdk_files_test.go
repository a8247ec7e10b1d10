package filestore_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/filestore"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

type token = tokenstore.Token

// sdkFiles lists files that the official SDKs wrote. Beside each file is a JSON file with the
// records that the SDK read from it.
var sdkFiles = []struct {
	file    string
	dialect codec.Dialect
	records int
}{
	{"python_filestore.csv", codec.Python, 12},
	{"node_filestore.txt", codec.Node, 2},
}

func testdata(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", "testdata", "zoho-sdk", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// sdkTokens returns the tokens that the SDK read from file, one of sdkFiles.
func sdkTokens(t testing.TB, file string) []token {
	t.Helper()
	var records []map[string]*string
	if err := json.Unmarshal(testdata(t, strings.TrimSuffix(file, filepath.Ext(file))+".json"), &records); err != nil {
		t.Fatal(err)
	}
	var tokens []token
	for _, r := range records {
		field := func(name string) string {
			value := r[name]
			delete(r, name)
			if value == nil {
				return ""
			}
			return *value
		}
		got := token{
			ID: field("id"), UserName: field("user_name"), ClientID: field("client_id"), ClientSecret: tokenstore.Secret(field("client_secret")),
			RefreshToken: tokenstore.Secret(field("refresh_token")), AccessToken: tokenstore.Secret(field("access_token")),
			GrantToken: tokenstore.Secret(field("grant_token")), RedirectURL: field("redirect_url"), APIDomain: field("api_domain"),
		}
		ms, err := strconv.ParseInt(field("expiry_time"), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		got.ExpiresAt = time.UnixMilli(ms).UTC()
		for name := range r {
			t.Fatalf("%s: %s is a member that no field of a token is compared with", file, name)
		}
		tokens = append(tokens, got)
	}
	slices.SortFunc(tokens, byID)
	return tokens
}

func byID(a, b token) int { return cmp.Compare(a.ID, b.ID) }

func place(t testing.TB, data []byte) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "sdk_tokens.txt")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func open(t testing.TB, path string, opts *filestore.Options) *filestore.Store {
	t.Helper()
	s, err := filestore.New(path, opts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func content(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func holds(t *testing.T, what string, s tokenstore.TokenStore, want []token) {
	t.Helper()
	got, err := s.GetTokens(t.Context())
	if err != nil || len(got) != len(want) {
		t.Errorf("%s: %d records, error %v, want %d", what, len(got), err, len(want))
		return
	}
	for i, g := range got {
		w := want[i]
		for _, f := range []struct{ name, got, want string }{
			{"ID", g.ID, w.ID}, {"UserName", g.UserName, w.UserName}, {"ClientID", g.ClientID, w.ClientID}, {"ClientSecret", string(g.ClientSecret), string(w.ClientSecret)},
			{"RefreshToken", string(g.RefreshToken), string(w.RefreshToken)}, {"AccessToken", string(g.AccessToken), string(w.AccessToken)},
			{"GrantToken", string(g.GrantToken), string(w.GrantToken)}, {"RedirectURL", g.RedirectURL, w.RedirectURL}, {"APIDomain", g.APIDomain, w.APIDomain},
			{"ExpiresAt", g.ExpiresAt.String(), w.ExpiresAt.String()},
		} {
			if f.got != f.want {
				t.Errorf("%s: record %d: %s is %q, want %q", what, i, f.name, f.got, f.want)
			}
		}
	}
}

func TestSDKFileRead(t *testing.T) {
	t.Parallel()
	for _, f := range sdkFiles {
		want := sdkTokens(t, f.file)
		if len(want) != f.records {
			t.Fatalf("%s: %d records, want %d", f.file, len(want), f.records)
		}
		s := open(t, place(t, testdata(t, f.file)), nil)
		holds(t, f.file, s, want)
		for _, w := range want {
			for what, like := range map[string]token{
				"ID":              {ID: w.ID},
				"user":            {UserName: w.UserName, ClientID: w.ClientID},
				"grant token":     {ClientID: w.ClientID, GrantToken: w.GrantToken},
				"refresh token":   {ClientID: w.ClientID, RefreshToken: w.RefreshToken},
				"access token":    {AccessToken: w.AccessToken},
				"the whole of it": w,
			} {
				if like == (token{ClientID: w.ClientID}) {
					continue // the record has no such token
				}
				if got, err := s.FindToken(t.Context(), like); err != nil || got != w {
					t.Errorf("%s: record %s is not found by its %s: error %v", f.file, w.ID, what, err)
				}
			}
		}
	}
}

func TestSDKFileImportExport(t *testing.T) {
	t.Parallel()
	for _, f := range sdkFiles {
		want := sdkTokens(t, f.file)
		from := open(t, place(t, testdata(t, f.file)), nil)
		imported := memstore.New(nil)
		move(t, from, imported)
		holds(t, f.file+", imported", imported, want)
		for _, dialect := range codec.Dialects() {
			path := filepath.Join(t.TempDir(), "exported.txt")
			to := open(t, path, &filestore.Options{Dialect: dialect})
			if f.file == "python_filestore.csv" && !quotes(dialect) {
				continue // the file has a comma in a user name, which this SDK cannot read back
			}
			move(t, imported, to)
			holds(t, f.file+", exported for "+string(dialect), to, want)
			again := memstore.New(nil)
			move(t, to, again)
			holds(t, f.file+", exported for "+string(dialect)+" and imported again", again, want)
			if dialect == f.dialect && f.file == "python_filestore.csv" && !bytes.Equal(content(t, path), testdata(t, f.file)) {
				t.Errorf("%s: what was exported is not, byte for byte, what was imported", f.file)
			}
		}
	}
}

func quotes(d codec.Dialect) bool { return d == codec.Python || d == codec.Java || d == codec.Ruby }

func move(t *testing.T, from, to tokenstore.TokenStore) {
	t.Helper()
	tokens, err := from.GetTokens(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(tokens, func(a, b token) int { return cmp.Or(cmp.Compare(len(a.ID), len(b.ID)), cmp.Compare(a.ID, b.ID)) })
	for _, moved := range tokens {
		if got, err := to.SaveToken(t.Context(), moved); err != nil || got != moved {
			t.Errorf("record %s is saved with differences: error %v", moved.ID, err)
		}
	}
}

func TestRowsThatAreNotChangedStayByteForByte(t *testing.T) {
	t.Parallel()
	for _, f := range sdkFiles {
		original := testdata(t, f.file)
		for _, w := range sdkTokens(t, f.file) {
			path := place(t, original)
			s := open(t, path, nil)
			saved, err := s.SaveToken(t.Context(), token{ID: w.ID, AccessToken: "1000.new", ExpiresAt: w.ExpiresAt.Add(time.Hour)})
			if err != nil {
				t.Fatal(err)
			}
			old := []byte("," + string(w.AccessToken) + "," + string(w.GrantToken) + "," + strconv.FormatInt(w.ExpiresAt.UnixMilli(), 10) + ",")
			changed := []byte(",1000.new," + string(w.GrantToken) + "," + strconv.FormatInt(saved.ExpiresAt.UnixMilli(), 10) + ",")
			if n := bytes.Count(original, old); n != 1 {
				t.Fatalf("%s: record %s is there %d times", f.file, w.ID, n)
			}
			if got, want := content(t, path), bytes.Replace(original, old, changed, 1); !bytes.Equal(got, want) {
				t.Errorf("%s: after record %s was changed the file is\n%q, want\n%q", f.file, w.ID, got, want)
			}
			// The reverse change must restore the original bytes.
			if _, err := s.SaveToken(t.Context(), w); err != nil || !bytes.Equal(content(t, path), original) {
				t.Errorf("%s: record %s was changed and changed back, and the file is another one: error %v", f.file, w.ID, err)
			}
		}
	}
}

func TestDeleteTokenSDKFile(t *testing.T) {
	t.Parallel()
	for _, f := range sdkFiles {
		for i, w := range sdkTokens(t, f.file) {
			path := place(t, testdata(t, f.file))
			s := open(t, path, nil)
			if err := s.DeleteToken(t.Context(), w.ID); err != nil {
				t.Fatal(err)
			}
			holds(t, f.file+" without "+w.ID, s, slices.Delete(sdkTokens(t, f.file), i, i+1))
			for line := range bytes.Lines(testdata(t, f.file)) {
				line = bytes.TrimRight(line, "\r\n")
				if gone := bytes.Contains(line, []byte(w.RefreshToken)); bytes.Contains(content(t, path), line) == gone {
					t.Errorf("%s: after record %s was deleted a line is there that should not, or the reverse", f.file, w.ID)
				}
			}
		}
	}
}

func TestSaveTokenUnchanged(t *testing.T) {
	t.Parallel()
	for _, f := range sdkFiles {
		path := place(t, testdata(t, f.file))
		before, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		s := open(t, path, nil)
		for _, w := range sdkTokens(t, f.file) {
			if got, err := s.SaveToken(t.Context(), w); err != nil || got != w {
				t.Errorf("%s: record %s: error %v", f.file, w.ID, err)
			}
		}
		after, err := os.Stat(path)
		if err != nil || !os.SameFile(before, after) || !bytes.Equal(content(t, path), testdata(t, f.file)) {
			t.Errorf("%s: the file was replaced, error %v", f.file, err)
		}
	}
}
