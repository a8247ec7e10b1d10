package cli

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tokenkeep/tokenkeep/agent"
	"github.com/tokenkeep/tokenkeep/cli/scheme"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// Environment variables with the token of the agent, or the name of a file with the token.
const (
	envAgentToken     = "TOKENKEEP_AGENT_TOKEN"
	envAgentTokenFile = "TOKENKEEP_AGENT_TOKEN_FILE"
)

// serving holds the flags of serve.
type serving struct {
	listen, tokenFile string
	metrics           string
	server            authServer
	clients           []string
	readOnly          bool
	noList, noDelete  bool
	passThrough       bool
	findUser          bool
	verbose           bool
	records, most     int
	grace             time.Duration
}

func (a *app) serveCommand() *cobra.Command {
	var s serving
	c := &cobra.Command{
		Use:     "serve",
		GroupID: groupRecords,
		Short:   "Serve the store to programs in any language",
		Long:    serveHelp,
		Args:    noArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return a.serve(c.Context(), &s) },
	}
	f := c.Flags()
	f.StringVar(&s.listen, "listen", "127.0.0.1:2780", "`ADDRESS` of the loopback interface, or unix:PATH")
	f.StringVar(&s.tokenFile, "token-file", "", "`FILE` with the token of the header; it is created if it does not exist (default: $"+envAgentTokenFile+")")
	s.server.flags(c)
	f.StringVar(&s.server.issuer, "issuer", "", "issuer of the records, with --token-url (default: that URL; none: records without an issuer)")
	f.StringVar(&s.server.resource, "resource", "", "the API for which the tokens are (RFC 8707), with --token-url")
	f.StringArrayVar(&s.clients, "only-client", nil, "serve the records of this client ID only; may be repeated")
	f.BoolVar(&s.readOnly, "read-only", false, "refuse to save and to delete")
	f.BoolVar(&s.noList, "no-list", false, "refuse to list records")
	f.BoolVar(&s.noDelete, "no-delete", false, "refuse to delete records")
	f.BoolVar(&s.passThrough, "pass-through", false, "serve the records unchanged, without refreshing")
	f.BoolVar(&s.findUser, "find-user", false, "ask Zoho's CRM for the user of a new record, as the SDKs do")
	f.IntVar(&s.records, "max-records", 1000, "number of records kept in memory")
	f.IntVar(&s.most, "max-connections", 800, "maximum number of open connections; further ones get status 429")
	f.DurationVar(&s.grace, "grace", 25*time.Second, "maximum `time` to wait for requests in progress after a signal")
	f.StringVar(&s.metrics, "metrics", "", "serve metrics for Prometheus as GET /metrics on this `ADDRESS`, such as 127.0.0.1:9464 (default: none)")
	f.BoolVar(&s.verbose, "verbose", false, "log refreshes and every request, not only failures")
	return c
}

const serveHelp = `Serves the store over HTTP on this machine until it receives a signal. This is the agent
for the token stores in sdk/, in Python, Node.js, PHP, Java, Ruby, C# and Scala.

  tokenkeep serve --store awssm:oauth --data-center eu --token-file /run/tokenkeep/token
  tokenkeep serve --store vault:secret/oauth --data-center us --listen unix:/run/tokenkeep/agent.sock

Finding a record also keeps it fresh: before a program gets an expired access token, one
process refreshes it for all that share the store. --data-center, --accounts-url or
--token-url names the authorization server, unless --pass-through is given.

Each request needs the header X-Tokenkeep-Token with the token in --token-file or
` + envAgentToken + `. It is optional for a Unix socket, which only this user and root can
open. Every caller can request every record; --only-client, --read-only, --no-list and
--no-delete restrict that.

With --metrics, results and durations of refreshes, store calls and requests are counted
for Prometheus. The metrics need no token: they contain kinds and times, but never an ID,
a user or a secret.

GET /healthz reports that the agent serves, GET /readyz that the store answers, and
GET /v1/openapi.json describes the operations. After a signal, the agent answers requests
in progress and stores the tokens that they refresh.`

// token returns the required value of the header X-Tokenkeep-Token, or "" if no header is required.
func (s *serving) token(a *app) (tokenstore.Secret, error) {
	name, text := cmp.Or(s.tokenFile, a.env(envAgentTokenFile)), a.env(envAgentToken)
	switch {
	case s.tokenFile != "" && text != "":
		return "", usagef("--token-file and %s cannot be used together", envAgentToken)
	case text != "":
		return tokenstore.Secret(text), nil
	case name != "":
		return agent.TokenFile(name)
	case !strings.HasPrefix(s.listen, "unix:"):
		return "", usagef("every user of this machine can connect to a TCP address: give --token-file or set %s", envAgentToken)
	}
	return "", nil
}

// config returns the configuration of the agent, without Store and Observe. It returns a usage
// error if the flags are invalid.
func (s *serving) config(a *app) (c agent.Config, err error) {
	c = agent.Config{
		PassThrough: s.passThrough, Clients: s.clients, ReadOnly: s.readOnly, NoList: s.noList, NoDelete: s.noDelete,
		MaxClients: s.records,
	}
	level := slog.LevelWarn
	if s.verbose {
		level = slog.LevelInfo
	}
	c.Logger = slog.New(slog.NewJSONHandler(a.errs, &slog.HandlerOptions{Level: level}))
	switch {
	case s.records < 1 || s.most < 1 || s.grace < 0:
		return c, usagef("--max-records and --max-connections must be at least 1, and --grace must not be negative")
	case s.passThrough && (s.server.given() || s.findUser):
		return c, usagef("--pass-through uses no server: remove the flags that name one")
	case s.passThrough:
	default:
		if c.Initializer, err = s.server.config(a); err != nil {
			return c, err
		}
		c.Initializer.FindUser = s.findUser
	}
	c.Token, err = s.token(a)
	return c, err
}

func (a *app) serve(ctx context.Context, s *serving) error {
	c, err := s.config(a)
	if err != nil {
		return err
	}
	scrapes := ""
	if s.metrics != "" {
		m := newMetrics()
		at, stop, err := m.listen(ctx, s.metrics)
		if err != nil {
			return err
		}
		defer stop()
		scrapes = "http://" + at.String() + metricsPath
		a.observer, c.Observe = m.observer(), m.request
	}
	return a.withStore(ctx, func(opened *store) error {
		c.Store = opened.TokenStore
		h, err := agent.New(c)
		if err != nil {
			return scheme.Usage(err)
		}
		l, err := agent.Listen(ctx, s.listen, &agent.ListenOptions{MaxConnections: s.most})
		if err != nil {
			return err
		}
		if err := a.listening(l, s.listen, scrapes); err != nil {
			return errors.Join(err, l.Close())
		}
		return agent.Serve(ctx, l, h, &agent.ServeOptions{Grace: s.grace})
	})
}

// listening prints the address of the agent and, if scrapes is not empty, the URL of its metrics.
// The kernel already accepts connections to both addresses.
func (a *app) listening(l net.Listener, address, scrapes string) error {
	if l.Addr().Network() != "unix" {
		address = "http://" + l.Addr().String()
	}
	if a.json {
		said := struct {
			Listening string `json:"listening"`
			Metrics   string `json:"metrics,omitempty"`
		}{address, scrapes}
		if err := a.printJSON(said); err != nil {
			return err
		}
		return a.out.Flush()
	}
	a.printf("listening %s\n", clean(address))
	if scrapes != "" {
		a.printf("metrics %s\n", clean(scrapes))
	}
	return a.out.Flush()
}
