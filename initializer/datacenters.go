package initializer

import (
	"fmt"
	"strings"
)

// A DataCenter is the short name of one of Zoho's data centers, such as "eu". A client is
// registered in one data center. The accounts servers of other data centers refuse the client,
// unless the client is also enabled there.
type DataCenter string

// The data centers of Zoho.
const (
	US DataCenter = "us"
	EU DataCenter = "eu"
	IN DataCenter = "in"
	CN DataCenter = "cn"
	AU DataCenter = "au"
	JP DataCenter = "jp"
	CA DataCenter = "ca"
	SA DataCenter = "sa"
	UK DataCenter = "uk"
	AE DataCenter = "ae"
)

// hosts lists the accounts server and the API domain of each data center.
var hosts = []struct {
	name          DataCenter
	accounts, api string
}{
	{US, "accounts.zoho.com", "zohoapis.com"},
	{EU, "accounts.zoho.eu", "zohoapis.eu"},
	{IN, "accounts.zoho.in", "zohoapis.in"},
	{CN, "accounts.zoho.com.cn", "zohoapis.com.cn"},
	{AU, "accounts.zoho.com.au", "zohoapis.com.au"},
	{JP, "accounts.zoho.jp", "zohoapis.jp"},
	{CA, "accounts.zohocloud.ca", "zohoapis.ca"},
	{SA, "accounts.zoho.sa", "zohoapis.sa"},
	// The SDKs lack these two data centers. Zoho lists the accounts server of UK
	// (zoho.com/accounts/protocol/oauth/multi-dc.html) and the API domain of AE
	// (zoho.com/workdrive/developer/docs/api/v1/getting-started-multi-dc-support.html).
	{UK, "accounts.zoho.uk", "zohoapis.uk"},
	{AE, "accounts.zoho.ae", "zohoapis.ae"},
}

// DataCenters returns the data centers that this package defines. For another data center, use
// an Environment with its URLs.
func DataCenters() []DataCenter {
	var names []DataCenter
	for _, h := range hosts {
		names = append(names, h.name)
	}
	return names
}

// Production returns the environment of production organizations. If d is unknown, Production,
// Sandbox and Developer return the zero Environment, which New refuses.
func (d DataCenter) Production() Environment { return d.environment("www") }

// Sandbox returns the environment of sandbox organizations.
func (d DataCenter) Sandbox() Environment { return d.environment("sandbox") }

// Developer returns the environment of developer organizations.
func (d DataCenter) Developer() Environment { return d.environment("developer") }

func (d DataCenter) environment(kind string) Environment {
	d = DataCenter(strings.ToLower(strings.TrimSpace(string(d))))
	for _, h := range hosts {
		if h.name == d {
			return Environment{AccountsURL: "https://" + h.accounts, APIURL: "https://" + kind + "." + h.api}
		}
	}
	return Environment{}
}

// An Environment is a pair of servers: an accounts server that issues tokens, and an API server
// that accepts the tokens. The methods of DataCenter return the environments of Zoho. Other base
// URLs also work. The URLs must use https, or http on the loopback interface. A URL without a
// scheme uses https. A final slash and the path of a Zoho OAuth endpoint are ignored.
type Environment struct {
	AccountsURL string // such as "https://accounts.zoho.eu"
	APIURL      string // such as "https://sandbox.zohoapis.eu"
}

// complete returns e in normalized form, or an error if e is empty or has an invalid URL.
func (e Environment) complete() (Environment, error) {
	if (e == Environment{}) {
		return e, fmt.Errorf("initializer: Config.Environment is empty; is the data center one of %v?", DataCenters())
	}
	for _, u := range []struct {
		name string
		text *string
	}{{"AccountsURL", &e.AccountsURL}, {"APIURL", &e.APIURL}} {
		base, err := parseBase(*u.text)
		if err != nil {
			return e, fmt.Errorf("initializer: Environment.%s is not a base URL with https, or http on the loopback interface, such as %q", u.name, EU.Production().AccountsURL)
		}
		base.Path = withoutEndpoint(base.Path)
		if base.Path != "" && isZoho(base) {
			return e, fmt.Errorf("initializer: Environment.%s has the path %q; it is %q alone", u.name, base.Path, base.Scheme+"://"+base.Host)
		}
		*u.text = base.String()
	}
	return e, nil
}

// withoutEndpoint returns path without the Zoho OAuth endpoint, if any, at its end. Some users
// configure the URL of an endpoint in place of the base URL.
func withoutEndpoint(path string) string {
	for _, endpoint := range []string{"/oauth/v2/token/revoke", "/oauth/v2/token", "/oauth/v2/auth", "/oauth/v2"} {
		if before, ok := strings.CutSuffix(path, endpoint); ok {
			return before
		}
	}
	return path
}

// known reports whether both servers of e are Zoho's.
func (e Environment) known() bool { return e.ofZoho() == 2 }

// partly reports whether at least one of the servers of e is Zoho's.
func (e Environment) partly() bool { return e.ofZoho() > 0 }

func (e Environment) ofZoho() (n int) {
	for _, text := range []string{e.AccountsURL, e.APIURL} {
		if u, err := parseBase(text); err == nil && isZoho(u) {
			n++
		}
	}
	return n
}

// accountsFor returns the accounts server of the data center with the given API domain, or false if
// no data center has this domain.
func accountsFor(apiDomain string) (string, bool) {
	base, err := parseBase(apiDomain)
	if err != nil || base.Scheme != "https" {
		return "", false
	}
	for _, h := range hosts {
		if within(base.Host, h.api) {
			return "https://" + h.accounts, true
		}
	}
	return "", false
}
