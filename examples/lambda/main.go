// Command lambda is an AWS Lambda function that reads a page of records from Zoho's CRM. The
// function keeps its OAuth token in AWS Secrets Manager. It needs neither a disk nor a VPC. If
// many instances find the token expired at the same time, one instance refreshes the token.
//
// README.md describes the setup.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"sync"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/tokenkeep/tokenkeep/awssm"
	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

func main() {
	aws, err := config.LoadDefaultConfig(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	f, err := newFunction(os.Getenv, secretsmanager.NewFromConfig(aws), nil)
	if err != nil {
		log.Fatal(err)
	}
	lambda.Start(f.handle)
}

// A function is one instance of the Lambda function. It keeps its Client, which holds the
// token, between invocations.
type function struct {
	config initializer.Config

	mu     sync.Mutex
	client *initializer.Client
}

// newFunction returns an instance with the settings in the environment variables that env
// returns. If client is nil, the instance uses the default HTTP client of package initializer.
func newFunction(env func(string) string, aws *secretsmanager.Client, client *http.Client) (*function, error) {
	if env("TOKEN_CLIENT") == "" {
		return nil, errors.New("TOKEN_CLIENT is not set")
	}
	store, err := awssm.New(aws, env("TOKEN_PREFIX"), nil)
	if err != nil {
		return nil, err
	}
	return &function{config: initializer.Config{
		Environment: initializer.DataCenter(env("ZOHO_DATA_CENTER")).Production(),
		// A look-up by user and client reads the record by its name. A look-up by user
		// alone is a search, and a search may miss a new record for minutes.
		Token:      tokenstore.Token{UserName: env("TOKEN_USER"), ClientID: env("TOKEN_CLIENT")},
		Store:      store,
		HTTPClient: client,
		Logger:     slog.New(slog.NewJSONHandler(os.Stderr, nil)),
	}}, nil
}

// open returns the Client of the instance, and creates the Client if there is none. After a
// failure, the next call of open tries again.
func (f *function) open(ctx context.Context) (*initializer.Client, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.client != nil {
		return f.client, nil
	}
	c, err := initializer.New(ctx, f.config)
	f.client = c
	if c != nil {
		return c, nil // err, if any, matches ErrNotPersisted: the Client works and stores its token later
	}
	return nil, err
}

type request struct {
	Module string `json:"module"` // for example "Leads"
}

type response struct {
	IDs []string `json:"ids"`
}

func (f *function) handle(ctx context.Context, r request) (response, error) {
	client, err := f.open(ctx)
	if err != nil {
		return response{}, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "/crm/v8/"+url.PathEscape(r.Module)+"?fields=id", nil)
	if err != nil {
		return response{}, err
	}
	res, err := client.HTTPClient(ctx).Do(req)
	if err != nil {
		return response{}, err
	}
	defer func() { _ = res.Body.Close() }()
	var page struct {
		Data []struct {
			ID string `json:"id"`
		} `json:"data"`
	}
	switch {
	case res.StatusCode == http.StatusNoContent: // the module is empty
		return response{}, nil
	case res.StatusCode != http.StatusOK:
		return response{}, fmt.Errorf("the CRM answered with status %d", res.StatusCode)
	}
	if err := json.NewDecoder(res.Body).Decode(&page); err != nil {
		return response{}, fmt.Errorf("the CRM's answer: %w", err)
	}
	var answer response
	for _, record := range page.Data {
		answer.IDs = append(answer.IDs, record.ID)
	}
	return answer, nil
}
