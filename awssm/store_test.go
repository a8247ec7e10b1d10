package awssm_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/tokenkeep/tokenkeep/internal/fakeaws"
	"github.com/tokenkeep/tokenkeep/internal/stored"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// store returns a store that uses the server's clock.
func (e *env) store() *tokenstore.Store {
	e.Helper()
	s, err := tokenstore.New(e.open(nil), &tokenstore.Options{Now: e.server.Now})
	if err != nil {
		e.Fatal(err)
	}
	return s
}

func TestOperationsMakeAsFewCallsAsDocumented(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil, nil)
	ctx := t.Context()
	kept, old, fresh := label("user", 'a', 'a'), label("access", 'b', 'b'), label("access", 'c', 'c')
	var s driver.Secret
	var former []driver.Label
	update := func(labels ...driver.Label) func() error {
		return func() (err error) {
			p := driver.Payload{Data: fmt.Append(nil, e.server.Now().UnixNano()), Labels: labels, Former: former}
			v, err := e.Update(ctx, name, s, p)
			s = driver.Secret{Payload: p, Version: v}
			return err
		}
	}
	e.counts("Create", "CreateSecret 1", func() error { s = e.create("first", kept, old); return nil })
	e.counts("Get", "GetSecretValue 1", func() error { _, err := e.Get(ctx, name); return err })
	e.counts("Fresh", "GetSecretValue 1", func() error { _, err := e.Fresh(ctx, name, s); return err })
	e.counts("Update with the same labels", "PutSecretValue 1", update(kept, old))
	e.counts("Update with another label", "PutSecretValue 1, TagResource 1, UntagResource 1", update(kept, fresh))
	former = []driver.Label{fresh}
	e.counts("Update that leaves a label", "PutSecretValue 1, TagResource 1", update(kept, old))
	e.counts("Update that leaves it too", "PutSecretValue 1", update(kept, old))
	former = nil
	e.counts("Update that removes it", "PutSecretValue 1, UntagResource 1", update(kept, old))
	e.counts("Update with another label again", "PutSecretValue 1, TagResource 1, UntagResource 1", update(kept, label("access", 'c', 'd')))
	e.counts("Lookup", "BatchGetSecretValue 1", yielding(e.Lookup(ctx, []driver.Label{fresh}), 1))
	e.counts("Delete", "DeleteSecret 1, PutSecretValue 1", func() error { return e.Delete(ctx, name, s) })
	e.counts("Get of what is not there", "GetSecretValue 1", func() error {
		if _, err := e.Get(ctx, name); !errors.Is(err, driver.ErrNotFound) {
			return err
		}
		return nil
	})
	for i := range 105 {
		if _, err := e.Create(ctx, fmt.Sprint("n", i), driver.Payload{Data: fmt.Append(nil, i)}); err != nil {
			t.Fatal(err)
		}
	}
	e.counts("List of 105", "BatchGetSecretValue 6, ListSecrets 2", yielding(e.List(ctx), 105))
	e.counts("Names of 105", "ListSecrets 2", yielding(e.Names(ctx), 105))
}

func TestStoreCalls(t *testing.T) {
	t.Parallel()
	few, many := storeCalls(t, 10), storeCalls(t, 10_000)
	if !slices.Equal(few, many) {
		t.Errorf("with 10 records:\n%s\nwith 10,000:\n%s", strings.Join(few, "\n"), strings.Join(many, "\n"))
	}
	// The calls of writes are listed without reads, because the documentation does not promise the
	// number of reads.
	want := []string{
		"create: CreateSecret 1",
		"find by ID: GetSecretValue 1",
		"find by user and client: GetSecretValue 1",
		"find by refresh token: BatchGetSecretValue 1, GetSecretValue 1",
		"find by user alone: BatchGetSecretValue 1, GetSecretValue 1",
		"find by access token: BatchGetSecretValue 1, GetSecretValue 1",
		"find by an own ID: BatchGetSecretValue 1",
		"save, unchanged:",
		"save an access token: PutSecretValue 1, TagResource 1",
		"refresh: PutSecretValue 2, TagResource 1",
		"delete: DeleteSecret 1, PutSecretValue 1",
	}
	if !slices.Equal(few, want) {
		t.Errorf("the calls are\n%s\nwant\n%s", strings.Join(few, "\n"), strings.Join(want, "\n"))
	}
}

func storeCalls(t *testing.T, n int) []string {
	e := newEnv(t, nil, nil)
	var others sync.WaitGroup
	for w := range 8 {
		others.Go(func() {
			for i := w; i < n-1; i += 8 {
				digest := strings.Repeat("a", 26) + strings.NewReplacer("0", "g", "1", "h", "8", "i", "9", "j").Replace(fmt.Sprintf("%06d", i))
				p := driver.Payload{Data: fmt.Append(nil, i)}
				for _, key := range []string{"access", "client", "refresh", "user"} {
					p.Labels = append(p.Labels, driver.Label{Key: key, Value: digest, Nonce: digest[16:]})
				}
				if _, err := e.Create(t.Context(), "u"+digest, p); err != nil {
					t.Errorf("Create: %v", err)
					return
				}
			}
		})
	}
	others.Wait()
	s, ctx := e.store(), t.Context()
	var list []string
	// reads reports whether the list includes the reads of the operation.
	step := func(what string, reads bool, f func() error) {
		t.Helper()
		e.server.Reset()
		if err := f(); err != nil {
			t.Errorf("%s among %d: %v", what, n, err)
		}
		count := e.server.Count()
		if !reads {
			delete(count, "GetSecretValue")
			delete(count, "BatchGetSecretValue")
		}
		list = append(list, strings.TrimSpace(what+": "+calls(count)))
	}
	token := tokenstore.Token{UserName: "ann", ClientID: "c1", RefreshToken: "1000.refresh", AccessToken: "1000.access", ExpiresAt: e.server.Now().Add(time.Hour)}
	save := func(t tokenstore.Token) func() error {
		return func() error { _, err := s.SaveToken(ctx, t); return err }
	}
	find := func(like tokenstore.Token) func() error {
		return func() error { _, err := s.FindToken(ctx, like); return err }
	}
	step("create", false, save(token))
	stored, err := s.FindToken(ctx, token)
	if err != nil {
		t.Fatal(err)
	}
	step("find by ID", true, func() error { _, err := s.FindTokenByID(ctx, stored.ID); return err })
	step("find by user and client", true, find(tokenstore.Token{UserName: "ann", ClientID: "c1"}))
	step("find by refresh token", true, find(tokenstore.Token{ClientID: "c1", RefreshToken: "1000.refresh"}))
	step("find by user alone", true, find(tokenstore.Token{UserName: "ann"}))
	step("find by access token", true, find(tokenstore.Token{AccessToken: "1000.access"}))
	own := tokenstore.Token{ID: "7", UserName: "bob", ClientID: "c1", AccessToken: "1000.bob"}
	if err := save(own)(); err != nil {
		t.Fatal(err)
	}
	step("find by an own ID", true, func() error { _, err := s.FindTokenByID(ctx, "7"); return err })
	step("save, unchanged", false, save(token))
	token.AccessToken = "1000.second"
	step("save an access token", false, save(token))
	step("refresh", false, func() error {
		_, err := s.Refresh(ctx, stored.ID, "1000.second", func(_ context.Context, t tokenstore.Token) (tokenstore.Token, error) {
			return tokenstore.Token{AccessToken: "1000.third", ExpiresAt: e.server.Now().Add(time.Hour)}, nil
		})
		return err
	})
	step("delete", false, func() error { return s.DeleteToken(ctx, stored.ID) })
	return list
}

func TestFindTokenConcurrentCalls(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil, nil)
	s := e.store()
	if _, err := s.SaveToken(t.Context(), tokenstore.Token{UserName: "ann", ClientID: "c1", RefreshToken: "1000.refresh"}); err != nil {
		t.Fatal(err)
	}
	both := make(chan struct{})
	var arrived atomic.Int64
	e.server.Inject(func(*fakeaws.Request) *fakeaws.Fault {
		if arrived.Add(1) == 2 {
			close(both)
		}
		return &fakeaws.Fault{Wait: both}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := s.FindToken(ctx, tokenstore.Token{ClientID: "c1", RefreshToken: "1000.refresh"}); err != nil {
		t.Errorf("one of the two calls waits for the other: %v", err)
	}
}

func TestGetTokensCalls(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil, nil)
	s := e.store()
	for i := range 40 {
		if _, err := s.SaveToken(t.Context(), tokenstore.Token{UserName: fmt.Sprint("user", i), ClientID: "c1", AccessToken: "1000.access"}); err != nil {
			t.Fatal(err)
		}
	}
	e.counts("GetTokens of 40", "BatchGetSecretValue 2", func() error {
		tokens, err := s.GetTokens(t.Context())
		if len(tokens) != 40 {
			t.Errorf("GetTokens returns %d tokens", len(tokens))
		}
		return err
	})
}

// many creates 130 records and a secret under a deeper prefix, and returns the environment. List
// reads 40 of the records in two batches, and the others in concurrent batches.
func many(t *testing.T, opts *fakeaws.Options) *env {
	t.Helper()
	e := newEnv(t, opts, nil)
	for i := range 130 {
		if _, err := e.Create(t.Context(), fmt.Sprint("n", i), driver.Payload{Data: fmt.Append(nil, i)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := e.client.CreateSecret(t.Context(), &secretsmanager.CreateSecretInput{
		Name: aws.String(app + "/deeper/n1"), SecretString: aws.String("of another prefix"),
	}); err != nil {
		t.Fatal(err)
	}
	return e
}

// listed returns the names of the records that List yields, the errors for unreadable records by
// name, and the error that ends the list. listed also checks the value of each record.
func (e *env) listed(t *testing.T) (names []string, unreadable map[string]error, failure error) {
	t.Helper()
	unreadable = map[string]error{}
	for found, err := range e.List(t.Context()) {
		switch {
		case found.Name == "":
			failure = err
		case err != nil:
			unreadable[found.Name] = err
		case "n"+string(found.Data) != found.Name:
			t.Errorf("%s has the value %q", found.Name, found.Data)
			fallthrough
		default:
			names = append(names, found.Name)
		}
	}
	return names, unreadable, failure
}

// onFullBatch returns a function for Inject that injects a fault into the first batch of 20 names.
// The order of the concurrent batches is random, and one of them is smaller.
func onFullBatch(f fakeaws.Fault) func(*fakeaws.Request) *fakeaws.Fault {
	var done atomic.Bool
	return func(q *fakeaws.Request) *fakeaws.Fault {
		var batch struct{ SecretIdList []string }
		if q.Operation != "BatchGetSecretValue" || json.Unmarshal(q.Body, &batch) != nil || len(batch.SecretIdList) != 20 || done.Swap(true) {
			return nil
		}
		return &f
	}
}

func TestListConcurrently(t *testing.T) {
	t.Parallel()
	wants := func(t *testing.T, e *env, records int, hidden ...string) {
		t.Helper()
		names, unreadable, err := e.listed(t)
		slices.Sort(names)
		if n := len(slices.Compact(slices.Clone(names))); err != nil || n != records || n != len(names) {
			t.Errorf("List yields %d names, %d of them once, want %d, and error %v", len(names), n, records, err)
		}
		if got := slices.Sorted(maps.Keys(unreadable)); !slices.Equal(got, hidden) {
			t.Errorf("unreadable: %v, want %q", unreadable, hidden)
		}
	}
	for name, f := range map[string]func(*testing.T, *env){
		"each record once": func(t *testing.T, e *env) {
			e.counts("List", "BatchGetSecretValue 7, ListSecrets 2", yielding(e.List(t.Context()), 130))
			wants(t, e, 130)
		},
		"an unreadable secret": func(t *testing.T, e *env) {
			gone := strings.Repeat(`{"SecretId": "gone", "ErrorCode": "ResourceNotFoundException", "Message": "no"},`, 19)
			e.server.Inject(onFullBatch(fakeaws.Fault{Status: 200, Body: `{"SecretValues": [], "Errors": [` + gone + `
				{"SecretId": "arn:aws:secretsmanager:us-east-1:1:secret:` + app + `/n200-abcdef", "ErrorCode": "AccessDeniedException", "Message": "no"}]}`}))
			wants(t, e, 110, "n200")
		},
		"a batch that fails for one secret": func(t *testing.T, e *env) {
			e.server.Inject(onFullBatch(fakeaws.Fault{Code: "ResourceNotFoundException"}))
			e.counts("List", "BatchGetSecretValue 7, GetSecretValue 20, ListSecrets 2", yielding(e.List(t.Context()), 130))
		},
		"a batch without some of its secrets": func(t *testing.T, e *env) {
			e.server.Inject(onFullBatch(fakeaws.Fault{Status: 200, Body: `{"SecretValues": [], "Errors": []}`}))
			wants(t, e, 130)
		},
		"a throttled secret": func(t *testing.T, e *env) {
			e.server.Inject(onFullBatch(fakeaws.Fault{Status: 200, Body: `{"SecretValues": [], "Errors": [` +
				strings.Repeat(`{"SecretId": "x", "ErrorCode": "KMSThrottlingException", "Message": "no"},`, 19) + `{"SecretId": "x", "ErrorCode": "KMSThrottlingException", "Message": "no"}]}`}))
			wants(t, e, 130)
		},
		"throttled": func(t *testing.T, e *env) {
			var refused atomic.Int64
			e.server.Inject(func(q *fakeaws.Request) *fakeaws.Fault {
				if q.Operation == "BatchGetSecretValue" && bytes.Contains(q.Body, []byte("SecretIdList")) && refused.Add(1) <= 6 {
					return &fakeaws.Fault{Code: "ThrottlingException"}
				}
				return nil
			})
			wants(t, e, 130)
		},
		"an outage": func(t *testing.T, e *env) {
			e.server.Inject(func(q *fakeaws.Request) *fakeaws.Fault {
				if q.Operation == "BatchGetSecretValue" && bytes.Contains(q.Body, []byte("SecretIdList")) {
					return &fakeaws.Fault{Code: "AccessDeniedException"}
				}
				return nil
			})
			names, _, err := e.listed(t)
			if !errors.Is(err, driver.ErrDenied) || len(names) != 40 {
				t.Errorf("List yields %d names and error %v", len(names), err)
			}
		},
		"an outage of the list": func(t *testing.T, e *env) {
			e.server.Inject(on("ListSecrets", 2, fakeaws.Fault{Code: "AccessDeniedException"}))
			if _, _, err := e.listed(t); !errors.Is(err, driver.ErrDenied) {
				t.Errorf("List yields error %v", err)
			}
		},
		"a loop that ends early": func(t *testing.T, e *env) {
			n := 0
			for range e.List(t.Context()) {
				if n++; n == 50 {
					break
				}
			}
		},
		"a context that is done": func(t *testing.T, e *env) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			n := 0
			var last error
			for _, err := range e.List(ctx) {
				if n++; n == 50 {
					cancel()
				}
				last = err
			}
			is(t, "List", last, context.Canceled)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f(t, many(t, nil))
		})
	}
	t.Run("LocalStack", func(t *testing.T) {
		t.Parallel()
		wants(t, many(t, &fakeaws.Options{LocalStack: true}), 130)
	})
}

// rounds returns the number of records that the savers create in the test: 3, or 200 if
// TOKENKEEP_FULL is set.
func rounds() int {
	if os.Getenv("TOKENKEEP_FULL") != "" {
		return 200
	}
	return 3
}

func TestOfFiftyRacingSaversEverySaveIsKept(t *testing.T) {
	t.Parallel()
	for what, opts := range map[string]*fakeaws.Options{"without a lag": nil, "with answers an hour old": &anHour} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			race(t, newEnv(t, opts, nil), rounds())
		})
	}
}

func race(t *testing.T, e *env, rounds int) {
	const savers = 50
	stores := make([]*tokenstore.Store, savers)
	for i := range stores {
		stores[i] = e.store()
	}
	var longest time.Duration
	for round := range rounds {
		var saving sync.WaitGroup
		var mu sync.Mutex
		start := make(chan struct{})
		token := func(i int) tokenstore.Token {
			return tokenstore.Token{UserName: fmt.Sprint("user", round), ClientID: "c1", RefreshToken: "1000.refresh", AccessToken: tokenstore.Secret(fmt.Sprintf("1000.%d.%d", round, i))}
		}
		for i, s := range stores {
			saving.Go(func() {
				<-start
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				begun := time.Now()
				if _, err := s.SaveToken(ctx, token(i)); err != nil {
					t.Errorf("round %d: %v", round, err)
				}
				mu.Lock()
				longest = max(longest, time.Since(begun))
				mu.Unlock()
			})
		}
		close(start)
		saving.Wait()
		e.everyStateFollows(round, savers, func(i int) string { return string(token(i).AccessToken) })
	}
	e.server.Advance(2 * time.Hour)
	if n, err := all(e.Names(t.Context())); n != rounds || err != nil {
		t.Errorf("there are %d secrets for %d records, error %v", n, rounds, err)
	}
	t.Logf("%d rounds of %d savers; the longest save took %v", rounds, savers, longest.Round(time.Millisecond))
}

// everyStateFollows checks that the newest record has had one state for each saver, and that
// each state replaced the previous one. everyStateFollows also checks that each saver's token
// is in one of the states.
func (e *env) everyStateFollows(round, savers int, token func(i int) string) {
	e.Helper()
	e.server.SetLag(0, 0)
	defer e.server.SetLag(e.lag, e.lag)
	var last string
	for name, err := range e.Names(e.Context()) {
		if err != nil {
			e.Fatal(err)
		}
		last = name
	}
	first, err := e.client.ListSecretVersionIds(e.Context(), &secretsmanager.ListSecretVersionIdsInput{
		SecretId: aws.String(app + "/" + last), IncludeDeprecated: aws.Bool(true),
	})
	if err != nil {
		e.Fatal(err)
	}
	seen := map[string]bool{}
	before := ""
	for i, v := range first.Versions {
		out, err := e.client.GetSecretValue(e.Context(), &secretsmanager.GetSecretValueInput{SecretId: first.ARN, VersionId: v.VersionId})
		if err != nil {
			e.Fatal(err)
		}
		_, text, _ := strings.Cut(aws.ToString(out.SecretString), "\n")
		record, err := stored.Decode([]byte(text))
		if err != nil {
			e.Fatal(err)
		}
		if i > 0 && (len(record.Nonces) < 2 || record.Nonces[1] != before) {
			e.Errorf("round %d: state %d was not made of the one before it", round, i)
		}
		before = record.Nonces[0]
		seen[record.AccessToken] = true
	}
	if len(first.Versions) != savers {
		e.Errorf("round %d: there are %d states for %d saves", round, len(first.Versions), savers)
	}
	for i := range savers {
		if !seen[token(i)] {
			e.Errorf("round %d: the save of %q is in no state", round, token(i))
		}
	}
}

func TestRefreshVersionQuota(t *testing.T) {
	t.Parallel()
	e := newEnv(t, &fakeaws.Options{ReadLag: time.Second, ListLag: 5 * time.Minute}, nil)
	s, ctx := e.store(), t.Context()
	stored, err := s.SaveToken(ctx, tokenstore.Token{UserName: "ann", ClientID: "c1", RefreshToken: "1000.refresh"})
	if err != nil {
		t.Fatal(err)
	}
	stale, minted := tokenstore.Secret(""), 0
	e.server.Reset()
	for hour := range 30 * 24 {
		fresh, err := s.Refresh(ctx, stored.ID, stale, func(context.Context, tokenstore.Token) (tokenstore.Token, error) {
			minted++
			return tokenstore.Token{AccessToken: tokenstore.Secret(fmt.Sprint("1000.", minted)), ExpiresAt: e.server.Now().Add(time.Hour)}, nil
		})
		if err != nil {
			t.Fatalf("hour %d: %v", hour, err)
		}
		stale = fresh.AccessToken
		e.server.Advance(time.Hour)
	}
	if minted != 720 {
		t.Errorf("mint was called %d times in 720 hours", minted)
	}
	puts := e.server.Count()["PutSecretValue"]
	if puts != 2*720 {
		t.Errorf("there were %d writes, want a lease and a token every hour", puts)
	}
	e.server.Advance(time.Hour)
	out, err := e.client.ListSecretVersionIds(ctx, &secretsmanager.ListSecretVersionIdsInput{
		SecretId: aws.String(app + "/" + stored.ID), IncludeDeprecated: aws.Bool(true),
	})
	if err != nil || len(out.Versions) > 100 {
		t.Errorf("there are %d versions, error %v", len(out.Versions), err)
	}
	t.Logf("calls in 720 hours: %s", calls(e.server.Count()))
}

// A deed is a store operation. The test repeats the operation, and makes a different call fail each
// time.
type deed struct {
	name    string
	prepare func(ctx context.Context, e *env, s *tokenstore.Store) error
	do      func(ctx context.Context, e *env, s *tokenstore.Store) error
	access  tokenstore.Secret // access token of ann afterwards; empty if there is no record
}

var deeds = func() []deed {
	ann := tokenstore.Token{UserName: "ann", ClientID: "c1", RefreshToken: "1000.refresh", AccessToken: "1000.first"}
	save := func(access tokenstore.Secret) func(context.Context, *env, *tokenstore.Store) error {
		return func(ctx context.Context, _ *env, s *tokenstore.Store) error {
			t := ann
			t.AccessToken = access
			_, err := s.SaveToken(ctx, t)
			return err
		}
	}
	id := func(ctx context.Context, s *tokenstore.Store) (string, error) {
		t, err := s.FindToken(ctx, tokenstore.Token{UserName: "ann", ClientID: "c1"})
		return t.ID, err
	}
	remove := func(ctx context.Context, _ *env, s *tokenstore.Store) error {
		known, err := id(ctx, s)
		if errors.Is(err, tokenstore.ErrNotFound) {
			return nil
		} else if err != nil {
			return err
		}
		return s.DeleteToken(ctx, known)
	}
	nothing := func(context.Context, *env, *tokenstore.Store) error { return nil }
	return []deed{
		{"create", nothing, save("1000.first"), "1000.first"},
		{"update", save("1000.first"), save("1000.second"), "1000.second"},
		{"delete", save("1000.first"), remove, ""},
		{"create again", func(ctx context.Context, e *env, s *tokenstore.Store) error {
			return errors.Join(save("1000.first")(ctx, e, s), remove(ctx, e, s))
		}, save("1000.second"), "1000.second"},
		{"create over a tombstone", func(ctx context.Context, e *env, s *tokenstore.Store) error {
			if err := save("1000.first")(ctx, e, s); err != nil {
				return err
			}
			e.server.Inject(on("DeleteSecret", 0, fakeaws.Fault{Code: "AccessDeniedException"}))
			if err := remove(ctx, e, s); !errors.Is(err, tokenstore.ErrDenied) {
				return fmt.Errorf("DeleteToken that may not: %w", err)
			}
			return nil
		}, save("1000.second"), "1000.second"},
		{"refresh", save("1000.first"), func(ctx context.Context, e *env, s *tokenstore.Store) error {
			known, err := id(ctx, s)
			if err != nil {
				return err
			}
			_, err = s.Refresh(ctx, known, "1000.first", func(context.Context, tokenstore.Token) (tokenstore.Token, error) {
				return tokenstore.Token{AccessToken: "1000.second", ExpiresAt: e.server.Now().Add(time.Hour)}, nil
			})
			return err
		}, "1000.second"},
		{"find", save("1000.first"), func(ctx context.Context, _ *env, s *tokenstore.Store) error {
			_, err := s.FindToken(ctx, tokenstore.Token{ClientID: "c1", RefreshToken: "1000.refresh"})
			return err
		}, "1000.first"},
		{"list", save("1000.first"), func(ctx context.Context, _ *env, s *tokenstore.Store) error {
			_, err := s.GetTokens(ctx)
			return err
		}, "1000.first"},
		{"delete all", save("1000.first"), func(ctx context.Context, _ *env, s *tokenstore.Store) error { return s.DeleteTokens(ctx) }, ""},
	}
}()

func TestStoreCallFaults(t *testing.T) {
	t.Parallel()
	faults := map[string]fakeaws.Fault{
		"an answer that is lost after the call was applied": {Applied: true, Drop: true},
		"an error after the call was applied":               {Applied: true, Code: "InternalServiceError", Status: 500},
		"a connection that breaks before":                   {Drop: true},
		"a call that is throttled":                          {Code: "ThrottlingException"},
	}
	clients := map[string][]func(*secretsmanager.Options){"with the client's retries": nil, "without retries": {once}}
	for _, d := range deeds {
		t.Run(d.name, func(t *testing.T) {
			t.Parallel()
			for what, fault := range faults {
				for which, client := range clients {
					n := 0
					for more := true; more; n++ {
						more = d.breaks(t, fmt.Sprintf("%s, %s, call %d", what, which, n+1), n, fault, client)
					}
					if n < 2 {
						t.Errorf("%s, %s: no call went wrong", what, which)
					}
				}
			}
		})
	}
}

// breaks runs d with a fault in call n, counted from 0, and runs d again if d fails. breaks
// then checks the remaining records, and reports whether d made more than n calls.
func (d deed) breaks(t *testing.T, what string, n int, fault fakeaws.Fault, client []func(*secretsmanager.Options)) bool {
	t.Helper()
	e := newEnv(t, nil, nil, client...)
	defer e.server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s := e.store()
	if err := d.prepare(ctx, e, s); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	var calls atomic.Int64
	e.server.Inject(func(*fakeaws.Request) *fakeaws.Fault {
		if calls.Add(1) == int64(n+1) {
			return &fault
		}
		return nil
	})
	err := d.do(ctx, e, s)
	e.server.Inject(nil)
	if err != nil {
		if err := d.do(ctx, e, s); err != nil {
			t.Errorf("%s: the operation failed, and so it did again: %v", what, err)
		}
	}
	tokens, err := e.store().GetTokens(ctx)
	switch {
	case err != nil:
		t.Errorf("%s: GetTokens: %v", what, err)
	case d.access == "" && len(tokens) > 0, d.access != "" && len(tokens) != 1:
		t.Errorf("%s: there are %d records", what, len(tokens))
	case d.access != "":
		for _, like := range []tokenstore.Token{{UserName: "ann"}, {ID: tokens[0].ID}, {AccessToken: d.access}, {ClientID: "c1", RefreshToken: "1000.refresh"}} {
			if found, err := e.store().FindToken(ctx, like); err != nil || found.AccessToken != d.access {
				t.Errorf("%s: the record is found with the access token %q and error %v", what, string(found.AccessToken), err)
			}
		}
	}
	return calls.Load() > int64(n)
}
