package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/tokenkeep/tokenkeep/awssm"
	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/internal/fakeaws"
	"github.com/tokenkeep/tokenkeep/internal/zohoaccounts"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

const prefix = "oauth/crm"

// store opens the store as a role has it that may do what awssm.Policy says.
func store(t *testing.T, server *fakeaws.Server) *tokenstore.Store {
	t.Helper()
	if err := server.Policy("function", awssm.Policy("*", "*", prefix, nil)); err != nil {
		t.Fatal(err)
	}
	s, err := awssm.New(secretsmanager.New(secretsmanager.Options{
		Region: "eu-central-1", BaseEndpoint: &server.URL,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "function", SecretAccessKey: "x"}, nil
		}),
	}), prefix, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// zoho is an accounts server and a CRM with two leads.
func zoho() (s *zohoaccounts.Server, code tokenstore.Secret) {
	s = zohoaccounts.New(&zohoaccounts.Options{DataCenter: "eu"})
	s.AddClient(zohoaccounts.Client{ID: "1000.CLIENT", Secret: "secret"})
	s.Inject(func(r zohoaccounts.Request) *zohoaccounts.Fault {
		if r.Path == "/crm/v8/Leads" && s.Alive(strings.TrimPrefix(r.Header.Get("Authorization"), "Zoho-oauthtoken ")) {
			return &zohoaccounts.Fault{Status: 200, Body: `{"data":[{"id":"1"},{"id":"2"}]}`}
		}
		return nil
	})
	return s, tokenstore.Secret(s.Code(zohoaccounts.Consent{ClientID: "1000.CLIENT", Email: "ann@example.com", ZGID: "6001"}))
}

// invoke calls the handler as the runtime of Lambda does.
func invoke(t *testing.T, f *function) {
	t.Helper()
	answer, err := lambda.NewHandler(f.handle).Invoke(t.Context(), []byte(`{"module":"Leads"}`))
	if err != nil || string(answer) != `{"ids":["1","2"]}` {
		t.Fatalf("the function answers %s: %v", answer, err)
	}
}

func TestInstancesStartColdAndShareOneToken(t *testing.T) {
	t.Parallel()
	server := fakeaws.New(nil)
	t.Cleanup(server.Close)
	accounts, code := zoho()

	// What the README has the operator do.
	saved, err := store(t, server).SaveToken(t.Context(), tokenstore.Token{
		ClientID: "1000.CLIENT", ClientSecret: "secret", GrantToken: code,
	})
	if err != nil {
		t.Fatal(err)
	}
	instance := func() *function {
		return &function{config: initializer.Config{
			Environment: initializer.EU.Production(), Store: store(t, server),
			Token: tokenstore.Token{ID: saved.ID}, HTTPClient: accounts.Client(), FindUser: true,
		}}
	}
	first := instance()
	invoke(t, first)
	for range 3 {
		invoke(t, instance())
	}
	if n := accounts.Count(zohoaccounts.Exchange, zohoaccounts.Refresh); n != 1 {
		t.Errorf("four instances made %d requests for tokens", n)
	}

	before := len(server.Requests())
	invoke(t, first)
	if n := len(server.Requests()) - before; n != 0 {
		t.Errorf("a warm invocation made %d calls of Secrets Manager", n)
	}
	tokens, err := store(t, server).GetTokens(t.Context())
	if err != nil || len(tokens) != 1 || tokens[0].UserName != "ann@example.com:6001" || tokens[0].ExpiresAt.Before(time.Now()) {
		t.Errorf("the records are %+v: %v", tokens, err)
	}
}

func TestAFailedStartIsTriedAgain(t *testing.T) {
	t.Parallel()
	server := fakeaws.New(nil)
	t.Cleanup(server.Close)
	accounts, code := zoho()
	f := &function{config: initializer.Config{
		Environment: initializer.EU.Production(), Store: store(t, server),
		Token: tokenstore.Token{ID: "crm"}, HTTPClient: accounts.Client(),
	}}
	if _, err := f.handle(t.Context(), request{Module: "Leads"}); err == nil {
		t.Fatal("it works without a record")
	}
	if _, err := store(t, server).SaveToken(t.Context(), tokenstore.Token{ID: "crm", ClientID: "1000.CLIENT", ClientSecret: "secret", GrantToken: code}); err != nil {
		t.Fatal(err)
	}
	invoke(t, f)
}
