package cli

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

func (a *app) refreshCommand() *cobra.Command {
	var f asking
	var within time.Duration
	c := &cobra.Command{
		Use:     "refresh [ID]",
		GroupID: groupRecords,
		Short:   "Replace the access token of a record",
		Long: `Has the authorization server replace the access token of the record with an ID, or of a
user and client, and says when the new one expires. It shows no token: "tokenkeep token"
does.

  tokenkeep refresh --user ann@example.com:6001 --client 1000.ABC
  tokenkeep refresh --user ann --client ABC --token-url https://login.example.com/token

With --within, a token that lasts longer is left as it is. A token that another process
replaces at the same time is replaced once. "tokenkeep token --help" describes how
to name the server.`,
		Args: mostOneID,
		RunE: func(c *cobra.Command, args []string) error {
			f.id = strings.Join(args, "")
			if err := f.check("refresh"); err != nil {
				return err
			}
			return a.changing().withStore(c.Context(), func(s *store) error { return a.refresh(c.Context(), s, f, within) })
		},
	}
	f.flags(c)
	c.Flags().DurationVar(&within, "within", 0, "refresh a token only if it expires within this `time`; 0 refreshes any token")
	return c
}

// A refreshResult is the outcome of refresh. With --json, the command prints this struct.
type refreshResult struct {
	ID        string `json:"id"`
	Refreshed bool   `json:"refreshed"`
	ExpiresAt string `json:"expires_at,omitempty"`
}

func (a *app) refresh(ctx context.Context, s *store, f asking, within time.Duration) error {
	t, err := f.find(ctx, s)
	if err != nil {
		return withoutToken(err, f.id, maybeToken)
	}
	config, err := f.of(a, t)
	if err != nil {
		return err
	}
	before := t.AccessToken
	if within == 0 || expiresWithin(t, a.now(), within) {
		if t, err = a.renewed(ctx, s, config, t); err != nil {
			return err
		}
	}
	r := refreshResult{ID: t.ID, Refreshed: t.AccessToken != before, ExpiresAt: timeText(t.ExpiresAt)}
	if a.json {
		return a.printJSON(r)
	}
	what := "refreshed"
	if !r.Refreshed {
		what = "left as it is"
	}
	a.printf("%s %s, expires %s\n", clean(t.ID), what, relative(t.ExpiresAt, a.now()))
	return nil
}

// expiresWithin reports whether the access token of a record is missing, or expires within the
// given duration after now. It returns false for a token without an expiry time.
func expiresWithin(t tokenstore.Token, now time.Time, within time.Duration) bool {
	return t.AccessToken == "" || !t.ExpiresAt.IsZero() && t.ExpiresAt.Before(now.Add(within))
}

// timeText returns t in UTC in the form of RFC 3339, or "" if t is zero.
func timeText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}
