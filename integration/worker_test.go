package integration

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// workerEnv is the environment variable that makes the test program carry out jobs instead of
// running tests.
const workerEnv = "TOKENKEEP_INTEGRATION_WORKER"

// A job describes the work of another process. The process answers with a result, as a line
// of JSON.
type job struct {
	Place  place
	Manner manner

	// Wait makes the process print a line when the process is ready, and wait for a line on
	// standard input before the process begins.
	Wait bool

	// Savers are the tokens that the process saves concurrently.
	Savers []plainToken

	// Refresh is the ID of a record to refresh. Stale is the expired access token of the record.
	Refresh, Stale string
	Accounts       string // URL of the accounts server that makes new access tokens

	// Code is a one-time code with which the process starts, without a stored token.
	Code string

	// Naive is the name of a box with an expired token, which the process refreshes without
	// coordination.
	Naive string
}

const (
	clientID     = "1000.CLIENT"
	clientSecret = "client-secret"
)

type result struct {
	Failed       string // the error if the job failed
	Code         string // error code from the accounts server, if the server refused the request
	ID, UserName string
	Access       string

	Requests            int
	Reads               []span
	Answered, Committed int64
}

// A plainToken is a token whose secrets are plain strings, because a tokenstore.Secret does
// not marshal its value.
type plainToken struct {
	UserName, ClientID, ClientSecret, RefreshToken, AccessToken, GrantToken, RedirectURL, APIDomain string
}

func (p plainToken) token() tokenstore.Token {
	return tokenstore.Token{
		UserName: p.UserName, ClientID: p.ClientID, ClientSecret: tokenstore.Secret(p.ClientSecret), RefreshToken: tokenstore.Secret(p.RefreshToken),
		AccessToken: tokenstore.Secret(p.AccessToken), GrantToken: tokenstore.Secret(p.GrantToken), RedirectURL: p.RedirectURL, APIDomain: p.APIDomain,
	}
}

// work carries out the jobs on standard input, one in each line, prints their results, and returns
// the exit code.
func work() int {
	fmt.Println("ready")
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	answers := json.NewEncoder(os.Stdout)
	for lines.Scan() {
		var j job
		var r result
		err := json.Unmarshal(lines.Bytes(), &j)
		if err == nil {
			r, err = j.do(context.Background(), func() {
				if j.Wait {
					fmt.Println("set")
					lines.Scan()
				}
			})
		}
		if err != nil {
			r.Failed = err.Error()
		}
		if refusal := (*tokenstore.RefreshError)(nil); errors.As(err, &refusal) {
			r.Code = refusal.Code
		}
		if answers.Encode(r) != nil {
			return 1
		}
	}
	return 0
}

// do opens the store of the job, calls begin, and then carries out the job.
func (j job) do(ctx context.Context, begin func()) (result, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	seen := &probe{death: j.Manner.Death}
	defer seen.close()
	if j.Naive != "" {
		return j.refreshNaively(ctx, seen, begin)
	}
	s, err := j.Place.openAs(ctx, j.Manner, seen)
	if err != nil {
		return result{}, err
	}
	begin()
	seen.arm()
	var t tokenstore.Token
	switch {
	case j.Refresh != "":
		t, err = s.Refresh(ctx, j.Refresh, tokenstore.Secret(j.Stale), func(ctx context.Context, t tokenstore.Token) (minted tokenstore.Token, err error) {
			seen.ask(func() { minted, err = j.mint(ctx, t) })
			return minted, err
		})
		if err == nil {
			seen.wrote() // for stores whose writes the probe has not observed earlier
		}
	case j.Code != "":
		t, err = j.start(ctx, s)
	default:
		err = j.save(ctx, s)
	}
	seen.mu.Lock()
	defer seen.mu.Unlock()
	return result{
		ID: t.ID, UserName: t.UserName, Access: string(t.AccessToken),
		Requests: seen.requests, Reads: seen.reads, Answered: seen.answered, Committed: seen.committed,
	}, err
}

func (j job) save(ctx context.Context, s store) error {
	errs := make([]error, len(j.Savers))
	var wg sync.WaitGroup
	for i, t := range j.Savers {
		wg.Go(func() { _, errs[i] = s.SaveToken(ctx, t.token()) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// start calls initializer.New, like a program that has a code but no stored token. start returns
// the token of the record.
func (j job) start(ctx context.Context, s store) (tokenstore.Token, error) {
	c, err := initializer.New(ctx, initializer.Config{
		Environment: initializer.Environment{AccountsURL: j.Accounts, APIURL: j.Accounts},
		Store:       s,
		FindUser:    true,
		Now:         j.Manner.now,
		Token:       tokenstore.Token{ClientID: clientID, ClientSecret: clientSecret, GrantToken: tokenstore.Secret(j.Code)},
	})
	if err != nil {
		return tokenstore.Token{}, err
	}
	defer c.Close()
	return c.Token(ctx)
}

// mint requests a new access token from the accounts server. If the server refuses the request,
// the error is a *tokenstore.RefreshError.
func (j job) mint(ctx context.Context, t tokenstore.Token) (tokenstore.Token, error) {
	form := url.Values{
		"grant_type": {"refresh_token"}, "client_id": {t.ClientID},
		"client_secret": {string(t.ClientSecret)}, "refresh_token": {string(t.RefreshToken)},
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, j.Accounts+tokenPath, strings.NewReader(form.Encode()))
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
		AccessToken  string `json:"access_token"`
		RefreshToken string `json:"refresh_token"`
		ExpiresIn    int    `json:"expires_in"`
		Error        string `json:"error"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return tokenstore.Token{}, errors.New("the answer cannot be read")
	}
	if answer.Error != "" {
		return tokenstore.Token{}, &tokenstore.RefreshError{Code: answer.Error, Permanent: answer.Error == "invalid_grant"}
	}
	return tokenstore.Token{
		AccessToken: tokenstore.Secret(answer.AccessToken), RefreshToken: tokenstore.Secret(answer.RefreshToken),
		ExpiresAt: j.Manner.now().Add(time.Duration(answer.ExpiresIn) * time.Second),
	}, nil
}

const tokenPath = "/oauth/v2/token"
