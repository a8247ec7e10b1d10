package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tokenkeep/tokenkeep/cli"
	"github.com/tokenkeep/tokenkeep/conformance"
	"github.com/tokenkeep/tokenkeep/examples/internal/readme"
	"github.com/tokenkeep/tokenkeep/internal/fakevault"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/vaultstore"
)

func TestMain(m *testing.M) { readme.Main(m) }

// canary is a token that no command may print without the flag --reveal.
const canary = "1000.canary-5d41402abc4b2a76"

type world struct {
	dir string
	env map[string]string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	v := fakevault.New(nil)
	t.Cleanup(v.Close)
	if err := v.Policy("", "crm", vaultstore.Policy("secret", "oauth/crm")); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	return &world{dir, map[string]string{
		"TOKENKEEP_STORE": "box:" + filepath.Join(dir, "tokens.box"), "VAULT_ADDR": v.URL, "VAULT_TOKEN": v.Token("", 0, "crm"),
	}}
}

// run runs the program, and returns the exit code, standard output and standard error.
func (w *world) run(t *testing.T, input string, args ...string) (code int, out, errs string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	lookup := func(name string) (string, bool) { value, ok := w.env[name]; return value, ok }
	code = cli.Run(t.Context(), cli.Process{Args: args, LookupEnv: lookup, Stdin: strings.NewReader(input), Stdout: &stdout, Stderr: &stderr}, schemes()...)
	return code, stdout.String(), stderr.String()
}

// ok runs the program, and returns its standard output. It fails the test if the program fails.
func (w *world) ok(t *testing.T, input string, args ...string) string {
	t.Helper()
	code, out, errs := w.run(t, input, args...)
	if code != 0 {
		t.Fatalf("%q: exit code %d: %s", args, code, errs)
	}
	return out
}

func TestDriver(t *testing.T) {
	t.Parallel()
	paths := func(t testing.TB, d driver.Secrets) string {
		t.Helper()
		var path string
		if err := d.(*box).db.QueryRowContext(t.Context(), "SELECT file FROM pragma_database_list").Scan(&path); err != nil {
			t.Fatal(err)
		}
		return path
	}
	at := func(t testing.TB, path string) driver.Secrets {
		t.Helper()
		b, err := newBox(context.Background(), path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = b.Close() })
		return b
	}
	conformance.RunDriver(t, conformance.Driver{
		Open:    func(t testing.TB) driver.Secrets { return at(t, filepath.Join(t.TempDir(), "app")) },
		Reopen:  func(t testing.TB, d driver.Secrets) driver.Secrets { return at(t, paths(t, d)) },
		Sibling: func(t testing.TB, d driver.Secrets) driver.Secrets { return at(t, paths(t, d)+"-2") },
		Settle:  func(testing.TB, driver.Secrets) {},
	})
}

// TestREADME checks that the commands in the README succeed, and that only the user can access
// the file of the copy.
func TestREADME(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	tool := func(c readme.Call) (string, error) {
		var out, errs bytes.Buffer
		args := make([]string, len(c.Args))
		for i, arg := range c.Args { // relative paths refer to the folder of the script, not of the test
			args[i] = strings.Replace(arg, "box:", "box:"+c.Dir+"/", 1)
		}
		lookup := func(name string) (string, bool) {
			value := strings.Replace(c.Getenv(name), "box:", "box:"+c.Dir+"/", 1)
			return value, value != ""
		}
		code := cli.Run(t.Context(), cli.Process{Args: args, LookupEnv: lookup, Stdin: strings.NewReader(c.Input), Stdout: &out, Stderr: &errs}, schemes()...)
		if code != 0 {
			return out.String(), fmt.Errorf("exit code %d: %s", code, &errs)
		}
		return out.String(), nil
	}
	build := func(c readme.Call) (string, error) {
		if got := strings.Join(c.Args, " "); got != "build -o tokenkeep ./examples/own-driver" {
			return "", fmt.Errorf("unexpected arguments %q", got)
		}
		return "", nil
	}
	script := readme.Only(readme.Blocks(t, "README.md"), "sh")
	out := readme.Run(t, w.dir, script, map[string]readme.Program{"tokenkeep": tool, "go": build}, "VAULT_ADDR="+w.env["VAULT_ADDR"], "VAULT_TOKEN="+w.env["VAULT_TOKEN"])
	if strings.Count(out, "1 of 1 records verified") != 2 || !strings.Contains(out, "box:PATH") || strings.Contains(out, "1000.refresh") || strings.Contains(out, "awssm") {
		t.Errorf("the blocks print %s", out)
	}
	info, err := os.Stat(filepath.Join(w.dir, "copy.box"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file of the copy: %v, %v", info, err)
	}
}

// TestCommand checks how the command treats a missing box, a dry run, and an unknown kind of
// store. It also checks completion, help, and a migration from a box to itself.
func TestCommand(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if code, _, errs := w.run(t, "", "ls"); code != 1 || !strings.Contains(errs, "there is no such box") {
		t.Errorf("ls of no box: %d, %s", code, errs)
	}
	if out := w.ok(t, "", "migrate", "--from", "mem:", "--to", w.env["TOKENKEEP_STORE"], "--dry-run"); !strings.Contains(out, "nothing was written") {
		t.Errorf("a plan: %s", out)
	}
	if _, err := os.Stat(filepath.Join(w.dir, "tokens.box")); !os.IsNotExist(err) {
		t.Errorf("a plan has made the box: %v", err)
	}
	if code, _, errs := w.run(t, "", "ls", "--store", "bix:x"); code != 2 || !strings.Contains(errs, `did you mean "box"?`) {
		t.Errorf("a misspelled scheme: %d, %s", code, errs)
	}
	if code, _, errs := w.run(t, "", "ls", "--store", "awssm:x"); code != 2 || !strings.Contains(errs, "there are mem, file, vault, box") {
		t.Errorf("a scheme that is left out: %d, %s", code, errs)
	}
	if out := w.ok(t, "", "__complete", "ls", "--store", "b"); !strings.Contains(out, "box:\ta box, which is one file") {
		t.Errorf("completion: %s", out)
	}
	if out := w.ok(t, "", "policy", "--help"); !strings.Contains(out, "vault") || strings.Contains(out, "aws") {
		t.Errorf("policy: %s", out)
	}
	w.ok(t, `{"user_name":"ann","client_id":"c","refresh_token":"r"}`, "save")
	store := w.env["TOKENKEEP_STORE"]
	if code, _, errs := w.run(t, "", "migrate", "--from", store, "--to", filepath.Dir(store)+"/./tokens.box"); code != 2 {
		t.Errorf("migrate to the same box: %d, %s", code, errs)
	}
}

// TestKeys checks that no file contains a token in plain text if the user has keys. It also
// checks that a command without the keys fails.
func TestKeys(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	file := filepath.Join(w.dir, "keys.json")
	w.ok(t, "", "keys", "new", file)
	w.env["TOKENKEEP_KEYS_FILE"] = file
	w.ok(t, `{"user_name":"ann","client_id":"c","refresh_token":"`+canary+`"}`, "save")
	if out := w.ok(t, "", "get", "--user", "ann", "--client", "c", "--reveal"); !strings.Contains(out, canary) {
		t.Errorf("get: %s", out)
	}
	err := filepath.WalkDir(w.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if bytes.Contains(data, []byte(canary)) {
			t.Errorf("%s has the token", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	delete(w.env, "TOKENKEEP_KEYS_FILE")
	if code, _, errs := w.run(t, "", "get", "--user", "ann", "--client", "c"); code != 15 {
		t.Errorf("get without the keys: %d, %s", code, errs)
	}
}

// TestCanary checks that no command without --reveal prints a token of the box, whether the
// box works or not.
func TestCanary(t *testing.T) {
	t.Parallel()
	record := `{"user_name":"ann","client_id":"c","client_secret":"` + canary + `","refresh_token":"` + canary + `","access_token":"` + canary + `"}`
	for name, prepare := range map[string]func(*testing.T, *world){
		"works":   func(t *testing.T, w *world) { t.Helper(); w.ok(t, record, "save") },
		"no file": func(*testing.T, *world) {},
		"no database": func(t *testing.T, w *world) {
			t.Helper()
			if err := os.WriteFile(filepath.Join(w.dir, "tokens.box"), []byte(canary), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"other data": func(t *testing.T, w *world) {
			t.Helper()
			w.ok(t, record, "save")
			b, err := newBox(t.Context(), filepath.Join(w.dir, "tokens.box"))
			if err == nil {
				_, err = b.exec(t.Context(), "UPDATE secrets SET data = ?, updated = ?", canary, canary)
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			prepare(t, w)
			for _, args := range [][]string{
				{"ls"}, {"ls", "--json"}, {"save"}, {"save", "--json"}, {"get", "--user", "ann", "--client", "c"}, {"get", "--like", "-"},
				{"status"}, {"status", "--json"}, {"doctor"}, {"doctor", "--json"}, {"rekey"}, {"keep", "--jitter", "0s", "--json"},
				{"ls", "--store", "box:" + canary}, {"ls", "--store", "box:x?" + canary}, {"ls", "--store", canary + ":x"},
				{"migrate", "--from", w.env["TOKENKEEP_STORE"], "--to", "vault:secret/oauth/crm", "--json"},
				{"migrate", "--from", "vault:secret/oauth/crm", "--to", w.env["TOKENKEEP_STORE"]},
				{"rm", canary}, {"rm", "--all", "--yes"},
			} {
				if _, out, errs := w.run(t, record, args...); strings.Contains(out+errs, canary) {
					t.Errorf("%q prints the token: %s%s", args, out, errs)
				}
			}
		})
	}
	w := newWorld(t)
	var saved struct{ ID string }
	if err := json.Unmarshal([]byte(w.ok(t, record, "save", "--json")), &saved); err != nil || saved.ID == "" {
		t.Fatalf("save: %+v, %v", saved, err)
	}
	if out := w.ok(t, "", "get", saved.ID, "--reveal"); !strings.Contains(out, canary) {
		t.Error("the test would not notice a token")
	}
}
