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

// Query cuts the parameters off rest, the part of a URL after the scheme, and returns them. Each
// of the names may occur once, with a value. Other parameters are errors.
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

// Loopback reports whether a host is the local machine.
func Loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// An Endpoint is an address that is used in place of a service's own address.
type Endpoint struct {
	URL   *url.URL
	Plain bool // HTTP on the local machine, which means an emulator without credentials
}

// ParseEndpoint parses an endpoint. It requires HTTPS, which is the default, unless the endpoint
// is on this machine. Errors do not quote text.
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

// CountCall counts a call to a service that ctx belongs to, for the report of migrate. A driver
// that does not use package net/http calls it before each request, from any goroutine.
func CountCall(ctx context.Context) { calls.Add(ctx) }
