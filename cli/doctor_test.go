package cli

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/tokenkeep/tokenkeep/internal/fakevault"
	"github.com/tokenkeep/tokenkeep/tokenstore/doctor"
)

// TestDoctorOnHealthyStores checks that doctor has no harmful findings in a store that other
// commands used.
func TestDoctorOnHealthyStores(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, e env) {
		importSDKFile(t, e, "--keep-ids")
		e.ok(t, "", "rm", "3")
		for _, flags := range [][]string{nil, {"--repair"}, {"--merge-duplicates"}, {"--purge", "--alone"}} {
			r := decode[doctorReport](t, e.ok(t, "", append([]string{"doctor", "--json", "--grace", "0s"}, flags...)...))
			if r.Left != 0 || r.Findings == nil {
				t.Errorf("%v: %+v", flags, r)
			}
		}
		if got := len(contents(t, e)); got != 11 {
			t.Errorf("%d records are left", got)
		}
	})
}

// TestDoctorRepairLabel checks that doctor reports a missing label of a record, and that
// doctor --repair restores the label.
func TestDoctorRepairLabel(t *testing.T) {
	t.Parallel()
	e, _ := vaultEnv(t)
	e = e.with("VAULT_TOKEN", fakevault.RootToken)
	e.ok(t, `{"id":"7","user_name":"ann","access_token":"s3cret"}`, "save")
	removeIndex(t, e)
	e.fails(t, 3, "", "get", "7")

	text := e.fails(t, 13, "", "doctor", "--grace", "0s")
	if !strings.Contains(text, "harmful findings: 1") {
		t.Errorf("message: %s", text)
	}
	out := e.tk(t, "", "doctor", "--grace", "0s").out
	for _, want := range []string{"FINDING", "label-missing", "doctor --repair", doctor.KindLabelMissing.Meaning()[:40], "REMEDY", "harmful 1"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in %s", want, out)
		}
	}
	r := decode[doctorReport](t, e.ok(t, "", "doctor", "--repair", "--json", "--grace", "0s"))
	if r.Repaired == 0 || r.Left != 0 || r.Checked == 0 {
		t.Errorf("--repair: %+v", r)
	}
	for _, f := range r.Findings {
		if f.Kind == "" || f.Detail == "" || !f.Repaired && !f.Harmless {
			t.Errorf("finding: %+v", f)
		}
	}
	if got := e.ok(t, "", "get", "7"); !strings.Contains(got, "ann") {
		t.Errorf("not repaired: %s", got)
	}
}

// removeIndex removes the index entries of all records in Vault.
func removeIndex(t *testing.T, e env) {
	t.Helper()
	client, err := vaultClient(e)
	if err != nil {
		t.Fatal(err)
	}
	var remove func(path string)
	remove = func(path string) {
		list, err := client.Logical().ListWithContext(t.Context(), "secret/metadata/"+path)
		if err != nil || list == nil {
			t.Fatalf("%s: %v", path, err)
		}
		keys, _ := list.Data["keys"].([]any)
		for _, key := range keys {
			name, _ := key.(string)
			if strings.HasSuffix(name, "/") {
				remove(path + name)
			} else if _, err := client.Logical().DeleteWithContext(t.Context(), "secret/metadata/"+path+name); err != nil {
				t.Fatal(err)
			}
		}
	}
	remove("oauth/test/index/")
}

func TestDoctorUsage(t *testing.T) {
	t.Parallel()
	e, _ := vaultEnv(t)
	for _, flags := range [][]string{{"--purge"}, {"--alone"}} {
		if text := e.fails(t, 2, "", append([]string{"doctor"}, flags...)...); !strings.Contains(text, "requires --alone") {
			t.Errorf("%v: %s", flags, text)
		}
	}
	e.with("VAULT_TOKEN", "hvs.wrong").fails(t, 7, "", "doctor")
	if text := e.fails(t, 2, "", "rekey"); !strings.Contains(text, envKeys) {
		t.Errorf("message: %s", text)
	}
	if text := (env{envStore: "file:" + writeFile(t, "tokens.csv", header), envKeys: "unread"}).fails(t, 2, "", "rekey"); !strings.Contains(text, "has no keys") {
		t.Errorf("message: %s", text)
	}
}

func TestDoctorTriesPermissions(t *testing.T) {
	t.Parallel()
	e, server := vaultEnv(t)
	e.ok(t, "", "doctor", "--permissions")
	if err := server.Policy("", "reader", `path "secret/*" { capabilities = ["read", "list"] }`); err != nil {
		t.Fatal(err)
	}
	reader := e.with("VAULT_TOKEN", server.Token("", 0, "reader"))
	reader.ok(t, "", "doctor")
	r := reader.tk(t, "", "doctor", "--permissions")
	if r.code != 13 || !strings.Contains(r.out, "permission-missing") {
		t.Errorf("%+v", r)
	}
}

// TestRekey checks that the steps in the help of rekey change the keys of all records.
func TestRekey(t *testing.T) {
	t.Parallel()
	for _, k := range storeKinds[3:] {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			e, dir := k.open(t), t.TempDir()
			e = e.with(envKeys, filepath.Join(dir, "old.json"))
			e.ok(t, "", "keys", "new", e[envKeys])
			importSDKFile(t, e, "--keep-ids")
			before := contents(t, e)

			file := e[envKeys]
			stale := writeFile(t, "old.json", readFile(t, file))
			e.ok(t, "", "keys", "add", file)
			if got := decode[rekeyReport](t, e.ok(t, "", "rekey", "--dry-run", "--json")); got.Rewritten != 0 {
				t.Errorf("before the new keys are first: %+v", got)
			}
			e.ok(t, "", "keys", "switch", file)
			if got := decode[rekeyReport](t, e.ok(t, "", "rekey", "--dry-run", "--json")); got.Rewritten != 12 || !got.DryRun {
				t.Errorf("dry run: %+v", got)
			}
			if got := decode[rekeyReport](t, e.ok(t, "", "rekey", "--json")); got.Records != 12 || got.Rewritten != 12 || len(got.Failed) != 0 {
				t.Errorf("report: %+v", got)
			}
			if got := e.ok(t, "", "rekey"); got != "12 records: 0 rewritten, 12 under the current keys already, 0 failed\n"+
				"no record needs any key but the first ones: the others can be dropped\n" {
				t.Errorf("again: %s", got)
			}
			e.ok(t, "", "keys", "drop", file)
			if got := e.ok(t, "", "rekey"); !strings.HasSuffix(got, "\nall records are under the current keys\n") {
				t.Errorf("with nothing to drop: %s", got)
			}
			after := contents(t, e)
			if len(after) != 12 || after["3"] != before["3"] {
				t.Errorf("%d records after, the third %v", len(after), after["3"] == before["3"])
			}
			if got := e.ok(t, "", "get", "--user", before["3"].UserName); !strings.Contains(got, before["3"].ClientID) {
				t.Errorf("not found by the new index key: %s", got)
			}
			e.with(envKeys, stale).fails(t, 9, "", "ls")
			e.with(envKeys, stale).fails(t, 15, "", "get", "--user", before["3"].UserName)
		})
	}
}

func TestWrapText(t *testing.T) {
	t.Parallel()
	text := wrapText("    "+strings.Repeat("word ", 40), "  ")
	for i, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		indent := len(line) - len(strings.TrimLeft(line, " "))
		if len(line) > 80 || i == 0 && indent != 4 || i > 0 && indent != 2 {
			t.Errorf("line %d: %q", i, line)
		}
	}
	if strings.Count(text, "word") != 40 {
		t.Error("words are missing")
	}
}
