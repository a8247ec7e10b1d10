package agent_test

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/tokenkeep/tokenkeep/agent"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

func TestTokenFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	name := filepath.Join(dir, "token")
	var wg sync.WaitGroup
	tokens := make([]tokenstore.Secret, 10)
	for i := range tokens {
		wg.Go(func() {
			var err error
			if tokens[i], err = agent.TokenFile(name); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, token := range tokens {
		if len(token) < 26 || token != tokens[0] {
			t.Errorf("the tokens are %d and %d characters long, or differ", len(token), len(tokens[0]))
		}
	}
	if at, err := os.Stat(name); err != nil || at.Mode().Perm() != 0o600 {
		t.Errorf("the mode is %v: %v", at.Mode(), err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("%d files: %v", len(left), err)
	}
	folder := filepath.Join(dir, "made")
	if _, err := agent.TokenFile(filepath.Join(folder, "token")); err != nil {
		t.Error(err)
	}
	if at, err := os.Stat(folder); err != nil || at.Mode().Perm() != 0o700 {
		t.Errorf("the mode of a new folder is %v: %v", at.Mode(), err)
	}
	if other, err := agent.TokenFile(filepath.Join(dir, "other")); err != nil || other == tokens[0] {
		t.Errorf("two files have one token: %v", err)
	}
	for text, mode := range map[string]os.FileMode{"short": 0o600, "a token of more than one word": 0o600, "readable-by-all-users-here": 0o644} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := agent.TokenFile(name); err == nil {
			t.Errorf("%q with mode %v is taken", text, mode)
		}
	}
}
