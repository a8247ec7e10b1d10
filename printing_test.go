package tokenkeep_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"expvar"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	secretmanager "cloud.google.com/go/secretmanager/apiv1"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/hashicorp/vault/api"
	"golang.org/x/oauth2"
	"google.golang.org/api/option"
	corev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	_ "modernc.org/sqlite"

	"github.com/tokenkeep/tokenkeep/agent"
	"github.com/tokenkeep/tokenkeep/awssm"
	"github.com/tokenkeep/tokenkeep/cli/scheme"
	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/codec/tokenfile"
	"github.com/tokenkeep/tokenkeep/gcpsm"
	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/k8sstore"
	"github.com/tokenkeep/tokenkeep/keys"
	"github.com/tokenkeep/tokenkeep/oauth2keep"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/doctor"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/filestore"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/migrate"
	"github.com/tokenkeep/tokenkeep/tokenstore/sqlstore"
	"github.com/tokenkeep/tokenkeep/vaultstore"
)

// canary is the secret, token or key in each printed value. No printed text may contain a part
// of the canary. The canary has the length of an encryption key.
const canary = "CANARYqX7zPv2LkM9tRw4sBd8nHf3gJc"

// canaryForms returns the texts that represent a part of the canary in the output of package
// fmt and of encoders.
func canaryForms() []string {
	part := []byte(canary[8:20])
	var decimal, goSyntax []string
	for _, b := range part {
		decimal = append(decimal, fmt.Sprint(b))
		goSyntax = append(goSyntax, fmt.Sprintf("0x%x", b))
	}
	forms := []string{
		string(part), hex.EncodeToString(part), strings.ToUpper(hex.EncodeToString(part)),
		fmt.Sprintf("% x", part), fmt.Sprintf("% X", part), strings.Join(decimal, " "), strings.Join(decimal, ","), strings.Join(goSyntax, ", "),
	}
	// The key schedule of a cipher begins with the words of the key.
	for word := 8; word < 20; word += 4 {
		for _, order := range []binary.ByteOrder{binary.BigEndian, binary.LittleEndian} {
			n := order.Uint32([]byte(canary)[word:])
			forms = append(forms, fmt.Sprint(n), fmt.Sprintf("%x", n), fmt.Sprintf("%X", n))
		}
	}
	for skip := range 3 {
		whole := []byte(canary[8+skip : 8+skip+9])
		forms = append(forms, base64.StdEncoding.EncodeToString(whole))
	}
	return forms
}

// shown returns the form in which text contains a part of the canary, or "" if text contains
// none.
func shown(text string) string {
	for _, form := range canaryForms() {
		if strings.Contains(text, form) {
			return form
		}
	}
	return ""
}

func TestCanaryFormsAreFound(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		canary, fmt.Sprintf("%x", canary), fmt.Sprintf("% X", canary), fmt.Sprint([]byte(canary)), fmt.Sprintf("%#v", []byte(canary)),
		base64.StdEncoding.EncodeToString([]byte("x" + canary)), base64.StdEncoding.EncodeToString([]byte("xy" + canary)),
		base64.URLEncoding.EncodeToString([]byte(canary)),
	} {
		if shown(text) == "" {
			t.Errorf("the canary is not found in %s", text)
		}
	}
}

// held simulates a type of a program with fields that hold a value of this module.
type held struct {
	Value any
	List  []any
	ByKey map[string]any
}

// handles lists the types through which a program uses a store. Values of these types must show
// no secret even for %w and %p, for which package fmt calls no methods.
var handles = []string{"tokenstore.Store", "migrate.Migration", "memstore.Driver", "filestore.Store", "sqlstore.Store", "driver.Secrets", "codec.Codec", "codec.Placed", "codec.AEAD", "keys.Keys", "initializer.Client", "oauth2keep.Keeper", "agent.Handler"}

// printed prints v, alone and in several types, with package fmt and each of the verbs, and with
// JSON, slog and expvar. It returns the texts by the name of the way of printing.
func printed(v any, verbs string) map[string]string {
	texts := map[string]string{}
	values := map[string]any{
		"value":     v,
		"field":     held{Value: v},
		"pointer":   &held{Value: v},
		"list":      held{List: []any{v}},
		"map":       held{ByKey: map[string]any{"v": v}},
		"anonymous": struct{ V any }{v},
	}
	for name, value := range values {
		for _, verb := range verbs {
			for _, flags := range []string{"", "+", "#", " ", "+#"} {
				format := "%" + flags + string(verb)
				texts[name+" "+format] = fmt.Sprintf(format, value)
			}
		}
		marshaled, err := json.Marshal(value)
		texts[name+" json"] = fmt.Sprint(string(marshaled), err)
		for handler, make := range map[string]func(*bytes.Buffer) slog.Handler{
			"slog text": func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) },
			"slog json": func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) },
		} {
			var b bytes.Buffer
			slog.New(make(&b)).Info("printed", "v", value, slog.Group("g", "v", value))
			texts[name+" "+handler] = b.String()
		}
		texts[name+" expvar"] = expvar.Func(func() any { return value }).String()
	}
	return texts
}

// keepers returns values of the exported types that can hold a secret, a token or a key, by the
// name of the type. Each secret, token and key in these values contains the canary.
func keepers(t *testing.T) map[string][]any {
	t.Helper()
	must := func(v any, err error) any {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	opts := &tokenstore.Options{NameKey: []byte(canary), IndexKeys: [][]byte{[]byte(canary)}, Codec: encrypted(t)}
	record := tokenstore.Token{
		UserName: "ann", ClientID: "app", ClientSecret: canary, RefreshToken: canary + "r", AccessToken: canary + "a", GrantToken: canary + "g",
		ExpiresAt: time.Now().Add(time.Hour),
	}
	// store saves a record in s, starts a refresh of the record, and returns s.
	store := func(s tokenstore.TokenStore, err error) any {
		t.Helper()
		must(s, err)
		saved, err := s.SaveToken(t.Context(), record)
		if err != nil {
			t.Fatal(err)
		}
		begun, end := make(chan bool), make(chan bool)
		go func() {
			_, _ = s.(tokenstore.Refresher).Refresh(context.Background(), saved.ID, saved.AccessToken, func(context.Context, tokenstore.Token) (tokenstore.Token, error) {
				close(begun)
				<-end
				return tokenstore.Token{AccessToken: canary + "b"}, nil
			})
		}()
		<-begun
		t.Cleanup(func() { close(end) })
		return s
	}
	memory := memstore.NewDriver()
	mem := store(tokenstore.New(memory, opts))
	db, err := sql.Open("sqlite", "file:"+filepath.Join(t.TempDir(), "t.db"))
	must(db, err)
	t.Cleanup(func() { _ = db.Close() })
	var stored driver.Named
	for named, err := range memory.List(t.Context()) {
		must(named, err)
		stored = named
	}
	stored.Data = []byte(canary)
	file := must(tokenfile.New(codec.Python)).(*tokenfile.File)
	must(nil, file.Append(codec.Fields{ID: "1", RefreshToken: canary, AccessToken: canary}))

	aws := secretsmanager.New(secretsmanager.Options{
		Region: "eu-central-1", BaseEndpoint: aws.String("http://127.0.0.1:1"), Credentials: credentials.NewStaticCredentialsProvider("k", canary, canary),
	})
	gcp := must(secretmanager.NewRESTClient(t.Context(), option.WithoutAuthentication(), option.WithEndpoint("http://127.0.0.1:1"))).(*secretmanager.Client)
	t.Cleanup(func() { _ = gcp.Close() })
	vault := must(api.NewClient(nil)).(*api.Client)
	vault.SetToken(canary)
	kube := must(corev1.NewForConfig(&rest.Config{Host: "http://127.0.0.1:1", BearerToken: canary})).(*corev1.CoreV1Client)

	document, err := json.Marshal(map[string]any{
		"v": 1, "name_keys": [][]byte{[]byte(canary)}, "index_keys": [][]byte{[]byte(canary)}, "encryption_keys": [][]byte{[]byte(canary)},
	})
	must(document, err)
	placed, ok := encrypted(t).(codec.Placed)
	if !ok {
		t.Fatal("an encrypted codec is not bound to its store")
	}

	oauth := &oauth2.Config{ClientID: "app", ClientSecret: canary, Endpoint: oauth2.Endpoint{TokenURL: "https://id.example.com/token"}}
	config := initializer.Config{OAuth2: oauth, Token: record, Store: mem.(*tokenstore.Store), HTTPClient: http.DefaultClient}
	client := must(initializer.New(t.Context(), config))
	serve := agent.Config{Store: mem.(*tokenstore.Store), Token: canary + "-of-the-agent-with-enough", Initializer: config}

	move, err := migrate.Plan(t.Context(), mem.(tokenstore.TokenStore), memstore.New(nil), nil)
	must(move, err)
	return map[string][]any{
		"migrate.Migration":      {move, *move},
		"tokenstore.Store":       {mem, must(awssm.New(aws, "p", &awssm.Options{Store: opts})), must(gcpsm.New(gcp, "projects/p", "p", &gcpsm.Options{Store: opts})), must(vaultstore.New(vault, "m", "p", &vaultstore.Options{Store: opts})), must(k8sstore.New(kube, "n", "p", &k8sstore.Options{Store: opts}))},
		"tokenstore.Options":     {*opts, opts},
		"tokenstore.Token":       {record, &record},
		"tokenstore.Secret":      {record.RefreshToken, &record.RefreshToken, []tokenstore.Secret{canary}},
		"tokenstore.Candidate":   {tokenstore.Candidate{Token: record}},
		"tokenstore.RefreshPlan": {tokenstore.RefreshPlan{Token: record}, &tokenstore.RefreshPlan{Token: record}},
		"keys.Keys":              {must(keys.Parse(document))},
		"codec.Placed":           {placed.At("somewhere")},
		"tokenstore.Plan":        {tokenstore.Plan{Token: record}, &tokenstore.Plan{Token: record}},

		"memstore.Driver":        {memory},
		"filestore.Store":        {store(filestore.New(filepath.Join(t.TempDir(), "t"), nil))},
		"sqlstore.Store":         {store(sqlstore.New(t.Context(), db, sqlstore.SQLite, nil))},
		"driver.Secrets":         {must(awssm.NewDriver(aws, "p", &awssm.Options{Store: opts})), must(gcpsm.NewDriver(gcp, "projects/p", "p", &gcpsm.Options{Store: opts})), must(vaultstore.NewDriver(vault, "m", "p", &vaultstore.Options{Store: opts})), must(k8sstore.NewDriver(kube, "n", "p", &k8sstore.Options{Store: opts}))},
		"scheme.Opened":          {scheme.Opened{Driver: memory}, &scheme.Opened{Store: mem.(tokenstore.TokenStore)}},
		"doctor.MeasureOptions":  {doctor.MeasureOptions{Others: []driver.Secrets{memory}}, &doctor.MeasureOptions{Others: []driver.Secrets{memory}}},
		"driver.Payload":         {stored.Payload, &stored.Payload},
		"driver.Secret":          {stored.Secret, &stored.Secret},
		"driver.Named":           {stored, &stored},
		"awssm.Options":          {awssm.Options{Store: opts}, &awssm.Options{Store: opts}},
		"gcpsm.Options":          {gcpsm.Options{Store: opts}},
		"vaultstore.Options":     {vaultstore.Options{Store: opts}},
		"k8sstore.Options":       {k8sstore.Options{Store: opts}},
		"codec.Codec":            {encrypted(t)},
		"codec.AEAD":             {aead(t)},
		"codec.EncryptedOptions": {codec.EncryptedOptions{Old: []codec.AEAD{aead(t)}}},
		"codec.Fields":           {codec.Fields{RefreshToken: canary, AccessToken: canary}, &codec.Fields{RefreshToken: canary}},
		"tokenfile.File":         {*file, file},
		"agent.Handler":          {must(agent.New(serve))},
		"agent.Config":           {serve, &serve},
		"initializer.Client":     {client},
		"oauth2keep.Keeper":      {oauth2keep.New(mem.(*tokenstore.Store), oauth2keep.As{User: "ann"}).With(config)},
		"initializer.Config":     {config, &config},
	}
}

// harmless lists the exported types that hold no secret, token or key.
var harmless = []string{
	"tokenstore.CheckOptions", "doctor.CheckOptions", "doctor.Checker", "driverkit.Probe", "driverkit.Backoff", "driverkit.Misses", "tokenstore.UnreadableError", "tokenstore.Error", "doctor.Finding", "tokenstore.Former", "doctor.Kind",
	"tokenstore.RefreshError", "tokenstore.Refresher", "doctor.Bucket", "doctor.Deviation", "doctor.Lag", "doctor.Measurement", "doctor.Races", "doctor.Round", "doctor.RekeyOptions", "doctor.Rekeyed", "doctor.Rekeyer", "doctor.Remedy", "doctor.StatusReader", "doctor.Status", "doctor.Refusal", "doctor.Lease", "tokenstore.TokenStore",
	"driver.Fault", "driver.Inspection", "driver.Inspector", "driver.Label", "driver.Labeler", "driver.Leaser", "driver.NoteError", "driver.Probed", "driver.Properties", "driver.Sweeper", "driver.Version",
	"migrate.ConditionalDeleter", "migrate.Failure", "migrate.IDChange", "migrate.Kind", "migrate.Options", "migrate.Policy", "migrate.Problem", "migrate.Progress", "migrate.Reader", "migrate.Report", "migrate.Step", "migrate.StepReport",
	"filestore.Options", "sqlstore.Dialect", "sqlstore.Options", "gcpsm.Replica", "k8sstore.Secrets", "k8sstore.SecretsGetter",
	"tokenstore.Observer", "observe.Observer", "observe.Refreshed", "observe.Result", "observe.Call", "observe.Called", "observe.Operation", "observe.Class",
	"agent.ListenOptions", "agent.Request", "agent.ServeOptions",
	"codec.Dialect", "codec.Field", "codec.Rotating", "keys.Kind",
	"initializer.DataCenter", "initializer.Environment", "initializer.Forgotten", "oauth2keep.As", "cli.Process", "scheme.Endpoint", "scheme.Opening", "scheme.Policy", "scheme.Scheme", "conformance.Driver", "conformance.Store",
}

// encrypted returns a codec whose key is the canary.
func encrypted(t *testing.T) codec.Codec {
	t.Helper()
	c, err := codec.Encrypted(codec.JSON, aead(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func aead(t *testing.T) codec.AEAD {
	t.Helper()
	a, err := codec.AESGCM([]byte(canary))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestPrinting checks that no value of an exported type shows a secret when it is printed.
func TestPrinting(t *testing.T) {
	t.Parallel()
	values := keepers(t)
	for _, name := range exportedTypes(t) {
		if values[name] == nil && !slices.Contains(harmless, name) {
			t.Errorf("no value of type %s is printed: name it in keepers or in harmless", name)
		}
	}
	for name, all := range values {
		verbs := "vsqxXdobBeEfgGtcUT"
		if slices.Contains(handles, name) {
			verbs += "pw"
		}
		for i, v := range all {
			for way, text := range printed(v, verbs) {
				if form := shown(text); form != "" {
					t.Errorf("%s, value %d, %s: shows %q", name, i, way, form)
					break
				}
			}
		}
	}
}

// exportedTypes returns the exported types of the packages that other modules can import, as
// "package.Type".
func exportedTypes(t *testing.T) []string {
	t.Helper()
	var names []string
	for _, p := range packages(t) {
		if strings.Contains(p.path, "internal/") || strings.HasPrefix(p.path, "cmd/") {
			continue
		}
		files, err := filepath.Glob(filepath.Join(p.path, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(f, func(n ast.Node) bool {
				if spec, ok := n.(*ast.TypeSpec); ok && spec.Name.IsExported() {
					names = append(names, filepath.Base(p.path)+"."+spec.Name.Name)
				}
				_, inFunction := n.(*ast.FuncDecl)
				return !inFunction
			})
		}
	}
	return names
}
