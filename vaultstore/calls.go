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

// A vault makes calls with the caller's client and a token that is valid.
type vault struct {
	client *api.Client
	auth   api.AuthMethod // nil: the client's token is the only one
	now    func() time.Time
	turn   chan struct{} // holds one login at a time

	// forward says that standby nodes may answer, and that Vault has not refused yet to
	// forward requests.
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

// loginPause is how long a refused login is not tried again. Without it every call would
// try, and Vault locks users out for that.
const loginPause = 5 * time.Second

// tokenPause is how long a token of a login counts as valid although the server denies
// calls, without saying whether the token is invalid or lacks a permission. A new login
// helps only in the first case.
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
	if invalid, lookup := v.invalid(ctx, token, err); lookup != nil {
		return lookup
	} else if !invalid {
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

// send makes a call with a token. Vault fails a request that asks to be forwarded, unless
// its configuration allows that. Then send does not ask again.
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

// sendOnce sends a request, and decodes the answer into out.
func (v *vault) sendOnce(ctx context.Context, token string, q request, out any) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r, err := v.request(token, q)
	if err != nil {
		return err
	}
	// The client puts its time-out on the context and leaves that to run out.
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	//nolint:staticcheck // Of what is left, nothing takes a token for one call and shows the body of a 404.
	answer, err := v.client.RawRequestWithContext(inner, r)
	if answer != nil && answer.Body != nil {
		defer func() { _ = answer.Body.Close() }()
	}
	if err != nil {
		if answer != nil && answer.StatusCode == http.StatusNotFound && out != nil {
			_ = json.NewDecoder(answer.Body).Decode(out) // a deleted version has a body
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
	case json.Unmarshal(body, out) != nil: // the cause quotes the answer
		return fmt.Errorf("%w: %s /v1/%s: the answer is not Vault's", driver.ErrUnavailable, q.method, q.path)
	}
	return nil
}

// request returns q as the client sends it.
func (v *vault) request(token string, q request) (*api.Request, error) {
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
	if q.body != nil && r.SetJSONBody(q.body) != nil {
		return nil, errors.New("the request cannot be encoded") // the cause quotes it
	}
	return r, nil
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

// invalid reports whether a call was denied because of the token itself, and not because
// of what the token may do. Vault since 1.17 says so. Earlier ones, and OpenBao, are asked
// whether they know the token.
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
	// Neither a token without the policy "default" nor an invalid one can look itself up.
	// If the login did not give it that policy, a token counts as valid for a while:
	// otherwise a policy that lacks something would make each call log in.
	v.mu.Lock()
	defer v.mu.Unlock()
	now := v.now()
	return token != v.own || v.itself && !v.blind.Load() || !v.expires.IsZero() && !now.Before(v.expires) || now.Sub(v.since) >= tokenPause, nil
}

// login returns a token in place of an invalid one: a new one, or the one that another
// call has brought meanwhile.
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
		err = nil // no other call has tried while this one waited, or just before
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
		err = fmt.Errorf("log in: %w", callError(ctx, err, nil))
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

// do makes a call. If nothing is mounted where it leads the error says so.
func (s *secrets) do(ctx context.Context, q request, out any) error {
	err := s.vault.do(ctx, q, out)
	if cause := (*refusal)(nil); says(err, textNoRoute) && strings.HasPrefix(q.path, s.mount+"/") && errors.As(err, &cause) {
		return fmt.Errorf("%w at %q: %w", errNoEngine, s.mount, cause)
	}
	return err
}

// An engine is what is known of the secrets engine at a mount. Version 1 of KV answers
// reads and lists as an empty version 2 does, and keeps in the clear whatever a write
// sends. So there is no write, and no "not found", before an answer has shown which it is.
type engine struct {
	turn   chan struct{}          // holds one look at a time
	proved atomic.Pointer[string] // where it is KV version 2
	hidden atomic.Bool            // neither the mount nor its configuration may be read
}

// where is the server that an engine belongs to. The caller may change it in the client.
func (s *secrets) where() string { return s.client.Namespace() + " " + s.client.Address() }

// prove remembers that the engine at where is KV version 2.
func (s *secrets) prove(where string) {
	if !s.proved() {
		s.engine.proved.Store(&where)
	}
}

func (s *secrets) proved() bool {
	where := s.engine.proved.Load()
	return where != nil && *where == s.where()
}

// reads returns nil if the engine is KV version 2, or if the token is not allowed
// to find that out by reading.
func (s *secrets) reads(ctx context.Context) error {
	if s.proved() || s.engine.hidden.Load() {
		return nil
	}
	return s.identify(ctx, false)
}

// writes returns nil if the engine is KV version 2.
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

// mounted asks what is mounted, as "vault kv" does. A token may ask if it has a policy for
// a path of the mount.
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

// configured reads the configuration of the engine. Version 1 has none.
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

// compares makes a write that is not a record, on the condition that a version exists that
// does not. Version 2 refuses that.
func (s *secrets) compares(ctx context.Context) error {
	_, err := s.put(ctx, probeName, never, field{fieldDeleted, "a look at the mount"})
	switch {
	case errors.Is(err, driver.ErrConflict):
		return nil
	case err != nil && !errors.Is(err, errNotKV2):
		return err
	case err == nil:
		err = errNotKV2
	}
	// It is version 1, and has kept that.
	_ = s.do(ctx, request{method: http.MethodDelete, path: s.data(probeName)}, nil)
	return fmt.Errorf("mount %q: %w: it does not compare versions", s.mount, err)
}

// A metadata is what Vault tells about a version.
type metadata struct {
	Version     int    `json:"version"`
	CreatedTime string `json:"created_time"`
}

// read returns the state of a version of a secret, or of the newest if number is 0.
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
		// There never was a version, or the engine is not one that would know.
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

// write makes f the version after number.
func (s *secrets) write(ctx context.Context, name string, number int, f field) (driver.Version, error) {
	if err := s.writes(ctx); err != nil {
		return "", err
	}
	return s.put(ctx, name, number, f)
}

// put is write on any engine.
func (s *secrets) put(ctx context.Context, name string, number int, f field) (driver.Version, error) {
	var answer struct {
		Data metadata `json:"data"`
	}
	err := s.do(ctx, request{
		method: http.MethodPut, path: s.data(name), secret: []byte(f.value),
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

// commit is write, and returns how often the request was sent: the client repeats it
// after a failure.
func (s *secrets) commit(ctx context.Context, name string, number int, f field) (v driver.Version, sent int64, err error) {
	var n atomic.Int64
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { n.Add(1) }})
	v, err = s.write(traced, name, number, f)
	return v, n.Load(), err
}

// attach adds the entries that a secret is found by.
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

// detach removes an entry. It returns nil if there is none.
func (s *secrets) detach(ctx context.Context, name string, l driver.Label) error {
	err := s.do(ctx, request{method: http.MethodDelete, path: s.entry(name, l)}, nil)
	if errors.Is(err, driver.ErrNotFound) {
		return nil
	}
	return err
}

// versions is what Vault tells about a secret.
type versions struct {
	Current  int `json:"current_version"`
	Versions map[int]struct {
		Created   string `json:"created_time"`
		Deleted   string `json:"deletion_time"`
		Destroyed bool   `json:"destroyed"`
	} `json:"versions"`
}

// kept returns the versions before the given one that are not destroyed, in order.
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

// describe returns the versions of a secret.
func (s *secrets) describe(ctx context.Context, name string) (versions, error) {
	var answer struct {
		Data versions `json:"data"`
	}
	err := s.do(ctx, request{method: http.MethodGet, path: s.metadata(name), active: true}, &answer)
	return answer.Data, err
}

// destroy destroys versions of a secret.
func (s *secrets) destroy(ctx context.Context, name string, versions ...int) error {
	return s.do(ctx, request{
		method: http.MethodPut, path: s.mount + "/destroy/" + s.prefix + "/tokens/" + name,
		body: map[string]any{"versions": versions},
	}, nil)
}

// list returns the names in a folder. A folder without any does not exist.
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

// names returns the names of all secrets, deleted ones included.
func (s *secrets) names(ctx context.Context) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	keys, err := s.list(ctx, s.mount+"/metadata/"+s.prefix+"/tokens")
	return slices.DeleteFunc(keys, func(k string) bool { return !driverkit.LegalName(k) }), err
}
