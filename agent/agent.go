package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// TokenHeader is the request header that carries Config.Token.
const TokenHeader = "X-Tokenkeep-Token" //nolint:gosec // a name, not a credential

// minToken is the minimum length of Config.Token in characters. 128 random bits are 22 characters
// in base64.
const minToken = 22

const (
	defaultClients  = 1000
	defaultRequests = 800
	defaultMaxAge   = 5 * time.Minute
	defaultTimeout  = time.Minute
	earlyExpiry     = 20 * time.Second

	// sdkExpiry is the remaining lifetime at which an SDK refreshes a token, plus a second for the
	// response to arrive.
	sdkExpiry = 6 * time.Second
)

// Config configures an agent. Store is required. Initializer must have an authorization server,
// unless PassThrough is set.
type Config struct {
	// Store keeps the records.
	Store tokenstore.TokenStore

	// Initializer configures how access tokens are refreshed. Set Environment or OAuth2, and the
	// other fields that apply. New ignores Initializer.Store and Initializer.Token. An EarlyExpiry
	// of 0 means 20 seconds. A nil Initializer.Logger means Logger.
	Initializer initializer.Config

	// PassThrough makes the agent serve the records unchanged, without refreshing tokens.
	// PassThrough also disables the operation /v1/rejected.
	PassThrough bool

	// Token is the required value of the header X-Tokenkeep-Token: at least 22 random
	// characters. If Token is empty, the header is not required, and Serve refuses listeners other
	// than Unix sockets.
	Token tokenstore.Secret

	// Clients lists the IDs of the OAuth clients whose records the agent serves. The agent neither
	// returns nor changes records of other clients. Nil means all clients.
	Clients []string

	// ReadOnly disables the operations /v1/save, /v1/delete and /v1/delete_all. With ReadOnly, no
	// operation creates a record from a one-time code or refresh token. The agent still refreshes
	// access tokens.
	ReadOnly bool

	// NoList disables the operation /v1/list. NoDelete disables the operations /v1/delete and
	// /v1/delete_all.
	NoList, NoDelete bool

	// MaxClients is the maximum number of records in memory; 0 means 1,000. To make room, the agent
	// evicts the least recently requested record whose token is stored. If none of the tokens in
	// memory could be stored, a request for another record gets status 503.
	MaxClients int

	// MaxRequests is the maximum number of operations in progress; 0 means 800. Requests for
	// further operations get status 429.
	MaxRequests int

	// MaxAge is the age at which the agent reads a cached record from the store again; 0 means 5
	// minutes.
	MaxAge time.Duration

	// Timeout limits the duration of an operation; 0 means a minute. An operation continues if its
	// caller disconnects, because a refresh might have received the only copy of a token.
	Timeout time.Duration

	// Logger receives a log record for each request, with the operation, the status, the class of
	// the error, and the duration. These log records never contain a secret, an ID or a user name.
	// If Initializer.Logger is nil, Logger also receives the log records of package initializer,
	// which contain IDs of records. Nil disables logging.
	Logger *slog.Logger

	// Observe, if not nil, is called after each request, by the goroutine that served the request.
	// Observe must be safe for concurrent use.
	Observe func(Request)
}

// A Request describes a request that has ended. A Request contains no secret, ID or user name.
type Request struct {
	Operation string        // the name of the operation, such as "find", or the path of the page; "" for other paths and for requests refused because of a header or query
	Status    int           // the HTTP status
	Class     string        // the class of the error, as in the response; "" if there is no error
	Took      time.Duration // from the call of ServeHTTP until the response is written
}

// Format prints the type of c. Without this method, package fmt would print the fields.
func (c Config) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "agent.Config") }

// MarshalText returns the type of c, for loggers and package expvar.
func (c Config) MarshalText() ([]byte, error) { return []byte("agent.Config"), nil }

// A Handler is the http.Handler of an agent. The methods of a Handler are safe for concurrent use.
type Handler struct {
	conf    *Config // a pointer, so that package fmt does not print the Config
	now     func() time.Time
	clients *clients
	slots   chan struct{} // one slot for each operation in progress
	running sync.WaitGroup

	readiness readiness
}

// New returns a Handler for c, or an error if c is invalid. New does no I/O.
func New(c Config) (*Handler, error) {
	switch {
	case c.Store == nil:
		return nil, errors.New("agent: Config.Store is nil")
	case c.MaxClients < 0 || c.MaxRequests < 0 || c.MaxAge < 0 || c.Timeout < 0:
		return nil, errors.New("agent: a limit of Config is negative")
	case slices.Contains(c.Clients, ""):
		return nil, errors.New("agent: Config.Clients has an empty client ID")
	}
	if c.Token != "" {
		if err := checkToken(c.Token); err != nil {
			return nil, err
		}
	}
	c.Clients = slices.Clone(c.Clients)
	or(&c.MaxClients, defaultClients)
	or(&c.MaxRequests, defaultRequests)
	or(&c.MaxAge, defaultMaxAge)
	or(&c.Timeout, defaultTimeout)
	or(&c.Logger, slog.New(slog.DiscardHandler))
	or(&c.Initializer.EarlyExpiry, earlyExpiry)
	or(&c.Initializer.Logger, c.Logger)
	c.Initializer.Store = c.Store
	if err := c.checkServer(); err != nil {
		return nil, err
	}
	h := &Handler{conf: &c, now: c.Initializer.Now, slots: make(chan struct{}, c.MaxRequests)}
	if h.now == nil {
		h.now = time.Now
	}
	h.clients = newClients(c.MaxClients)
	return h, nil
}

func or[T comparable](v *T, otherwise T) {
	var zero T
	if *v == zero {
		*v = otherwise
	}
}

// checkServer returns an error if c has neither an authorization server nor PassThrough.
func (c *Config) checkServer() error {
	if c.PassThrough {
		return nil
	}
	if c.Initializer.OAuth2 == nil && c.Initializer.Environment == (initializer.Environment{}) {
		return errors.New("agent: Config.Initializer has no authorization server, and PassThrough is not set")
	}
	return nil
}

// Format prints the type of h. Without this method, package fmt would print the fields.
func (h *Handler) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "*agent.Handler") }

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	begin := h.now()
	name, a := h.answer(r)
	a.write(w)
	level := slog.LevelInfo
	if a.status >= http.StatusInternalServerError {
		level = slog.LevelWarn
	}
	e := Request{Operation: name, Status: a.status, Class: a.class, Took: h.now().Sub(begin)}
	h.conf.Logger.LogAttrs(context.WithoutCancel(r.Context()), level, "agent: request",
		slog.String("operation", e.Operation), slog.Int("status", e.Status), slog.String("class", e.Class),
		slog.Duration("took", e.Took))
	if h.conf.Observe != nil {
		h.conf.Observe(e)
	}
}

// answer returns the answer to a request, and a text for the log: the name of the operation, or
// the path of the page. The text is empty if admit refuses the request, or if the path is unknown.
func (h *Handler) answer(r *http.Request) (string, answer) {
	if bad := h.admit(r); bad != nil {
		return "", refuse(bad)
	}
	path := r.URL.EscapedPath()
	if page := h.page(r, path); page != nil {
		return path, *page
	}
	op, ok := operations[path]
	switch {
	case !ok:
		return "", refuse(errNoOperation)
	case r.Method != http.MethodPost:
		return op.name, refuse(errMethod)
	}
	if err := h.authorized(r); err != nil {
		return op.name, refuse(err)
	}
	if op.forbidden != nil && op.forbidden(h.conf) {
		return op.name, refuse(errForbidden)
	}
	select {
	case h.slots <- struct{}{}:
	default:
		return op.name, refuse(errTooMany)
	}
	h.running.Add(1)
	defer func() { h.running.Done(); <-h.slots }()
	request, err := parse(r)
	if err != nil {
		return op.name, refuse(err)
	}
	// If the caller disconnects, the operation continues: a refresh might have received the only
	// copy of a token.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), h.conf.Timeout)
	defer cancel()
	body, err := op.do(h, ctx, request)
	if err != nil {
		return op.name, refuse(err)
	}
	return op.name, answer{status: http.StatusOK, body: body}
}

// Close waits until no operation is in progress, or until ctx is done. Then Close tries again to
// store each token that could not be stored. If a token is still unsaved, the error matches
// tokenstore.ErrNotPersisted. Otherwise Close returns ctx.Err(). Close does not close the store.
func (h *Handler) Close(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		h.running.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
	lost := 0
	for _, e := range h.clients.unsaved() {
		if !store(ctx, e.client) {
			lost++
		}
	}
	if lost > 0 {
		return fmt.Errorf("agent: %w: %d tokens", tokenstore.ErrNotPersisted, lost)
	}
	return ctx.Err()
}

// The function store makes at most lastTries attempts, with the pause lastPause between them.
// lastPause is longer than a second, because a Client tries to store its token at most once a
// second.
const (
	lastTries = 3
	lastPause = 1100 * time.Millisecond
)

// store asks c at most lastTries times to store its token, and reports whether the token is stored.
// store stops early if ctx is done.
func store(ctx context.Context, c *initializer.Client) bool {
	for try := range lastTries {
		if try > 0 {
			select {
			case <-ctx.Done():
				return c.Persisted()
			case <-time.After(lastPause):
			}
		}
		if _, _ = c.Token(ctx); c.Persisted() {
			return true
		}
	}
	return false
}
