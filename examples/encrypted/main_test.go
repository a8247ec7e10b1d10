package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/tokenkeep/tokenkeep/awssm"
	"github.com/tokenkeep/tokenkeep/internal/fakeaws"
	"github.com/tokenkeep/tokenkeep/keys"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

func TestEncryptedStore(t *testing.T) {
	t.Parallel()
	server := fakeaws.New(nil)
	t.Cleanup(server.Close)
	env := map[string]string{"TOKEN_PREFIX": "oauth/crm", "TOKENKEEP_KEYS": string(keys.New().Encode())}
	store, err := open(func(name string) string { return env[name] }, client(t, server))
	if err != nil {
		t.Fatal(err)
	}
	ann := tokenstore.Token{UserName: "ann", ClientID: "client", RefreshToken: "refresh"}
	if _, err := store.SaveToken(t.Context(), ann); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := list(t.Context(), store, &out); err != nil || out.String() != "ann\n" {
		t.Errorf("it prints %q, %v", out.String(), err)
	}
	without, err := awssm.New(client(t, server), "oauth/crm", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := without.SaveToken(t.Context(), ann); !errors.Is(err, tokenstore.ErrWrongKeys) {
		t.Errorf("without the keys: %v, want ErrWrongKeys", err)
	}
	env["TOKENKEEP_KEYS"] = ""
	if _, err := open(func(name string) string { return env[name] }, client(t, server)); err == nil || !strings.Contains(err.Error(), "TOKENKEEP_KEYS") {
		t.Errorf("with no keys in the environment: %v", err)
	}
}

func client(t *testing.T, server *fakeaws.Server) *secretsmanager.Client {
	t.Helper()
	return secretsmanager.New(secretsmanager.Options{
		Region: "eu-west-1", BaseEndpoint: aws.String(server.URL),
		Credentials: credentials.NewStaticCredentialsProvider("id", "secret", ""),
	})
}
