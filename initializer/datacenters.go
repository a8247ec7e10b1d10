package initializer

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// A DataCenter is one of Zoho's, by its short name: "eu". A client is registered
// in one of them, and the accounts server of another does not know it.
type DataCenter string

// The data centres in which the CRM is offered.
const (
	US DataCenter = "us"
	EU DataCenter = "eu"
	IN DataCenter = "in"
	CN DataCenter = "cn"
	AU DataCenter = "au"
	JP DataCenter = "jp"
	CA DataCenter = "ca"
	SA DataCenter = "sa"
)

// hosts are where a data centre is: its accounts server and the domain of its API.
var hosts = []struct {
	name          DataCenter
	accounts, api string
}{
	{US, "https://accounts.zoho.com", "zohoapis.com"},
	{EU, "https://accounts.zoho.eu", "zohoapis.eu"},
	{IN, "https://accounts.zoho.in", "zohoapis.in"},
	{CN, "https://accounts.zoho.com.cn", "zohoapis.com.cn"},
	{AU, "https://accounts.zoho.com.au", "zohoapis.com.au"},
	{JP, "https://accounts.zoho.jp", "zohoapis.jp"},
	{CA, "https://accounts.zohocloud.ca", "zohoapis.ca"},
	{SA, "https://accounts.zoho.sa", "zohoapis.sa"},
}

// DataCenters returns the data centres that this package knows. Others can be
// used by an Environment with URLs of one's own.
func DataCenters() []DataCenter {
	var names []DataCenter
	for _, h := range hosts {
		names = append(names, h.name)
	}
	return names
}

// Production returns the environment of organisations that do real work. It is
// the zero Environment, which New refuses, if d is not known.
func (d DataCenter) Production() Environment { return d.environment("www") }

// Sandbox returns the environment of organisations that try changes out.
func (d DataCenter) Sandbox() Environment { return d.environment("sandbox") }

// Developer returns the environment of developers' organisations.
func (d DataCenter) Developer() Environment { return d.environment("developer") }

func (d DataCenter) environment(kind string) Environment {
	for _, h := range hosts {
		if h.name == d {
			return Environment{AccountsURL: h.accounts, APIURL: "https://" + kind + "." + h.api}
		}
	}
	return Environment{}
}

// An Environment is a pair of servers: the one that issues tokens and the one
// that takes them. See DataCenter for Zoho's; any other pair of base URLs will do.
// They are https, or http on the loopback interface.
type Environment struct {
	AccountsURL string // such as "https://accounts.zoho.eu"
	APIURL      string // such as "https://sandbox.zohoapis.eu"
}

func (e Environment) check() error {
	for _, u := range []struct{ name, url string }{{"AccountsURL", e.AccountsURL}, {"APIURL", e.APIURL}} {
		if !usableURL(u.url) {
			return fmt.Errorf("initializer: Environment.%s is not a base URL with https, or http on the loopback interface; is the data centre known?", u.name)
		}
	}
	return nil
}

// known reports whether e is one of Zoho's own.
func (e Environment) known() bool {
	for _, d := range DataCenters() {
		if slices.Contains([]Environment{d.Production(), d.Sandbox(), d.Developer()}, e) {
			return true
		}
	}
	return false
}

// environmentOf returns Zoho's environment with the given API domain.
func environmentOf(apiDomain string) (Environment, bool) {
	for _, d := range DataCenters() {
		for _, e := range []Environment{d.Production(), d.Sandbox(), d.Developer()} {
			if e.APIURL == apiDomain {
				return e, true
			}
		}
	}
	return Environment{}, false
}

// usableURL reports whether text is a base URL to which tokens may be sent.
func usableURL(text string) bool {
	u, err := url.Parse(text)
	return err == nil && secure(u) && u.RawQuery == "" && u.Fragment == "" && !strings.HasSuffix(text, "/")
}

// usableEndpoint reports whether text is a URL to which secrets may be sent.
func usableEndpoint(text string) bool {
	u, err := url.Parse(text)
	return err == nil && secure(u)
}

func secure(u *url.URL) bool {
	return u.Host != "" && u.User == nil && (u.Scheme == "https" || u.Scheme == "http" && loopback(u.Hostname()))
}

func loopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}
