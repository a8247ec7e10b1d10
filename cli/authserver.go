package cli

import (
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep/cli/scheme"
	"github.com/tokenkeep/tokenkeep/initializer"
)

// An authServer holds the flags that name an authorization server.
type authServer struct {
	dataCenter, environment string
	accounts, api           string
	tokenURL, client        string
	issuer, resource        string // the issuer and resource of records, if tokenURL is set
}

// flags adds to c the flags that name an authorization server.
func (s *authServer) flags(c *cobra.Command) {
	c.Flags().StringVar(&s.dataCenter, "data-center", "", "Zoho's data center, such as us or eu, in which the clients are registered")
	c.Flags().StringVar(&s.environment, "environment", "", "production, sandbox or developer, with --data-center (default: production)")
	c.Flags().StringVar(&s.accounts, "accounts-url", "", "accounts server that works like Zoho's")
	c.Flags().StringVar(&s.api, "api-url", "", "base URL of the API, with --accounts-url (default: the same)")
	c.Flags().StringVar(&s.tokenURL, "token-url", "", "token endpoint of any other OAuth 2.0 server")
	c.Flags().StringVar(&s.client, "client", "", "client ID at --token-url; its secret is in "+envClientSecret)
}

func (s *authServer) given() bool { return s.dataCenter+s.accounts+s.tokenURL != "" }

// check returns a usage error if the flags contradict each other, or if a required flag is
// missing.
func (s *authServer) check() error {
	switch {
	case howMany(s.dataCenter != "", s.accounts != "", s.tokenURL != "") != 1:
		return usagef("give one of --data-center, --accounts-url and --token-url: the server that issues the tokens")
	case s.environment != "" && s.dataCenter == "":
		return usagef("--environment requires --data-center")
	case s.api != "" && s.accounts == "":
		return usagef("--api-url requires --accounts-url")
	case s.issuer+s.resource != "" && s.tokenURL == "":
		return usagef("--issuer and --resource require --token-url")
	case s.client != "" && s.tokenURL == "":
		return usagef("--client requires --token-url")
	case s.client == "" && s.tokenURL != "":
		return usagef("--token-url requires --client")
	}
	return nil
}

// config returns the configuration for requests to the server, or a usage error if the flags are
// invalid.
func (s *authServer) config(a *app) (initializer.Config, error) {
	c := initializer.Config{HTTPClient: a.http}
	if err := s.check(); err != nil {
		return c, err
	}
	for name, text := range map[string]*string{"accounts-url": &s.accounts, "api-url": &s.api, "token-url": &s.tokenURL} {
		if *text == "" {
			continue
		}
		e, err := scheme.ParseEndpoint(*text)
		if err != nil {
			return c, usagef("--%s: %w", name, err)
		}
		*text = e.URL.String()
	}
	switch {
	case s.tokenURL != "":
		c.OAuth2 = &oauth2.Config{ClientID: s.client, ClientSecret: a.env(envClientSecret), Endpoint: oauth2.Endpoint{TokenURL: s.tokenURL}}
		c.Issuer, c.Resource = s.issuer, s.resource
		return c, nil
	case s.accounts != "":
		c.Environment = initializer.Environment{AccountsURL: s.accounts, APIURL: s.api}
		if s.api == "" {
			c.Environment.APIURL = s.accounts
		}
		return c, nil
	}
	return c, s.zoho(&c)
}

// zoho sets c.Environment to the environment of Zoho that the flags name, or returns a usage
// error if there is no such environment.
func (s *authServer) zoho(c *initializer.Config) error {
	dc := initializer.DataCenter(s.dataCenter)
	switch s.environment {
	case "", "production":
		c.Environment = dc.Production()
	case "sandbox":
		c.Environment = dc.Sandbox()
	case "developer":
		c.Environment = dc.Developer()
	default:
		return usagef("--environment must be production, sandbox or developer")
	}
	if (c.Environment == initializer.Environment{}) {
		var names []string
		for _, d := range initializer.DataCenters() {
			names = append(names, string(d))
		}
		return usagef("there is no such data center%s; there are %s", didYouMean(s.dataCenter, names), strings.Join(names, ", "))
	}
	return nil
}
