package keys_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"expvar"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/tokenkeep/tokenkeep/keys"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

const canary = "canary-of-a-key-with-32-bytes..."

func in64(key string) string { return base64.StdEncoding.EncodeToString([]byte(key)) }

func parse(t *testing.T, text string) *keys.Keys {
	t.Helper()
	k, err := keys.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestNewMakesWhatIsAskedFor(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		kinds []keys.Kind
		want  string // the expected members of the document
	}{
		{nil, "name_key index_keys encryption_keys"},
		{[]keys.Kind{keys.Names}, "name_key"},
		{[]keys.Kind{keys.Labels}, "index_keys"},
		{[]keys.Kind{keys.Encryption, keys.Names}, "name_key encryption_keys"},
	} {
		text := string(keys.New(c.kinds...).Encode())
		for _, member := range []string{"name_key", "index_keys", "encryption_keys"} {
			if got := strings.Contains(text, member); got != strings.Contains(c.want, member) {
				t.Errorf("%v: there is %s: %v", c.kinds, member, got)
			}
		}
		if bytes.Equal(keys.New(c.kinds...).Encode(), []byte(text)) {
			t.Errorf("%v: two are equal", c.kinds)
		}
		again := parse(t, text)
		if !bytes.Equal(again.Encode(), []byte(text)) {
			t.Errorf("%v: read back they differ", c.kinds)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	secret := in64(canary)
	for _, c := range []struct{ text, want string }{
		{"", "not a JSON object"},
		{`{"v":1,"name_key":"` + secret, "not a JSON object"},
		{`{"v":1,"name_key":"` + secret + `"} {}`, "not a JSON object"},
		{`{"v":1,"name_key":"` + secret + `!"}`, "not a JSON object"},
		{`{"v":1,"` + secret + `":1}`, "not a JSON object"},
		{`{"v":2,"name_key":"` + secret + `"}`, "version 2"},
		{`{"v":1}`, "no keys"},
		{`{"v":1,"index_keys":[null]}`, "no keys"},
		{`{"v":1,"name_key":""}`, "0 bytes"},
		{`{"v":1,"name_key":"` + in64(canary[:15]) + `"}`, "15 bytes"},
		{`{"v":1,"index_keys":[]}`, "is empty"},
		{`{"v":1,"index_keys":["` + secret + `","` + secret + `"]}`, "repeated"},
		{`{"v":1,"encryption_keys":["` + secret + `","` + in64(canary[:16]) + `"]}`, "encryption key 2"},
		{`{"v":1,"name_key":"` + secret + `","allow_plain":true}`, "allow_plain goes with"},
		{strings.Repeat(" ", 1<<20+1), "too long"},
	} {
		k, err := keys.Parse([]byte(c.text))
		if k != nil || !errors.Is(err, keys.ErrFormat) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), secret[:8]) {
			t.Errorf("%.40s: error %v, want %q", c.text, err, c.want)
		}
	}
}

func TestLoadRefusesWhatOthersRead(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "keys.json")
	if _, err := keys.Load(name); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a file: %v", err)
	}
	if err := os.WriteFile(name, keys.New().Encode(), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := keys.Load(name); err != nil {
		t.Errorf("the owner's: %v", err)
	}
	if runtime.GOOS == "windows" || runtime.GOOS == "plan9" {
		t.Skip("Load checks the mode of files only on Unix")
	}
	for _, mode := range []fs.FileMode{0o640, 0o604, 0o620, 0o602, 0o777} {
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
		if k, err := keys.Load(name); k != nil || !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
}

// TestLoadMountedSecret checks files of another user, such as the files of a Kubernetes Secret in a
// Pod with fsGroup. Such files belong to root, and the process is in the group of the files.
func TestLoadMountedSecret(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file to another user")
	}
	name := filepath.Join(t.TempDir(), "keys.json")
	if err := os.WriteFile(name, keys.New().Encode(), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(name, 65532, 65532); err != nil {
		t.Skipf("a user namespace without that user: %v", err)
	}
	for _, mode := range []fs.FileMode{0o400, 0o440, 0o640} {
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := keys.Load(name); err != nil {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
	for _, mode := range []fs.FileMode{0o444, 0o460, 0o450, 0o442, 0o441} {
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
		if k, err := keys.Load(name); k != nil || !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "chmod 640") {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
}

func TestNothingPrintsKeys(t *testing.T) {
	t.Parallel()
	k := parse(t, `{"v":1,"name_key":"`+in64(canary)+`","index_keys":["`+in64(canary)+`"],"encryption_keys":["`+in64(canary)+`"]}`)
	hidden := struct{ k *keys.Keys }{k}
	value := struct{ k keys.Keys }{*k}
	var texts []string
	for _, v := range []any{k, *k, struct{ K any }{k}, []any{k}, map[string]any{"k": *k}, hidden, &hidden, value, &value, k.Options(), *k.Options()} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t"} {
			texts = append(texts, fmt.Sprintf(verb, v))
		}
		var log bytes.Buffer
		slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "v", v)
		slog.New(slog.NewTextHandler(&log, nil)).Info("x", "v", v)
		texts = append(texts, log.String(), expvar.Func(func() any { return v }).String())
	}
	for _, text := range texts {
		for _, form := range []string{canary[:8], fmt.Sprintf("%x", canary[:8]), fmt.Sprintf("%X", canary[:8]), in64(canary)[:10], "99 97 110 97"} {
			if strings.Contains(text, form) {
				t.Errorf("it prints as %s", text)
			}
		}
	}
}

// TestSteps checks that programs with the keys of Add and of Switch find a record that was written
// before the change. After Rekey, programs with the keys of Add and of Drop must find the record,
// and a program with the old keys must get ErrWrongKeys.
func TestSteps(t *testing.T) {
	t.Parallel()
	step := func(k *keys.Keys, err error) *keys.Keys {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	old := keys.New()
	for name, steps := range map[string][]*keys.Keys{
		"come":     {nil, step(keys.Unused().Add())},
		"replaced": {old, step(old.Add())},
		"go":       {old, step(old.AddNone())},
	} {
		switched := step(steps[1].Switch())
		last, err := switched.Drop()
		if err != nil || (last == nil) != (name == "go") {
			t.Fatalf("%s: dropped to %v, %v", name, last != nil, err)
		}
		d := memstore.NewDriver()
		open := func(k *keys.Keys) *tokenstore.Store {
			var opts *tokenstore.Options
			if k != nil {
				opts = parse(t, string(k.Encode())).Options() // a program gets the keys from the document
			}
			s, err := tokenstore.New(d.Reopen(), opts)
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		ann := tokenstore.Token{UserName: "ann", ClientID: "c", RefreshToken: "r", AccessToken: "a"}
		saved, err := open(steps[0]).SaveToken(t.Context(), ann)
		if err != nil {
			t.Fatal(err)
		}
		finds := func(what string, k *keys.Keys) {
			t.Helper()
			if got, err := open(k).FindToken(t.Context(), ann); err != nil || got != saved {
				t.Errorf("%s, %s: %+v, %v", name, what, got, err)
			}
		}
		finds("added", steps[1])
		finds("switched", switched)
		for r, err := range open(switched).Rekey(t.Context(), nil) {
			if err != nil || !r.Rewritten {
				t.Errorf("%s: %+v, %v", name, r, err)
			}
		}
		finds("added, after rekey", steps[1])
		finds("dropped", last)
		if _, err := open(steps[0]).FindToken(t.Context(), tokenstore.Token{UserName: "bob"}); !errors.Is(err, tokenstore.ErrWrongKeys) {
			t.Errorf("%s: with the first keys: %v, want ErrWrongKeys", name, err)
		}
	}
}

func TestStepsInTheWrongOrder(t *testing.T) {
	t.Parallel()
	k := keys.New()
	added, err := k.Add()
	if err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"add twice":         second(added.Add()),
		"switch at once":    second(k.Switch()),
		"drop at once":      second(k.Drop()),
		"nothing to be out": second(keys.Unused().AddNone(keys.Names)),
	} {
		if err == nil {
			t.Errorf("%s: no error", what)
		}
	}
}

func second(_ any, err error) error { return err }
