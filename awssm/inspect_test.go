package awssm_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"

	"github.com/tokenkeep/tokenkeep/awssm"
	"github.com/tokenkeep/tokenkeep/internal/fakeaws"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/doctor"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// A ward has a store that a test damages and Check repairs.
type ward struct {
	*env
	store *tokenstore.Store
}

func newWard(t testing.TB, opts *awssm.Options) *ward {
	w := &ward{env: newEnv(t, nil, opts)}
	var err error
	if w.store, err = tokenstore.New(w.Secrets, &tokenstore.Options{NameKey: []byte("a key of names, 16 bytes"), Now: w.server.Now}); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *ward) save(t tokenstore.Token) tokenstore.Token {
	w.Helper()
	t, err := w.store.SaveToken(w.Context(), t)
	if err != nil {
		w.Fatal(err)
	}
	return t
}

// check returns the kinds of the faults that Check finds, sorted. Each repaired fault has
// the suffix " repaired".
func (w *ward) check(opts *doctor.CheckOptions) []string {
	w.Helper()
	found := []string{}
	for f, err := range w.store.Check(w.Context(), opts) {
		if err != nil {
			w.Fatalf("Check: %v", err)
		}
		if f.Err != nil {
			w.Errorf("%s: %v", f.Kind, f.Err)
		}
		text := string(f.Kind)
		if f.Repaired {
			text += " repaired"
		}
		found = append(found, text)
	}
	slices.Sort(found)
	return found
}

func (w *ward) finds(what string, opts *doctor.CheckOptions, want ...string) {
	w.Helper()
	if got := w.check(opts); !slices.Equal(got, want) {
		w.Errorf("%s Check finds %q, want %q", what, got, want)
	}
}

// markerName is the name of the secret that identifies the keys of a store.
const markerName = "keys"

var ann = tokenstore.Token{UserName: "ann", ClientID: "client", RefreshToken: "refresh1", AccessToken: "access1"}

var (
	repair = &doctor.CheckOptions{Repair: true}
	purge  = &doctor.CheckOptions{Repair: true, Purge: true}
)

func TestCheckRepair(t *testing.T) {
	t.Parallel()
	t.Run("an operator has moved AWSCURRENT back", func(t *testing.T) {
		t.Parallel()
		w := newWard(t, nil)
		id := w.save(ann).ID
		first, err := w.Get(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		later := w.save(tokenstore.Token{ID: id, AccessToken: "access2"})
		now, err := w.Get(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		arn, old := split(first.Version)
		_, current := split(now.Version)
		if _, err := w.client.UpdateSecretVersionStage(t.Context(), &secretsmanager.UpdateSecretVersionStageInput{
			SecretId: &arn, VersionStage: aws.String("AWSCURRENT"), MoveToVersionId: &old, RemoveFromVersionId: &current,
		}); err != nil {
			t.Fatal(err)
		}
		w.server.Advance(10 * time.Minute)
		if got := w.check(nil); !slices.Contains(got, "secret-rolled-back") {
			t.Errorf("Check finds %q", got)
		}
		if got := w.check(repair); !slices.Contains(got, "secret-rolled-back repaired") {
			t.Errorf("Check repairs %q", got)
		}
		w.finds("afterwards", nil)
		if got, err := w.store.FindToken(t.Context(), tokenstore.Token{AccessToken: "access2"}); err != nil || got != later {
			t.Errorf("the latest token is not found: %s, %v", got.ID, err)
		}
	})
	t.Run("an operator has removed a tag", func(t *testing.T) {
		t.Parallel()
		w := newWard(t, nil)
		saved := w.save(ann)
		w.server.Advance(10 * time.Minute)
		out, err := w.client.DescribeSecret(t.Context(), &secretsmanager.DescribeSecretInput{SecretId: aws.String(app + "/" + saved.ID)})
		if err != nil {
			t.Fatal(err)
		}
		var key string
		for _, tag := range out.Tags {
			if strings.HasPrefix(*tag.Key, "tokenkeep:refresh:") {
				key = *tag.Key
			}
		}
		if _, err := w.client.UntagResource(t.Context(), &secretsmanager.UntagResourceInput{SecretId: out.ARN, TagKeys: []string{key}}); err != nil {
			t.Fatal(err)
		}
		like := tokenstore.Token{ClientID: "client", RefreshToken: "refresh1"}
		if _, err := w.store.FindToken(t.Context(), like); !errors.Is(err, tokenstore.ErrNotFound) {
			t.Errorf("without the tag FindToken returns %v", err)
		}
		w.finds("without the tag", nil, "label-missing")
		w.finds("then", repair, "label-missing repaired")
		w.finds("afterwards", nil)
		if got, err := w.store.FindToken(t.Context(), like); err != nil || got != saved {
			t.Errorf("the record is not found: %v", err)
		}
	})
	t.Run("a writer has left a tag behind", func(t *testing.T) {
		t.Parallel()
		w := newWard(t, nil)
		id := w.save(ann).ID
		if _, err := w.client.TagResource(t.Context(), &secretsmanager.TagResourceInput{SecretId: aws.String(app + "/" + id), Tags: []types.Tag{
			{Key: aws.String("tokenkeep:grant:" + strings.Repeat("a", 32) + ":" + strings.Repeat("b", 16)), Value: aws.String("2026-01-01T00:00:00Z")},
		}}); err != nil {
			t.Fatal(err)
		}
		w.finds("at first", nil, "label-left-over")
		w.finds("then", repair, "label-left-over repaired")
		w.finds("afterwards", nil)
	})
	t.Run("a writer has added a tag a moment ago", func(t *testing.T) {
		t.Parallel()
		w := newWard(t, nil)
		id := w.save(ann).ID
		if _, err := w.client.TagResource(t.Context(), &secretsmanager.TagResourceInput{SecretId: aws.String(app + "/" + id), Tags: []types.Tag{
			{Key: aws.String("tokenkeep:grant:" + strings.Repeat("a", 32) + ":" + strings.Repeat("b", 16)), Value: aws.String(w.server.Now().UTC().Format(time.RFC3339))},
		}}); err != nil {
			t.Fatal(err)
		}
		w.finds("at first", repair, "label-left-over")
		w.finds("then", purge, "label-left-over repaired")
		w.finds("afterwards", nil)
	})
	t.Run("a secret has been created without a value", func(t *testing.T) {
		t.Parallel()
		w := newWard(t, nil)
		id := w.save(ann).ID
		if err := w.store.DeleteToken(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if _, err := w.client.CreateSecret(t.Context(), &secretsmanager.CreateSecretInput{Name: aws.String(app + "/" + id)}); err != nil {
			t.Fatal(err)
		}
		w.server.Advance(10 * time.Minute)
		w.server.Reset()
		for what, do := range map[string]func() error{
			"SaveToken": func() error { _, err := w.store.SaveToken(t.Context(), ann); return err },
			"FindToken": func() error {
				_, err := w.store.FindToken(t.Context(), tokenstore.Token{UserName: "ann", ClientID: "client"})
				return err
			},
			"GetTokens": func() error { _, err := w.store.GetTokens(t.Context()); return err },
		} {
			if err := do(); !errors.Is(err, tokenstore.ErrCorrupt) || !strings.Contains(err.Error(), "has no value") {
				t.Errorf("%s returns %v", what, err)
			}
		}
		if n := w.server.Count()["CreateSecret"]; n > 1 {
			t.Errorf("SaveToken has tried %d times", n)
		}
		if got := w.check(repair); !slices.Contains(got, "secret-empty") {
			t.Errorf("Check finds %q", got)
		}
		if got := w.check(purge); !slices.Contains(got, "secret-empty repaired") {
			t.Errorf("Check repairs %q", got)
		}
		w.server.Advance(10 * time.Minute)
		w.save(ann)
		w.finds("afterwards", nil)
	})
	t.Run("a process died in the middle of a deletion", func(t *testing.T) {
		t.Parallel()
		w := newWard(t, nil)
		id := w.save(ann).ID
		w.server.Inject(on("DeleteSecret", 1, fakeaws.Fault{Status: http.StatusBadRequest, Code: "AccessDeniedException"}))
		if err := w.store.DeleteToken(t.Context(), id); !errors.Is(err, tokenstore.ErrDenied) {
			t.Fatalf("DeleteToken returns %v", err)
		}
		w.server.Inject(nil)
		if got := w.check(nil); !slices.Contains(got, "versions-due") {
			t.Errorf("Check finds %q", got)
		}
		if got := w.check(repair); !slices.Contains(got, "versions-due repaired") {
			t.Errorf("Check repairs %q", got)
		}
		w.server.Advance(10 * time.Minute)
		w.finds("afterwards", nil)
	})
	t.Run("a secret that is kept though its record was deleted", func(t *testing.T) {
		t.Parallel()
		w := newWard(t, &awssm.Options{KeepDeleted: true})
		if err := w.store.DeleteToken(t.Context(), w.save(ann).ID); err != nil {
			t.Fatal(err)
		}
		w.finds("at first", repair, "secret-tombstone")
		w.finds("then", purge, "secret-tombstone repaired")
		w.server.Advance(10 * time.Minute)
		w.finds("afterwards", nil)
	})
	t.Run("an operator has scheduled a deletion", func(t *testing.T) {
		t.Parallel()
		w := newWard(t, nil)
		id := w.save(ann).ID
		if _, err := w.client.DeleteSecret(t.Context(), &secretsmanager.DeleteSecretInput{SecretId: aws.String(app + "/" + id), RecoveryWindowInDays: aws.Int64(30)}); err != nil {
			t.Fatal(err)
		}
		w.server.Advance(2 * time.Hour)
		if got := w.check(nil); !slices.Contains(got, "secret-deleted-outside") {
			t.Errorf("Check finds %q", got)
		}
		if got := w.check(purge); !slices.Contains(got, "secret-deleted-outside repaired") {
			t.Errorf("Check purges %q", got)
		}
	})
}

// TestProbeMissingPermission removes one action at a time from the policy, and checks that Probe
// names the missing permission and leaves no additional secret.
func TestProbeMissingPermission(t *testing.T) {
	t.Parallel()
	whole := awssm.Policy("*", "*", app, nil)
	refused := func(t *testing.T, policy string) []string {
		w := newWard(t, nil)
		want := []string{markerName, w.save(ann).ID}
		if err := w.server.Policy("app", policy); err != nil {
			t.Fatal(err)
		}
		var found []string
		for p, err := range w.Secrets.(driver.Inspector).Probe(t.Context()) {
			switch {
			case err != nil:
				t.Fatal(err)
			case errors.Is(p.Err, driver.ErrDenied):
				found = append(found, p.Needs)
			case p.Err != nil:
				t.Errorf("%s: %v", p.Call, p.Err)
			}
		}
		if err := w.server.Policy("app", whole); err != nil {
			t.Fatal(err)
		}
		w.server.Advance(10 * time.Minute) // ends the lag of lists
		var names []string
		for name, err := range w.Names(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, name)
		}
		if slices.Sort(names); !slices.Equal(names, want) {
			t.Errorf("afterwards there are %q, want %q", names, want)
		}
		return found
	}
	var policy struct{ Statement []struct{ Action []string } }
	if err := json.Unmarshal([]byte(whole), &policy); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, statement := range policy.Statement {
		for _, action := range statement.Action {
			n++
			t.Run(action, func(t *testing.T) {
				t.Parallel()
				less := strings.Replace(whole, fmt.Sprintf("%q", action), `"secretsmanager:Nothing"`, 1)
				got := refused(t, less)
				if action == "secretsmanager:TagResource" { // CreateSecret with tags also needs this permission
					got = slices.DeleteFunc(got, func(s string) bool { return strings.HasSuffix(s, ":CreateSecret") })
				}
				if action == "secretsmanager:GetSecretValue" || action == "secretsmanager:BatchGetSecretValue" || action == "secretsmanager:ListSecrets" {
					got = slices.DeleteFunc(got, func(s string) bool {
						return strings.HasSuffix(s, ":BatchGetSecretValue") && action != "secretsmanager:BatchGetSecretValue"
					})
				}
				if want := []string{"the permission " + action}; !slices.Equal(got, want) {
					t.Errorf("Probe says %q, want %q", got, want)
				}
			})
		}
	}
	if n != 9 {
		t.Errorf("the policy has %d actions", n)
	}
	if got := refused(t, whole); len(got) > 0 {
		t.Errorf("with the whole policy Probe says %q", got)
	}
}
