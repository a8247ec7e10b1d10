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

// month refreshes records once an hour for thirty days, evenly spread over the
// hour, on a service that enforces its documented quotas. Each hour it is another
// process that does so, which knows nothing but the IDs and the expired tokens.
func month(ctx context.Context, service string, records int) (usage, error) {
	began := time.Now()
	var c still
	start := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	c.until(start)
	b, err := newBed(service, c.Now, true)
	if err != nil {
		return usage{}, err
	}
	defer b.close()
	u := usage{Service: service, Records: records}

	hour := func(h, i int) time.Time {
		return start.Add(time.Duration(h)*time.Hour + time.Duration(i)*time.Hour/time.Duration(records))
	}
	s, err := b.open(&tokenstore.Options{Now: c.Now})
	if err != nil {
		return u, err
	}
	tokens := make([]tokenstore.Token, records)
	for i := range tokens {
		c.until(hour(0, i))
		if tokens[i], err = s.SaveToken(ctx, numbered(i, c.Now().Add(tokenLife))); err != nil {
			return u, fmt.Errorf("%s: create record %d: %w", service, i, err)
		}
	}
	u.Created = b.meter.take()

	kept, samples := 0, 0
	for h := 1; h <= monthHours; h++ {
		if s, err = b.open(&tokenstore.Options{Now: c.Now}); err != nil {
			return u, err
		}
		for i, t := range tokens {
			c.until(hour(h, i))
			minted := tokenstore.Token{AccessToken: tokenstore.Secret(fmt.Sprintf("access-%d-%d", i, h))}
			got, err := s.Refresh(ctx, t.ID, t.AccessToken, func(context.Context, tokenstore.Token) (tokenstore.Token, error) {
				c.advance(mintingTime)
				minted.ExpiresAt = c.Now().Add(tokenLife)
				return minted, nil
			})
			if err == nil && got.AccessToken != minted.AccessToken {
				err = errors.New("not the token that was minted")
			}
			if err != nil {
				return u, fmt.Errorf("%s: hour %d, record %d: %w", service, h, i, err)
			}
			tokens[i] = got
			u.Refreshes++
		}
		if h%watchEvery == 0 {
			for _, t := range tokens[:min(watchedOnes, records)] {
				n := b.kept(t.ID)
				kept, samples, u.Most = kept+n, samples+1, max(u.Most, n)
			}
		}
		b.forget()
	}
	u.Calls = b.meter.take()
	u.Refused = int(b.meter.refused.Load())
	u.Versions = float64(kept) / float64(samples)
	u.Took = time.Since(began)
	return u, nil
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
