package initializer

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// A gate decides to which hosts access tokens may be sent. It checks the API domains in
// records, responses and the configuration, and the URLs of callers' requests.
//
// A gate always allows the loopback interface, which test servers and proxies use. Traffic on that
// interface does not leave the machine.
type gate struct {
	zoho  bool     // Zoho's domains are allowed
	hosts []string // other allowed hosts; without zoho, an empty list allows every host
}

// check returns an error that matches ErrUntrustedURL if tokens must not be sent to u.
func (g gate) check(u *url.URL) error {
	switch {
	case !secure(u):
		return fmt.Errorf("%w: %q is not https, nor http on the loopback interface", ErrUntrustedURL, u.Scheme+"://"+u.Host)
	case loopback(u.Hostname()), g.zoho && isZoho(u), !g.zoho && len(g.hosts) == 0:
		return nil
	}
	host := authority(u)
	if slices.ContainsFunc(g.hosts, func(h string) bool { return strings.EqualFold(h, host) }) {
		return nil
	}
	return fmt.Errorf("%w: the host %q is not one of Zoho's, nor of Config.Hosts", ErrUntrustedURL, u.Host)
}

// base parses a base URL, such as the API domain of a record. The error matches ErrUntrustedURL if
// text is not a base URL, or if tokens must not be sent to that URL.
func (g gate) base(text string) (*url.URL, error) {
	u, err := parseBase(text)
	if err != nil {
		return nil, fmt.Errorf("%w: the API domain is not a base URL", ErrUntrustedURL)
	}
	return u, g.check(u)
}

var errNotBase = errors.New("not a base URL")

// parseBase parses a base URL, and returns the URL in normalized form. The scheme may be missing,
// the host may be in upper case, and final slashes are ignored. The error is errNotBase if text is
// not a URL, has a query or a fragment, or is not secure.
func parseBase(text string) (*url.URL, error) {
	text = strings.TrimRight(strings.TrimSpace(text), "/")
	if !strings.Contains(text, "://") {
		text = "https://" + strings.TrimPrefix(text, "//")
	}
	u, err := url.Parse(text)
	if err != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || !secure(u) {
		return nil, errNotBase // the cause would quote the text
	}
	u.Host = authority(u)
	return u, nil
}

// usableURL reports whether text is an absolute base URL that is secure.
func usableURL(text string) bool {
	_, err := parseBase(text)
	return err == nil && strings.Contains(text, "://")
}

// usableEndpoint reports whether text is a URL that is secure.
func usableEndpoint(text string) bool {
	u, err := url.Parse(text)
	return err == nil && secure(u)
}

// secure reports whether requests to u are encrypted or stay on this machine. A URL without a
// host or with user information is not secure.
func secure(u *url.URL) bool {
	if u.Hostname() == "" || u.User != nil || u.Opaque != "" {
		return false
	}
	return u.Scheme == "https" || u.Scheme == "http" && loopback(u.Hostname())
}

func loopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && addr.IsLoopback()
}

// authority returns the host of u in lower case, with the port unless the port is the default port
// of https.
func authority(u *url.URL) string {
	host := strings.ToLower(u.Host)
	if u.Scheme == "https" {
		host = strings.TrimSuffix(host, ":443")
	}
	return host
}

// isZoho reports whether u has the scheme https, the default port of https, and a host in one
// of Zoho's domains.
func isZoho(u *url.URL) bool {
	host := authority(u)
	return u.Scheme == "https" && slices.ContainsFunc(zohoDomains(), func(d string) bool { return within(host, d) })
}

// zohoDomains returns the domains whose subdomains are all Zoho's.
func zohoDomains() (domains []string) {
	for _, h := range hosts {
		domains = append(domains, h.api, strings.TrimPrefix(h.accounts, "accounts."))
	}
	return domains
}

// within reports whether host is domain or a subdomain of domain.
func within(host, domain string) bool {
	return host == domain || strings.HasSuffix(host, "."+domain)
}
