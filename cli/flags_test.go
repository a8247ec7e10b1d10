package cli

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tokenkeep/tokenkeep/internal/fakevault"
)

// everyCommand passes each command that can be run, and the words that name the command, to the
// function visit.
func everyCommand(c *cobra.Command, visit func(c *cobra.Command, path []string)) {
	if c.Runnable() {
		visit(c, strings.Fields(c.CommandPath())[1:])
	}
	for _, sub := range c.Commands() {
		everyCommand(sub, visit)
	}
}

// TestEmptyFlags checks that every flag of every command, except --help and --version, rejects
// an empty value.
func TestEmptyFlags(t *testing.T) {
	t.Parallel()
	flags := 0
	root := (&app{schemes: allSchemes(), env: env{}.get}).rootCommand()
	e := env{envStore: "file:" + filepath.Join(t.TempDir(), "tokens.csv")}
	everyCommand(root, func(c *cobra.Command, path []string) {
		visit := func(f *pflag.Flag) {
			if f.Name == "help" || f.Name == "version" {
				return
			}
			flags++
			args := append(slices.Clone(path), "--"+f.Name+"=")
			if _, what, ok := strings.Cut(c.Use, " "); ok && strings.ToUpper(what) == what && !strings.HasPrefix(what, "[") {
				args = append(args, "x.csv")
			}
			if text := e.fails(t, 2, "", args...); !strings.Contains(text, "--"+f.Name) {
				t.Errorf("tokenkeep %s: %s", strings.Join(args, " "), text)
			}
		}
		c.LocalFlags().VisitAll(visit)
		c.InheritedFlags().VisitAll(visit)
	})
	if flags < 30 {
		t.Errorf("%d flags were tried", flags)
	}
}

// TestNegativeDurations checks that every duration flag, except --timeout, rejects a negative
// value.
func TestNegativeDurations(t *testing.T) {
	t.Parallel()
	tried := map[string]bool{}
	everyCommand((&app{schemes: allSchemes(), env: env{}.get}).rootCommand(), func(c *cobra.Command, path []string) {
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Value.Type() != "duration" || len(path) == 0 {
				return
			}
			tried[f.Name] = true
			if text := (env{}).fails(t, 2, "", append(slices.Clone(path), "--"+f.Name, "-1s")...); !strings.Contains(text, "--"+f.Name+" is negative") {
				t.Errorf("%s: %s", path, text)
			}
		})
	})
	for _, name := range []string{"grace", "within", "idle", "jitter", "wait", "lasts"} {
		if !tried[name] {
			t.Errorf("--%s was not tried", name)
		}
	}
}

// TestStoreOfEveryCommand checks that exactly the commands that use no store refuse --store, even
// if the commands are renamed.
func TestStoreOfEveryCommand(t *testing.T) {
	t.Parallel()
	without := []string{"help", "keys", "man", "policy", "version"}
	paths := map[*cobra.Command][]string{}
	everyCommand((&app{schemes: allSchemes(), env: env{}.get}).rootCommand(), func(c *cobra.Command, path []string) { paths[c] = path })
	for c := range paths {
		c.Use = "renamed"
	}
	for c, path := range paths {
		if want := len(path) == 0 || !slices.Contains(without, path[0]); usesStore(c) != want {
			t.Errorf("tokenkeep %s: usesStore returns %v", strings.Join(path, " "), !want)
		}
	}
}

// TestEmptyArguments checks that every command, except completion and help, rejects an empty
// argument.
func TestEmptyArguments(t *testing.T) {
	t.Parallel()
	root := (&app{schemes: allSchemes(), env: env{}.get}).rootCommand()
	everyCommand(root, func(_ *cobra.Command, path []string) {
		if len(path) > 0 && (path[0] == "completion" || path[0] == "help") {
			return // these commands treat the argument as the name of a command
		}
		e := env{envStore: "file:" + filepath.Join(t.TempDir(), "tokens.csv")}
		text := e.fails(t, 2, "", append(slices.Clone(path), "")...)
		if !strings.Contains(text, "empty") && !strings.Contains(text, "takes no arguments") && !strings.Contains(text, "no command") {
			t.Errorf("tokenkeep %s: %s", strings.Join(path, " "), text)
		}
	})
}

// TestEmptyParts checks that store URLs and variables with an empty part are rejected.
func TestEmptyParts(t *testing.T) {
	t.Parallel()
	e := env{"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_REGION": "eu-central-1", "VAULT_ADDR": "http://127.0.0.1:1"}
	for _, url := range []string{
		"", "file:", "file:x?dialect=", "sqlite:", "sqlite:x?table=", "mysql:", "mysql://", "mysql://@h/d", "mysql://u@h/",
		"mysql://u@/d", "mysql://u@h/d?table=", "mysql://u@h/d?tls=&table=x", "vault:", "vault:/x", "vault:x/", "vault:x", "vault:x//",
		"awssm:", "awssm:?region=x", "awssm:x?region=", "awssm:x?region=r&kms-key=", "awssm:x?endpoint=&region=r", "awssm:x?", "awssm:x?tags=",
		"awssm:x?tags=a:", "awssm:x?tags=:b", "gcpsm:", "gcpsm:p", "gcpsm:/x", "gcpsm:p/x?location=", "gcpsm:p/x?endpoint=",
	} {
		e.fails(t, 2, "", "ls", "--store", url)
		e.fails(t, 2, "", "migrate", "--from", url, "--to", "mem:")
	}
	for _, name := range []string{"FROM_AWS_REGION", "FROM_AWS_PROFILE", "FROM_VAULT_NAMESPACE", "TO_VAULT_ADDR", "TO_AWS_ACCESS_KEY_ID"} {
		from, to := "mem:", "mem:"
		switch {
		case strings.Contains(name, "AWS") && strings.HasPrefix(name, "FROM_"):
			from = "awssm:x"
		case strings.Contains(name, "AWS"):
			to = "awssm:x"
		case strings.HasPrefix(name, "FROM_"):
			from = "vault:secret/x"
		default:
			to = "vault:secret/x"
		}
		if text := e.with(name, "").fails(t, 2, "", "migrate", "--from", from, "--to", to); !strings.Contains(text, name+" is set and empty") {
			t.Errorf("%s: %s", name, text)
		}
	}
}

// providerTokens returns texts in the formats of tokens and keys of well-known providers.
func providerTokens() []string {
	const letters = "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7"
	secret := func(n int) string { return strings.Repeat(letters, n/len(letters)+1)[:n] }
	hex := func(n int) string { return strings.Repeat("0123456789abcdef", n/16+1)[:n] }
	var all []string
	for prefix, n := range map[string]int{
		"ghp_": 36, "gho_": 36, "github_pat_": 82, "glpat-": 20, "xoxb-": 50, "sk_live_": 24, "AKIA": 16, "00": 40, "SSWS": 38,
		"ya29.": 100, "1//0": 60, "npm_": 36, "SG.": 66, "SK": 32, "pat-na1-": 36, "dop_v1_": 64, "shpat_": 32, "lin_api_": 40,
		"secret_": 43, "sk-": 48, "sl.": 130, "key-": 32, "ATATT3x": 180, "hvs.": 24, "s.": 24, "EAAG": 100, "": 40, "glptt-": 20,
	} {
		all = append(all, prefix+secret(n))
	}
	return append(all,
		"1000."+hex(32)+"."+hex(32), "eyJ"+secret(30)+"."+secret(60)+"."+secret(43), hex(32), hex(16),
		hex(8)+"-"+hex(4)+"-"+hex(4)+"-"+hex(4)+"-"+hex(12), strings.ToLower(secret(27)), "wJal"+secret(20)+"/K7MDENG/"+secret(8), "shorttoken123456")
}

// TestTokensAreNotRepeated checks that neither output nor errors contain a token that is given
// in place of another argument.
func TestTokensAreNotRepeated(t *testing.T) {
	t.Parallel()
	e := fileStoreEnv(t)
	e.ok(t, `{"user_name":"ann","access_token":"a"}`, "save")
	missing := env{envStore: "file:" + filepath.Join(t.TempDir(), "none", "tokens.csv")}
	for _, token := range providerTokens() {
		for _, args := range [][]string{
			{token}, {"help", token}, {"keys", token}, {"get", token}, {"rm", token}, {"rm", "--dry-run", token}, {"ls", token}, {"get", token, token},
			{"get", "--user", token}, {"get", "--like", token}, {"import", token}, {"import", token, "--dialect", token},
			{"export", "x.csv", "--dialect", token}, {"ls", "--" + token}, {"ls", "--json=" + token}, {"doctor", "--grace", token},
			{"ls", "--store", token}, {"ls", "--store", token + ":x"}, {"ls", "--store", "vault:" + strings.ReplaceAll(token, "/", "")}, {"ls", "--store", "awssm:x?" + token + "=1"},
			{"migrate", "--from", token, "--to", "mem:"}, {"migrate", "--from", "mem:", "--to", "mem:", "--on-conflict", token},
		} {
			r := e.tk(t, "", args...)
			if r.code == 0 || strings.Contains(r.out+r.err, token[len(token)/2:]) {
				t.Errorf("tokenkeep %s: %+v", strings.Join(args, " "), r)
			}
		}
		if r := missing.tk(t, "", "export", token); r.code == 0 || strings.Contains(r.out+r.err, token[len(token)/2:]) {
			t.Errorf("tokenkeep export %s: %+v", token, r)
		}
	}
}

// TestNamesAreRepeated checks that errors quote names that cannot be tokens, so that typing errors
// are visible.
func TestNamesAreRepeated(t *testing.T) {
	t.Parallel()
	e := fileStoreEnv(t)
	for _, name := range []string{"tokens.csv", "sdk_tokens_of_the_old_machine.txt", "./relative/tokens.csv", "/etc/there-is-no-file-of-that-name-here"} {
		if text := e.fails(t, 1, "", "import", name); !strings.Contains(text, name) {
			t.Errorf("%s: %s", name, text)
		}
	}
	for _, id := range []string{"7", "crm", "u" + strings.Repeat("a2", 16)} {
		e.ok(t, `{"user_name":"ann","access_token":"a"}`, "save")
		if text := e.fails(t, 3, "", "get", id); !strings.Contains(text, id) {
			t.Errorf("%s: %s", id, text)
		}
	}
}

// TestTimeout checks that --timeout ends a waiting command, and that the error names the flag.
func TestTimeout(t *testing.T) {
	t.Parallel()
	e, server := vaultEnv(t)
	server.Inject(func(*fakevault.Request) *fakevault.Fault { return &fakevault.Fault{Wait: make(chan struct{})} })
	for _, args := range [][]string{{"ls"}, {"get", "7"}, {"doctor"}, {"rm", "--all", "--yes"}} {
		if text := e.fails(t, 8, "", append(args, "--timeout", "50ms")...); !strings.Contains(text, "--timeout 50ms") {
			t.Errorf("%v: %s", args, text)
		}
	}
}

// TestErrorsHaveOnePrefix checks that errors begin with the program's name, without the name of
// a package after it.
func TestErrorsHaveOnePrefix(t *testing.T) {
	t.Parallel()
	e, _ := vaultEnv(t)
	for _, args := range [][]string{{"get", "7"}, {"rm", "7"}, {"rm", "7", "8"}, {"get", "7", "--json"}} {
		if text := e.fails(t, 3, "", args...); strings.Contains(text, "tokenstore:") {
			t.Errorf("%v: %s", args, text)
		}
	}
	e.ok(t, `{"user_name":"ann","client_id":"c","access_token":"a","expiry_time":1,"issuer":"https://id.example/token"}`, "save")
	e.ok(t, `{"user_name":"bob","client_id":"c","access_token":"a","issuer":"https://id.example/token"}`, "save")
	for _, args := range [][]string{{"token", "--user", "ann"}, {"token", "--user", "bob", "--rejected"}, {"refresh", "--user", "ann"}} {
		if text := e.fails(t, 16, "", args...); !strings.HasPrefix(text, "tokenkeep: the user has to authorize") {
			t.Errorf("%v: %s", args, text)
		}
	}
}
