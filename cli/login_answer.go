package cli

import (
	"bufio"
	"cmp"
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// errNoConsent is the error for a login whose answer does not arrive within --wait.
var errNoConsent = fmt.Errorf("no answer came in the time that --wait allows: %w", context.DeadlineExceeded)

// An issuerCheck describes the issuer that an answer may name (RFC 9207).
type issuerCheck struct {
	issuer string // empty if it is unknown
	always bool   // each answer from the server names the issuer
}

// code returns the code in an answer. It also selects the data center that an answer from Zoho
// names. The error matches errInput if the answer does not belong to the request, is malformed, or
// has neither a code nor an error. For an answer with an error, code returns the error from
// refusedConsent.
func (c *consent) code(answer url.Values) (tokenstore.Secret, error) {
	for name, all := range answer {
		if len(all) > 1 {
			return "", fmt.Errorf("%w: the answer has the parameter %s twice", errInput, echoed(name, "of some name"))
		}
	}
	iss, code := answer.Get("iss"), answer.Get("code")
	switch {
	case subtle.ConstantTimeCompare([]byte(answer.Get("state")), []byte(c.state)) != 1:
		return "", fmt.Errorf("%w: the answer has a state that differs from that of the request: it belongs to another login", errInput)
	case c.iss.issuer != "" && iss != c.iss.issuer && (iss != "" || c.iss.always):
		return "", fmt.Errorf("%w: the answer is of another authorization server", errInput)
	case answer.Get("error") != "":
		return "", refusedConsent(answer.Get("error"))
	case code == "":
		return "", fmt.Errorf("%w: the answer has no code", errInput)
	}
	if c.zoho() {
		return tokenstore.Secret(code), c.moveTo(answer.Get("accounts-server"), answer.Get("location"))
	}
	return tokenstore.Secret(code), nil
}

// plainCode matches the error codes of RFC 6749 and OpenID Connect.
var plainCode = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z_]{1,40}$`) })

// refusedConsent returns the error for an answer with an error code. It omits the description,
// because anyone can send an answer with any description.
func refusedConsent(code string) error {
	class := initializer.ErrRefused
	switch code {
	case "access_denied", "login_required", "consent_required", "interaction_required", "account_selection_required":
		class = initializer.ErrReauthRequired
	case "server_error", "temporarily_unavailable":
		class = initializer.ErrServer
	}
	if !plainCode().MatchString(code) {
		return fmt.Errorf("%w: there is no consent", class)
	}
	return fmt.Errorf("%w: there is no consent: the answer is %q", class, code)
}

// moveTo selects the data center that the answer from Zoho names, for use by the method exchange.
// It accepts only data centers of Zoho, because the data center receives the client's secret. With
// --accounts-url, moveTo only checks that the answer names no other server.
func (c *consent) moveTo(accounts, location string) error {
	accounts = strings.TrimSuffix(accounts, "/")
	if accounts == "" && location == "" {
		return nil
	}
	if c.server.accounts != "" {
		if accounts != "" && accounts != strings.TrimSuffix(c.config.Environment.AccountsURL, "/") {
			return fmt.Errorf("%w: the answer names another accounts server than --accounts-url", errInput)
		}
		return nil
	}
	for _, d := range initializer.DataCenters() {
		if accounts == d.Production().AccountsURL || accounts == "" && location == string(d) {
			c.server.dataCenter = string(d)
			return c.server.zoho(&c.config)
		}
	}
	return fmt.Errorf("%w: the user is of a data center that is not known: give --accounts-url and --api-url", errInput)
}

// showConsent prints the consent URL on standard error. If paste is set, showConsent also asks for
// the address that the browser shows. At a terminal, readTyped asks for the address instead, after
// the echo is off.
func (a *app) showConsent(consentURL string, paste bool) {
	if a.json {
		a.noteJSON(map[string]string{"consent_url": consentURL})
		return
	}
	then := ""
	if paste && !isTerminal(a.in) {
		then = "\nThen paste the address that the browser shows, and press Enter:"
	}
	_, _ = fmt.Fprintf(a.errs, "Open this address in a browser, and allow the access:\n\n  %s\n%s\n", consentURL, then)
}

// openBrowser opens a URL in the user's browser, without waiting for the browser to close.
func openBrowser(ctx context.Context, address string) error {
	args := []string{"xdg-open", address}
	switch runtime.GOOS {
	case "darwin":
		args[0] = "open"
	case "windows":
		args = []string{"rundll32", "url.dll,FileProtocolHandler", address}
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...) //nolint:gosec // the address is one argument, and begins with a scheme that was checked
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() { _ = cmd.Wait() }() // some commands run until the browser is closed
	return nil
}

// A receiver receives the answer from the authorization endpoint.
type receiver struct {
	url     string // the redirect URL for the browser
	receive func(context.Context) (url.Values, error)
	close   func()
}

// receiver returns a receiver. With --paste, the receiver reads standard input; otherwise, it
// listens at the redirect URL.
func (c *consent) receiver(ctx context.Context) (*receiver, error) {
	if c.paste {
		return &receiver{c.redirect, c.pasted, func() {}}, nil
	}
	return listen(ctx, c.redirect)
}

// maxAnswer is the maximum length in bytes of the address to which the browser is redirected.
const maxAnswer = 64 << 10

// pasted reads a line from standard input. The line must be the address to which the browser was
// redirected. pasted returns the parameters in the address. Errors about the line match errInput.
// If ctx is done, pasted returns ctx.Err(), even while the read is blocked.
func (c *consent) pasted(ctx context.Context) (url.Values, error) {
	line, err := c.a.readLine(ctx)
	if err != nil {
		return nil, err
	}
	text := strings.TrimSpace(line)
	got, err := url.Parse(text)
	want, _ := url.Parse(c.redirect)
	switch {
	case text == "":
		return nil, fmt.Errorf("%w: standard input has no address", errInput)
	case err != nil || got.Scheme != want.Scheme || got.Host != want.Host || cmp.Or(got.Path, "/") != cmp.Or(want.Path, "/"):
		return nil, fmt.Errorf("%w: the address does not begin with the redirect URL", errInput)
	}
	values, err := url.ParseQuery(got.RawQuery)
	if err != nil {
		return nil, fmt.Errorf("%w: the address has parameters that cannot be read", errInput)
	}
	return values, nil
}

// readLine reads an address from standard input, up to the first line end. readLine cuts a longer
// line after maxAnswer bytes. At a terminal, a longer address is an error.
func (a *app) readLine(ctx context.Context) (string, error) {
	if isTerminal(a.in) {
		data, err := a.readInput(ctx, maxAnswer, typedAddress)
		line, _, _ := strings.Cut(string(data), "\n")
		return line, err
	}
	lines := make(chan string, 1)
	go func() {
		text, _ := bufio.NewReader(io.LimitReader(a.in, maxAnswer)).ReadString('\n')
		lines <- text
	}()
	select {
	case <-ctx.Done():
		return "", ctx.Err()
	case line := <-lines:
		return line, nil
	}
}

// answered is the page that the browser shows after the redirect.
const answered = `<!doctype html><meta charset="utf-8"><title>tokenkeep</title>
<p>tokenkeep has the answer, and shows the result in its terminal. You can close this page.
`

// answering returns a handler for requests to the redirect URL. The handler sends the parameters of
// the first answer to the channel answers, which must be buffered, and ignores later answers.
func answering(at *url.URL, answers chan<- url.Values) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		values, err := url.ParseQuery(r.URL.RawQuery)
		switch {
		case r.Host != at.Host || err != nil:
			w.WriteHeader(http.StatusBadRequest)
			return
		case r.Method != http.MethodGet || r.URL.Path != cmp.Or(at.Path, "/"), !values.Has("state"):
			w.WriteHeader(http.StatusNotFound) // browsers also request other pages, such as an icon
			return
		}
		h := w.Header()
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Content-Security-Policy", "default-src 'none'")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		_, _ = io.WriteString(w, answered)
		select {
		case answers <- values:
		default: // this is not the first answer
		}
	})
}

// listen serves a redirect URL on this machine, and returns a receiver of the first answer. The
// caller must close the receiver.
func listen(ctx context.Context, redirect string) (*receiver, error) {
	u, err := url.Parse(redirect)
	if err != nil {
		return nil, err
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "0")))
	if err != nil {
		return nil, fmt.Errorf("listen at the redirect URL (with --paste login does not): %w", err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	u.Host = net.JoinHostPort(u.Hostname(), port)
	answers := make(chan url.Values, 1)
	server := &http.Server{ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, MaxHeaderBytes: maxAnswer, Handler: answering(u, answers)}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(l) }()
	return &receiver{
		url: u.String(),
		receive: func(ctx context.Context) (url.Values, error) {
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case err := <-failed:
				return nil, err
			case values := <-answers:
				return values, nil
			}
		},
		close: func() {
			// The browser may still be receiving the page.
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			if err := server.Shutdown(ctx); errors.Is(err, context.DeadlineExceeded) {
				_ = server.Close()
			}
		},
	}, nil
}
