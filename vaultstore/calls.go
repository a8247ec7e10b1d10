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
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/driverkit"
)

// A vault makes calls with the caller's client. If the token is missing or invalid and auth is not
// nil, the vault logs in.
type vault struct {
	client *api.Client
	auth   api.AuthMethod // nil if only the client's own token is used
	now    func() time.Time
	turn   chan struct{} // held during a login

	// forward reports whether standby nodes may answer and Vault has not yet refused to
	// forward requests.
	forward atomic.Bool

	// blind reports whether Vault has refused to let a new token look itself up.
	blind atomic.Bool

	mu       sync.Mutex
	own      string    // token of the last login; empty if there was none
	itself   bool      // whether the token own has the policy "default" and may therefore look itself up
	since    time.Time // when the token own was obtained
	instead  string    // the client's token that the token own replaces
	expires  time.Time // when the token own expires; zero if unknown
	attempts int       // number of failed logins
	failure  error     // error of the last login; nil if the login succeeded
	pause    time.Time // when a refused login may be retried
}

// loginPause is the time for which a refused login is not retried. Without the pause, each
// call would log in again, and Vault might lock the user out.
const loginPause = 5 * time.Second

// tokenPause is the time for which a token from a login counts as valid even though the server
// denies calls. tokenPause applies if the responses do not distinguish an invalid token from a
// missing permission. A new login helps only if the token is invalid.
const tokenPause = 30 * time.Second

func newVault(client *api.Client, auth api.AuthMethod, standbys bool) *vault {
	v := &vault{client: client, auth: auth, now: time.Now, turn: make(chan struct{}, 1)}
	v.forward.Store(standbys)
	return v
}

type request struct {
	method string
	path   string // without "/v1/"
	query  url.Values
	body   any    // sent as JSON unless nil
	secret []byte // the part of body that errors must not quote
	active bool   // whether to request a response from the active node

	// applied counts the requests that Vault may have applied, unless applied is nil. The client
	// repeats failed requests, so one call can send several requests. applied excludes requests
	// that Vault has denied, for example because of an expired token.
	applied *atomic.Int64
}

// do makes a call, and decodes the response into out unless out is nil. If the token is invalid, do
// logs in with the auth method, if any, and repeats the call.
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
	if invalid, lookup := v.invalid(ctx, token, err); lookup != nil {
		return lookup
	} else if !invalid {
		return err
	}
	if token, err = v.login(ctx, token); err != nil {
		return err
	}
	if err = v.send(ctx, token, q, out); errors.Is(err, driver.ErrDenied) && errors.Is(v.lookUp(ctx, token), driver.ErrDenied) {
		// Vault denies the look-up even to a new token. An operator may have changed the policy
		// "default".
		v.blind.Store(true)
	}
	return err
}

// lookUp makes the call by which a token looks itself up. The policy "default" allows the
// call.
func (v *vault) lookUp(ctx context.Context, token string) error {
	return v.send(ctx, token, request{method: http.MethodGet, path: "auth/token/lookup-self"}, nil)
}

// send makes a call with a token. If Vault's configuration does not allow forwarding, Vault
// refuses a request for the active node. send then repeats the request without the header
// X-Vault-Forward, and omits that header from all later requests.
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

// sendOnce makes a call once, and decodes the response into out unless out is nil.
func (v *vault) sendOnce(ctx context.Context, token string, q request, out any) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r, err := v.request(token, q)
	if err != nil {
		return err
	}
	// The client never cancels the context that it derives for its timeout. The cancellation of
	// inner releases that context.
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	answer, err := v.counted(inner, r, q.applied)
	if answer != nil && answer.Body != nil {
		defer func() { _ = answer.Body.Close() }()
	}
	if err != nil {
		if answer != nil && answer.StatusCode == http.StatusNotFound && out != nil {
			_ = json.NewDecoder(answer.Body).Decode(out) // the response for a deleted version has a body
		}
		return callError(ctx, err, q.secret)
	}
	if answer.StatusCode >= http.StatusMultipleChoices {
		return fmt.Errorf("%w: %s /v1/%s: redirected too often", driver.ErrUnavailable, q.method, q.path)
	}
	body, err := io.ReadAll(answer.Body)
	switch {
	case err != nil:
		return callError(ctx, fmt.Errorf("read the answer: %w", err), q.secret)
	case out == nil || len(body) == 0:
		return nil
	case json.Unmarshal(body, out) != nil: // the cause would quote the response
		return fmt.Errorf("%w: %s /v1/%s: the answer is not Vault's", driver.ErrUnavailable, q.method, q.path)
	}
	return nil
}

// counted sends r. Unless the parameter applied is nil, counted adds to it the number of requests
// that Vault may have applied. A node applies no request that it denies or redirects to another
// node.
func (v *vault) counted(ctx context.Context, r *api.Request, applied *atomic.Int64) (*api.Response, error) {
	var sent atomic.Int64
	if applied != nil {
		ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { sent.Add(1) }})
	}
	address := r.URL
	//nolint:staticcheck // No other method takes a token for one call and returns the body of a 404.
	answer, err := v.client.RawRequestWithContext(ctx, r)
	if applied == nil {
		return answer, err
	}
	if r.URL != address { // the client has followed a redirect
		sent.Add(-1)
	}
	if answer != nil && answer.StatusCode == http.StatusForbidden {
		sent.Add(-1)
	}
	applied.Add(sent.Load())
	return answer, err
}

func (v *vault) request(token string, q request) (*api.Request, error) {
	r := v.client.NewRequest(q.method, "/v1/"+q.path)
	r.ClientToken = token
	r.WrapTTL = "" // with VAULT_WRAP_TTL, Vault would wrap the response
	if q.query != nil {
		r.Params = q.query
	}
	if r.Headers == nil {
		r.Headers = http.Header{}
	}
	if q.active {
		r.Headers.Set(api.HeaderForward, "active-node")
	}
	if q.body != nil && r.SetJSONBody(q.body) != nil {
		return nil, errors.New("the request cannot be encoded") // the cause would quote the body
	}
	return r, nil
}

// token returns the token for a call, and logs in if necessary. The token may be empty if
// there is no auth method.
func (v *vault) token(ctx context.Context) (string, error) {
	if t := v.current(); t != "" || v.auth == nil {
		return t, nil
	}
	return v.login(ctx, "")
}

// current returns the token of the last login if that login replaced the client's token, and
// otherwise the client's token.
func (v *vault) current() string {
	t := v.client.Token()
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.own != "" && v.instead == t {
		return v.own
	}
	return t
}

// invalid reports whether a call was denied because the token itself is invalid, and not because a
// permission is missing. Vault 1.17 and later say in the response that a token is invalid. After
// any other response, the method makes the token look itself up, unless a login has already
// replaced the token.
func (v *vault) invalid(ctx context.Context, token string, denied error) (bool, error) {
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
	// Neither a token without the policy "default" nor an invalid token can look itself up.
	// If the login did not grant that policy, the token counts as valid for tokenPause. Without
	// tokenPause, each call that lacks a permission would log in.
	v.mu.Lock()
	defer v.mu.Unlock()
	now := v.now()
	return token != v.own || v.itself && !v.blind.Load() || !v.expires.IsZero() && !now.Before(v.expires) || now.Sub(v.since) >= tokenPause, nil
}

// login returns a replacement for an invalid token: a new token, or the token that another
// call has obtained in the meantime.
func (v *vault) login(ctx context.Context, invalid string) (string, error) {
	v.mu.Lock()
	attempts := v.attempts
	v.mu.Unlock()
	select {
	case v.turn <- struct{}{}:
		defer func() { <-v.turn }()
	case <-ctx.Done():
		return "", ctx.Err()
	}
	if t := v.current(); t != invalid {
		return t, nil
	}
	v.mu.Lock()
	err := v.failure
	if v.attempts == attempts && !v.now().Before(v.pause) {
		err = nil // no login has failed while this call waited, and none was refused within loginPause
	}
	v.mu.Unlock()
	if err != nil {
		return "", err
	}
	instead := v.client.Token()
	s, err := v.authenticate(ctx)
	if err != nil && ctx.Err() != nil {
		return "", err // ctx is done, and other callers must not get that error
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

// authenticate runs the auth method on a copy of the client. The method may modify the
// copy.
func (v *vault) authenticate(ctx context.Context) (*api.SecretAuth, error) {
	client, err := v.client.CloneWithHeaders()
	if err != nil {
		return nil, fmt.Errorf("log in: %w", err)
	}
	client.ClearToken()
	s, err := v.auth.Login(ctx, client)
	if err != nil {
		err = fmt.Errorf("log in: %w", callError(ctx, err, nil))
		var answer *api.ResponseError
		if errors.As(err, &answer) && answer.StatusCode == http.StatusBadRequest {
			err = fmt.Errorf("%w: log in: %w", errCredentials, unclassed(err)) // Vault sends 400 for a wrong secret ID
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

// do is like vault.do. If no engine is mounted at s.mount, the error matches errNoEngine.
func (s *secrets) do(ctx context.Context, q request, out any) error {
	err := s.vault.do(ctx, q, out)
	if cause := (*refusal)(nil); says(err, textNoRoute) && strings.HasPrefix(q.path, s.mount+"/") && errors.As(err, &cause) {
		return fmt.Errorf("%w at %q: %w", errNoEngine, s.mount, cause)
	}
	return err
}

// An engine records what the driver has found out about the secrets engine at a mount. KV version 1
// answers reads and lists as an empty engine of version 2 does, and stores any write unchanged. The
// driver therefore writes records only after a response has shown the version. Before such a
// response, the driver reports that a record does not exist only if the token's permissions hide
// the version.
type engine struct {
	turn   chan struct{}          // held during an inspection
	proved atomic.Pointer[string] // the result of s.where() for the server whose engine is KV version 2
	hidden atomic.Bool            // whether the token may read neither the mount nor its configuration
}

// where returns the namespace and the address of the client, which identify the server of an
// engine. The caller may change the namespace and the address of the client at any time.
func (s *secrets) where() string { return s.client.Namespace() + " " + s.client.Address() }

// prove records that the engine of a server is KV version 2. The parameter where identifies the
// server.
func (s *secrets) prove(where string) {
	if !s.proved() {
		s.engine.proved.Store(&where)
	}
}

func (s *secrets) proved() bool {
	where := s.engine.proved.Load()
	return where != nil && *where == s.where()
}

// reads returns nil if the engine is KV version 2, or if the token's permissions hide the version.
// If the engine is not KV version 2, the error matches errNotKV2 or errNoEngine. Any other error
// means that a call failed.
func (s *secrets) reads(ctx context.Context) error {
	if s.proved() || s.engine.hidden.Load() {
		return nil
	}
	return s.identify(ctx, false)
}

// writes is like reads, but returns nil only if the engine is KV version 2. If no read shows the
// version, the method makes a conditional write.
func (s *secrets) writes(ctx context.Context) error {
	if s.proved() {
		return nil
	}
	return s.identify(ctx, true)
}

func (s *secrets) identify(ctx context.Context, write bool) error {
	select {
	case s.engine.turn <- struct{}{}:
		defer func() { <-s.engine.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if s.proved() {
		return nil
	}
	where := s.where()
	for _, look := range []func(context.Context) error{s.mounted, s.configured} {
		switch err := look(ctx); {
		case err == nil:
			s.prove(where)
			return nil
		case !errors.Is(err, errHidden):
			return err
		}
	}
	if !write {
		s.engine.hidden.Store(true)
		return nil
	}
	err := s.compares(ctx)
	if err == nil {
		s.prove(where)
	}
	return err
}

// mounted asks the server which engine is mounted, as "vault kv" does, and returns nil for KV
// version 2. A token may make this call if a policy of the token names a path in the mount. The
// error is errHidden if the response does not show the engine, and matches errNotKV2 or
// errNoEngine if the response shows another engine.
func (s *secrets) mounted(ctx context.Context) error {
	var answer struct {
		Data struct {
			Path    string            `json:"path"`
			Type    string            `json:"type"`
			Options map[string]string `json:"options"`
		} `json:"data"`
	}
	err := s.do(ctx, request{method: http.MethodGet, path: "sys/internal/ui/mounts/" + s.mount}, &answer)
	switch at := strings.Trim(answer.Data.Path, "/"); {
	case err != nil:
		return hidden(err)
	case answer.Data.Type == "":
		return errHidden
	case at != s.mount:
		return fmt.Errorf("%w at %q: that path is in the engine at %q", errNoEngine, s.mount, at)
	case answer.Data.Type == "kv" && answer.Data.Options["version"] == "2":
		return nil
	case answer.Data.Type == "kv" || answer.Data.Type == "generic":
		return fmt.Errorf("mount %q: %w: it is KV version 1; 'vault kv enable-versioning %s' makes it version 2", s.mount, errNotKV2, s.mount)
	}
	return fmt.Errorf("mount %q: %w: it is of the type %q", s.mount, errNotKV2, answer.Data.Type)
}

// configured reads the configuration of the engine, and returns nil if the configuration is
// that of KV version 2. An engine of version 1 has no configuration. The error is errHidden if
// the token may not read the configuration.
func (s *secrets) configured(ctx context.Context) error {
	var answer struct {
		Data map[string]json.RawMessage `json:"data"`
	}
	err := s.do(ctx, request{method: http.MethodGet, path: s.mount + "/config"}, &answer)
	switch {
	case errors.Is(err, driver.ErrNotFound):
		return fmt.Errorf("mount %q: %w: it has no configuration", s.mount, errNotKV2)
	case err != nil && !wrongEngine(err):
		return hidden(err)
	case err != nil:
		return err
	}
	for _, setting := range []string{"max_versions", "cas_required"} {
		if answer.Data[setting] == nil {
			return fmt.Errorf("mount %q: %w: its configuration has no %s", s.mount, errNotKV2, setting)
		}
	}
	return nil
}

// compares returns nil if the server refuses a conditional write over a version that does not
// exist, as KV version 2 does. The data of that write is not a record. If the server accepts
// the write, the error matches errNotKV2.
func (s *secrets) compares(ctx context.Context) error {
	_, err := s.put(ctx, probeName, never, field{fieldDeleted, "a look at the mount"}, nil)
	switch {
	case errors.Is(err, driver.ErrConflict):
		return nil
	case err != nil && !errors.Is(err, errNotKV2):
		return err
	case err == nil:
		err = errNotKV2
	}
	// An engine of version 1 may have stored the write.
	_ = s.do(ctx, request{method: http.MethodDelete, path: s.data(probeName)}, nil)
	return fmt.Errorf("mount %q: %w: it does not compare versions", s.mount, err)
}

// metadata is Vault's description of a version.
type metadata struct {
	Version     int    `json:"version"`
	CreatedTime string `json:"created_time"`
}

// read returns the state of a version of a secret, or of the newest version if number is 0. If
// the version does not exist or is not a record, the err field of the state says why. If active
// is true, read requests the active node.
func (s *secrets) read(ctx context.Context, name string, number int, active bool) (state, error) {
	q := request{method: http.MethodGet, path: s.data(name), active: active}
	if number > 0 {
		q.query = url.Values{"version": {strconv.Itoa(number)}}
	}
	var answer struct {
		Data struct {
			Data     map[string]json.RawMessage `json:"data"`
			Metadata metadata                   `json:"metadata"`
		} `json:"data"`
	}
	where := s.where()
	err := s.do(ctx, q, &answer)
	if err != nil && !errors.Is(err, driver.ErrNotFound) {
		return state{}, err
	}
	m := answer.Data.Metadata
	st := state{number: m.Version, version: version(m.Version, m.CreatedTime)}
	st.created, _ = time.Parse(time.RFC3339Nano, m.CreatedTime)
	switch {
	case err != nil && m.Version < 1:
		// The version does not exist, or the engine is not KV version 2.
		if wrong := s.reads(ctx); wrong != nil {
			return state{}, wrong
		}
		st.err = err
		return st, nil
	case m.Version < 1:
		return state{}, fmt.Errorf("%s: %w", s.data(name), errNotKV2)
	}
	s.prove(where)
	if err != nil {
		st.err = err
		return st, nil
	}
	if st.decode(answer.Data.Data); st.data == nil {
		st.err = fmt.Errorf("%w: %s", driver.ErrCorrupt, s.data(name))
	}
	if st.tombstone != "" {
		st.err = fmt.Errorf("%w: %s was deleted", driver.ErrNotFound, s.data(name))
	}
	return st, nil
}

// write stores f as the version after number. The error matches ErrConflict if number is not
// the newest version.
func (s *secrets) write(ctx context.Context, name string, number int, f field) (driver.Version, error) {
	v, _, err := s.commit(ctx, name, number, f)
	return v, err
}

// commit is like write, but also returns the number of write requests that Vault may have applied.
// The client repeats failed requests, so this count can be more than 1.
func (s *secrets) commit(ctx context.Context, name string, number int, f field) (v driver.Version, applied int64, err error) {
	if err := s.writes(ctx); err != nil {
		return "", 0, err
	}
	var count atomic.Int64
	v, err = s.put(ctx, name, number, f, &count)
	return v, count.Load(), err
}

// put is like write, but does not check the version of the engine first. Unless the parameter
// applied is nil, put adds to it the number of requests that Vault may have applied.
func (s *secrets) put(ctx context.Context, name string, number int, f field, applied *atomic.Int64) (driver.Version, error) {
	var answer struct {
		Data metadata `json:"data"`
	}
	err := s.do(ctx, request{
		method: http.MethodPut, path: s.data(name), secret: []byte(f.value), applied: applied,
		body: map[string]any{"data": map[string]string{f.name: f.value}, "options": map[string]int{"cas": number}},
	}, &answer)
	switch {
	case errors.Is(err, driver.ErrNotFound):
		return "", fmt.Errorf("%w: %v", errNotKV2, err)
	case err != nil:
		return "", err
	case answer.Data.Version < 1:
		return "", fmt.Errorf("%s: %w", s.data(name), errNotKV2)
	case answer.Data.Version != number+1:
		return "", fmt.Errorf("%s: %w: it has made version %d of version %d", s.data(name), errNotKV2, answer.Data.Version, number)
	}
	return version(answer.Data.Version, answer.Data.CreatedTime), nil
}

// attach adds an index entry of the named secret for each label.
func (s *secrets) attach(ctx context.Context, name string, labels []driver.Label) error {
	return driverkit.Each(ctx, labels, func(ctx context.Context, l driver.Label) error {
		err := s.do(ctx, request{
			method: http.MethodPost, path: s.entry(name, l),
			body: map[string]any{"custom_metadata": map[string]string{"name": name}},
		}, nil)
		if errors.Is(err, driver.ErrNotFound) {
			return fmt.Errorf("%w: %v", errNotKV2, err)
		}
		return err
	})
}

// detach removes an index entry. If the entry does not exist, detach returns nil.
func (s *secrets) detach(ctx context.Context, name string, l driver.Label) error {
	err := s.do(ctx, request{method: http.MethodDelete, path: s.entry(name, l)}, nil)
	if errors.Is(err, driver.ErrNotFound) {
		return nil
	}
	return err
}

// versions is Vault's description of all versions of a secret.
type versions struct {
	Current  int `json:"current_version"`
	Versions map[int]struct {
		Created   string `json:"created_time"`
		Deleted   string `json:"deletion_time"`
		Destroyed bool   `json:"destroyed"`
	} `json:"versions"`
}

// kept returns the numbers of the versions that are not destroyed, in ascending order. The
// parameter before is an exclusive upper bound for the numbers.
func (v versions) kept(before int) []int {
	var kept []int
	for n, at := range v.Versions {
		if n < before && !at.Destroyed {
			kept = append(kept, n)
		}
	}
	slices.Sort(kept)
	return kept
}

func (s *secrets) describe(ctx context.Context, name string) (versions, error) {
	var answer struct {
		Data versions `json:"data"`
	}
	err := s.do(ctx, request{method: http.MethodGet, path: s.metadata(name), active: true}, &answer)
	return answer.Data, err
}

func (s *secrets) destroy(ctx context.Context, name string, versions ...int) error {
	return s.do(ctx, request{
		method: http.MethodPut, path: s.mount + "/destroy/" + s.prefix + "/tokens/" + name,
		body: map[string]any{"versions": versions},
	}, nil)
}

// list returns the names in a folder. Vault sends 404 if the folder is empty, and also if the
// engine is not KV version 2. After a 404, list returns no names, and the result of s.reads(ctx),
// which distinguishes the two cases.
func (s *secrets) list(ctx context.Context, folder string) ([]string, error) {
	var answer struct {
		Data struct {
			Keys []string `json:"keys"`
		} `json:"data"`
	}
	err := s.do(ctx, request{
		method: http.MethodGet, path: folder, query: url.Values{"list": {"true"}}, active: s.listLag == 0,
	}, &answer)
	if errors.Is(err, driver.ErrNotFound) {
		return nil, s.reads(ctx)
	}
	return answer.Data.Keys, err
}

// names returns the legal names in the folder "tokens" under the prefix, including the names of
// deleted records.
func (s *secrets) names(ctx context.Context) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	keys, err := s.list(ctx, s.mount+"/metadata/"+s.prefix+"/tokens")
	return slices.DeleteFunc(keys, func(k string) bool { return !driverkit.LegalName(k) }), err
}
