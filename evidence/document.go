package main

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// A document is a Markdown document under construction.
type document struct{ bytes.Buffer }

// text adds a block of Markdown and an empty line.
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

// pages returns evidence.md and the pages with all tables, by their paths relative to docs.
func (r *results) pages() map[string][]byte {
	all := map[string][]byte{"evidence.md": r.document()}
	for _, p := range []struct {
		name, title string
		write       func(*document)
	}{
		{"faults", "Evidence: faults", r.faultTables},
		{"comparison", "Evidence: calls and times", r.comparison},
		{"scale", "Evidence: number of records", r.scaling},
		{"month", "Evidence: a month of refreshes", r.monthTables},
		{"expired", "Evidence: one expired token, many processes", r.expired},
		{"process", "Evidence: costs in the process", r.inProcess},
	} {
		var d document
		d.text("# " + p.title)
		d.text("`make evidence` writes this page, and [Evidence](../evidence.md) explains it. Do not edit it.")
		p.write(&d)
		all["evidence/"+p.name+".md"] = d.done()
	}
	return all
}

// done returns the document with one line feed at its end.
func (d *document) done() []byte { return append(bytes.TrimRight(d.Bytes(), "\n"), '\n') }

func (r *results) document() []byte {
	var d document
	d.text("# Evidence")
	d.text("Tokenkeep promises that a fault never loses a record, and that many processes refresh a token once. This page says how far these promises are proved, " +
		"and what tokenkeep costs in calls, time and dollars. `make evidence` writes the page and its tables from the results of one run. Do not edit them.")
	d.text("No real service took part. The run replaces each service with a fake: a server in the same process, which enforces the rules and quotas that the service " +
		"documents. [The last section](#what-could-not-be-proved) lists the limits of this method.")
	r.summary(&d)
	d.text("## What was proved")
	r.faults(&d)
	r.linearizability(&d)
	d.text("## What was measured")
	r.calling(&d)
	r.month(&d)
	r.stampede(&d)
	r.quotas(&d)
	r.starting(&d)
	r.repeating(&d)
	r.unproved(&d)
	return d.done()
}

func (r *results) summary(d *document) {
	biggest := r.tokens[len(r.tokens)-1]
	d.text("## In short")
	d.table(
		[]string{"", "AWS", "Google Cloud", "Vault", "Kubernetes"},
		r.row("faults injected into operations", func(s string) string {
			runs, _ := matrixRuns(r.Cells[s])
			return number(runs + 2*r.doubles)
		}),
		r.row("runs with faults that went wrong", func(s string) string {
			_, failures := matrixRuns(r.Cells[s])
			return fmt.Sprint(failures + len(r.Doubled[s]))
		}),
		r.row("operations of concurrent clients", func(s string) string { return number(r.History[s].Operations) }),
		r.row("histories that no order explains", func(s string) string { return fmt.Sprint(len(r.History[s].Unsound)) }),
		r.row("calls from a cold start to the first token", func(s string) string { return r.calls(s, coldStart, tokenkeep, biggest) }),
		r.row(fmt.Sprintf("calls to find a token by its user alone, of %s", number(biggest)), func(s string) string {
			return r.calls(s, byUser, tokenkeep, biggest)
		}),
		r.row("the same by listing and scanning", func(s string) string { return r.calls(s, byUser, listScan, biggest) }),
		r.row(fmt.Sprintf("token requests when a token expires for %d instances", r.instances), func(s string) string {
			return r.stampeded(s, tokenkeep, func(s stampeded) string { return fmt.Sprint(s.Requests) })
		}),
		r.row("calls over a quota in a month of hourly refreshes", func(s string) string { return fmt.Sprint(r.Usage[s].Refused) }),
		r.row("dollars for each record in that month", r.dollars),
	)
}

// row returns a row of a table, with a column for each service.
func (r *results) row(name string, f func(service string) string) []string {
	row := []string{name}
	for _, service := range services {
		row = append(row, f(service))
	}
	return row
}

func (r *results) calls(service, op, contender string, tokens int) string {
	m, ok := find(r.Measured[service], op, contender, tokens)
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
	for _, l := range r.Locals {
		if l.Name == name {
			return l.Allocs
		}
	}
	return -1
}

// stampeded calls the function what for each of the contender's two stampedes, and returns the
// two texts with "and" between them. The first stampede is with Zoho's limit, and the second with
// refresh tokens that rotate. If the texts are equal, stampeded returns one text.
func (r *results) stampeded(service, contender string, what func(stampeded) string) string {
	var all []string
	for _, s := range r.Stampedes[service] {
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
	u := r.Usage[service]
	if u.Costs() == nil {
		return "no list price"
	}
	return fmt.Sprintf("$%.3f", u.Dollars())
}

func (r *results) faults(d *document) {
	d.text("### Faults")
	d.textf("The run injects %d kinds of fault: refused calls, lost answers, time-outs, stale reads, killed processes, and a clock that is set back. It repeats each of %d "+
		"operations once for each of its calls and each kind of fault. The fault strikes at that call. Another process then starts cold, reads the store, and checks that:", int(faults), len(operations))
	d.text("- no record is lost, doubled or mixed with another record;\n" +
		"- every key of a record finds that record;\n" +
		"- no deleted record is back;\n" +
		"- the operation has its whole effect or none, and has its effect if it reported success;\n" +
		"- the error of the operation is of a documented class;\n" +
		"- a repetition of the operation succeeds.")
	d.text("A second part draws an operation, two faults and the two calls at random, and makes the same checks. That part runs on a virtual clock, on which a time-out takes no time.")
	rows := [][]string{{"service", "runs with one fault", "went wrong", "runs with two faults", "went wrong"}}
	single := 0
	for _, service := range services {
		runs, failures := matrixRuns(r.Cells[service])
		single += runs
		rows = append(rows, []string{title[service], number(runs), fmt.Sprint(failures), number(r.doubles), fmt.Sprint(len(r.Doubled[service]))})
	}
	d.table(rows...)
	d.textf("Together these are %s runs with one fault and %s with two. [All operations and faults](evidence/faults.md).", number(single), number(r.doubles*len(services)))
}

func (r *results) faultTables(d *document) {
	d.text("The records are new. A later save or refresh makes one more call on Google Cloud, which removes an outdated version, and on Vault, which removes an outdated label: see [the month](month.md).\n\n" +
		"A row is an operation. A column is a fault. A cell has the number of calls at which the fault struck, or the number of those runs that went wrong. " +
		"A dash says that the service cannot have that fault.")
	for _, service := range services {
		d.textf("## %s", title[service])
		heading := []string{"operation"}
		for f := range faults {
			heading = append(heading, f.String())
		}
		rows := [][]string{heading}
		var wrong []string
		for _, c := range r.Cells[service] {
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
		for _, w := range r.Doubled[service] {
			wrong = append(wrong, fmt.Sprintf("two faults, %s, seed %d: %s", w.Operation, w.Seed, w.What))
		}
		d.failures(wrong)
	}
}

// failures adds a block with the strings in all, unless all is empty.
func (d *document) failures(all []string) {
	if len(all) > 0 {
		d.textf("```\n%s\n```", strings.Join(all, "\n"))
	}
}

func (r *results) linearizability(d *document) {
	d.text("### Concurrent operations")
	d.text("Eight clients, each like a process of its own, save, find by user, find by ID, delete and refresh one record at once. One in ten calls of the service " +
		"fails, or takes effect without an answer. [Porcupine](https://github.com/anishathalye/porcupine) searches for an order of the operations that explains " +
		"the answers to all clients. A history without such an order is a fault of the store.")
	rows := [][]string{{"service", "histories", "operations", "without an explanation"}}
	var wrong []string
	for _, service := range services {
		h := r.History[service]
		rows = append(rows, []string{title[service], number(r.histories), number(h.Operations), fmt.Sprint(len(h.Unsound))})
		for _, u := range h.Unsound {
			wrong = append(wrong, u.What)
		}
	}
	d.table(rows...)
	d.failures(wrong)
	d.textf("The check finds faults where there are some. Each of these fakes has one mistake, and the check has up to %d histories to find it:", r.mistakes)
	rows = [][]string{{"a service that", "is found in history"}}
	for _, mistake := range slices.Sorted(maps.Keys(r.Mistaken)) {
		at := fmt.Sprint(r.Mistaken[mistake])
		if r.Mistaken[mistake] == 0 {
			at = fmt.Sprintf("**none of %d**", r.mistakes)
		}
		rows = append(rows, []string{mistake, at})
	}
	d.table(rows...)
}

func (r *results) calling(d *document) {
	biggest := r.tokens[len(r.tokens)-1]
	d.text("### Calls and times")
	d.textf("Three alternatives stand for the code that a program would have without tokenkeep: one secret for each user, one secret for all users, and a scan of all secrets. "+
		"All run on the same fake, and each call takes %v more. This table has the calls of an operation among %s tokens, of tokenkeep and of one secret for "+
		"each user. A dash says that the alternative lacks the operation.", r.delay, number(biggest))
	rows := [][]string{{"operation", "AWS", "Google Cloud", "Vault", "Kubernetes"}}
	for _, op := range comparedBy {
		rows = append(rows, r.row(op, func(s string) string {
			return r.calls(s, op, tokenkeep, biggest) + " / " + r.calls(s, op, perUser, biggest)
		}))
	}
	d.table(rows...)
	d.text("Tokenkeep makes more calls in a write: the read that the write depends on, the labels, and the lease of a refresh. The alternatives write without a check. Of two " +
		"processes that change one secret at once, one loses its change. [All calls and times](evidence/comparison.md).")
	low, high := r.scaleRange()
	d.textf("The number of records does not change the calls of a search or a save. The median time of an operation among %s records is %.2f to %.2f times that among %d. "+
		"[All operations, and lists](evidence/scale.md).", number(r.many), low, high, few)
}

// scaleRange returns the smallest and the largest ratio of an operation's time in the large store
// to the operation's time in the small store.
func (r *results) scaleRange() (low, high float64) {
	for _, service := range services {
		for _, s := range r.Scaled[service] {
			if low == 0 || s.Ratio.Value < low {
				low = s.Ratio.Value
			}
			high = max(high, s.Ratio.Value)
		}
	}
	return low, high
}

func (r *results) comparison(d *document) {
	d.textf("All contenders run on the same fake, and each call takes %v more.", r.delay)
	d.table(
		[]string{"contender", "what it is"},
		[]string{tokenkeep, "this module: `initializer` for a start, `Store` for the rest"},
		[]string{perUser, "golang.org/x/oauth2, with Get and Put of one secret for each user"},
		[]string{oneBlob, "the same, with one secret that holds the JSON of all users"},
		[]string{listScan, "a secret for each user; a search by anything but the name reads all secrets"},
	)
	d.text("A dash says that a contender lacks the operation, or shares it with another contender. \"Does not fit\": a secret " +
		"of AWS and Google Cloud has 64 KiB, one of Vault's own storage [1 MiB](https://developer.hashicorp.com/vault/docs/internals/limits), " +
		"one of Kubernetes [1 MiB](https://kubernetes.io/docs/concepts/configuration/secret/).")
	d.textf("Times are multiples of the time of tokenkeep. An operation of over a second was timed %d times, so that its interval is little more "+
		"than the range of the results. All other operations were timed %d times. A contender that reads all secrets was timed in one search, because its other searches make the same calls.", r.long, r.rounds)
	for _, service := range services {
		d.textf("## %s", title[service])
		d.text("Calls:")
		r.matrix(d, service, func(m measurement) string { return r.calls(service, m.Operation, m.Contender, m.Tokens) })
		d.text("Times:")
		r.matrix(d, service, func(m measurement) string {
			if m.Ratio.Value == 0 || m.Contender == tokenkeep {
				return "–"
			}
			return m.Ratio.String()
		})
	}
}

// matrix adds a table of operations by contender. It omits rows that contain only dashes, and
// the column of tokenkeep if that column contains only dashes.
func (r *results) matrix(d *document, service string, cell func(measurement) string) {
	rows := [][]string{append([]string{"operation", "tokens"}, contenderNames...)}
	for _, op := range comparedBy {
		for _, n := range r.tokens {
			row := []string{op, number(n)}
			for _, name := range contenderNames {
				m, _ := find(r.Measured[service], op, name, n)
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

func (r *results) scaling(d *document) {
	d.textf("The same operations among %d tokens and among %s, in turns. Each call takes %v more. The ratio is that of the median times. "+
		"Some searches by a label take longer on the fakes of AWS and Google Cloud, which look through all secrets. The run cannot tell the time that the real services take.",
		few, number(r.many), r.delay)
	for _, service := range services {
		d.textf("## %s", title[service])
		rows := [][]string{{"operation", fmt.Sprintf("calls among %d", few), "calls among " + number(r.many), "ratio of times"}}
		for _, s := range r.Scaled[service] {
			rows = append(rows, []string{s.Operation, fmt.Sprint(s.Few), fmt.Sprint(s.Many), s.Ratio.String()})
		}
		d.table(rows...)
	}
	d.textf("## A list of %s", number(r.many))
	d.table(
		[]string{"", "AWS", "Google Cloud", "Vault", "Kubernetes"},
		r.row("calls", func(s string) string { return number(r.Listed[s].Calls) }),
		r.row("budget", func(s string) string { return number(r.Listed[s].Budget) }),
		r.row("size of the result of `GetTokens`, KiB", func(s string) string { return number(r.Listed[s].Held >> 10) }),
		r.row("growth of the heap while `All` runs, KiB", func(s string) string { return number(r.Listed[s].Grew >> 10) }),
	)
	d.text("`All` holds one page of records, and on AWS up to 16 batches of 20. It also holds names: on AWS those of the records that it has yielded, because pages may overlap; on Google Cloud and Vault " +
		"those of the records to come. The growth is that from the first tenth of the records to the last record, after a garbage collection. A negative number says that the heap shrank.")
}

func (r *results) month(d *document) {
	d.text("### A month of refreshes")
	d.textf("%s records are refreshed once an hour for 30 days, spread evenly over the hour. Each hour, another process refreshes them. The clock of the fake runs ahead. "+
		"The fake enforces the quotas that [AWS](https://docs.aws.amazon.com/secretsmanager/latest/userguide/reference_limits.html) and "+
		"[Google Cloud](https://docs.cloud.google.com/secret-manager/quotas) document. Vault and Kubernetes document none.", number(r.records))
	d.table(
		[]string{"", "AWS", "Google Cloud", "Vault", "Kubernetes"},
		r.row("calls of one refresh", func(s string) string {
			return strings.TrimSuffix(fmt.Sprintf("%.2f", float64(total(r.Usage[s].Calls))/float64(r.Usage[s].Refreshes)), ".00")
		}),
		r.row("calls over a quota", func(s string) string { return fmt.Sprint(r.Usage[s].Refused) }),
		r.row("stored versions of a record, on average", func(s string) string { return fmt.Sprintf("%.1f", r.Usage[s].Versions) }),
		r.row("dollars for each record", r.dollars),
	)
	gcp, aws := r.Usage["gcp"], r.Usage["aws"]
	writes := gcp.PerRefresh("AddSecretVersion") + gcp.PerRefresh("UpdateSecret") + gcp.PerRefresh("DestroySecretVersion")
	changes := aws.PerRefresh("PutSecretValue") + aws.PerRefresh("UpdateSecretVersionStage")
	d.textf("A refresh takes %.2f writes on Google Cloud, and a project has 600 writes a minute. That is enough for %s records with hourly refreshes. "+
		"A refresh takes %.2f changes of a secret's versions on AWS. An account has 50 of these changes a second in each region, enough for %s records. "+
		"Both numbers of records are computed, not measured. [All calls and costs](evidence/month.md).",
		writes, number(int(600/writes*60)), changes, number(int(50/changes*3600)))
}

func (r *results) monthTables(d *document) {
	d.text("A secret of AWS has at most 100 versions, and keeps those of the last day. An account of AWS and a project of Google Cloud have a number of calls for each second or minute. " +
		"The limit of Google Cloud on changes of one secret, two a second, is not enforced.")
	d.table(
		[]string{"", "AWS", "Google Cloud", "Vault", "Kubernetes"},
		r.row("refreshes", func(s string) string { return number(r.Usage[s].Refreshes) }),
		r.row("calls", func(s string) string { return number(total(r.Usage[s].Calls)) }),
		r.row("calls over a quota", func(s string) string { return fmt.Sprint(r.Usage[s].Refused) }),
		r.row("calls of one refresh", r.perRefresh),
		r.row("calls that created a record", func(s string) string {
			return fmt.Sprintf("%.2f", float64(total(r.Usage[s].Created))/float64(r.Usage[s].Records))
		}),
		r.row("stored versions of a record: average, most", func(s string) string {
			return fmt.Sprintf("%.1f, %d", r.Usage[s].Versions, r.Usage[s].Most)
		}),
	)
	d.text("## Costs")
	d.text("The costs of a record are without free tiers, and without the calls that find it. [AWS](https://aws.amazon.com/secrets-manager/pricing/) takes $0.40 for a secret and $0.05 for " +
		"10,000 calls; versions are free. [Google Cloud](https://cloud.google.com/secret-manager/pricing) takes $0.06 for a version that is not destroyed and " +
		"$0.03 for 10,000 accesses; other calls are free. Vault and Kubernetes have no price for secrets and calls.")
	rows := [][]string{{"service", "item", "dollars a month"}}
	for _, service := range services {
		costs := r.Usage[service].Costs()
		for _, c := range costs {
			rows = append(rows, []string{title[service], c.Item, fmt.Sprintf("%.4f", c.Dollars)})
		}
		if costs == nil {
			rows = append(rows, []string{title[service], "**together**", "no list price"})
		} else {
			rows = append(rows, []string{title[service], "**together**", fmt.Sprintf("**%.4f**", r.Usage[service].Dollars())})
		}
	}
	d.table(rows...)
}

func (r *results) perRefresh(service string) string {
	u := r.Usage[service]
	var calls []string
	for _, method := range slices.Sorted(maps.Keys(u.Calls)) {
		calls = append(calls, fmt.Sprintf("%s %s", method, strings.TrimSuffix(fmt.Sprintf("%.2f", u.PerRefresh(method)), ".00")))
	}
	return strings.Join(calls, "<br>")
}

func (r *results) stampede(d *document) {
	d.text("### One expired token, many processes")
	d.textf("%d processes start cold at the same moment and find one access token expired. Two authorization servers take part. The first has Zoho's rule: a refresh token makes 10 access "+
		"tokens in 10 minutes. The second replaces each refresh token, and revokes all tokens of a user if it sees one twice (RFC 9700). The table has the token requests, and in parentheses "+
		"the processes without a token, for each server.", r.instances)
	outcome := func(s stampeded) string { return fmt.Sprintf("%d (%d)", s.Requests, s.Failed) }
	rows := [][]string{{"contender", "AWS", "Google Cloud", "Vault", "Kubernetes"}}
	for _, name := range []string{tokenkeep, perUser} {
		rows = append(rows, r.row(name, func(s string) string { return r.stampeded(s, name, outcome) }))
	}
	d.table(rows...)
	d.text("[All outcomes, and other locks](evidence/expired.md).")
}

// crowds returns the outcomes of processes that find the same token expired, in the order
// of the table.
func (r *results) crowds() []crowdResult {
	order := func(c crowdResult) string {
		return fmt.Sprintf("%d %v %6d %v %v %v %v", slices.Index(services, c.Service), !c.Quotas, c.Processes, c.Mint, c.Known, c.Fixed, c.Into)
	}
	return slices.SortedFunc(slices.Values(r.Virtual.Crowds), func(a, b crowdResult) int { return strings.Compare(order(a), order(b)) })
}

func (r *results) quotas(d *document) {
	d.text("### Quotas")
	d.text("These parts run on a virtual clock, on which a call takes 20 ms. AWS and Google Cloud enforce their documented quotas. Vault and Kubernetes document none.")
	d.text("Processes that find the same token expired, in the largest group of each service:")
	rows := [][]string{{"service", "processes", "token requests", "without a token", "calls", "refused", "last process, after the commit"}}
	biggest := map[string]crowdResult{}
	for _, c := range r.crowds() {
		if c.Processes > biggest[c.Service].Processes {
			biggest[c.Service] = c
		}
	}
	for _, service := range services {
		c := biggest[service]
		rows = append(rows, []string{title[service], number(c.Processes), fmt.Sprint(c.Requests), fmt.Sprint(c.Failed), number(c.Calls), number(c.Throttled), c.LastAfter.Round(time.Millisecond).String()})
	}
	d.table(rows...)
	d.text("A migration writes records as fast as the quota of the service allows. Vault has an operator's limit of 100 calls a second here:")
	rows = [][]string{{"service", "records", "verified", "calls", "took", "least time under the quota"}}
	for _, service := range services {
		for _, m := range r.Virtual.Migrations {
			if m.Service != service {
				continue
			}
			least := "no quota"
			if m.Least > 0 {
				least = round(m.Least)
			}
			rows = append(rows, []string{title[service], number(m.Records), number(m.Verified), number(m.Calls), round(m.Took), least})
		}
	}
	d.table(rows...)
	if len(r.Virtual.Failed) > 0 {
		d.textf("These tests failed: **%s**.", strings.Join(r.Virtual.Failed, ", "))
	}
}

func (r *results) expired(d *document) {
	d.textf("%d processes find one access token expired at the same moment. The authorization server takes %v. With Zoho's rule, it answers the eleventh request in ten minutes with HTTP 200 and "+
		"\"Access Denied\". The number of requests that tokenkeep makes is exact. The calls of the service depend on the order in which the processes arrive.", r.instances, endpointTime)
	rows := [][]string{{"service", "server", "contender", "token requests", "without a token", "calls", "the stored token can be refreshed", "took"}}
	for _, service := range services {
		for _, s := range r.Stampedes[service] {
			server, usable := "Zoho's rule", "yes"
			if s.Strict {
				server = "replaces refresh tokens"
			}
			if !s.Usable {
				usable = "**no: the user has to consent again**"
			}
			rows = append(rows, []string{title[service], server, s.Contender, fmt.Sprint(s.Requests), fmt.Sprint(s.Failed), number(s.Calls), usable, s.Took.Round(10 * time.Millisecond).String()})
		}
	}
	d.table(rows...)
	r.crowdTable(d)
	d.text("## Other locks")
	d.text("A hundred processes find the same token expired, at once or within a second, on a virtual clock. Each call takes 20 ms, and the authorization server takes 571 ms. " +
		"The other locks are those of programs that store tokens by hand: " +
		"`getput` has no lock; `redis` polls a key ten times a second; `dynamodb` polls an item once a second; `readwrite` reads a lock in Vault and then writes it; " +
		"`stages` moves a staging label in AWS Secrets Manager. Their processes never end while they hold the lock.")
	rows = [][]string{{"lock", "processes start within", "token requests", "without a token", "calls", "took"}}
	for _, p := range r.Virtual.Peers {
		rows = append(rows, []string{p.By, p.Within.String(), fmt.Sprint(p.Requests), fmt.Sprint(p.Failed), number(p.Calls), p.Took.Round(time.Millisecond).String()})
	}
	d.table(rows...)
}

func (r *results) crowdTable(d *document) {
	d.text("## Quotas")
	d.text("The processes run on a virtual clock, and each call takes 20 ms. A quota is a bucket that fills at an even rate, or a number of calls in each whole minute. " +
		"In a record with a known mint, the processes know how long the server took for the previous token.")
	rows := [][]string{{"service", "processes", "start within", "the server takes", "quota", "mint", "token requests", "without a token", "calls", "refused", "last process, after the commit"}}
	for _, c := range r.crowds() {
		quota, known := "none", "not known"
		switch {
		case c.Quotas && c.Fixed:
			quota = fmt.Sprintf("minutes, from second %.0f", c.Into.Seconds())
		case c.Quotas:
			quota = "bucket"
		}
		if c.Known {
			known = "known"
		}
		rows = append(rows, []string{title[c.Service], number(c.Processes), c.Within.String(), c.Mint.String(), quota, known, fmt.Sprint(c.Requests), fmt.Sprint(c.Failed),
			number(c.Calls), number(c.Throttled), c.LastAfter.Round(time.Millisecond).String()})
	}
	d.table(rows...)
}

func (r *results) starting(d *document) {
	d.text("### Costs in the process")
	d.textf("A fresh token from memory takes %s times as long as one from `oauth2.ReuseTokenSource`, with %d allocations.", r.Fresh.String(), r.allocs(localSource))
	d.textf("Two processes start, get one token and end. The first has tokenkeep, and the second only the SDK of the service and `golang.org/x/oauth2`. "+
		"The ratio of the CPU time of the first to that of the second has a target of %v at most.", mostCold)
	d.table(
		[]string{"", "AWS", "Google Cloud", "Vault", "Kubernetes"},
		r.row("ratio of CPU times", func(s string) string { return r.Started[s].CPU.String() }),
	)
	d.text("[All parts and starts](evidence/process.md).")
}

func (r *results) inProcess(d *document) {
	d.text("## Parts without a call")
	d.textf("Allocations are exact with Go 1.26, and tests check them. Times are medians of %d rounds on the machine of the run.", r.local)
	rows := [][]string{{"part", "allocations", "time"}}
	for _, l := range r.Locals {
		rows = append(rows, []string{l.Name, fmt.Sprint(l.Allocs), l.Time.String()})
	}
	d.table(rows...)
	d.text("## Starts")
	d.textf("A process starts, gets one access token that has not expired, and ends. The first program has this module and `initializer`. The second has the SDK of the service and "+
		"`golang.org/x/oauth2` alone. Both are in `evidence/cold`, are built as for a release, and start in turns, %d times each. The CPU time is that of the process, user and system. "+
		"Ratios are those of the medians.", r.starts)
	rows = [][]string{{"service", "CPU times", "ratio of CPU times", "ratio of times", "sizes of the programs"}}
	for _, service := range services {
		s := r.Started[service]
		rows = append(rows, []string{title[service], fmt.Sprintf("%.1f and %.1f ms", milliseconds(s.Keep), milliseconds(s.Bare)), s.CPU.String(), s.Wall.String(),
			fmt.Sprintf("%.1f and %.1f MB", float64(s.KeepBytes)/1e6, float64(s.BareBytes)/1e6)})
	}
	d.table(rows...)
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func (r *results) repeating(d *document) {
	d.text("## How to repeat the run")
	d.textf("This run began on %s and measured for %s:", r.Began.Format("2 January 2006"), round(r.total()))
	d.textf("```\n%s\n```", strings.Join(append([]string{"go -C evidence run . -out ../docs"}, r.Args...), " "))
	d.textf("Flags that are absent have the values that `-help` shows. With `-results FILE`, an interrupted run continues after its last complete part. The machine of the run: %s. "+
		"The load average of the machine before the run: %s.", r.Machine, r.Load)
	parts := make([]string, len(r.Took))
	for i, p := range r.Took {
		parts[i] = fmt.Sprintf("%s (%s)", p.Name, round(p.Took))
	}
	d.textf("The parts: %s.", strings.Join(parts, ", "))
	d.text("The numbers of calls are exact, and `make test-evidence` fails if they change. Times are ratios of measurements in turns in one run. " +
		"Brackets are 95 % confidence intervals: percentile bootstrap of the ratio of medians, 2,000 resamples.")
	var full []string
	for _, s := range []struct {
		flag       string
		value, due int
	}{{"doubles", r.doubles, 25_000}, {"records", r.records, 1000}, {"histories", r.histories, 1000}} {
		if s.value < s.due {
			full = append(full, fmt.Sprintf("`-%s %d` (here %s)", s.flag, s.due, number(s.value)))
		}
	}
	if len(full) > 0 {
		d.textf("These parts are smaller than in a full run: %s. The seeds of a full run begin with those of this run.", strings.Join(full, ", "))
	}
}

func (r *results) total() (sum time.Duration) {
	for _, p := range r.Took {
		sum += p.Took
	}
	return sum
}

func (r *results) unproved(d *document) {
	d.text("## What could not be proved")
	d.text("- **The real services.** All parts ran on fakes. Only documentation supports that the real services behave in the same way. The suites of the adapters also run on Vault's own core, " +
		"on a real kube-apiserver and, nightly, on real accounts where credentials exist. The continuous integration runs them on LocalStack 4.14.0 where its image is available. " +
		"LocalStack and AWS may differ, and Google has no emulator of Secret Manager. `tokenkeep doctor --races` measures two properties of a real service: " +
		"that one of several concurrent writes succeeds, and how late a write becomes visible.\n" +
		"- **Writes on the present state on AWS.** AWS documents all operations as eventually consistent. awssm relies on two rules: AWS refuses the second creation of a name, and the second content of a version ID. " +
		"Tests that others recorded on AWS show both rules. No document guarantees them.\n" +
		"- **One step for a change on Google Cloud.** Labels, annotations and aliases are fields of one resource and change under one etag. The documentation does not say that they become visible together.\n" +
		"- **Stale answers.** A reader may miss a new record, or see a record that is replaced or deleted. AWS documents five minutes for lists and no bound for reads. Google Cloud documents \"minutes, but may " +
		"take a few hours\". A process may then get a token that is replaced, and its next refresh corrects that. A save by a token alone within that time may leave a second record without a user. " +
		"A later look-up that finds both records merges them.\n" +
		"- **Frozen processes.** A process may stop between its last look at the clock and its request, and continue after its lease. It may then ask the authorization server although another process has asked. " +
		"No store can prevent that. With refresh tokens that are replaced, the user then has to consent again.\n" +
		"- **Times.** Every call takes a fixed time here. Real times vary. The ratios show the number of round trips, and the work on the machine of the run.\n" +
		"- **Prices and quotas.** They are those of the linked pages at the time of writing.\n" +
		"- **The limit of Google Cloud on changes of one secret,** two a second, is not enforced by the fake.\n" +
		"- **The agent.** The run has no part that measures the agent. It adds one local HTTP request to each operation of the store.")
}

// String returns the ratio and its interval.
func (i interval) String() string {
	if i.Value >= 10 {
		return fmt.Sprintf("%.0f [%.0f, %.0f]", i.Value, i.Low, i.High)
	}
	return fmt.Sprintf("%.2f [%.2f, %.2f]", i.Value, i.Low, i.High)
}

// number returns n in decimal, with commas between groups of three digits.
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

// title maps the services to their full names.
var title = map[string]string{"aws": "AWS Secrets Manager", "gcp": "Google Cloud Secret Manager", "vault": "Vault KV v2", "k8s": "Kubernetes Secrets"}
