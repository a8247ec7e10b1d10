package main

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// A document is Markdown that is being written.
type document struct{ bytes.Buffer }

// text adds a paragraph, or whatever Markdown it is.
func (d *document) text(text string) { d.WriteString(text + "\n\n") }

func (d *document) textf(format string, args ...any) { d.text(fmt.Sprintf(format, args...)) }

// table adds a table. The first row is the heading.
func (d *document) table(rows ...[]string) {
	for i, row := range rows {
		fmt.Fprintf(&d.Buffer, "| %s |\n", strings.Join(row, " | "))
		if i == 0 {
			fmt.Fprintf(&d.Buffer, "|---%s|\n", strings.Repeat("|---", len(row)-1))
		}
	}
	d.WriteString("\n")
}

// document returns docs/evidence.md.
func (r *results) document() []byte {
	var d document
	d.text("# Evidence")
	d.text("Written by `make evidence` from its own runs: do not edit. Nothing here was measured on the services themselves, but on " +
		"servers in the same process that enforce what the services document ([what could not be proved](#what-we-could-not-prove)).")
	r.summary(&d)
	r.howItWasRun(&d)
	r.faults(&d)
	r.linearizability(&d)
	r.month(&d)
	r.comparison(&d)
	r.stampede(&d)
	r.inProcess(&d)
	r.scaling(&d)
	r.unproved(&d)
	return append(bytes.TrimRight(d.Bytes(), "\n"), '\n')
}

func (r *results) summary(d *document) {
	runs, failures, doubled, operations, unsound := 0, 0, 0, 0, 0
	var refused int
	for _, service := range services {
		n, failed := matrixRuns(r.cells[service])
		runs, failures = runs+n, failures+failed
		doubled += len(r.doubled[service])
		operations += r.history[service].operations
		unsound += len(r.history[service].unsound)
		refused += r.usage[service].Refused
	}
	caught := 0
	for _, at := range r.mistaken {
		if at > 0 {
			caught++
		}
	}
	biggest := r.tokens[len(r.tokens)-1]
	rows := [][]string{
		{"what", "AWS", "Google Cloud", "Vault"},
		r.row("calls from a cold start to the first token", func(s string) string { return r.calls(s, coldStart, tokenkeep, biggest) }),
		r.row(fmt.Sprintf("calls to find a token by its user alone, of %s", number(biggest)), func(s string) string {
			return r.calls(s, byUser, tokenkeep, biggest)
		}),
		r.row("the same by listing and scanning", func(s string) string { return r.calls(s, byUser, listScan, biggest) }),
		r.row(fmt.Sprintf("median time to find (where servers here scan) and save among %s, to that among 10", number(r.many)), r.scaleRange),
		r.row(fmt.Sprintf("requests of a token by %d instances that find it expired", r.instances), func(s string) string {
			return r.stampeded(s, tokenkeep, func(s stampeded) string { return fmt.Sprint(s.Requests) })
		}),
		r.row("of them without a token (with Get and Put)", func(s string) string {
			failed := func(s stampeded) string { return fmt.Sprint(s.Failed) }
			return fmt.Sprintf("%s (%s)", r.stampeded(s, tokenkeep, failed), r.stampeded(s, perUser, failed))
		}),
		r.row("a month of hourly refreshes: calls over a quota", func(s string) string { return fmt.Sprint(r.usage[s].Refused) }),
		r.row("and dollars for each record", r.dollars),
	}
	d.text("## In short")
	d.table(rows...)
	d.table(
		[]string{"what", "of all services"},
		[]string{"one fault at every call of every operation", fmt.Sprintf("%s runs, %d went wrong", number(runs), failures)},
		[]string{"two faults", fmt.Sprintf("%s runs, %d went wrong", number(r.doubles*len(services)), doubled)},
		[]string{"concurrent histories that porcupine checked", fmt.Sprintf("%s with %s operations, %d without an explanation", number(r.sizes.histories*len(services)), number(operations), unsound)},
		[]string{"services with a mistake that are found out by it", fmt.Sprintf("%d of %d", caught, len(r.mistaken))},
		[]string{"a fresh token, compared with oauth2.ReuseTokenSource", fmt.Sprintf("%s times as long, %d allocations", r.fresh.String(), r.allocs(localSource))},
	)
}

// row is a row with a column for each service.
func (r *results) row(name string, f func(service string) string) []string {
	row := []string{name}
	for _, service := range services {
		row = append(row, f(service))
	}
	return row
}

func (r *results) calls(service, op, contender string, tokens int) string {
	m, ok := find(r.measured[service], op, contender, tokens)
	switch {
	case !ok:
		return ""
	case m.Missing == "no":
		return "–"
	case m.Missing != "":
		return m.Missing
	}
	return number(m.Calls)
}

func (r *results) allocs(name string) int {
	for _, l := range r.locals {
		if l.Name == name {
			return l.Allocs
		}
	}
	return -1
}

func (r *results) scaleRange(service string) string {
	low, high := 0.0, 0.0
	for i, s := range r.scaled[service] {
		if i == 0 || s.Ratio.Value < low {
			low = s.Ratio.Value
		}
		high = max(high, s.Ratio.Value)
	}
	return fmt.Sprintf("%.2f to %.2f", low, high)
}

// stampeded returns what became of a stampede with Zoho's limit, and of one with
// refresh tokens that rotate.
func (r *results) stampeded(service, contender string, what func(stampeded) string) string {
	var all []string
	for _, s := range r.stampedes[service] {
		if s.Contender == contender {
			all = append(all, what(s))
		}
	}
	if len(slices.Compact(slices.Clone(all))) == 1 {
		return all[0]
	}
	return strings.Join(all, " and ")
}

func (r *results) dollars(service string) string {
	u := r.usage[service]
	if u.Costs() == nil {
		return "no list price"
	}
	return fmt.Sprintf("$%.3f", u.Dollars())
}

func (r *results) howItWasRun(d *document) {
	d.text("## How it was run")
	d.textf("On %s, in %s:", r.began.Format("2 January 2006"), round(r.total()))
	d.textf("```\ngo -C evidence run . %s\n```", strings.Join(r.args, " "))
	d.textf("The flags that are left out have the values that `-help` shows. The machine: %s; its load average before the run was %s, which is what others "+
		"did on it.", machine(), r.load)
	rows := [][]string{{"part", "took"}}
	for _, p := range r.took {
		rows = append(rows, []string{p.name, round(p.took)})
	}
	d.table(rows...)
	d.text("The numbers of calls are exact, and `make test-evidence` fails if they change. Times are given as ratios of what was " +
		"measured in turns in one run; the brackets are 95 % confidence intervals (percentile bootstrap of the ratio of medians, 2,000 resamples).")
}

func (r *results) total() (sum time.Duration) {
	for _, p := range r.took {
		sum += p.took
	}
	return sum
}

func (r *results) faults(d *document) {
	d.text("## Faults")
	d.text("Every operation is run once for each of its calls and each fault, which strikes at that call. Then a process that starts cold reads the " +
		"store and checks: no record is lost, doubled or mixed with another; each is found by every key; nothing deleted is back; the operation " +
		"was done or not, and if it reported success, was; its error is of a documented class; and repeating it succeeds. A cell has the number " +
		"of calls at which the fault struck, or how many of these runs went wrong.")
	for _, service := range services {
		d.textf("### %s", title[service])
		heading := []string{"operation"}
		for f := range faults {
			heading = append(heading, f.String())
		}
		rows := [][]string{heading}
		var wrong []string
		for _, c := range r.cells[service] {
			if len(rows) == 1 || rows[len(rows)-1][0] != c.Operation {
				rows = append(rows, []string{c.Operation})
			}
			cell := fmt.Sprint(c.Calls)
			if c.Calls == 0 {
				cell = "–"
			}
			if len(c.Failures) > 0 {
				cell = fmt.Sprintf("**%d of %d wrong**", len(c.Failures), c.Calls)
			}
			rows[len(rows)-1] = append(rows[len(rows)-1], cell)
			for _, f := range c.Failures {
				wrong = append(wrong, fmt.Sprintf("%s, %v, %s", c.Operation, c.Fault, f))
			}
		}
		d.table(rows...)
		d.failures(wrong)
	}
	d.text("### Two faults")
	d.text("Of an operation, two faults and the two calls at which they strike, all drawn at random; the same checks.")
	rows := [][]string{{"service", "runs", "went wrong"}}
	var wrong []string
	for _, service := range services {
		rows = append(rows, []string{title[service], number(r.doubles), fmt.Sprint(len(r.doubled[service]))})
		for _, w := range r.doubled[service] {
			wrong = append(wrong, fmt.Sprintf("%s, %s, seed %d: %s", w.Service, w.Operation, w.Seed, w.What))
		}
	}
	d.table(rows...)
	d.failures(wrong)
}

// failures adds what went wrong, if anything did.
func (d *document) failures(all []string) {
	if len(all) > 0 {
		d.textf("```\n%s\n```", strings.Join(all, "\n"))
	}
}

func (r *results) linearizability(d *document) {
	d.text("## Linearizability")
	d.text("Eight clients, each a process of its own, save, find by user, find by ID, delete and refresh one record at once, while one in ten calls of the " +
		"service fails or is applied without an answer. [Porcupine](https://github.com/anishathalye/porcupine) looks for an order of the operations, one " +
		"after the other, that explains what every client saw.")
	rows := [][]string{{"service", "histories", "operations", "without an explanation"}}
	var wrong []string
	for _, service := range services {
		h := r.history[service]
		rows = append(rows, []string{title[service], number(r.sizes.histories), number(h.operations), fmt.Sprint(len(h.unsound))})
		for _, u := range h.unsound {
			wrong = append(wrong, u.What)
		}
	}
	d.table(rows...)
	d.failures(wrong)
	d.text("The check finds what is broken. These are services in memory, each with one mistake:")
	rows = [][]string{{"a service that", "is found out in history"}}
	for _, mistake := range slices.Sorted(maps.Keys(r.mistaken)) {
		at := fmt.Sprint(r.mistaken[mistake])
		if r.mistaken[mistake] == 0 {
			at = fmt.Sprintf("**none of %d**", r.mistakes)
		}
		rows = append(rows, []string{mistake, at})
	}
	d.table(rows...)
}

func (r *results) month(d *document) {
	d.text("## A month")
	d.textf("%s records are refreshed once an hour for 30 days, evenly spread over the hour, with `Store.Refresh`, each hour by another process. The clock is "+
		"that of the service, moved; the quotas are enforced as documented "+
		"([AWS](https://docs.aws.amazon.com/secretsmanager/latest/userguide/reference_limits.html), "+
		"[Google Cloud](https://docs.cloud.google.com/secret-manager/quotas)): a secret of AWS has 100 versions and keeps those of a day; "+
		"an account of AWS and a project of Google Cloud have the calls of a second or minute. Vault has no quotas but an operator's. Google Cloud's "+
		"limit for one secret (2 changes a second, \"soft\") is not enforced here: a refresh makes three, one before and two after the authorization "+
		"server has answered.", number(r.records))
	d.table(
		[]string{"", "AWS", "Google Cloud", "Vault"},
		r.row("refreshes", func(s string) string { return number(r.usage[s].Refreshes) }),
		r.row("calls", func(s string) string { return number(total(r.usage[s].Calls)) }),
		r.row("calls over a quota", func(s string) string { return fmt.Sprint(r.usage[s].Refused) }),
		r.row("calls of one refresh", r.perRefresh),
		r.row("calls that created a record", func(s string) string {
			return fmt.Sprintf("%.2f", float64(total(r.usage[s].Created))/float64(r.usage[s].Records))
		}),
		r.row("versions that the service keeps of a record: mean, most", func(s string) string {
			return fmt.Sprintf("%.1f, %d", r.usage[s].Versions, r.usage[s].Most)
		}),
	)
	d.text("What that costs for each record, without free tiers and without what finding it takes: AWS $0.40 for a secret and $0.05 for 10,000 calls " +
		"([prices](https://aws.amazon.com/secrets-manager/pricing/)), versions are free; Google Cloud $0.06 for a version that is not destroyed and " +
		"$0.03 for 10,000 accesses ([prices](https://cloud.google.com/secret-manager/pricing)), other calls are free. Vault has no price for secrets " +
		"and calls.")
	rows := [][]string{{"service", "item", "dollars a month"}}
	for _, service := range services {
		for _, c := range r.usage[service].Costs() {
			rows = append(rows, []string{title[service], c.Item, fmt.Sprintf("%.4f", c.Dollars)})
		}
		if r.usage[service].Costs() != nil {
			rows = append(rows, []string{title[service], "**together**", fmt.Sprintf("**%.4f**", r.usage[service].Dollars())})
		}
	}
	d.table(rows...)
	gcp := r.usage["gcp"]
	writes := gcp.PerRefresh("AddSecretVersion") + gcp.PerRefresh("UpdateSecret") + gcp.PerRefresh("DestroySecretVersion")
	d.textf("At %.2f writes for each refresh a project of Google Cloud, which has 600 writes a minute, has room for %s records that are refreshed "+
		"every hour, evenly spread; an account of AWS, with %.0f tag calls for each and 50 a second, for %s. These two numbers are computed, not run.",
		writes, number(int(600/writes*60)), r.usage["aws"].PerRefresh("TagResource")+r.usage["aws"].PerRefresh("UntagResource"),
		number(int(50/(r.usage["aws"].PerRefresh("TagResource")+r.usage["aws"].PerRefresh("UntagResource"))*3600)))
}

func (r *results) perRefresh(service string) string {
	u := r.usage[service]
	var calls []string
	for _, method := range slices.Sorted(maps.Keys(u.Calls)) {
		calls = append(calls, fmt.Sprintf("%s %s", method, strings.TrimSuffix(fmt.Sprintf("%.2f", u.PerRefresh(method)), ".00")))
	}
	return strings.Join(calls, "<br>")
}

func (r *results) comparison(d *document) {
	d.text("## What one would write instead")
	d.textf("The contenders, on the same service, behind the same %v for each call:", r.delay)
	d.table(
		[]string{"contender", "what it is"},
		[]string{tokenkeep, "this module: `initializer` for a start, `Store` for the rest"},
		[]string{perUser, "golang.org/x/oauth2, with Get and Put of one secret for each user"},
		[]string{oneBlob, "the same, with one secret that holds the JSON of all users"},
		[]string{listScan, "a secret for each user, and all are read to find one by anything but its name"},
	)
	d.text("Get and Put write without looking: of two processes that change one secret at once, one loses what it saved. The calls of " +
		"tokenkeep that others do not make are the read that a write is compared with, the labels, and the lease of a refresh. A dash says that a " +
		"contender has no such operation, or that it is another's (a user's secret is read by its name by all who have one). \"Does not fit\": a secret " +
		"of AWS and Google Cloud has 64 KiB, one of Vault's own storage [1 MiB](https://developer.hashicorp.com/vault/docs/internals/limits).")
	for _, service := range services {
		d.textf("### %s", title[service])
		d.text("Calls:")
		r.matrix(d, service, func(m measurement) string { return r.calls(service, m.Operation, m.Contender, m.Tokens) })
		d.textf("Times, as multiples of that of tokenkeep. What takes over a second was timed %d times, which makes the interval little more "+
			"than the range that was seen; all else %d times. Of those who read everything one search was timed: the others make the same calls.", r.long, r.rounds)
		r.matrix(d, service, func(m measurement) string {
			if m.Ratio.Value == 0 || m.Contender == tokenkeep {
				return "–"
			}
			return m.Ratio.String()
		})
	}
}

// matrix adds a table of operations among so many tokens by contenders, without the
// rows and columns that are empty.
func (r *results) matrix(d *document, service string, cell func(measurement) string) {
	rows := [][]string{append([]string{"operation", "tokens"}, contenderNames...)}
	for _, op := range comparedBy {
		for _, n := range r.tokens {
			row := []string{op, number(n)}
			for _, name := range contenderNames {
				m, _ := find(r.measured[service], op, name, n)
				row = append(row, cell(m))
			}
			if slices.ContainsFunc(row[2:], func(s string) bool { return s != "–" }) {
				rows = append(rows, row)
			}
		}
	}
	if !slices.ContainsFunc(rows[1:], func(row []string) bool { return row[2] != "–" }) {
		for i := range rows {
			rows[i] = slices.Delete(rows[i], 2, 3)
		}
	}
	d.table(rows...)
}

func (r *results) stampede(d *document) {
	d.text("## The stampede")
	d.textf("%d instances, each a process of its own that starts cold, find one access token expired at the same moment. The authorization server takes 200 ms; it has "+
		"Zoho's rule (a refresh token makes 10 access tokens in 10 minutes, then HTTP 200 with \"Access Denied\"), or rotates refresh tokens "+
		"and revokes all of a family when one is used twice (RFC 9700). The number of requests that tokenkeep makes is exact. The calls of the service "+
		"depend on when each instance comes, and are those of this run.", r.instances)
	rows := [][]string{{"service", "server", "contender", "requests of a token", "instances without one", "calls of the service", "what is stored can be refreshed", "took"}}
	for _, service := range services {
		for _, s := range r.stampedes[service] {
			server, usable := "Zoho's rule", "yes"
			if s.Strict {
				server = "rotating"
			}
			if !s.Usable {
				usable = "**no: the user has to consent again**"
			}
			rows = append(rows, []string{title[service], server, s.Contender, fmt.Sprint(s.Requests), fmt.Sprint(s.Failed), number(s.Calls), usable, s.Took.Round(10 * time.Millisecond).String()})
		}
	}
	d.table(rows...)
}

func (r *results) inProcess(d *document) {
	d.text("## What makes no call")
	d.textf("Allocations are exact and gate the tests (with Go 1.26); times are medians of %d rounds, of this machine.", r.local)
	rows := [][]string{{"part", "allocations", "time"}}
	for _, l := range r.locals {
		rows = append(rows, []string{l.Name, fmt.Sprint(l.Allocs), l.Time.String()})
	}
	d.table(rows...)
	d.textf("A fresh token from initializer's `TokenSource` takes %s times as long as one from `oauth2.ReuseTokenSource`. The target is 1.5 at most, without an allocation.", r.fresh.String())
}

func (r *results) scaling(d *document) {
	d.text("## Scale")
	d.textf("The same operations among 10 tokens and among %s, in turns, with %v for each call. The ratio is that of the median times. "+
		"Searches by a label take longer on AWS and Google Cloud because the server here looks through all secrets for it; what the services do, this cannot tell. The calls are the same.", number(r.many), r.delay)
	rows := [][]string{{"operation"}}
	for _, service := range services {
		rows[0] = append(rows[0], service+": calls, calls", "ratio")
		for i, s := range r.scaled[service] {
			if len(rows) <= i+1 {
				rows = append(rows, []string{s.Operation})
			}
			rows[i+1] = append(rows[i+1], fmt.Sprintf("%d, %d", s.Few, s.Many), s.Ratio.String())
		}
	}
	d.table(rows...)
	d.textf("A list of %s:", number(r.many))
	d.table(
		[]string{"", "AWS", "Google Cloud", "Vault"},
		r.row("calls", func(s string) string { return number(r.listed[s].Calls) }),
		r.row("budget", func(s string) string { return number(r.listed[s].Budget) }),
		r.row("`GetTokens` returns, KiB", func(s string) string { return number(r.listed[s].Held >> 10) }),
		r.row("`All` has more in use after the last record than after the first tenth, KiB", func(s string) string { return number(r.listed[s].Grew >> 10) }),
	)
	d.text("`All` holds one page, and no records: with AWS the names of those it has yielded, because pages may overlap; with Google Cloud and Vault the names of those to come. " +
		"What is in use was measured after a garbage collection; a negative number is what was released meanwhile.")
}

func (r *results) unproved(d *document) {
	d.text("## What we could not prove")
	var full []string
	for _, s := range []struct {
		flag       string
		value, due int
	}{{"doubles", r.doubles, 100_000}, {"records", r.records, 1000}, {"histories", r.sizes.histories, 1000}} {
		if s.value < s.due {
			full = append(full, fmt.Sprintf("`-%s %d` (here %s)", s.flag, s.due, number(s.value)))
		}
	}
	d.text("- **The services themselves.** All of this ran on servers that enforce what the documentation of AWS, Google Cloud and Vault says. What only documentation " +
		"supports is that the real ones do the same. The adapters' suites also run on Vault's own core and, nightly, on real accounts where there are " +
		"credentials. Where the image of LocalStack 4.14.0 can be had the continuous integration runs them on it; where this was written it could not, and they have run on a server that does what the source of LocalStack 4.14.0 and moto 5.1.22 does. LocalStack is not AWS, and there is no emulator of Secret Manager by Google.\n" +
		"- **That AWS decides writes on the present state.** AWS documents all operations as eventually consistent. awssm relies on two things: of two creations of one name " +
		"one is refused, and of two contents for one version ID one is. Tests that others have recorded on AWS show both; nothing documents a guarantee.\n" +
		"- **That Google Cloud's change of a secret is one step.** Labels, annotations and aliases are fields of one resource and change under one etag; that they become visible together is " +
		"the plain reading, and not spelled out.\n" +
		"- **What a reader may still see under lag.** A record that was replaced or deleted, or not yet one that was just created: within what the service documents for lists (AWS: five minutes) " +
		"or without a bound (Google Cloud: \"minutes, but may take a few hours\"; AWS: reads). Then a search misses a new record, or a token is returned that has been replaced; the next refresh finds " +
		"out. A save by a token alone within that time may leave a second record without a user, which whoever finds both makes one again.\n" +
		"- **A process that is frozen between its last look at the clock and the request.** It may ask the authorization server when its lease is over and another has asked. No store can rule that " +
		"out; with refresh tokens that rotate the user then has to consent again.\n" +
		"- **Times.** A call is held up by a fixed time. Real ones vary, and are throttled. The ratios are those of numbers of round trips, and of work on this machine.\n" +
		"- **Prices and quotas** are those of the pages named above, when they were read. They change.\n" +
		"- **The soft limit of Google Cloud** on changes of one secret (2 a second) is not enforced by the server here.")
	if len(full) > 0 {
		d.textf("Not run at full size here: %s. The seeds of a larger run begin with those of this one.", strings.Join(full, ", "))
	}
}

// String returns the ratio and its interval.
func (i interval) String() string {
	if i.Value >= 10 {
		return fmt.Sprintf("%.0f [%.0f, %.0f]", i.Value, i.Low, i.High)
	}
	return fmt.Sprintf("%.2f [%.2f, %.2f]", i.Value, i.Low, i.High)
}

// number writes an integer with commas.
func number(n int) string {
	if n < 0 {
		return "-" + number(-n)
	}
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%s,%03d", number(n/1000), n%1000)
}

func round(d time.Duration) string { return d.Round(time.Second).String() }

func find(all []measurement, op, contender string, tokens int) (measurement, bool) {
	for _, m := range all {
		if m.Operation == op && m.Contender == contender && m.Tokens == tokens {
			return m, true
		}
	}
	return measurement{}, false
}

// title has the services' names in full.
var title = map[string]string{"aws": "AWS Secrets Manager", "gcp": "Google Cloud Secret Manager", "vault": "Vault KV v2"}
