// Command vaultcli prints leads from Zoho's CRM, for people and for cron jobs on machines that
// share one account. It keeps the tokens in HashiCorp Vault, and logs in to Vault with an
// AppRole.
//
// README.md describes the setup.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/vaultstore"
)

// errUsage lists the commands. The command login reads the client's secret and a one-time code
// from standard input, one per line.
var errUsage = errors.New("usage: vaultcli login USER | leads USER | logout USER")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	c := &command{in: os.Stdin, out: os.Stdout, env: os.Getenv, http: &http.Client{Timeout: 30 * time.Second}}
	err := c.run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "vaultcli:", err)
		os.Exit(exitCode(err))
	}
}

type command struct {
	in   io.Reader
	out  io.Writer
	env  func(string) string
	http *http.Client
}

func (c *command) run(ctx context.Context, args []string) error {
	if len(args) != 2 {
		return errUsage
	}
	do := map[string]func(context.Context, initializer.Config) error{"login": c.login, "leads": c.leads, "logout": c.logout}[args[0]]
	if do == nil {
		return errUsage
	}
	if c.env("ZOHO_CLIENT_ID") == "" {
		return errors.New("ZOHO_CLIENT_ID is not set")
	}
	store, err := c.store()
	if err != nil {
		return err
	}
	defer func() { _ = store.Close() }()
	return do(ctx, initializer.Config{
		Environment: initializer.DataCenter(c.env("ZOHO_DATA_CENTER")).Production(),
		// A look-up by user and client reads the record by its name, without a search.
		Token:      tokenstore.Token{UserName: args[1], ClientID: c.env("ZOHO_CLIENT_ID")},
		Store:      store,
		HTTPClient: c.http,
	})
}

// store opens the store in Vault. Package api reads the other environment variables of Vault,
// such as VAULT_NAMESPACE and VAULT_CACERT.
func (c *command) store() (*tokenstore.Store, error) {
	conf := api.DefaultConfig()
	if conf.Error != nil {
		return nil, conf.Error
	}
	if address := c.env("VAULT_ADDR"); address != "" {
		conf.Address = address
	}
	client, err := api.NewClient(conf)
	if err != nil {
		return nil, err
	}
	client.ClearToken() // ignore VAULT_TOKEN: the program authenticates with its AppRole only
	return vaultstore.New(client, "secret", "oauth/crm", &vaultstore.Options{
		Auth: appRole{role: c.env("VAULT_ROLE_ID"), secretFile: c.env("VAULT_SECRET_ID_FILE")},
	})
}

// An appRole logs in to Vault. Its secret is in a file and not in the environment, because
// child processes inherit the environment. Login reads the file each time, so that an operator
// can replace the secret.
type appRole struct{ role, secretFile string }

// Login implements api.AuthMethod.
func (a appRole) Login(ctx context.Context, client *api.Client) (*api.Secret, error) {
	secret, err := os.ReadFile(a.secretFile)
	if err != nil {
		return nil, err
	}
	return client.Logical().WriteWithContext(ctx, "auth/approle/login", map[string]any{
		"role_id": a.role, "secret_id": strings.TrimSpace(string(secret)),
	})
}

func (c *command) login(ctx context.Context, conf initializer.Config) error {
	lines := bufio.NewScanner(c.in)
	var answers []string
	for _, question := range []string{"client secret", "one-time code"} {
		_, _ = fmt.Fprintf(c.out, "%s: ", question)
		if !lines.Scan() {
			return fmt.Errorf("no %s on standard input", question)
		}
		answers = append(answers, strings.TrimSpace(lines.Text()))
	}
	conf.Token.ClientSecret = tokenstore.Secret(answers[0])
	conf.Token.GrantToken = tokenstore.Secret(answers[1])
	client, err := initializer.New(ctx, conf)
	if client == nil {
		return err
	}
	if err := persist(ctx, client); err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.out, "\n%s is logged in\n", conf.Token.UserName)
	return err
}

// storeTime is the maximum time for which login tries to store the tokens.
const storeTime = 30 * time.Second

// persist calls Token until the tokens of client are stored. After storeTime, persist returns an
// error matching tokenstore.ErrNotPersisted. Vault can fail after Zoho has issued tokens: only
// this process then has the tokens, and the user would need another one-time code if the process
// ended.
func persist(ctx context.Context, client *initializer.Client) error {
	ctx, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	last := tokenstore.ErrNotPersisted
	for !client.Persisted() {
		select {
		case <-ctx.Done():
			return last
		case <-time.After(time.Second): // Token tries to store the tokens at most once a second
		}
		if _, err := client.Token(ctx); errors.Is(err, tokenstore.ErrNotPersisted) {
			last = err
		}
	}
	return nil
}

func (c *command) leads(ctx context.Context, conf initializer.Config) error {
	client, err := initializer.New(ctx, conf)
	if client == nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "/crm/v8/Leads?fields=Last_Name", nil)
	if err != nil {
		return err
	}
	res, err := client.HTTPClient(ctx).Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode == http.StatusNoContent {
		return nil
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("the CRM answered with status %d", res.StatusCode)
	}
	var page struct {
		Data []struct {
			LastName string `json:"Last_Name"`
		} `json:"data"`
	}
	if err := json.NewDecoder(res.Body).Decode(&page); err != nil {
		return fmt.Errorf("the CRM's answer: %w", err)
	}
	for _, lead := range page.Data {
		if _, err := fmt.Fprintln(c.out, lead.LastName); err != nil {
			return err
		}
	}
	return nil
}

// logout revokes the tokens of a user, and deletes the record.
func (c *command) logout(ctx context.Context, conf initializer.Config) error {
	client, err := initializer.New(ctx, conf)
	if client == nil {
		return err
	}
	return client.Revoke(ctx)
}

// exitCode returns the exit code for err. The code 2 means that the user must log in again,
// and 75 (EX_TEMPFAIL) means that a retry may succeed. The code of any other error is 1.
func exitCode(err error) int {
	switch {
	case errors.Is(err, initializer.ErrReauthRequired):
		return 2
	case errors.Is(err, initializer.ErrThrottled), errors.Is(err, initializer.ErrServer), errors.Is(err, tokenstore.ErrUnavailable):
		return 75
	}
	return 1
}
