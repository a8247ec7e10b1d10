package integration

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/tokenkeep/tokenkeep/awssm"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/sqlstore"
	"github.com/tokenkeep/tokenkeep/vaultstore"
)

// workerEnv is set in processes that tests start of their own program.
const workerEnv = "TOKENKEEP_INTEGRATION_WORKER"

// A place is where a store keeps its records. It goes to other processes on their
// standard input: it holds credentials.
type place struct {
	Backend string // as TOKENKEEP_REQUIRE calls it
	Addr    string // of Vault, or the endpoint of Secrets Manager
	Token   string // for Vault
	Mount   string // for Vault
	Prefix  string // for Vault and Secrets Manager
	DSN     string // for MySQL
}

// A store is all that the tests ask of a store.
type store interface {
	tokenstore.TokenStore
	tokenstore.Refresher
}

// open opens a store that shares nothing with others.
func (p place) open(ctx context.Context) (store, error) {
	switch p.Backend {
	case VaultBackend.Name:
		config := api.DefaultConfig()
		config.Address, config.AgentAddress = p.Addr, ""
		client, err := api.NewClient(config)
		if err != nil {
			return nil, err
		}
		client.SetToken(p.Token)
		return vaultstore.New(client, p.Mount, p.Prefix, nil)
	case LocalstackBackend.Name:
		client, err := awsClient(ctx, p.Addr)
		if err != nil {
			return nil, err
		}
		return awssm.New(client, p.Prefix, nil)
	case MySQLBackend.Name:
		db, err := sql.Open("mysql", p.DSN)
		if err != nil {
			return nil, err
		}
		db.SetMaxIdleConns(16)
		return sqlstore.New(ctx, db, sqlstore.MySQL, nil)
	default:
		return nil, fmt.Errorf("no backend %q", p.Backend)
	}
}

// A job is what another process is to do. It answers with a line: "ok", or what
// went wrong.
type job struct {
	Place place

	// Savers are the tokens that are saved at the same time.
	Savers []plainToken

	// Refresh is the ID of a record whose access token Stale has expired. The
	// answer is "ok" and the new one.
	Refresh, Stale string
	Accounts       string // where new ones are made
}

// A plainToken is a token with its secrets in the clear.
type plainToken struct {
	UserName, ClientID, ClientSecret, RefreshToken, AccessToken, GrantToken, RedirectURL, APIDomain string
}

func (p plainToken) token() tokenstore.Token {
	return tokenstore.Token{
		UserName: p.UserName, ClientID: p.ClientID, ClientSecret: tokenstore.Secret(p.ClientSecret), RefreshToken: tokenstore.Secret(p.RefreshToken),
		AccessToken: tokenstore.Secret(p.AccessToken), GrantToken: tokenstore.Secret(p.GrantToken), RedirectURL: p.RedirectURL, APIDomain: p.APIDomain,
	}
}

// work does the jobs on its standard input, one a line.
func work() int {
	fmt.Println("ready")
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var j job
		err := json.Unmarshal(lines.Bytes(), &j)
		answer := "ok"
		if err == nil {
			answer, err = j.do(context.Background())
		}
		if err != nil {
			answer = "failed: " + strings.ReplaceAll(err.Error(), "\n", " ")
		}
		fmt.Println(answer)
	}
	return 0
}

func (j job) do(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	s, err := j.Place.open(ctx)
	if err != nil {
		return "", err
	}
	if j.Refresh != "" {
		t, err := s.Refresh(ctx, j.Refresh, tokenstore.Secret(j.Stale), j.mint)
		return "ok " + string(t.AccessToken), err
	}
	errs := make([]error, len(j.Savers))
	var wg sync.WaitGroup
	for i, t := range j.Savers {
		wg.Go(func() { _, errs[i] = s.SaveToken(ctx, t.token()) })
	}
	wg.Wait()
	return "ok", errors.Join(errs...)
}

// mint asks the accounts server for a new access token.
func (j job) mint(ctx context.Context, t tokenstore.Token) (tokenstore.Token, error) {
	form := url.Values{
		"grant_type": {"refresh_token"}, "client_id": {t.ClientID},
		"client_secret": {string(t.ClientSecret)}, "refresh_token": {string(t.RefreshToken)},
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, j.Accounts+"/oauth/v2/token", strings.NewReader(form.Encode()))
	if err != nil {
		return tokenstore.Token{}, err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return tokenstore.Token{}, err
	}
	defer resp.Body.Close()
	var answer struct {
		AccessToken string `json:"access_token"`
		ExpiresIn   int    `json:"expires_in"`
		Error       string `json:"error"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return tokenstore.Token{}, errors.New("the answer cannot be read")
	}
	if answer.Error != "" {
		return tokenstore.Token{}, &tokenstore.RefreshError{Code: answer.Error}
	}
	return tokenstore.Token{
		AccessToken: tokenstore.Secret(answer.AccessToken),
		ExpiresAt:   time.Now().Add(time.Duration(answer.ExpiresIn) * time.Second),
	}, nil
}
