package cli

import (
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tokenkeep/tokenkeep/internal/fakeaws"
	"github.com/tokenkeep/tokenkeep/internal/fakegcp"
	"github.com/tokenkeep/tokenkeep/internal/fakek8s"
	"github.com/tokenkeep/tokenkeep/internal/fakevault"
)

// canary is a secret that commands must not print. JSON and CSV do not escape its characters.
const canary = "canary-5d41402abc4b2a76"

// TestCanary checks that no command prints a secret, whether the input is valid or invalid, and
// whether the store works or fails.
func TestCanary(t *testing.T) {
	t.Parallel()
	record := `{"user_name":"ann","client_id":"c","client_secret":"` + canary + `1","refresh_token":"` + canary +
		`2","access_token":"` + canary + `3","grant_token":"` + canary + `4","expiry_time":4070908800000}`
	row := "9,bob,c," + canary + "5," + canary + "6," + canary + "7," + canary + "8,4070908800000,,\n"
	inputs := []string{
		record, header + row,
		record[:len(record)-30], record + record, "[" + record + "]",
		strings.Replace(record, `"access_token"`, `"`+canary+`"`, 1),
		strings.Replace(record, `4070908800000`, `"`+canary+`"`, 1),
		strings.Replace(record, `"user_name"`, `"access_token"`, 1),
		strings.Replace(record, `"user_name"`, `"id_token":"`+canary+`","token_type":"bearer","user_name"`, 1),
		strings.Replace(record, `"user_name"`, `"extra":"{\"t\":\"`+canary+`\"}","user_name"`, 1),
		`{"access_token":"` + canary + `3","token_type":"bearer","id_token":"` + canary + `9","team":{"t":"` + canary + `"}}`,
		strings.Replace(record, canary+"3", canary+`\u0007`, 1),
		strings.Replace(record, canary+"3", canary+strings.Repeat("x", 33<<10), 1),
		header + row + row,
		header + row[:40],
		header + strings.Replace(row, "4070908800000", canary, 1),
		header + strings.Replace(row, canary+"7", `"`+canary+"7", 1),
		header + strings.Replace(row, canary+"7", canary+"\x07", 1),
		header + "9," + canary + "," + row,
		canary,
	}
	commands := [][]string{
		{"ls"}, {"ls", "--json"}, {"save"}, {"save", "--json"}, {"get", "--like", "-"}, {"get", "--like", "-", "--json"},
		{"get", "--user", "ann"}, {"import", "-"}, {"import", "-", "--skip-bad", "--json"}, {"import", "-", "--keep-ids"},
		{"export", "FILE", "--force"}, {"export", "FILE", "--force", "--dialect", "node", "--json"}, {"export", "-"},
		{"save", "--user", "ann", "--client", "c", "--drop", "team"}, {"rm", "1"}, {"doctor"},
		{"forget", "--user", "ann", "--yes"}, {"forget", "--user", "ann", "--yes", "--accounts-url", "http://127.0.0.1:1", "--json"},
		{"forget", "--user", "ann", "--yes", "--revocation-endpoint", "http://127.0.0.1:1/" + canary, "--delete-unrevoked"}, {"rm", "--all", "--yes"},
	}
	once := [][]string{ // commands that do not depend on the input
		{"get", "-" + canary}, {"get", "--" + canary}, {"get", "--json=" + canary}, {canary}, {"ls", canary}, {"keys", canary},
		{"ls", "--store", canary}, {"ls", "--store", canary + ":x"}, {"ls", "--store", "mysql:root:" + canary + "@host/db"},
		{"forget", "--user", canary, "--yes"}, {"forget", "--user", "ann", "--yes", "--accounts-url", "https://u:" + canary + "@h"}, {"save", "--drop", canary},
		{"serve", "--data-center", canary}, {"serve", "--token-url", "https://h/" + canary, "--client", "c", "--listen", canary}, {"serve", canary},
		{"token", canary}, {"token", "--user", canary, "--client", "c", "--accounts-url", "http://127.0.0.1:1"}, {"token", "--user", "ann", "--client", "c", "--accounts-url", "http://127.0.0.1:1"},
		{"status"}, {"status", canary}, {"status", "--json"}, {"status", "--probe", "http://127.0.0.1:1/"}, {"status", "--probe", canary}, {"status", "--probe", "/x", "--accounts-url", "http://127.0.0.1:1"}, {"refresh", canary}, {"refresh", "--user", "ann", "--client", "c", "--accounts-url", "http://127.0.0.1:1"},
		{"keep", canary}, {"keep", "--jitter", "0s", "--accounts-url", "http://127.0.0.1:1"}, {"keep", "--jitter", "0s", "--json"},
		{"login", canary}, {"login", "--user", "ann", "--client", "c", "--auth-url", "https://u:" + canary + "@h/a", "--token-url", "https://h/t"},
		{"login", "--user", "ann", "--client", "c", "--issuer", canary}, {"login", "--user", "ann", "--client", "c", "--issuer", "https://h", "--param", canary},
		{"login", "--user", "ann", "--client", "c", "--issuer", "https://h", "--redirect-url", canary},
		{"policy", "aws", canary + "*"}, {"policy", "gcp", canary + "*"}, {"policy", "vault", canary}, {"policy", "k8s", canary + "_"}, {"policy", canary},
		{"keys", "new", "KEYS"}, {"doctor", "--json"}, {"doctor", "--races"}, {"doctor", "--races", "--yes", "--rounds", "1", "--racers", "2", "--samples", "1", "--within", "1s"}, {"doctor", "--races", canary}, {"rekey"}, {"doctor", canary}, {"rekey", canary},
		{"migrate", "--from", "STORE", "--to", "file:FILE2"}, {"migrate", "--from", "STORE", "--to", "file:FILE2?dialect=node", "--json"},
		{"migrate", "--from", "file:BAD", "--to", "STORE"}, {"migrate", "--from", "file:BAD", "--to", "STORE", "--skip-bad", "--json"},
		{"migrate", "--from", canary, "--to", canary}, {"migrate", "--from", "mem:" + canary, "--to", "STORE"},
		{"ls", "--store", "mysql://root:" + canary + "@host/db"}, {"ls", "--store", "mysql:root:" + canary + "@tcp(127.0.0.1:1)/db"},
		{"ls", "--store", "mysql://" + canary + ":%zz@host/"}, {"ls", "--store", "awssm:x?" + canary}, {"ls", "--store", "awssm:x?endpoint=http://u:" + canary + "@h"},
		{"ls", "--store", "gcpsm:p/x?endpoint=" + canary + "://"},
	}
	everyStore(t, func(t *testing.T, e env) {
		dir := t.TempDir()
		bad := writeFile(t, "bad.csv", header+row+row+strings.Replace(row, "4070908800000", canary, 1)+"10,,c,"+canary+",,,,,,\n")
		replace := strings.NewReplacer("FILE2", filepath.Join(dir, "to.csv"), "FILE", filepath.Join(dir, "out.csv"), "KEYS", filepath.Join(dir, "keys.json"), "STORE", e[envStore], "BAD", bad)
		for i, in := range inputs {
			commands := commands
			if i == 1 {
				commands = slices.Concat(commands, once)
			}
			for _, args := range commands {
				args := strings.Split(replace.Replace(strings.Join(args, "\n")), "\n")
				r := e.tk(t, in, args...)
				if form := shown(r.out + r.err); form != "" {
					t.Errorf("tokenkeep %s of %.60q shows %s:\n%.400s%.400s", strings.Join(args, " "), in, form, r.out, r.err)
				}
			}
		}
	})
	// If shown never found the canary, the checks above would prove nothing.
	e := fileStoreEnv(t)
	if shown(e.ok(t, record, "save", "--reveal")) == "" {
		t.Error("the test would not notice a secret")
	}
}

// shown returns the form in which text contains the canary, or "".
func shown(text string) string {
	// Apart from its first and last characters, the base64 form of the canary depends only on
	// the position of the canary modulo three.
	for _, pad := range []string{"", "x", "xy"} {
		encoded := base64.RawStdEncoding.EncodeToString([]byte(pad + canary))
		if strings.Contains(text, encoded[len(pad)*4/3+1:len(encoded)-2]) {
			return "base64"
		}
	}
	for form, secret := range map[string]string{
		"the secret": canary,
		"hex":        hex.EncodeToString([]byte(canary)),
		"a part":     canary[len(canary)/2:],
	} {
		if strings.Contains(text, secret) {
			return form
		}
	}
	return ""
}

// everyStore runs a test on stores that need no installed server, including stores that fail.
func everyStore(t *testing.T, test func(*testing.T, env)) {
	t.Helper()
	broken := func(fault *fakevault.Fault) func(*testing.T) env {
		return func(t *testing.T) env {
			e, server := vaultEnv(t)
			server.Inject(func(q *fakevault.Request) *fakevault.Fault {
				if q.Operation == "write" {
					return fault
				}
				return nil
			})
			return e
		}
	}
	aws := func(operations string, fault *fakeaws.Fault) func(*testing.T) env {
		return func(t *testing.T) env {
			e, server := awsEnv(t)
			t.Cleanup(func() { asked(t, len(server.Requests())) })
			server.Inject(func(q *fakeaws.Request) *fakeaws.Fault {
				if strings.Contains(operations, q.Operation) {
					return fault
				}
				return nil
			})
			return e.with(envAWSKeyID, "AKIATOKENKEEP").with(envAWSSecret, canary).with("AWS_SESSION_TOKEN", canary)
		}
	}
	gcp := func(methods string, fault *fakegcp.Fault) func(*testing.T) env {
		return func(t *testing.T) env {
			e, server := gcpEnv(t)
			t.Cleanup(func() { asked(t, len(server.Requests())) })
			server.Inject(func(c *fakegcp.Call) *fakegcp.Fault {
				if strings.Contains(methods, c.Method) {
					return fault
				}
				return nil
			})
			return e
		}
	}
	k8s := func(verbs string, fault *fakek8s.Fault) func(*testing.T) env {
		return func(t *testing.T) env {
			e, server := k8sEnv(t) // the token of the account is the canary
			t.Cleanup(func() { asked(t, len(server.Requests())) })
			server.Inject(func(q *fakek8s.Request) *fakek8s.Fault {
				if slices.Contains(strings.Fields(verbs), q.Verb) {
					return fault
				}
				return nil
			})
			return e
		}
	}
	fileWith := func(text string) func(*testing.T) env {
		return func(t *testing.T) env { return env{envStore: "file:" + writeFile(t, "tokens.csv", text)} }
	}
	for name, open := range map[string]func(*testing.T) env{
		"memory":         func(*testing.T) env { return env{envStore: "mem:"} },
		"file":           fileStoreEnv,
		"file of Node":   func(t *testing.T) env { return env{envStore: fileStoreEnv(t)[envStore] + "?dialect=node"} },
		"damaged file":   fileWith(header + "1," + canary + ",c,s,r,a,g," + canary + ",,\n"),
		"no token file":  fileWith(canary + "\n" + canary),
		"file cut off":   fileWith(header + "1,ann,c," + canary),
		"directory":      func(t *testing.T) env { return env{envStore: "file:" + t.TempDir()} },
		"vault":          func(t *testing.T) env { e, _ := vaultEnv(t); return e },
		"vault denies":   func(t *testing.T) env { e, _ := vaultEnv(t); return e.with("VAULT_TOKEN", "hvs."+canary) },
		"vault refuses":  broken(&fakevault.Fault{Status: http.StatusBadRequest, Errors: []string{"refused"}}),
		"vault forgets":  broken(&fakevault.Fault{Status: http.StatusNotFound}),
		"vault, no keys": func(t *testing.T) env { e, _ := vaultEnv(t); return e.with(envKeys, writeFile(t, "keys", canary)) },
		"sqlite":         func(t *testing.T) env { return storeKinds[1].open(t) },
		"no database":    func(t *testing.T) env { return env{envStore: "sqlite:" + writeFile(t, "tokens.db", canary)} },
		"no mysql":       func(*testing.T) env { return env{envStore: "mysql://ann@127.0.0.1:1/db", envMySQLPassword: canary} },
		"aws":            aws("", nil),
		"aws denies":     aws("CreateSecret PutSecretValue UpdateSecret", &fakeaws.Fault{Code: "AccessDeniedException", Message: "not authorized"}),
		"aws refuses":    aws("CreateSecret PutSecretValue", &fakeaws.Fault{Code: "InvalidRequestException", Message: "refused"}),
		"aws, no record": aws("GetSecretValue BatchGetSecretValue", &fakeaws.Fault{
			Status: http.StatusOK, Body: `{"Name":"oauth/test/x","VersionId":"v","SecretString":"` + canary + `","SecretValues":[{"Name":"oauth/test/x","SecretString":"` + canary + `"}]}`,
		}),
		"gcp":          gcp("", nil),
		"gcp denies":   gcp("CreateSecret AddSecretVersion UpdateSecret", &fakegcp.Fault{Err: status.Error(codes.PermissionDenied, "denied")}),
		"gcp refuses":  gcp("AddSecretVersion", &fakegcp.Fault{Err: status.Error(codes.InvalidArgument, "refused")}),
		"gcp, damaged": gcp("AccessSecretVersion", &fakegcp.Fault{Damage: true}),
		"gcp, credentials": func(t *testing.T) env {
			return env{envStore: "gcpsm:p/x", gcpEnvCredentials: writeFile(t, "credentials.json", canary)}
		},
		"k8s":            k8s("", nil),
		"k8s denies":     k8s("create update", &fakek8s.Fault{Code: http.StatusForbidden, Body: "denied"}),
		"k8s refuses":    k8s("create update", &fakek8s.Fault{Code: http.StatusBadRequest, Body: "refused"}),
		"k8s, no record": k8s("get list", &fakek8s.Fault{Code: http.StatusOK, Body: `{"kind":"Secret","data":{"record":"` + canary + `"},"stringData":"` + canary}),
		"vault with keys": func(t *testing.T) env {
			e, _ := vaultEnv(t)
			name := filepath.Join(t.TempDir(), "keys.json")
			e.ok(t, "", "keys", "new", name)
			return e.with(envKeys, name)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, open(t))
		})
	}
}

// asked checks that a server received calls. A command that makes no call has no stored secret to
// print.
func asked(t *testing.T, calls int) {
	t.Helper()
	if calls == 0 {
		t.Error("the commands have made no call")
	}
}
