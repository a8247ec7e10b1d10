package awssm_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/tokenkeep/tokenkeep/awssm"
	"github.com/tokenkeep/tokenkeep/internal/fakeaws"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/doctor"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// modes maps the name of each kind of server to its options.
var modes = map[string]*fakeaws.Options{"AWS": nil, "LocalStack": &localStack}

// TestStoreOfBytes checks that a store can find, list, check, refresh and delete records that
// are stored as bytes.
func TestStoreOfBytes(t *testing.T) {
	t.Parallel()
	for mode, server := range modes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t, server, nil)
			ann := e.saveAsBytes("ann")
			e.saveAsBytes("bob")
			ctx := t.Context()
			s := e.store()
			found, err := s.FindToken(ctx, tokenstore.Token{RefreshToken: ann.RefreshToken, ClientID: "c"})
			if err != nil || found != ann {
				t.Errorf("FindToken returns %q, %v", found.ID, err)
			}
			if tokens, err := s.GetTokens(ctx); len(tokens) != 2 || err != nil {
				t.Errorf("GetTokens returns %d, %v", len(tokens), err)
			}
			for f, err := range s.Check(ctx, nil) {
				if err != nil || f.Kind != doctor.KindStoreUnkeyed {
					t.Errorf("Check finds %s, %v", f.Kind, err)
				}
			}
			fresh, err := s.Refresh(ctx, ann.ID, ann.AccessToken, func(context.Context, tokenstore.Token) (tokenstore.Token, error) {
				return tokenstore.Token{AccessToken: "access-2", RefreshToken: "refresh-2", ExpiresAt: time.Now().Add(time.Hour)}, nil
			})
			if err != nil || fresh.AccessToken != "access-2" {
				t.Errorf("Refresh returns %v", err)
			}
			out, err := e.client.GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: aws.String(app + "/" + ann.ID)})
			if err != nil || !strings.HasPrefix(aws.ToString(out.SecretString), "tokenkeep record\n{") {
				t.Errorf("the record is not text afterwards: %v", err)
			}
			if err := s.DeleteTokens(ctx); err != nil {
				t.Error(err)
			}
			if tokens, err := s.GetTokens(ctx); len(tokens) != 0 || err != nil {
				t.Errorf("after DeleteTokens GetTokens returns %d, %v", len(tokens), err)
			}
		})
	}
}

// saveAsBytes stores the record of a user as bytes, as the second version of its secret.
func (e *env) saveAsBytes(user string) tokenstore.Token {
	e.Helper()
	other := newEnv(e, nil, nil)
	token := tokenstore.Token{UserName: user, ClientID: "c", RefreshToken: tokenstore.Secret("refresh-of-" + user), AccessToken: tokenstore.Secret("access-of-" + user)}
	saved, err := other.store().SaveToken(e.Context(), token)
	if err != nil {
		e.Fatal(err)
	}
	record, err := other.Get(e.Context(), saved.ID)
	if err != nil {
		e.Fatal(err)
	}
	at := aws.String(app + "/" + saved.ID)
	described, err := other.client.DescribeSecret(e.Context(), &secretsmanager.DescribeSecretInput{SecretId: at})
	if err != nil {
		e.Fatal(err)
	}
	first, err := e.client.CreateSecret(e.Context(), &secretsmanager.CreateSecretInput{
		Name: at, SecretBinary: record.Data, Tags: described.Tags, ClientRequestToken: aws.String(awssm.First(*at)),
	})
	if err != nil {
		e.Fatal(err)
	}
	arn, id := split(awssm.Next(driver.Version(*first.ARN + " " + *first.VersionId)))
	if _, err := e.client.PutSecretValue(e.Context(), &secretsmanager.PutSecretValueInput{
		SecretId: &arn, ClientRequestToken: &id, SecretBinary: record.Data,
	}); err != nil {
		e.Fatal(err)
	}
	return saved
}

// TestContent checks that the content of a record is read back unchanged, even if the content looks
// like a tombstone, or begins like a stored record.
func TestContent(t *testing.T) {
	t.Parallel()
	for what, data := range map[string]string{
		"text":                          "the record",
		"JSON":                          `{"refresh_token":"ü"}`,
		"like an unmarked tombstone":    `{"deleted":"x"}`,
		"like a tombstone":              "tokenkeep tombstone\n{\"deleted\":\"x\"}",
		"like a record":                 "tokenkeep record\nx",
		"lines":                         "\na\r\nb\n",
		"a zero":                        "\x00",
		"not UTF-8":                     "\xff\xfe\x00",
		"not UTF-8, like a record":      "tokenkeep record\n\xff",
		"as long as a record may be":    strings.Repeat("x", 65536),
		"as long as a text may be":      strings.Repeat("x", 65536-len("tokenkeep record\n")),
		"one longer than a text may be": strings.Repeat("x", 65536-len("tokenkeep record\n")+1),
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t, nil, nil)
			first := e.create(data)
			e.holds(first)
			e.holds(e.update(first, data))
		})
	}
}

// TestForeignContent checks that Get of a tombstone, with or without its first line, fails with
// ErrNotFound. Get of other foreign content fails with ErrCorrupt, and the error does not quote the
// content.
func TestForeignContent(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		text string
		want error
	}{
		"a tombstone":                  {"tokenkeep tombstone\n{\"deleted\":\"x\"}", driver.ErrNotFound},
		"an unmarked tombstone":        {`{"deleted":"x"}`, driver.ErrNotFound},
		"an unmarked one that is kept": {`{"deleted":"x","kept":true}`, driver.ErrNotFound},
		"a tombstone with more":        {"tokenkeep tombstone\n{\"deleted\":\"x\",\"more\":1}", driver.ErrCorrupt},
		"a tombstone without a cause":  {"tokenkeep tombstone\n{}", driver.ErrCorrupt},
		"a password":                   {"postgres", driver.ErrCorrupt},
		"JSON":                         {`{"user":"x"}`, driver.ErrCorrupt},
		"a record without its mark":    {"{\"refresh_token\":\"x\"}\n", driver.ErrCorrupt},
		"an empty record":              {"tokenkeep record\n", driver.ErrCorrupt},
		"another mark":                 {"tokenkeep records\nx", driver.ErrCorrupt},
		"a record without what":        {"tokenkeep record without \nx", driver.ErrCorrupt},
		"a record without no label":    {"tokenkeep record without x\nx", driver.ErrCorrupt},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t, nil, nil)
			e.create("base")
			e.operator(c.text)
			_, err := e.Get(t.Context(), name)
			is(t, "Get", err, c.want)
			if err != nil && strings.Contains(err.Error(), "postgres") {
				t.Errorf("the error repeats what was stored: %v", err)
			}
		})
	}
}

// TestAnswersAreChecked checks that a write fails if the server assigns a version ID other than the
// requested ID. Such a server does not refuse a second write over the same version.
func TestAnswersAreChecked(t *testing.T) {
	t.Parallel()
	const answer = `{"ARN":"arn:aws:secretsmanager:us-east-1:123456789012:secret:x","Name":"x","VersionId":"` + "00000000-0000-0000-0000-000000000000" + `"}`
	for _, operation := range []string{"CreateSecret", "PutSecretValue"} {
		t.Run(operation, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t, nil, nil)
			var err error
			if operation == "CreateSecret" {
				e.server.Inject(on(operation, 0, fakeaws.Fault{Status: http.StatusOK, Body: answer}))
				_, err = e.Create(t.Context(), name, driver.Payload{Data: []byte("first")})
			} else {
				base := e.create("base")
				e.server.Inject(on(operation, 0, fakeaws.Fault{Status: http.StatusOK, Body: answer}))
				_, err = e.Update(t.Context(), name, base, driver.Payload{Data: []byte("next")})
			}
			is(t, operation, err, driver.ErrRefused)
		})
	}
}

// TestOneUnreadable checks that List and Lookup yield the readable secrets if one secret is
// unreadable. List and Lookup also yield the name of the unreadable secret, with an error that
// quotes the reason.
func TestOneUnreadable(t *testing.T) {
	t.Parallel()
	for mode, server := range modes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t, server, nil)
			l := label("user", 'a', 'a')
			for i := range 25 {
				if _, err := e.Create(t.Context(), fmt.Sprint("u", i), driver.Payload{Data: []byte("x"), Labels: []driver.Label{l}}); err != nil {
					t.Fatal(err)
				}
			}
			// A secret without a version makes LocalStack fail the whole batch.
			if _, err := e.client.CreateSecret(t.Context(), &secretsmanager.CreateSecretInput{
				Name: aws.String(path), Tags: awssm.Tags(e.Secrets, l),
			}); err != nil {
				t.Fatal(err)
			}
			for what, seq := range map[string]func(func(driver.Named, error) bool){
				"List":   e.List(t.Context()),
				"Lookup": e.Lookup(t.Context(), []driver.Label{l}),
			} {
				read, unread := 0, 0
				for named, err := range seq {
					switch {
					case err == nil:
						read++
					case named.Name != name || !errors.Is(err, driver.ErrCorrupt) || !strings.Contains(err.Error(), "has no value"):
						t.Errorf("%s yields %q and %v", what, named.Name, err)
					default:
						unread++
					}
				}
				if read != 25 || unread != 1 {
					t.Errorf("%s yields %d secrets and %d errors", what, read, unread)
				}
			}
		})
	}
}

// TestUnreadableReasons checks that the error for an unreadable secret quotes the service's
// reason and matches the class of that reason.
func TestUnreadableReasons(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		code, text string
		want       error
	}{
		{"AccessDeniedException", "Access to KMS is not allowed", driver.ErrDenied},
		{"DecryptionFailure", "Secrets Manager can't decrypt: the key is disabled.", driver.ErrRefused},
		{"DecryptionFailure", "Secrets Manager can't decrypt the protected secret text using the provided KMS key.", driver.ErrUnavailable},
		{"InvalidRequestException", "The KMS key is pending deletion.", driver.ErrRefused},
		{"InternalServiceError", "An error occurred on the server side.", driver.ErrUnavailable},
	} {
		t.Run(c.code+" "+c.text[:20], func(t *testing.T) {
			t.Parallel()
			e := newEnv(t, nil, nil)
			e.create("base")
			out, err := e.client.DescribeSecret(t.Context(), &secretsmanager.DescribeSecretInput{SecretId: aws.String(path)})
			if err != nil {
				t.Fatal(err)
			}
			e.server.Inject(on("BatchGetSecretValue", 0, fakeaws.Fault{Status: http.StatusOK, Body: fmt.Sprintf(
				`{"SecretValues":[],"Errors":[{"SecretId":%q,"ErrorCode":%q,"Message":%q}]}`, *out.ARN, c.code, c.text)}))
			n := 0
			for named, err := range e.List(t.Context()) {
				if n++; named.Name != name || !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) || !strings.Contains(err.Error(), path) {
					t.Errorf("List yields %q and %v", named.Name, err)
				}
			}
			if n != 1 {
				t.Errorf("List yields %d", n)
			}
		})
	}
}

// TestSecretWithoutCurrentVersion checks that calls for a secret without a current version
// return errors matching ErrCorrupt, and do not change the secret.
func TestSecretWithoutCurrentVersion(t *testing.T) {
	t.Parallel()
	for mode, server := range modes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t, server, nil)
			if _, err := e.client.CreateSecret(t.Context(), &secretsmanager.CreateSecretInput{Name: aws.String(path)}); err != nil {
				t.Fatal(err)
			}
			for _, step := range []string{"has no value", "none is the current one"} {
				for what, do := range map[string]func() error{
					"Get":    func() error { _, err := e.Get(t.Context(), name); return err },
					"Fresh":  func() error { _, err := e.Fresh(t.Context(), name, driver.Secret{}); return err },
					"Create": func() error { _, err := e.Create(t.Context(), name, driver.Payload{Data: []byte("x")}); return err },
				} {
					err := do()
					is(t, what, err, driver.ErrCorrupt)
					if err != nil && !strings.Contains(err.Error(), step) {
						t.Errorf("%s returns %v, want %q", what, err, step)
					}
				}
				if _, err := e.client.PutSecretValue(t.Context(), &secretsmanager.PutSecretValueInput{
					SecretId: aws.String(path), SecretString: aws.String("x"), VersionStages: []string{"AWSPENDING"},
				}); err != nil {
					t.Fatal(err)
				}
				if mode == "LocalStack" {
					return // LocalStack makes the first version current, regardless of VersionStages
				}
			}
			if out, err := e.client.ListSecretVersionIds(t.Context(), &secretsmanager.ListSecretVersionIdsInput{SecretId: aws.String(path)}); err != nil || len(out.Versions) != 1 {
				t.Errorf("the secret was changed: %v", err)
			}
		})
	}
}
