package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tokenkeep/tokenkeep/cli/internal/calls"
	"github.com/tokenkeep/tokenkeep/cli/internal/files"
	"github.com/tokenkeep/tokenkeep/tokenstore/doctor"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// racing holds the flags of "doctor --races".
type racing struct {
	wanted bool // --races

	rounds, racers, samples int
	within                  time.Duration
	calls                   int
	svg                     string
	yes                     bool
}

// racesFlags lists the names of the flags that require --races.
var racesFlags = []string{"rounds", "racers", "samples", "within", "calls", "svg", "yes"}

func (r *racing) flags(c *cobra.Command) {
	f := c.Flags()
	f.BoolVar(&r.wanted, "races", false, "measure the service: races and lags")
	f.IntVar(&r.rounds, "rounds", 20, "with --races: number of races of each kind; 0 means none")
	f.IntVar(&r.racers, "racers", 8, "with --races: number of concurrent writes in a race, from 2 to 16")
	f.IntVar(&r.samples, "samples", 20, "with --races: number of writes whose lag is measured; 0 means none")
	f.DurationVar(&r.within, "within", time.Minute, "with --races: maximum `time` to wait for a write, up to 10m")
	f.IntVar(&r.calls, "calls", 0, "with --races: maximum number of calls; 0 means as many as necessary")
	f.StringVar(&r.svg, "svg", "", "with --races: also write the figures to this `FILE`")
	f.BoolVar(&r.yes, "yes", false, "with --races: begin without a question")
}

func (r *racing) check(c *cobra.Command) error {
	if !r.wanted {
		for _, name := range racesFlags {
			if c.Flags().Changed(name) {
				return usagef("--%s requires --races", name)
			}
		}
		return nil
	}
	for _, name := range []string{"repair", "merge-duplicates", "purge", "permissions", "grace"} {
		if c.Flags().Changed(name) {
			return usagef("--races and --%s cannot be used together", name)
		}
	}
	if r.svg != "" {
		return files.Replaceable(r.svg)
	}
	return nil
}

// options returns the options for the measurement. A value of 0 for --rounds, --racers or
// --samples becomes -1, because 0 means the default in the options.
func (r *racing) options() doctor.MeasureOptions {
	none := func(n int) int {
		if n == 0 {
			return -1
		}
		return n
	}
	return doctor.MeasureOptions{
		Rounds: none(r.rounds), Racers: none(r.racers), Samples: none(r.samples), Within: max(r.within, 1), Calls: r.calls,
	}
}

// A racesReport is a measurement of a service. With --json, the command prints this struct.
type racesReport struct {
	doctor.Measurement

	Requests     int64    `json:"requests"` // requests to the service, including retries
	MostRequests int64    `json:"most_requests"`
	MostDollars  *float64 `json:"most_dollars"` // cost of MostRequests at list prices; null if there is no list price
}

func (a *app) measure(ctx context.Context, s *store, r racing) error {
	if s.driver == nil {
		return usagef("a store of this kind has no service to measure")
	}
	p := s.driver.Properties()
	opts := r.options()
	o, err := opts.Complete(p)
	if err != nil {
		return usagef("--races: %s", strings.TrimPrefix(err.Error(), "invalid token: "))
	}
	bound := boundOf(p.Name, o)
	if err := a.agree(ctx, bound, r.yes); err != nil {
		return err
	}
	second, err := a.open(ctx) // a separate client, as another process would have
	if err != nil {
		return err
	}
	defer func() { _ = second.Close() }()
	if p.Place != "" && second.driver.Properties().Place == p.Place { // otherwise, the second store might have other records
		o.Others = append(o.Others, second.driver)
	}
	report, err := a.measured(ctx, s.driver, o, bound)
	return errors.Join(a.printRaces(report, r.svg), err)
}

// measured returns the report of a measurement. The error matches errFindings if there are
// harmful findings.
func (a *app) measured(ctx context.Context, d driver.Secrets, o doctor.MeasureOptions, b bound) (racesReport, error) {
	ctx, requests, stop := calls.Limit(ctx, b.requests-inProgress)
	defer stop()
	bar := a.progress("calls", o.Calls)
	o.Progress = bar.set
	m, err := doctor.Measure(ctx, d, &o)
	bar.done()
	if errors.Is(err, calls.ErrSpent) && len(m.Left) == 0 {
		m.Stopped, err = "requests", nil
	}
	if err == nil && len(m.Findings) > 0 {
		err = fmt.Errorf("%w: harmful findings: %d", errFindings, len(m.Findings))
	}
	return racesReport{Measurement: m, Requests: requests.Load(), MostRequests: b.requests, MostDollars: b.dollars}, err
}

// agree prints the bound of a measurement and, unless the parameter yes is set, asks the user for
// consent. It returns a usage error if the user does not agree, or cannot be asked.
func (a *app) agree(ctx context.Context, b bound, yes bool) error {
	text := fmt.Sprintf("measuring %s with temporary secrets: %s", clean(a.storeName()), b.text())
	if yes {
		a.announce("%s", wrapText(text, ""))
		return nil
	}
	if !isTerminal(a.in) {
		return usagef("--races makes up to %d calls to the store: add --yes, or answer the question on a terminal", b.calls)
	}
	_, _ = fmt.Fprint(a.errs, wrapText(text, "")+"Begin? [y/N] ")
	agreed, err := agreesTo(ctx, a.in)
	if err == nil && !agreed {
		err = usagef("the measurement was canceled")
	}
	return err
}

// agreesTo reads a line of input, and reports whether the line is "y" or "yes".
func agreesTo(ctx context.Context, in io.Reader) (bool, error) {
	lines := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(io.LimitReader(in, 16)).ReadString('\n') // an answer that cannot be read means no
		lines <- line
	}()
	select {
	case <-ctx.Done():
		return false, ctx.Err()
	case line := <-lines:
		line = strings.ToLower(strings.TrimSpace(line))
		return line == "y" || line == "yes", nil
	}
}

const (
	// requestsPerCall is the maximum average number of requests per permitted call of the driver.
	// Without retries, few calls take more than three requests.
	requestsPerCall = 6

	// inProgress is the number of requests that the limit leaves for the calls in progress and
	// for the removal of the temporary secrets.
	inProgress = 80
)

// A price holds the list prices of a service, in dollars. The documentation of the adapters names
// the sources of the prices.
type price struct {
	request float64 // the maximum for a request; some requests are free
	month   float64 // for each kept item, per month
	kept    string  // the name of the kept items
}

// priceOf returns the list price of a driver's service, and reports whether there is one.
func priceOf(driver string) (price, bool) {
	switch driver {
	case "awssm":
		return price{0.05 / 10_000, 0.40, "secrets"}, true
	case "gcpsm":
		return price{0.03 / 10_000, 0.06, "versions"}, true
	}
	return price{}, false
}

// A bound holds the maximum number of calls, the maximum number of requests, and the maximum cost
// of a measurement.
type bound struct {
	calls    int
	requests int64
	dollars  *float64 // maximum cost of the requests; nil if the service has no list price

	kept  int // maximum number of secrets or versions that exist at the same time
	price price
}

// boundOf returns the bound of a measurement with a driver and the given options, which must be
// complete.
func boundOf(driver string, o doctor.MeasureOptions) bound {
	b := bound{calls: o.Calls, requests: int64(o.Calls) * requestsPerCall}
	p, ok := priceOf(driver)
	if !ok {
		return b
	}
	dollars := float64(b.requests) * p.request
	b.price, b.dollars, b.kept = p, &dollars, 2
	if p.kept == "versions" {
		b.kept += 2*o.Rounds*o.Racers + o.Samples
	}
	return b
}

func (b bound) text() string {
	text := fmt.Sprintf("at most %d calls, which take at most %d requests.", b.calls, b.requests)
	if b.dollars == nil {
		return text + " There is no list price for a request."
	}
	return text + fmt.Sprintf(" At list prices, the requests cost at most $%.2f. Until they are removed, up to %d %s cost $%.2f a month.",
		*b.dollars+0.005, b.kept, b.price.kept, float64(b.kept)*b.price.month)
}
