package cli

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tokenkeep/tokenkeep/cli/internal/files"
	"github.com/tokenkeep/tokenkeep/tokenstore/doctor"
)

// printRaces prints a report. If svg is not empty, printRaces also writes the figures to the file
// that svg names.
func (a *app) printRaces(r racesReport, svg string) error {
	var err error
	if svg != "" {
		err = files.Replace(svg, []byte(racesSVG(r)))
	}
	if a.json {
		return errors.Join(a.printJSON(r), err)
	}
	a.printf("%s", r.text())
	return err
}

// stops maps the values of Measurement.Stopped to reasons why a measurement ended early.
var stops = map[string]string{
	"requests":            "it ended early: the requests were used up",
	doctor.StoppedCalls:   "it ended early: the calls were used up",
	doctor.StoppedContext: "it ended early: it was interrupted",
	doctor.StoppedError:   "it ended early: a call failed",
}

func (r racesReport) text() string {
	var b strings.Builder
	b.WriteString(r.racesText())
	for _, l := range r.Lags {
		b.WriteString("\n" + lagText(l))
	}
	b.WriteString("\n")
	for _, f := range r.Findings {
		b.WriteString(wrapText(fmt.Sprintf("%s: %s", f.Kind, f.Detail), "  "))
		b.WriteString(wrapText("  "+f.Kind.Meaning(), "  "))
	}
	if text := stops[r.Stopped]; text != "" {
		b.WriteString(text + "\n")
	}
	_, _ = fmt.Fprintf(&b, "measured %s: %d calls, %d requests, %v, harmful findings %d\n",
		r.Driver, r.Calls, r.Requests, (time.Duration(r.TookMS) * time.Millisecond).Round(time.Millisecond), len(r.Findings))
	return b.String()
}

// A tally counts the rounds of races by their outcome.
type tally struct{ one, none, several, lost, undecided int }

func tallyOf(races doctor.Races) (n tally) {
	for _, round := range races.Rounds {
		switch {
		case round.Winners > 1:
			n.several++
		case !round.Decided():
			n.undecided++
		case round.Winners == 0:
			n.none++
		case round.Lost:
			n.lost++
		default:
			n.one++
		}
	}
	return n
}

func (r racesReport) racesText() string {
	if len(r.Races) == 0 {
		return ""
	}
	var t table
	t.row("RACE", "ROUNDS", "RACERS", "ONE WINNER", "NONE", "SEVERAL", "LOST", "UNDECIDED")
	for _, races := range r.Races {
		n := tallyOf(races)
		t.row(races.Of, fmt.Sprint(len(races.Rounds)), fmt.Sprint(races.Racers), fmt.Sprint(n.one), fmt.Sprint(n.none),
			fmt.Sprint(n.several), fmt.Sprint(n.lost), fmt.Sprint(n.undecided))
	}
	return t.String()
}

// A bin is one line of a histogram.
type bin struct {
	label string
	count int
}

// binsOf returns the lines of a histogram, without empty bins at either end.
func binsOf(l doctor.Lag) []bin {
	all := make([]bin, 0, len(l.Buckets)+1)
	for _, b := range l.Buckets {
		all = append(all, bin{"within " + short(b.WithinMS), b.Count})
	}
	all = append(all, bin{"not within " + short(l.Within), l.Later})
	for len(all) > 0 && all[0].count == 0 {
		all = all[1:]
	}
	for len(all) > 0 && all[len(all)-1].count == 0 {
		all = all[:len(all)-1]
	}
	return all
}

// short returns a number of milliseconds as a short text, such as "30ms" or "10m".
func short(ms float64) string {
	text := time.Duration(ms * float64(time.Millisecond)).String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	return text
}

// promiseOf returns a text with the maximum lag that the driver promises.
func promiseOf(l doctor.Lag) string {
	switch {
	case l.PromisedMS == nil:
		return "no bound is promised"
	case *l.PromisedMS == 0:
		return "no lag is promised"
	}
	return "at most " + short(*l.PromisedMS) + " is promised"
}

func lagText(l doctor.Lag) string {
	const widest = 40
	title := fmt.Sprintf("%s after write: %d writes, %s\n", l.Of, l.Samples, promiseOf(l))
	if l.Skipped != "" {
		return title + "  not measured: " + l.Skipped + "\n"
	}
	t := table{indent: "  "}
	for _, b := range binsOf(l) {
		t.row(b.label, fmt.Sprintf("%*d", len(fmt.Sprint(l.Samples)), b.count), strings.Repeat("#", (b.count*widest+l.Samples-1)/l.Samples))
	}
	return title + t.String()
}
