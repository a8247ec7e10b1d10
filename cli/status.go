package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/internal/bulk"
	"github.com/tokenkeep/tokenkeep/internal/pace"
	"github.com/tokenkeep/tokenkeep/internal/sdkid"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/doctor"
)

// watching holds the flags of status.
type watching struct {
	asking
	probe string
}

func (a *app) statusCommand() *cobra.Command {
	var w watching
	c := &cobra.Command{
		Use:     "status [ID]",
		GroupID: groupRecords,
		Short:   "Show the state of the refreshes of records",
		Long:    statusHelp,
		Args:    mostOneID,
		RunE: func(c *cobra.Command, args []string) error {
			w.id = strings.Join(args, "")
			if err := w.check(); err != nil {
				return err
			}
			on := a.reading()
			if w.probe != "" {
				on = a.changing()
			}
			return on.withStore(c.Context(), func(s *store) error { return a.status(c.Context(), s, &w) })
		},
	}
	w.flags(c)
	c.Flags().StringVar(&w.probe, "probe", "", "ask the API at this `URL` with each token, and replace one that it refuses")
	return c
}

func (w *watching) check() error {
	w.settle()
	switch {
	case w.id != "" && w.user != "":
		return usagef("status takes one of: an ID, --user")
	case w.user == "" && w.probe == "" && w.client+w.issuer+w.resource != "":
		return usagef("--client, --issuer and --resource require --user")
	case w.probe == "" && w.server.given():
		return usagef("status asks no server without --probe: leave out the flags that name one")
	case w.probe != "":
		return checkProbe(w.probe)
	}
	return nil
}

const statusHelp = `Shows when the access token expires, when the record was last written, and the state,
for one record or for all records. The states are:

  valid       the access token has not expired
  expired     the access token has expired; the next request for it refreshes it
  refreshing  a process is refreshing it
  abandoned   a process was killed during a refresh; the next refresh waits until the lease
              of that process has ended
  refused     the authorization server has refused a refresh; the next request waits until
              the time that is shown
  dead        the server has refused for good, or there is nothing to refresh it with: the
              user has to log in again
  rejected    with --probe: the API refuses the token, and the one that replaced it

Without --probe, no request is sent to an authorization server, and nothing is changed.
Stores in files and tables do not know when a record was written.

With --probe, status sends one GET request with the token of each record, except refused
and dead records:

  tokenkeep status --probe /crm/v8/org

A path is relative to the API domain of the record. A token that the API refuses, or that has
expired, is replaced. "tokenkeep token --help" describes how to name the server.

The exit code is 16 if a record is dead, else 13 if one is refused, abandoned or rejected.`

const (
	stateValid      = "valid"
	stateExpired    = "expired"
	stateRefreshing = "refreshing"
	stateAbandoned  = "abandoned"
	stateRefused    = "refused"
	stateDead       = "dead"
	stateRejected   = "rejected"
)

// A standing is the refresh state of a record. With --json, the command prints this struct for
// each record.
type standing struct {
	ID       string `json:"id"`
	User     string `json:"user_name,omitempty"`
	Client   string `json:"client_id,omitempty"`
	Issuer   string `json:"issuer,omitempty"`
	Resource string `json:"resource,omitempty"`

	State     string          `json:"state"`
	ExpiresAt string          `json:"expires_at,omitempty"`
	WrittenAt string          `json:"written_at,omitempty"`
	Refusal   *standingRefuse `json:"refusal,omitempty"`
	Lease     *standingLease  `json:"lease,omitempty"`
	Probe     int             `json:"probe_status,omitempty"` // the HTTP status of the probe
	Replaced  bool            `json:"replaced,omitempty"`     // whether the probe replaced the token

	expires, written, until time.Time
}

type standingRefuse struct {
	Code      string `json:"code"`
	Permanent bool   `json:"permanent"`
	Count     int    `json:"count"`
	At        string `json:"at"`
	Retry     string `json:"retry_at,omitempty"`
}

type standingLease struct {
	Until string `json:"until,omitempty"`
}

// standingOf returns the refresh state of t at the given time.
func standingOf(t tokenstore.Token, s doctor.Status, now time.Time) standing {
	r := standing{
		ID: t.ID, User: t.UserName, Client: t.ClientID, Issuer: t.Issuer, Resource: t.Resource,
		ExpiresAt: timeText(t.ExpiresAt), WrittenAt: timeText(s.Written), expires: t.ExpiresAt, written: s.Written,
	}
	if s.Refusal != nil && s.Refusal.Counts {
		r.Refusal = &standingRefuse{Code: s.Refusal.Code, Permanent: s.Refusal.Permanent, Count: s.Refusal.Count, At: timeText(s.Refusal.At)}
		if !s.Refusal.Permanent {
			r.Refusal.Retry, r.until = timeText(s.Refusal.Retry), s.Refusal.Retry
		}
	}
	if s.Lease != nil {
		r.Lease = &standingLease{timeText(s.Lease.Until)}
	}
	expired := expiresWithin(t, now, 0)
	switch {
	case r.Refusal != nil && r.Refusal.Permanent, expired && t.RefreshToken == "" && t.GrantToken == "":
		r.State = stateDead
	case s.Lease != nil && !s.Lease.Until.IsZero() && s.Lease.Until.Before(now):
		r.State, r.until = stateAbandoned, s.Lease.Until
	case s.Lease != nil:
		r.State = stateRefreshing
	case r.Refusal != nil:
		r.State = stateRefused
	case expired:
		r.State = stateExpired
	default:
		r.State = stateValid
	}
	return r
}

func (a *app) status(ctx context.Context, s *store, w *watching) error {
	reader, ok := s.TokenStore.(doctor.StatusReader)
	if !ok {
		return usagef("this kind of store keeps no status")
	}
	tokens, unreadable, err := a.meant(ctx, s, w)
	if err != nil {
		return err
	}
	all, err := a.standings(ctx, reader, tokens)
	if err != nil {
		return err
	}
	var failed error
	if w.probe != "" {
		if all, failed, err = a.probed(ctx, s, w, reader, all, tokens); err != nil {
			return err
		}
	}
	slices.SortFunc(all, func(a, b standing) int { return sdkid.Compare(a.ID, b.ID) })
	if a.json {
		err = a.printJSON(all)
	} else {
		a.printStandings(all)
	}
	return errors.Join(err, unreadable, failed, worst(all))
}

// probed sends a probe for each record that is neither dead nor refused. With --client, probed
// sends probes only for the records of that client. Afterwards, probed replaces the elements of
// tokens with the current records, and returns the states of all records. The result failed joins
// the errors from the probes, except errors that match initializer.ErrReauthRequired.
func (a *app) probed(ctx context.Context, s *store, w *watching, from doctor.StatusReader, before []standing, tokens []tokenstore.Token) (all []standing, failed, err error) {
	skip := map[string]bool{}
	for _, r := range before {
		skip[r.ID] = r.State == stateDead || r.State == stateRefused
	}
	asked := slices.DeleteFunc(slices.Clone(tokens), func(t tokenstore.Token) bool {
		return skip[t.ID] || w.client != "" && t.ClientID != w.client
	})
	probes, err := a.probes(ctx, s, w, asked)
	if err != nil {
		return nil, nil, err
	}
	by := map[string]probe{}
	var errs []error
	for i, p := range probes {
		by[asked[i].ID] = p
		if p.err != nil && !errors.Is(p.err, initializer.ErrReauthRequired) {
			errs = append(errs, p.err)
		}
	}
	for i, t := range tokens {
		if p, ok := by[t.ID]; ok {
			tokens[i] = p.token
		}
	}
	all, err = a.standings(ctx, from, tokens)
	for i, r := range all {
		p := by[r.ID]
		all[i].Probe, all[i].Replaced = p.status, p.replaced
		if p.status == http.StatusUnauthorized && r.State == stateValid {
			all[i].State = stateRejected
		}
	}
	return all, problems(errs), err
}

// meant returns the record with the ID, the record of the user, or all records if neither an ID nor
// a user is given. The result unreadable is the error about records that cannot be read.
func (a *app) meant(ctx context.Context, s *store, w *watching) (tokens []tokenstore.Token, unreadable, err error) {
	if w.id == "" && w.user == "" {
		return bulk.Readable(s.GetTokens(ctx))
	}
	t, err := w.find(ctx, s)
	return []tokenstore.Token{t}, nil, withoutToken(err, w.id, maybeToken)
}

// standings returns the states of records in a store. It omits records that were removed
// meanwhile.
func (a *app) standings(ctx context.Context, from doctor.StatusReader, tokens []tokenstore.Token) ([]standing, error) {
	const atOnce = 16
	all := make([]standing, len(tokens))
	err := pace.New(bulk.Throttled, atOnce).Each(ctx, len(tokens), func(ctx context.Context, i int) error {
		s, err := from.Status(ctx, tokens[i].ID)
		if errors.Is(err, tokenstore.ErrNotFound) {
			return nil
		}
		if err == nil {
			all[i] = standingOf(tokens[i], s, a.now())
		}
		return err
	})
	return slices.DeleteFunc(all, func(s standing) bool { return s.State == "" }), err
}

func (a *app) printStandings(all []standing) {
	if len(all) == 0 {
		a.note("there are no records")
		return
	}
	now := a.now()
	t := &table{}
	t.row("ID", "USER", "CLIENT", "EXPIRES", "WRITTEN", "STATE")
	for _, s := range all {
		state := s.State
		switch {
		case s.Refusal != nil && s.State == stateDead:
			state += fmt.Sprintf(" (%s)", clean(s.Refusal.Code))
		case s.State == stateRefused:
			state += fmt.Sprintf(" (%s), again %s", clean(s.Refusal.Code), relative(s.until, now))
		case s.State == stateAbandoned:
			state += fmt.Sprintf(", ended %s", relative(s.until, now))
		}
		if s.Probe != 0 {
			state += fmt.Sprintf(", the API says %d", s.Probe)
		}
		if s.Replaced {
			state += ", token replaced"
		}
		t.row(clean(s.ID), orDash(s.User), orDash(shorten(s.Client)), relative(s.expires, now), relative(s.written, now), state)
	}
	a.printf("%s", t.String())
}

// worst returns an error that matches initializer.ErrReauthRequired if a record is dead.
// Otherwise, the error matches errFindings if a record is refused, abandoned or rejected. If no
// record has any of these states, the error is nil.
func worst(all []standing) error {
	count := map[string]int{}
	for _, s := range all {
		count[s.State]++
	}
	switch troubled := count[stateRefused] + count[stateAbandoned] + count[stateRejected]; {
	case count[stateDead] > 0:
		return fmt.Errorf("%w: %s dead", initializer.ErrReauthRequired, are(count[stateDead]))
	case troubled > 0:
		return fmt.Errorf("%w: %s refused, abandoned or rejected", errFindings, are(troubled))
	}
	return nil
}

// are returns "n records are", or "1 record is" if n is 1.
func are(n int) string {
	if n == 1 {
		return "1 record is"
	}
	return fmt.Sprintf("%d records are", n)
}
