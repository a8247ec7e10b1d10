package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

const (
	monthDays   = 30
	monthHours  = monthDays * 24
	tokenLife   = time.Hour
	mintingTime = 500 * time.Millisecond // response time of the authorization server
	watchedOnes = 20                     // number of records whose versions are counted
	watchEvery  = 7                      // hours between counts; over the month, the counts cover all hours of the day
	abreast     = 20                     // number of records that are refreshed concurrently
)

// A usage holds the results of a month of hourly refreshes.
type usage struct {
	Service   string
	Records   int
	Refreshes int
	Refused   int            // number of calls that were refused because of a quota
	Created   map[string]int // number of calls, by method, that created the records
	Calls     map[string]int // number of calls, by method, that refreshed the records
	Versions  float64        // average number of stored versions of a record
	Most      int            // largest number of stored versions of a record
}

// PerRefresh returns the average number of calls of a method for one refresh.
func (u usage) PerRefresh(method string) float64 {
	return float64(u.Calls[method]) / float64(u.Refreshes)
}

// A cost is one item of the monthly cost of a record, in dollars.
type cost struct {
	Item    string
	Dollars float64
}

// The prices in dollars, without free tiers:
// https://aws.amazon.com/secrets-manager/pricing and
// https://cloud.google.com/secret-manager/pricing.
const (
	awsSecretMonth  = 0.40
	awsCall         = 0.05 / 10_000
	gcpVersionMonth = 0.06
	gcpAccess       = 0.03 / 10_000
)

// Costs returns the items of the monthly cost of a record at list prices, or nil for Vault and
// Kubernetes. Vault and Kubernetes have no price for a secret or a call, because users run
// their own servers or pay for a whole cluster.
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

// A still is a clock whose time changes only in calls of advance and until.
type still struct{ at atomic.Int64 }

func (c *still) Now() time.Time          { return time.Unix(0, c.at.Load()).UTC() }
func (c *still) advance(d time.Duration) { c.at.Add(int64(d)) }

// until advances the clock to t, unless the clock is already past t.
func (c *still) until(t time.Time) {
	for at := c.at.Load(); at < t.UnixNano() && !c.at.CompareAndSwap(at, t.UnixNano()); at = c.at.Load() {
	}
}

// A simulation holds the state of a simulated month on a service.
type simulation struct {
	usage
	bed           *bed
	clock         still
	start         time.Time
	tokens        []tokenstore.Token
	kept, samples int // sum of the sampled numbers of versions, and number of samples
}

// month refreshes records once an hour for thirty days, on a service that enforces its documented
// quotas. In each hour, another process refreshes the records, and has only the IDs and the expired
// tokens. The process refreshes groups of records, spread over the hour. The records of a group are
// refreshed concurrently, and abreast is the size of a group. month must run in a testing/synctest
// bubble, because a refresh on Google Cloud first waits up to 100 ms.
func month(ctx context.Context, service string, records int) (usage, error) {
	s := &simulation{usage: usage{Service: service, Records: records}, start: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC), tokens: make([]tokenstore.Token, records)}
	s.clock.until(s.start)
	var err error
	if s.bed, err = newBubbleBed(service, s.clock.Now, true); err != nil {
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
	return s.usage, nil
}

// each calls the function do for each record, in groups that are spread over hour h. All calls
// share the store of one process.
func (s *simulation) each(h int, do func(store *tokenstore.Store, i int, at *instant) error) error {
	store, err := s.bed.open(&tokenstore.Options{Now: s.clock.Now})
	if err != nil {
		return err
	}
	for first := 0; first < s.Records; first += abreast {
		s.clock.until(s.start.Add(time.Duration(h)*time.Hour + time.Duration(first)*time.Hour/time.Duration(s.Records)))
		if err := s.group(h, first, func(i int, at *instant) error { return do(store, i, at) }); err != nil {
			return err
		}
	}
	return nil
}

// group calls the function do concurrently for the records of one group. The parameter first is the
// index of the first record in the group.
func (s *simulation) group(h, first int, do func(i int, at *instant) error) error {
	errs := make([]error, min(abreast, s.Records-first))
	at := &instant{clock: &s.clock}
	at.underWay.Add(len(errs))
	var wg sync.WaitGroup
	for n := range errs {
		wg.Go(func() {
			if err := do(first+n, at); err != nil {
				errs[n] = fmt.Errorf("%s: hour %d, record %d: %w", s.Service, h, first+n, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// An instant advances the clock once for the refreshes of one group.
type instant struct {
	clock    *still
	underWay sync.WaitGroup // refreshes that have neither called mint nor ended
	passed   sync.Once
}

// mint simulates the request for a new token at the authorization server. mint waits until each
// refresh of the group has called mint or has ended, and then advances the clock by mintingTime,
// once for the group. If the clock advanced earlier, the reads of refreshes that have not
// called mint would look stale.
func (s *instant) mint() {
	s.underWay.Done()
	s.underWay.Wait()
	s.passed.Do(func() { s.clock.advance(mintingTime) })
}

func (s *simulation) create(ctx context.Context) error {
	return s.each(0, func(store *tokenstore.Store, i int, _ *instant) (err error) {
		s.tokens[i], err = store.SaveToken(ctx, numbered(i, s.clock.Now().Add(tokenLife)))
		return err
	})
}

func (s *simulation) hour(ctx context.Context, h int) error {
	err := s.each(h, func(store *tokenstore.Store, i int, at *instant) error {
		var once sync.Once
		minted := tokenstore.Token{AccessToken: tokenstore.Secret(fmt.Sprintf("access-%d-%d", i, h))}
		got, err := store.Refresh(ctx, s.tokens[i].ID, s.tokens[i].AccessToken, func(context.Context, tokenstore.Token) (tokenstore.Token, error) {
			once.Do(at.mint)
			minted.ExpiresAt = s.clock.Now().Add(tokenLife)
			return minted, nil
		})
		once.Do(at.underWay.Done) // for a refresh that ends without a call of mint
		if err == nil && got.AccessToken != minted.AccessToken {
			err = errors.New("not the token that was minted")
		}
		s.tokens[i] = got
		return err
	})
	s.Refreshes += s.Records
	return err
}

// watch counts the versions of the watched records, if h is a multiple of watchEvery.
func (s *simulation) watch(h int) {
	if h%watchEvery != 0 {
		return
	}
	for _, t := range s.tokens[:min(watchedOnes, s.Records)] {
		n := s.bed.kept(t.ID)
		s.kept, s.samples, s.Most = s.kept+n, s.samples+1, max(s.Most, n)
	}
}

// numbered returns the token of user number i, with the expiry time expires.
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

// The OAuth client of all users.
const (
	testClient = "1000.0123456789ABCDEFGHIJKLMNOPQR"
	testSecret = "0123456789abcdef0123456789abcdef0123456789"
)
