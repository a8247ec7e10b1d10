package vaultstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// A vault makes calls with the caller's client and a token that is valid.
type vault struct {
	client *api.Client
	auth   api.AuthMethod // nil: the client's token is the only one
	now    func() time.Time
	turn   chan struct{} // holds one login at a time

	// forward says that standby nodes may answer, and that Vault has not refused
	// yet to send requests on that ask for it.
	forward atomic.Bool

	// blind says that tokens cannot look themselves up.
	blind atomic.Bool

	mu       sync.Mutex
	own      string    // the token of the last login; "": none yet
	itself   bool      // own may look itself up: it has the policy "default"
	since    time.Time // when own was got
	instead  string    // the client's token that own replaces
	expires  time.Time // when own does; zero: not known
	attempts int       // logins that failed
	failure  error     // of the last login
	pause    time.Time // when one may be tried again
}

// loginPause is how long a login that was refused is not tried again. Without it
// every call would try, and Vault locks users out for that.
const loginPause = 5 * time.Second

// tokenPause is how long a token of a login is believed in that the server refuses
// without saying whether it is the token or what the token may do. A new login would
// help only in the first case.
const tokenPause = 30 * time.Second

func newVault(client *api.Client, auth api.AuthMethod, standbys bool) *vault {
	v := &vault{client: client, auth: auth, now: time.Now, turn: make(chan struct{}, 1)}
	v.forward.Store(standbys)
	return v
}

// A request is one call.
type request struct {
	method string
	path   string // without "/v1/"
	query  url.Values
	body   any    // sent as JSON, if it is not nil
	secret []byte // what is in body that no error may repeat
	active bool   // the active node is to answer, and not a standby
}

// do makes a call and decodes the answer into out, if out is not nil. If Vault
// says that the token is not valid any more, do logs in and makes the call once
// more.
func (v *vault) do(ctx context.Context, q request, out any) error {
	token, err := v.token(ctx)
	if err != nil {
		return err
	}
	err = v.send(ctx, token, q, out)
	switch {
	case !errors.Is(err, driver.ErrDenied):
		return err
	case v.auth == nil && token == "":
		return fmt.Errorf("%w: no token: set VAULT_TOKEN or log in: %w", errCredentials, unclassed(err))
	case v.auth == nil:
		return err
	}
	if dead, lookup := v.dead(ctx, token, err); lookup != nil {
		return lookup
	} else if !dead {
		return err
	}
	if token, err = v.login(ctx, token); err != nil {
		return err
	}
	if err = v.send(ctx, token, q, out); errors.Is(err, driver.ErrDenied) && errors.Is(v.lookUp(ctx, token), driver.ErrDenied) {
		// Not even a new token may look itself up, whatever its policies are called.
		v.blind.Store(true)
	}
	return err
}

// lookUp asks what the token is, which the policy "default" allows.
func (v *vault) lookUp(ctx context.Context, token string) error {
	return v.send(ctx, token, request{method: http.MethodGet, path: "auth/token/lookup-self"}, nil)
}

// send makes a call with a token. Vault fails a request that asks to be sent on,
// unless its configuration allows that; send does not ask again then.
func (v *vault) send(ctx context.Context, token string, q request, out any) error {
	q.active = q.active && v.forward.Load()
	err := v.sendOnce(ctx, token, q, out)
	if q.active && says(err, textNoForward) {
		v.forward.Store(false)
		q.active = false
		err = v.sendOnce(ctx, token, q, out)
	}
	return err
}

func (v *vault) sendOnce(ctx context.Context, token string, q request, out any) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	// The client puts its time-out on the context and leaves that to run out.
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	r := v.client.NewRequest(q.method, "/v1/"+q.path)
	r.ClientToken = token
	r.WrapTTL = "" // VAULT_WRAP_TTL is meant for people
	if q.query != nil {
		r.Params = q.query
	}
	if r.Headers == nil {
		r.Headers = http.Header{}
	}
	if q.active {
		r.Headers.Set(api.HeaderForward, "active-node")
	}
	if q.body != nil {
		if err := r.SetJSONBody(q.body); err != nil {
			return errors.New("the request cannot be encoded") // the cause quotes it
		}
	}
	//nolint:staticcheck // Of what is left, nothing takes a token for one call and shows the body of a 404.
	answer, err := v.client.RawRequestWithContext(inner, r)
	if answer != nil && answer.Body != nil {
		defer func() { _ = answer.Body.Close() }()
	}
	if err != nil {
		if answer != nil && answer.StatusCode == http.StatusNotFound && out != nil {
			_ = json.NewDecoder(answer.Body).Decode(out) // a deleted version has a body
		}
		return failed(ctx, err, q.secret)
	}
	if answer.StatusCode >= http.StatusMultipleChoices {
		return fmt.Errorf("%w: %s /v1/%s: redirected too often", driver.ErrUnavailable, q.method, q.path)
	}
	body, err := io.ReadAll(answer.Body)
	switch {
	case err != nil:
		return failed(ctx, fmt.Errorf("read the answer: %w", err), q.secret)
	case out == nil || len(body) == 0:
		return nil
	case json.Unmarshal(body, out) != nil: // the cause quotes the answer
		return fmt.Errorf("%w: %s /v1/%s: the answer is not Vault's", driver.ErrUnavailable, q.method, q.path)
	}
	return nil
}

// token returns the token to make a call with. It logs in if there is none.
func (v *vault) token(ctx context.Context) (string, error) {
	if t := v.current(); t != "" || v.auth == nil {
		return t, nil
	}
	return v.login(ctx, "")
}

// current returns the client's token, or the one that has replaced it.
func (v *vault) current() string {
	t := v.client.Token()
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.own != "" && v.instead == t {
		return v.own
	}
	return t
}

// unclassed returns the answer of Vault that an error is about.
func unclassed(err error) error {
	if cause := (*refusal)(nil); errors.As(err, &cause) {
		return cause
	}
	return err
}

// dead reports whether a call was denied because of the token itself, and not
// because of what the token may do. Vault since 1.17 says so; others, and OpenBao,
// are asked whether they know the token.
func (v *vault) dead(ctx context.Context, token string, denied error) (bool, error) {
	if v.current() != token || says(denied, textBadToken) || says(denied, textNoToken) {
		return true, nil
	}
	err := v.lookUp(ctx, token)
	switch {
	case err == nil:
		return false, nil
	case !errors.Is(err, driver.ErrDenied):
		return false, fmt.Errorf("look up the token: %w", err)
	case says(err, textBadToken):
		return true, nil
	}
	// A token without the policy "default" cannot look itself up, and one that is
	// not valid can neither. If the login did not give it that policy, a token is
	// believed in for a while, or a policy that lacks something would make each call
	// log in.
	v.mu.Lock()
	defer v.mu.Unlock()
	now := v.now()
	return token != v.own || v.itself && !v.blind.Load() || !v.expires.IsZero() && !now.Before(v.expires) || now.Sub(v.since) >= tokenPause, nil
}

// login returns a token in place of a dead one: a new one, or the one that
// somebody else has got meanwhile.
func (v *vault) login(ctx context.Context, dead string) (string, error) {
	v.mu.Lock()
	attempts := v.attempts
	v.mu.Unlock()
	select {
	case v.turn <- struct{}{}:
		defer func() { <-v.turn }()
	case <-ctx.Done():
		return "", ctx.Err()
	}
	if t := v.current(); t != dead {
		return t, nil
	}
	v.mu.Lock()
	err := v.failure
	if v.attempts == attempts && !v.now().Before(v.pause) {
		err = nil // nobody has tried while we waited, or just before
	}
	v.mu.Unlock()
	if err != nil {
		return "", err
	}
	instead := v.client.Token()
	s, err := v.authenticate(ctx)
	if err != nil && ctx.Err() != nil {
		return "", err // says nothing about the login
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.failure, v.pause = err, time.Time{}
	if err != nil {
		v.attempts++
		if errors.Is(err, driver.ErrDenied) {
			v.pause = v.now().Add(loginPause)
		}
		return "", err
	}
	v.own, v.instead, v.expires, v.since = s.ClientToken, instead, time.Time{}, v.now()
	v.itself = slices.Contains(s.TokenPolicies, "default") || slices.Contains(s.Policies, "default")
	if s.LeaseDuration > 0 {
		v.expires = v.now().Add(time.Duration(s.LeaseDuration) * time.Second)
	}
	return v.own, nil
}

// authenticate runs the auth method on a copy of the client, which it may change.
func (v *vault) authenticate(ctx context.Context) (*api.SecretAuth, error) {
	client, err := v.client.CloneWithHeaders()
	if err != nil {
		return nil, fmt.Errorf("log in: %w", err)
	}
	client.ClearToken()
	s, err := v.auth.Login(ctx, client)
	if err != nil {
		err = fmt.Errorf("log in: %w", failed(ctx, err, nil))
		var answer *api.ResponseError
		if errors.As(err, &answer) && answer.StatusCode == http.StatusBadRequest {
			err = fmt.Errorf("%w: log in: %w", errCredentials, unclassed(err)) // how Vault refuses a wrong secret ID
		} else if errors.Is(err, driver.ErrDenied) && !errors.Is(err, driver.ErrCredentials) {
			err = fmt.Errorf("%w: log in: %w", errCredentials, unclassed(err))
		}
		return nil, err
	}
	if s == nil || s.Auth == nil || s.Auth.ClientToken == "" {
		return nil, fmt.Errorf("%w: log in: the answer has no token", errCredentials)
	}
	return s.Auth, nil
}

// counting returns a context under which n counts how often a request is sent.
// One call may send several: the client repeats what failed.
func counting(ctx context.Context) (_ context.Context, n *atomic.Int64) {
	n = new(atomic.Int64)
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { n.Add(1) },
	}), n
}
