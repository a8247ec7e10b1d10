package cli

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/tokenkeep/tokenkeep/internal/fakevault"
)

// TestKeysRecipe checks that the commands in docs/keys.md add keys to a store with records, and
// remove the keys again.
func TestKeysRecipe(t *testing.T) {
	t.Parallel()
	_, steps, _ := strings.Cut(readFile(t, "../docs/keys.md"), "## Adding, replacing and removing keys")
	block := regexp.MustCompile("(?s)```sh\n(.*?)```").FindStringSubmatch(steps)
	if block == nil {
		t.Fatal("docs/keys.md has no steps")
	}
	e, _ := vaultEnv(t)
	importSDKFile(t, e, "--keep-ids")
	before := contents(t, e)
	file := filepath.Join(t.TempDir(), "keys.json")
	for _, first := range []string{"tokenkeep keys add keys.json", "tokenkeep keys add --none keys.json"} {
		commands := strings.Split(strings.TrimSpace(block[1]), "\n")
		commands[0] = first
		for _, command := range commands {
			args := strings.Fields(strings.ReplaceAll(command, "keys.json", file))
			e.ok(t, "", args[1:]...)
			e = e.with(envKeys, file)
			if after := contents(t, e); len(after) != len(before) || after["3"] != before["3"] {
				t.Fatalf("after %q there are %d records", command, len(after))
			}
		}
	}
	e = e.with(envKeys, "")
	if after := contents(t, e); len(after) != len(before) {
		t.Errorf("without keys there are %d records", len(after))
	}
	e.ok(t, "", "doctor")
}

// TestKeysHint checks that ls, migrate and doctor print one question about the keys if a store
// is read without its keys.
func TestKeysHint(t *testing.T) {
	t.Parallel()
	e, _ := vaultEnv(t)
	file := filepath.Join(t.TempDir(), "keys.json")
	e.ok(t, "", "keys", "new", file)
	keyed := e.with(envKeys, file)
	keyed.ok(t, `{"user_name":"ann","client_id":"c","access_token":"a"}`, "save")
	other := filepath.Join(t.TempDir(), "other.json")
	e.ok(t, "", "keys", "new", other)
	for want, e := range map[string]env{
		"Does the store need keys? " + envKeys + " is not set.":     e,
		"Are the keys in " + other + " (" + envKeys + ") the right": e.with(envKeys, other),
	} {
		if text := e.fails(t, 9, "", "ls"); strings.Count(text, want) != 1 {
			t.Errorf("ls: %s", text)
		}
		if text := e.fails(t, 10, "", "migrate", "--from", e[envStore], "--to", "mem:"); strings.Count(text, want) != 1 {
			t.Errorf("migrate: %s", text)
		}
		r := e.tk(t, "", "doctor")
		if text := strings.ReplaceAll(r.out, "\n", " "); r.code != 13 || strings.Count(text, want) != 1 {
			t.Errorf("doctor: %+v", r)
		}
		if !strings.Contains(r.out, "the keys of the store") || strings.Contains(r.out, "by hand") {
			t.Errorf("the remedy of keys-foreign: %s", r.out)
		}
	}
	if text := keyed.ok(t, "", "ls"); !strings.Contains(text, "ann") {
		t.Errorf("with its keys: %s", text)
	}
	broken := env{envStore: "file:" + writeFile(t, "tokens.csv", header+"7,dan,c,s3cret,r7,a7,,soon,,\n")}
	if text := broken.fails(t, 9, "", "ls"); strings.Contains(text, "keys") {
		t.Errorf("a file has no keys: %s", text)
	}
}

// TestUnkeyedName checks that doctor reports a record whose name was derived without a key, and
// that the printed remedy renames the record.
func TestUnkeyedName(t *testing.T) {
	t.Parallel()
	e, _ := vaultEnv(t)
	e = e.with("VAULT_TOKEN", fakevault.RootToken)
	file := filepath.Join(t.TempDir(), "keys.json")
	e.ok(t, "", "keys", "new", file, "--for", "names,labels")
	keyed := e.with(envKeys, file)
	keyed.ok(t, `{"user_name":"ann","client_id":"c","access_token":"a"}`, "save")
	other := e.with(envStore, "vault:secret/oauth/other")
	id := decode[recordJSON](t, other.ok(t, `{"user_name":"bob","client_id":"c","access_token":"b"}`, "save", "--json")).ID
	client, err := vaultClient(e)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := client.Logical().ReadWithContext(t.Context(), "secret/data/oauth/other/tokens/"+id)
	if err == nil {
		_, err = client.Logical().WriteWithContext(t.Context(), "secret/data/oauth/test/tokens/"+id, map[string]any{"data": secret.Data["data"]})
	}
	if err != nil {
		t.Fatal(err)
	}
	if r := keyed.tk(t, "", "doctor", "--grace", "0s"); r.code != 13 || !strings.Contains(r.out, "keys add --none, then rekey") {
		t.Errorf("doctor: %+v", r)
	}
	for _, args := range [][]string{{"keys", "add", "--none", file}, {"rekey"}, {"keys", "drop", file}, {"doctor", "--grace", "0s"}} {
		keyed.ok(t, "", args...)
	}
	if text := keyed.ok(t, "", "get", "--user", "bob", "--client", "c"); !strings.Contains(text, id) {
		t.Errorf("bob: %s", text)
	}
}
