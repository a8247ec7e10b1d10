package integration

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-sql-driver/mysql"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/filestore"
)

// TestRecordsGoFromStoreToStoreAndBack checks that migrations do not change the records of an
// SDK's token file. The command tokenkeep migrates the records to Vault, to Secrets Manager,
// to MySQL and back to a file.
func TestRecordsGoFromStoreToStoreAndBack(t *testing.T) {
	t.Parallel()
	VaultBackend.Count(t)
	LocalstackBackend.Count(t)
	MySQLBackend.Count(t)
	v, a, m := SharedVault(t), SharedAWS(t), SharedMySQL(t)
	dir := t.TempDir()
	program := filepath.Join(dir, "tokenkeep"+exe())
	if err := buildTo(filepath.Join("..", "cmd", "tokenkeep"), program); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join("..", "testdata", "zoho-sdk", "python_filestore.csv"))
	if err != nil {
		t.Fatal(err)
	}
	first, last := filepath.Join(dir, "first.csv"), filepath.Join(dir, "last.csv")
	if err := os.WriteFile(first, data, 0o600); err != nil {
		t.Fatal(err)
	}
	database, err := mysql.ParseDSN(m.Database(t))
	if err != nil {
		t.Fatal("the data source name cannot be read")
	}
	stations := []string{
		"file:" + first,
		"vault:" + v.Mount + "/" + v.Prefix(t),
		"awssm:" + a.Prefix(t),
		"mysql://" + database.User + "@" + database.Addr + "/" + database.DBName,
		"file:" + last,
	}
	stations[2] += a.Query()
	env := append(os.Environ(), "VAULT_ADDR="+v.Addr, "VAULT_TOKEN="+v.RootToken, "TOKENKEEP_MYSQL_PASSWORD="+database.Passwd)
	env = append(env, a.Env()...)
	for i, from := range stations[:len(stations)-1] {
		to := stations[i+1]
		cmd := exec.CommandContext(t.Context(), program, "migrate", "--keep-ids", "--from", from, "--to", to)
		cmd.Env = env
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("migrate from %s to %s: %v\n%s", from, to, err, tail(string(out), 4<<10))
		}
	}

	want, got := records(t, first), records(t, last)
	if len(want) != 12 || len(got) != len(want) {
		t.Fatalf("%d records went, and %d came back; want 12", len(want), len(got))
	}
	for id, w := range want {
		g := got[id]
		if !g.ExpiresAt.Equal(w.ExpiresAt) {
			t.Errorf("%s expires at %v, want %v", id, g.ExpiresAt, w.ExpiresAt)
		}
		g.ExpiresAt = w.ExpiresAt
		if g != w {
			t.Errorf("%s has changed: %s", id, strings.Join(differences(g, w), ", "))
		}
	}
}

func records(t *testing.T, path string) map[string]tokenstore.Token {
	t.Helper()
	s, err := filestore.New(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	all, err := s.GetTokens(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	byID := map[string]tokenstore.Token{}
	for _, r := range all {
		byID[r.ID] = r
	}
	return byID
}
