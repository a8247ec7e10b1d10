package cli

import (
	"cmp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// An identity holds the flags that identify a record by user, client, issuer and resource.
type identity struct{ user, client, issuer, resource string }

// flags adds the flags to a command. It appends the parameter user to the description of --user,
// and the parameter others to the other descriptions.
func (i *identity) flags(c *cobra.Command, user, others string) {
	c.Flags().StringVar(&i.user, "user", "", "the user's name"+user)
	c.Flags().StringVar(&i.client, "client", "", "the client's ID"+others)
	c.Flags().StringVar(&i.issuer, "issuer", "", "the authorization server"+others)
	c.Flags().StringVar(&i.resource, "resource", "", "the API for which the token is"+others)
}

// token returns a token with the fields of the identity, for a search.
func (i identity) token() tokenstore.Token {
	return tokenstore.Token{UserName: i.user, ClientID: i.client, Issuer: i.issuer, Resource: i.resource}
}

// complete fills an empty user, client, issuer or resource of t from i, and returns the result. If
// t and i have different values for one of these fields, complete returns a usage error.
func (i identity) complete(t tokenstore.Token) (tokenstore.Token, error) {
	var strange []string
	for _, part := range []struct {
		flag, given string
		of          *string
	}{{"user", i.user, &t.UserName}, {"client", i.client, &t.ClientID}, {"issuer", i.issuer, &t.Issuer}, {"resource", i.resource, &t.Resource}} {
		if part.given != "" && *part.of != "" && *part.of != part.given {
			strange = append(strange, part.flag)
		}
		*part.of = cmp.Or(*part.of, part.given)
	}
	if len(strange) > 0 {
		return tokenstore.Token{}, usagef("the record differs from --%s", strings.Join(strange, " and --"))
	}
	return t, nil
}
