package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/internal/zohoaccounts"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

const (
	lifeClient = "1000.DEMOPROGRAM"
	lifeEmail  = "lena@example.com"
	lifeZGID   = "60777777"
	lifeUser   = lifeEmail + ":" + lifeZGID

	// lifeCall is the path of the program's request to the CRM.
	lifeCall = "/crm/v8/Leads"
)

// A zohoStandIn simulates Zoho's accounts server and CRM in this process.
type zohoStandIn struct {
	*zohoaccounts.Server
	url    string
	secret string // secret of the client
	close  func()
	seen   int // number of requests that tally has counted
}

// startZoho starts a stand-in for Zoho at which the OAuth client lifeClient is registered. The
// stand-in waits half a second before it issues a token, so that many processes can send requests
// in the meantime.
func startZoho() (*zohoStandIn, error) {
	const delay = 500 * time.Millisecond
	server := zohoaccounts.New(nil)
	z := &zohoStandIn{Server: server, secret: rand.Text()}
	server.AddClient(zohoaccounts.Client{ID: lifeClient, Secret: z.secret})
	server.Inject(func(r zohoaccounts.Request) *zohoaccounts.Fault {
		if r.Kind == zohoaccounts.Exchange || r.Kind == zohoaccounts.Refresh {
			return &zohoaccounts.Fault{Delay: delay}
		}
		return nil
	})
	var err error
	z.url, z.close, err = server.Listen()
	return z, err
}

// A tally counts the requests to a zohoStandIn.
type tally struct {
	exchanges, refreshes, revocations int // granted or refused
	calls                             int // successful requests for lifeCall
	tokens                            int // distinct access tokens in those calls
}

// tally counts the requests since the previous call of tally.
func (z *zohoStandIn) tally() tally {
	var (
		n      tally
		tokens []string
	)
	all := z.Requests()
	for _, r := range all[z.seen:] {
		switch {
		case r.Kind == zohoaccounts.Exchange:
			n.exchanges++
		case r.Kind == zohoaccounts.Refresh:
			n.refreshes++
		case r.Kind == zohoaccounts.Revoke:
			n.revocations++
		case r.Path == lifeCall && r.Code == "":
			n.calls++
			tokens = append(tokens, r.Header.Get("Authorization"))
		}
	}
	z.seen = len(all)
	slices.Sort(tokens)
	n.tokens = len(slices.Compact(tokens))
	return n
}

// A programOrder is the input of a process that runs the program.
type programOrder struct {
	Zoho   string `json:"zoho"` // the base URL
	Client string `json:"client"`
	Secret string `json:"secret"` // set if the process has a code
	Code   string `json:"code"`
	User   string `json:"user"` // set if the process has no code
	Stay   bool   `json:"stay"` // stay until the process is killed
}

// A crmAnswer is the output of a process that runs the program.
type crmAnswer struct {
	User   string `json:"user"`
	Status int    `json:"status"` // status of the CRM's response
}

// codeStep runs the program with a one-time code, and kills the process after the program has
// called the CRM.
func (d *demo) codeStep(ctx context.Context) error {
	d.title("A program starts with a one-time code, and is killed", "initializer.New, Client.HTTPClient")
	code := d.zoho.Code(zohoaccounts.Consent{ClientID: lifeClient, Email: lifeEmail, ZGID: lifeZGID})
	got, err := d.runAndKill(ctx, programOrder{Zoho: d.zoho.url, Client: lifeClient, Secret: d.zoho.secret, Code: code, Stay: true})
	n := d.zoho.tally()
	d.check(err == nil && n == tally{exchanges: 1, calls: 1, tokens: 1} && got.Status == http.StatusOK,
		"%d exchange of the code at Zoho's accounts server; the CRM accepts the token", n.exchanges)
	d.detail(err)
	has, err := d.store.FindToken(ctx, tokenstore.Token{UserName: lifeUser, ClientID: lifeClient})
	d.check(err == nil && got.User == lifeUser && has.RefreshToken != "",
		"the process is gone; its tokens are in the store, under %s", lifeUser)
	return nil
}

func (d *demo) runAndKill(ctx context.Context, o programOrder) (got crmAnswer, err error) {
	ctx, cancel := context.WithTimeout(ctx, processTime)
	defer cancel()
	p, err := d.startChild(ctx, roleCall)
	if err != nil {
		return got, err
	}
	if err := p.ask(o, func() {}, &got); err != nil {
		return got, p.end(err)
	}
	if err := p.cmd.Process.Kill(); err != nil {
		return got, errors.Join(err, p.end(nil))
	}
	if err := p.cmd.Wait(); err == nil {
		return got, errors.New("the process has ended by itself")
	}
	return got, nil
}

func (d *demo) coldStep(ctx context.Context) error {
	d.title("It starts again, cold, with nothing but the name of its user", "the same")
	answers, err := together[crmAnswer](ctx, d, roleCall, []programOrder{d.again()})
	if err != nil {
		return err
	}
	n := d.zoho.tally()
	d.check(answers[0].err == nil && answers[0].answer == crmAnswer{lifeUser, http.StatusOK} && n.calls == 1,
		"the CRM accepts the token that the store has")
	d.detail(answers[0].err)
	asked := n.exchanges + n.refreshes + n.revocations
	d.check(asked == 0, "%d requests to Zoho's accounts server", asked)
	return nil
}

// again returns the input of a program that starts without a code.
func (d *demo) again() programOrder {
	return programOrder{Zoho: d.zoho.url, Client: lifeClient, User: lifeUser}
}

// expiryStep runs the program in many processes after the token has expired.
func (d *demo) expiryStep(ctx context.Context) error {
	d.title(fmt.Sprintf("An hour later, %d processes find the token expired at once", d.processes), "the same")
	if err := d.expire(ctx); err != nil {
		d.check(false, "there is a record of %s to expire: %v", lifeUser, err)
		return nil
	}
	answers, err := together[crmAnswer](ctx, d, roleCall, slices.Repeat([]programOrder{d.again()}, d.processes))
	if err != nil {
		return err
	}
	succeeded(d, answers)
	n := d.zoho.tally()
	d.check(n.refreshes == 1 && n.exchanges == 0, "%d refresh at Zoho's accounts server (it refuses the 11th in ten minutes)", n.refreshes)
	d.check(n.calls == d.processes && n.tokens == 1, "%d calls of the CRM with the same new token", n.calls)
	return nil
}

// expire makes the program's access token expire, in the store and at Zoho, as if an hour
// had passed.
func (d *demo) expire(ctx context.Context) error {
	has, err := d.store.FindToken(ctx, tokenstore.Token{UserName: lifeUser, ClientID: lifeClient})
	if err != nil {
		return err
	}
	d.zoho.Advance(time.Hour)
	has.ExpiresAt = has.ExpiresAt.Add(-time.Hour)
	_, err = d.store.SaveToken(ctx, has)
	return err
}

// callCRM calls the CRM with package initializer, like a user's program.
func callCRM(ctx context.Context, s store, o programOrder) (got crmAnswer, err error) {
	client, err := initializer.New(ctx, initializer.Config{
		Environment: initializer.Environment{AccountsURL: o.Zoho, APIURL: o.Zoho},
		Store:       s,
		FindUser:    true,
		Token: tokenstore.Token{
			UserName:     o.User,
			ClientID:     o.Client,
			ClientSecret: tokenstore.Secret(o.Secret),
			GrantToken:   tokenstore.Secret(o.Code),
		},
	})
	if err != nil {
		return got, err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, lifeCall, http.NoBody)
	if err != nil {
		return got, err
	}
	res, err := client.HTTPClient(ctx).Do(req)
	if err != nil {
		return got, err
	}
	defer func() { err = errors.Join(err, res.Body.Close()) }()
	t, err := client.Token(ctx)
	return crmAnswer{t.UserName, res.StatusCode}, err
}
