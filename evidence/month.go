package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// The month that is simulated.
const (
	monthDays   = 30
	monthHours  = monthDays * 24
	tokenLife   = time.Hour
	mintingTime = 500 * time.Millisecond // that the authorization server takes
	watchedOnes = 20                     // records whose versions are counted
	watchEvery  = 7                      // hours, so that all hours of a day have their turn
)

// A usage is what a month of hourly refreshes took.
type usage struct {
	Service   string
	Records   int
	Refreshes int
	Refused   int            // calls that were over a quota
	Created   map[string]int // calls, by method, that created the records
	Calls     map[string]int // and that refreshed them
	Versions  float64        // of a record, on average, that the service keeps
	Most      int            // and at most
	Took      time.Duration
}

// PerRefresh returns how often a method is called for one refresh.
func (u usage) PerRefresh(method string) float64 {
	return float64(u.Calls[method]) / float64(u.Refreshes)
}

// A cost is one item of what a record costs in a month, in dollars.
type cost struct {
	Item    string
	Dollars float64
}

// The prices, without free tiers:
// https://aws.amazon.com/secrets-manager/pricing and
// https://cloud.google.com/secret-manager/pricing.
const (
	awsSecretMonth  = 0.40
	awsCall         = 0.05 / 10_000
	gcpVersionMonth = 0.06
	gcpAccess       = 0.03 / 10_000
)

// Costs returns what a record costs in a month at list prices. Vault has no price
// for a secret or a call: it runs on servers of one's own, or is rented as a whole.
func (u usage) Costs() []cost {
	records := float64(u.Records)
	switch u.Service {
	case "aws":
		return []cost{{"the secret", awsSecretMonth}, {"calls", float64(total(u.Calls)) * awsCall / records}}
	case "gcp":
		return []cost{{"versions that are kept", u.Versions * gcpVersionMonth}, {"accesses", float64(u.Calls["AccessSecretVersion"]) * gcpAccess / records}}
	}
	return nil
}

// Dollars returns the sum of the costs.
func (u usage) Dollars() float64 {
	sum := 0.0
	for _, c := range u.Costs() {
		sum += c.Dollars
	}
	return sum
}

// still is a clock that stands unless it is moved.
type still struct{ at atomic.Int64 }

func (c *still) Now() time.Time          { return time.Unix(0, c.at.Load()).UTC() }
func (c *still) advance(d time.Duration) { c.at.Add(int64(d)) }

// until moves the clock to t, if that is not over yet.
func (c *still) until(t time.Time) {
	if t.After(c.Now()) {
		c.at.Store(t.UnixNano())
	}
}

// A simulation is a month that passes on a service.
type simulation struct {
	usage
	bed           *bed
	clock         still
	start         time.Time
	tokens        []tokenstore.Token
	kept, samples int // versions of the records that are watched
}

// month refreshes records once an hour for thirty days, evenly spread over the
// hour, on a service that enforces its documented quotas. Each hour it is another
// process that does so, which knows nothing but the IDs and the expired tokens.
func month(ctx context.Context, service string, records int) (usage, error) {
	began := time.Now()
	s := &simulation{usage: usage{Service: service, Records: records}, start: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC), tokens: make([]tokenstore.Token, records)}
	s.clock.until(s.start)
	var err error
	if s.bed, err = newBed(service, s.clock.Now, true); err != nil {
		return s.usage, err
	}
	defer s.bed.close()
	if err := s.create(ctx); err != nil {
		return s.usage, err
	}
	s.Created = s.bed.meter.take()
	for h := 1; h <= monthHours; h++ {
		if err := s.hour(ctx, h); err != nil {
			return s.usage, err
		}
		s.watch(h)
		s.bed.forget()
	}
	s.Calls = s.bed.meter.take()
	s.Refused = int(s.bed.meter.refused.Load())
	s.Versions = float64(s.kept) / float64(s.samples)
	s.Took = time.Since(began)
	return s.usage, nil
}

// each does something to each record at its time within an hour, as a process of its
// own.
func (s *simulation) each(h int, do func(store *tokenstore.Store, i int) error) error {
	store, err := s.bed.open(&tokenstore.Options{Now: s.clock.Now})
	if err != nil {
		return err
	}
	for i := range s.tokens {
		s.clock.until(s.start.Add(time.Duration(h)*time.Hour + time.Duration(i)*time.Hour/time.Duration(s.Records)))
		if err := do(store, i); err != nil {
			return fmt.Errorf("%s: hour %d, record %d: %w", s.Service, h, i, err)
		}
	}
	return nil
}

func (s *simulation) create(ctx context.Context) error {
	return s.each(0, func(store *tokenstore.Store, i int) (err error) {
		s.tokens[i], err = store.SaveToken(ctx, numbered(i, s.clock.Now().Add(tokenLife)))
		return err
	})
}

// hour refreshes all records.
func (s *simulation) hour(ctx context.Context, h int) error {
	return s.each(h, func(store *tokenstore.Store, i int) error {
		minted := tokenstore.Token{AccessToken: tokenstore.Secret(fmt.Sprintf("access-%d-%d", i, h))}
		got, err := store.Refresh(ctx, s.tokens[i].ID, s.tokens[i].AccessToken, func(context.Context, tokenstore.Token) (tokenstore.Token, error) {
			s.clock.advance(mintingTime)
			minted.ExpiresAt = s.clock.Now().Add(tokenLife)
			return minted, nil
		})
		if err == nil && got.AccessToken != minted.AccessToken {
			err = errors.New("not the token that was minted")
		}
		s.tokens[i] = got
		s.Refreshes++
		return err
	})
}

// watch counts the versions of some records, now and then.
func (s *simulation) watch(h int) {
	if h%watchEvery != 0 {
		return
	}
	for _, t := range s.tokens[:min(watchedOnes, s.Records)] {
		n := s.bed.kept(t.ID)
		s.kept, s.samples, s.Most = s.kept+n, s.samples+1, max(s.Most, n)
	}
}

// numbered is the token of the ith user.
func numbered(i int, expires time.Time) tokenstore.Token {
	n := strconv.Itoa(i)
	return tokenstore.Token{
		UserName:     "user-" + n + "@example.com:" + strconv.Itoa(60_000_000+i),
		ClientID:     testClient,
		ClientSecret: testSecret,
		RefreshToken: tokenstore.Secret("1000.refresh-" + n + ".0123456789abcdef0123456789abcdef"),
		AccessToken:  tokenstore.Secret("1000.access-" + n + ".0123456789abcdef0123456789abcdef"),
		ExpiresAt:    expires,
		APIDomain:    "https://www.zohoapis.com",
	}
}

// The OAuth client of all of them.
const (
	testClient = "1000.0123456789ABCDEFGHIJKLMNOPQR"
	testSecret = "0123456789abcdef0123456789abcdef0123456789"
)
