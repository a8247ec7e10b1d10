package cli

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/internal/bulk"
	"github.com/tokenkeep/tokenkeep/internal/pace"
	"github.com/tokenkeep/tokenkeep/internal/sdkid"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/driverkit"
)

// keeping holds the flags of keep.
type keeping struct {
	asking       // the authorization server, and the client ID of the selected records
	within, idle time.Duration
	jitter       time.Duration
	parallel     int
	metrics      string // the file to which metrics are written
}

func (a *app) keepCommand() *cobra.Command {
	var k keeping
	c := &cobra.Command{
		Use:     "keep",
		GroupID: groupUpkeep,
		Short:   "Refresh the tokens that expire soon, and report dead grants",
		Long:    keepHelp,
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := k.check(); err != nil {
				return err
			}
			return a.changing().withStore(c.Context(), func(s *store) error { return a.keep(c.Context(), s, k) })
		},
	}
	f := c.Flags()
	k.server.flags(c)
	f.Lookup("client").Usage = "only records with this client ID"
	f.StringVar(&k.issuer, "issuer", "", "the issuer of the records, if it is not --token-url")
	f.DurationVar(&k.within, "within", 10*time.Minute, "refresh access tokens that expire within this `time`; 0 disables this")
	f.DurationVar(&k.idle, "idle", 0, "refresh access tokens that expired at least this `time` ago, so that refresh tokens do not expire without use; 0 disables this")
	f.DurationVar(&k.jitter, "jitter", 10*time.Second, "wait for a random time up to this `time` before the first refresh")
	f.IntVar(&k.parallel, "parallel", 4, "number of records to refresh at the same time")
	f.StringVar(&k.metrics, "metrics", "", "write numbers of records for Prometheus to this `FILE`, for node_exporter's textfile collector")
	return c
}

const keepHelp = `Refreshes the access tokens of all records that expire soon, and reports records that can
no longer be refreshed. It runs once, for cron or a scheduled function.

  tokenkeep keep --store awssm:oauth --json
  tokenkeep keep --token-url https://login.example.com/token --within 0s --idle 720h

If several instances run at the same time, each record is refreshed once, by the process
with the lease. Each instance first waits for a random time up to --jitter, and takes the
records in random order.

A Zoho record names the data center of its tokens. Records of other servers are refreshed
if the server is named, as with "tokenkeep token"; others are skipped and counted.

--within alone refreshes every record, including those of inactive users. With
"tokenkeep keep --within 0s --idle 720h", a refresh token that expires after 60 days
without use is used once in 30 days.

The calls to the store respect its quota. If the authorization server throttles five times
in a row, the remaining records are left for the next run.

With --metrics, the numbers of records are written to a file for the textfile collector of
Prometheus's node_exporter: what keep has done, and how many records have an access token
that expired 1, 3, 7 or more days ago. The name of the file must end in .prom. The file
contains no ID, user or client.

The exit code is 16 if a grant is dead: its user has to log in again. If a refresh failed
for another reason, it is 8 or the code of that reason. The other records are still
refreshed.`

func (k *keeping) check() error {
	k.settle()
	switch {
	case k.within < 0 || k.idle < 0 || k.jitter < 0:
		return usagef("--within, --idle and --jitter must not be negative")
	case k.within == 0 && k.idle == 0:
		return usagef("--within and --idle are both 0: there is nothing to do")
	case k.parallel < 1:
		return usagef("--parallel must be at least 1")
	}
	return checkMetricsFile(k.metrics)
}

// due reports whether the flags require a refresh of t at the time now.
func (k *keeping) due(t tokenstore.Token, now time.Time) bool {
	if k.within > 0 && expiresWithin(t, now, k.within) {
		return true
	}
	return k.idle > 0 && !t.ExpiresAt.IsZero() && !now.Before(t.ExpiresAt.Add(k.idle))
}

// kept is the outcome of keep. With --json, the command prints this struct.
type kept struct {
	Store     string      `json:"store"`
	Records   int         `json:"records"`   // number of readable records
	Due       int         `json:"due"`       // number of records that are due
	Refreshed int         `json:"refreshed"` // number of due records that this or another process refreshed
	Later     int         `json:"later"`     // number of due records left for a later run, because the authorization server throttled requests
	Skipped   int         `json:"skipped"`   // number of due records whose authorization server is not named
	Failed    []deadGrant `json:"failed"`    // other due records whose refresh failed
	Dead      []deadGrant `json:"dead"`      // records whose users must log in again
}

// A deadGrant is a record that could not be refreshed.
type deadGrant struct {
	ID     string `json:"id"`
	User   string `json:"user_name,omitempty"`
	Client string `json:"client_id,omitempty"`
	Issuer string `json:"issuer,omitempty"`
	Code   string `json:"code,omitempty"` // the error code of the authorization server
	Why    string `json:"why"`
}

// A keeper is one run of keep.
type keeper struct {
	keeping
	app   *app
	store *store

	mu     sync.Mutex
	report kept
	errs   []error
	turned int // number of consecutive throttling answers

	renewed map[string]bool // IDs of the records that were refreshed
}

// mostTurned is the number of consecutive throttling answers after which keep sends no further
// requests.
const mostTurned = 5

func (a *app) keep(ctx context.Context, s *store, k keeping) error {
	tokens, unreadable, err := bulk.Readable(s.GetTokens(ctx))
	if err != nil {
		return err
	}
	w := &keeper{keeping: k, app: a, store: s, renewed: map[string]bool{}, report: kept{Store: a.storeName(), Records: len(tokens), Failed: []deadGrant{}, Dead: []deadGrant{}}}
	due := slices.DeleteFunc(slices.Clone(tokens), func(t tokenstore.Token) bool {
		return !k.due(t, a.now()) || k.client != "" && t.ClientID != k.client
	})
	w.report.Due = len(due)
	if len(due) > 0 && k.jitter > 0 {
		if err := driverkit.Sleep(ctx, rand.N(k.jitter)); err != nil {
			return err
		}
	}
	rand.Shuffle(len(due), func(i, j int) { due[i], due[j] = due[j], due[i] })
	err = pace.New(bulk.Throttled, k.parallel).Each(ctx, len(due), func(ctx context.Context, i int) error { return w.one(ctx, due[i]) })
	if k.metrics != "" {
		err = errors.Join(err, w.writeMetrics(tokens))
	}
	return w.print(errors.Join(err, unreadable))
}

// one refreshes a record, and adds the outcome to the report. It returns an error only if the
// store denies or throttles a call, or if ctx is done.
func (w *keeper) one(ctx context.Context, t tokenstore.Token) error {
	config, err := w.of(w.app, t)
	if err != nil || w.enough() {
		w.count(func(r *kept) {
			if err != nil {
				r.Skipped++
			} else {
				r.Later++
			}
		})
		return nil
	}
	_, err = w.app.renewed(ctx, w.store, config, t)
	if err != nil && (ctx.Err() != nil || bulk.Throttled(err) || errors.Is(err, tokenstore.ErrDenied)) {
		return err
	}
	w.note(t, err)
	return nil
}

func (w *keeper) enough() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.turned >= mostTurned
}

func (w *keeper) count(change func(*kept)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change(&w.report)
}

func (w *keeper) note(t tokenstore.Token, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := &w.report
	if !errors.Is(err, initializer.ErrThrottled) {
		w.turned = 0
	}
	switch {
	case err == nil:
		r.Refreshed++
		w.renewed[t.ID] = true
	case errors.Is(err, tokenstore.ErrNotFound): // another process removed the record
	case errors.Is(err, initializer.ErrThrottled):
		r.Later++
		w.turned++
	case errors.Is(err, initializer.ErrReauthRequired):
		r.Dead = append(r.Dead, w.grant(t, err))
	default:
		r.Failed = append(r.Failed, w.grant(t, err))
		w.errs = append(w.errs, fmt.Errorf("%s: %w", clean(t.ID), err))
	}
}

func (w *keeper) grant(t tokenstore.Token, err error) deadGrant {
	d := deadGrant{ID: t.ID, User: t.UserName, Client: t.ClientID, Issuer: t.Issuer, Why: textOf(err)}
	if refused := (*tokenstore.RefreshError)(nil); errors.As(err, &refused) {
		d.Code = refused.Code
	}
	return d
}

// print writes the report to standard output, and returns the error that the command returns.
func (w *keeper) print(err error) error {
	r, a := &w.report, w.app
	for _, list := range [][]deadGrant{r.Dead, r.Failed} {
		slices.SortFunc(list, func(a, b deadGrant) int { return sdkid.Compare(a.ID, b.ID) })
	}
	err = errors.Join(err, problems(w.errs))
	if n := len(r.Dead); n > 0 {
		err = errors.Join(err, fmt.Errorf("%w: %s dead", initializer.ErrReauthRequired, are(n)))
	}
	if r.Skipped > 0 {
		a.note("%s skipped, because the authorization server is not named: see --token-url and --accounts-url", are(r.Skipped))
	}
	if a.json {
		return errors.Join(err, a.printJSON(r))
	}
	rows := &table{}
	if len(r.Dead)+len(r.Failed) > 0 {
		rows.row("ID", "USER", "CLIENT", "STATE", "CODE")
	}
	for i, d := range slices.Concat(r.Dead, r.Failed) {
		state := stateDead
		if i >= len(r.Dead) {
			state = "failed"
		}
		rows.row(clean(d.ID), orDash(d.User), orDash(shorten(d.Client)), state, orDash(d.Code))
	}
	a.printf("%s%d of %s due: %d refreshed, %d dead, %d failed, %d later, %d skipped\n",
		rows.String(), r.Due, records(r.Records), r.Refreshed, len(r.Dead), len(r.Failed), r.Later, r.Skipped)
	return err
}
