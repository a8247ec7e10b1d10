package cli

import (
	"context"

	"github.com/tokenkeep/tokenkeep/cli/scheme"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

// memScheme returns the scheme of the URL "mem:". The records of this store are lost when the
// command ends.
func memScheme() scheme.Scheme {
	return scheme.Scheme{
		Name: "mem",
		Form: "mem:",
		Text: "memory: empty when a command starts, lost when it ends",
		Open: func(_ context.Context, o *scheme.Opening) (*scheme.Opened, error) {
			if o.Rest != "" {
				return nil, usagef("mem: takes nothing after the colon")
			}
			return &scheme.Opened{Driver: memstore.NewDriver()}, nil
		},
	}
}
