package agent

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"strings"
)

// forwarding lists the headers by which admit detects a proxy.
var forwarding = []string{"X-Forwarded-For", "X-Forwarded-Host", "Forwarded", "Via"}

// admit returns an error if the agent must refuse a request, whatever the operation. A proxy that
// is tricked into forwarding a request usually adds one of the headers in forwarding. A browser
// sends Origin with each POST request from a web page. If the host name of an attacker resolves to
// this machine, Host contains that name. admit also refuses a URL with a query, because the members
// of a request belong in the body.
func (h *Handler) admit(r *http.Request) error {
	for _, name := range forwarding {
		if len(r.Header.Values(name)) > 0 {
			return errForwarded
		}
	}
	switch {
	case len(r.Header.Values("Origin")) > 0 || r.Header.Get("Access-Control-Request-Method") != "":
		return errBrowser
	case !ownHost(r):
		return errHost
	case r.URL.RawQuery != "" || r.URL.ForceQuery:
		return errQuery
	}
	return nil
}

// ownHost reports whether the Host of a request is a loopback name of this machine. If the request
// arrived over TCP, Host must also have the local port of the connection, unless that port is 80.
func ownHost(r *http.Request) bool {
	host, port := strings.ToLower(r.Host), ""
	if name, p, err := net.SplitHostPort(host); err == nil {
		host, port = name, p
	} else {
		host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	}
	if host != "localhost" && host != "127.0.0.1" && host != "::1" {
		return false
	}
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if tcp, ok := local.(*net.TCPAddr); ok {
		_, own, err := net.SplitHostPort(tcp.String())
		return err == nil && (port == own || port == "" && own == "80")
	}
	return true
}

// authorized returns nil if Config.Token is empty, or if the request has exactly one header
// X-Tokenkeep-Token and its value is Config.Token. Otherwise authorized returns errUnauthorized.
// The duration of the comparison does not depend on the positions of wrong characters.
func (h *Handler) authorized(r *http.Request) error {
	if h.conf.Token == "" {
		return nil
	}
	values := r.Header.Values(TokenHeader)
	given := ""
	if len(values) == 1 {
		given = values[0]
	}
	a, b := sha256.Sum256([]byte(given)), sha256.Sum256([]byte(h.conf.Token))
	if subtle.ConstantTimeCompare(a[:], b[:]) != 1 || given == "" {
		return errUnauthorized
	}
	return nil
}
