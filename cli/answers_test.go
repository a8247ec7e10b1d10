package cli

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/internal/authservers"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/filestore"
)

// given holds the members of a token response by name. Each value is an object in canonical form
// with only that member.
type given map[string]string

func membersOf(t *testing.T, answer []byte) given {
	t.Helper()
	var members map[string]json.RawMessage
	if err := json.Unmarshal(answer, &members); err != nil {
		t.Fatal(err)
	}
	g := given{}
	for name, value := range members {
		g[name] = canonical(t, name, string(value))
	}
	return g
}

// canonical returns the canonical form of an object with one member.
func canonical(t *testing.T, name, value string) string {
	t.Helper()
	text, err := codec.CanonicalExtra(`{"` + name + `":` + value + `}`)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// check checks that r contains the members of the response g, and no others. An expiry may be
// off by a minute.
func (g given) check(t *testing.T, where string, r tokenstore.Token, issued time.Time) {
	t.Helper()
	kept := given{}
	if r.Extra != "" {
		kept = membersOf(t, []byte(r.Extra))
	}
	for name, text := range map[string]string{
		"access_token": string(r.AccessToken), "refresh_token": string(r.RefreshToken), "token_type": r.TokenType,
		"scope": r.Scope, "id_token": string(r.IDToken), "api_domain": r.APIDomain,
	} {
		if text != "" {
			quoted, err := json.Marshal(text)
			if err != nil {
				t.Fatal(err)
			}
			kept[name] = canonical(t, name, string(quoted))
		}
	}
	for name, want := range g {
		if name == "expires_in" {
			var seconds struct {
				N float64 `json:"expires_in"`
			}
			if err := json.Unmarshal([]byte(want), &seconds); err != nil {
				t.Fatal(err)
			}
			if off := r.ExpiresAt.Sub(issued.Add(time.Duration(seconds.N) * time.Second)).Abs(); off > time.Minute {
				t.Errorf("%s: expires_in is %v off", where, off)
			}
			continue
		}
		if kept[name] != want {
			t.Errorf("%s: the member %s is %s, want %s", where, name, kept[name], want)
		}
	}
	for name := range kept {
		if _, ok := g[name]; !ok {
			t.Errorf("%s: there is a member %s, which was not given", where, name)
		}
	}
}

// TestAnswers checks that saves, migrations and refreshes keep the members of the token
// responses of twenty providers. It also checks that export writes no file if the file cannot
// hold all members.
func TestAnswers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, table := env{envStore: "file:" + filepath.Join(dir, "tokens.csv")}, env{envStore: "sqlite:" + filepath.Join(dir, "tokens.db")}
	issued := time.Now()
	all := authservers.Answers()
	if len(all) != 20 {
		t.Errorf("there are %d answers", len(all))
	}
	records := func(e env) map[string]tokenstore.Token {
		t.Helper()
		byIssuer := map[string]tokenstore.Token{}
		for _, r := range decode[[]recordJSON](t, e.ok(t, "", "ls", "--json", "--reveal")) {
			byIssuer[r.Issuer] = tokenstore.FromFields(codec.Fields(r))
		}
		return byIssuer
	}
	check := func(where string, e env) {
		t.Helper()
		kept := records(e)
		for provider, answer := range all {
			membersOf(t, answer).check(t, where+", "+provider, kept[issuerOf(provider)], issued)
		}
	}
	for provider, answer := range all {
		file.ok(t, string(answer), "save", "--user", "ann", "--client", "c", "--issuer", issuerOf(provider))
	}
	check("save", file)
	for provider, answer := range all {
		file.ok(t, string(answer), "save", "--user", "ann", "--client", "c", "--issuer", issuerOf(provider))
	}
	check("save once more", file)
	file.ok(t, "", "migrate", "--from", file[envStore], "--to", table[envStore])
	check("migrate to SQLite", table)
	vault, _ := vaultEnv(t)
	vault.ok(t, "", "migrate", "--from", table[envStore], "--to", vault[envStore])
	check("migrate to Vault", vault)
	back := env{envStore: "file:" + filepath.Join(dir, "back.csv")}
	vault.ok(t, "", "migrate", "--from", vault[envStore], "--to", back[envStore])
	check("migrate to a file", back)

	name := filepath.Join(dir, "export.csv")
	for _, args := range [][]string{{"export", name}, {"export", name, "--drop", "scope,id_token,extra,token_type"}} {
		if text := file.fails(t, 6, "", args...); !strings.Contains(text, "there is no column for") || strings.Contains(text, "Bearer") {
			t.Errorf("export: %s", text)
		}
		if _, err := os.Stat(name); err == nil {
			t.Error("export has written a file")
		}
	}
	refreshed(t, filepath.Join(dir, "tokens.csv"), all)
	check("refresh", file)
}

func issuerOf(provider string) string { return "https://" + provider + ".example.com" }

// refreshed refreshes each record in a token file twice: first with only an access token and an
// expiry, and then with the full response. It checks that the first refresh keeps the other
// members.
func refreshed(t *testing.T, path string, all map[string][]byte) {
	t.Helper()
	s, err := filestore.New(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for provider, answer := range all {
		refresh := func(minted tokenstore.Token) tokenstore.Token {
			t.Helper()
			was, err := s.FindToken(t.Context(), tokenstore.Token{UserName: "ann", ClientID: "c", Issuer: issuerOf(provider)})
			if err != nil {
				t.Fatal(err)
			}
			now, err := s.Refresh(t.Context(), was.ID, was.AccessToken, func(context.Context, tokenstore.Token) (tokenstore.Token, error) { return minted, nil })
			if err != nil {
				t.Fatal(err)
			}
			return now
		}
		full, err := parseSaved(answer, time.Now(), nil)
		if err != nil {
			t.Fatal(err)
		}
		lean := refresh(tokenstore.Token{AccessToken: "lean", ExpiresAt: full.ExpiresAt})
		want := membersOf(t, answer)
		want["access_token"] = `{"access_token":"lean"}`
		want.check(t, "refresh without the members, "+provider, lean, time.Now())
		refresh(full)
	}
}

// TestExportDrop checks that --drop leaves out only the named members. export must not drop an
// issuer, or a token_type that the SDKs do not send correctly.
func TestExportDrop(t *testing.T) {
	t.Parallel()
	e := fileStoreEnv(t)
	e.ok(t, string(authservers.Answers()["zoho"]), "save", "--user", "ann", "--client", "c")
	name := filepath.Join(t.TempDir(), "export.csv")
	e.fails(t, 6, "", "export", name)
	e.fails(t, 2, "", "export", name, "--drop", "issuer")
	e.ok(t, "", "export", name, "--drop", "scope,token_type")
	other := fileStoreEnv(t)
	other.ok(t, "", "import", name)
	got := decode[recordJSON](t, other.ok(t, "", "get", "--user", "ann", "--json", "--reveal"))
	if !strings.HasPrefix(got.RefreshToken, "1000.9e8d") || got.APIDomain != "https://www.zohoapis.com" || got.TokenType != "" {
		t.Errorf("imported: %v", codec.Fields(got).Extended())
	}
	e.ok(t, `{"access_token":"a","token_type":"DPoP"}`, "save", "--user", "eve", "--client", "c")
	e.fails(t, 6, "", "export", name, "--force", "--drop", "scope,token_type")

	// import must refuse a token file if a second file beside the token file holds further fields.
	path := strings.TrimPrefix(e[envStore], "file:")
	if text := other.fails(t, 2, "", "import", path); !strings.Contains(text, "migrate --from") {
		t.Errorf("import: %s", text)
	}
}
