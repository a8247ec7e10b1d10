package scheme

import (
	"context"
	"errors"
	"net"
	"net/url"
	"slices"
	"strings"

	"github.com/tokenkeep/tokenkeep/cli/internal/calls"
)

// Query splits rest, the part of a URL after the colon, at the first question mark. It returns
// the text before the question mark, and the values of the parameters by name. The error matches
// ErrUsage if the parameters are malformed, or if a parameter is not one of names, is repeated, or
// has no value. The error does not quote rest.
func Query(rest string, names ...string) (string, map[string]string, error) {
	rest, text, found := strings.Cut(rest, "?")
	values, err := url.ParseQuery(text)
	params := map[string]string{}
	for name, all := range values {
		if !slices.Contains(names, name) || len(all) != 1 || all[0] == "" {
			err = errors.New("unknown")
			break
		}
		params[name] = all[0]
	}
	if err != nil || found && text == "" {
		if len(names) == 0 {
			return "", nil, Usagef("the store has no parameters: leave out ? and what follows")
		}
		return "", nil, Usagef("the parameters after ? are %s, each at most once, with a value, joined by &", strings.Join(names, ", "))
	}
	return rest, params, nil
}

// Loopback reports whether host is localhost or a loopback IP address.
func Loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// An Endpoint is an address that replaces the default address of a service.
type Endpoint struct {
	URL   *url.URL
	Plain bool // whether the scheme of URL is http, such as for an emulator on this machine
}

// ParseEndpoint parses text, an address of a service. If text has no scheme, the scheme is
// https. The error matches ErrUsage if text is malformed, contains a user, or has a scheme other
// than http and https. With the scheme http, the error also matches ErrUsage unless Loopback
// returns true for the host. The error does not quote text.
func ParseEndpoint(text string) (Endpoint, error) {
	if !strings.Contains(text, "://") {
		text = "https://" + text
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Hostname() == "" || u.User != nil || u.Scheme != "http" && u.Scheme != "https":
		return Endpoint{}, Usagef("the endpoint must have the form https://HOST:PORT or http://localhost:PORT")
	case u.Scheme == "http" && !Loopback(u.Hostname()):
		return Endpoint{}, Usagef("an endpoint without TLS must be on this machine: tokens would be sent unencrypted")
	}
	return Endpoint{u, u.Scheme == "http"}, nil
}

// CountCall counts a call to a service, for the report of migrate. A driver that does not use
// package net/http calls CountCall before each request, with the context of the operation.
// CountCall is safe for concurrent use.
func CountCall(ctx context.Context) { calls.Add(ctx) }
