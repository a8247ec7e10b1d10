package cli

import (
	"encoding/xml"
	"fmt"
	"strings"

	"github.com/tokenkeep/tokenkeep/tokenstore/doctor"
)

const svgStyle = `  <style>
    text { font: 14px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328; }
    .head { font-weight: 600; }
    .label, .count { font-size: 12px; }
    .label { text-anchor: end; }
    .paper { fill: #ffffff; }
    .bar { fill: #0969da; }
    .bad { fill: #cf222e; }
    .open { fill: #9a6700; }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6edf3; }
      .paper { fill: #0d1117; }
      .bar { fill: #58a6ff; }
      .bad { fill: #f85149; }
      .open { fill: #d29922; }
    }
  </style>
`

// The dimensions of the figures, in pixels.
const (
	svgWidth  = 820
	svgLeft   = 24
	svgLine   = 22 // height of a line
	svgSquare = 12 // distance between the left edges of adjacent squares
	svgLabels = 150
	svgBars   = 520
)

// A drawing is an SVG image that grows downwards.
type drawing struct {
	strings.Builder
	y int
}

// text draws text at the current line.
func (d *drawing) text(class string, x int, text string) {
	_, _ = fmt.Fprintf(d, `  <text class=%q x="%d" y="%d">%s</text>`+"\n", class, x, d.y, escaped(text))
}

// box draws a rectangle that stands on the current line.
func (d *drawing) box(class string, x, width int) {
	_, _ = fmt.Fprintf(d, `  <rect class=%q x="%d" y="%d" width="%d" height="10" rx="2"/>`+"\n", class, x, d.y-10, width)
}

func escaped(text string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(text)) // a strings.Builder does not fail
	return b.String()
}

// racesSVG returns the figures of a report as an SVG image.
func racesSVG(r racesReport) string {
	d := &drawing{y: 36}
	d.text("head", svgLeft, fmt.Sprintf("%s, measured on %s", r.Driver, r.Began.Format("2006-01-02")))
	for _, races := range r.Races {
		d.races(races)
	}
	for _, l := range r.Lags {
		d.lag(l)
	}
	if text := stops[r.Stopped]; text != "" {
		d.y += svgLine
		d.text("open", svgLeft, text)
	}
	for _, f := range r.Findings {
		d.y += svgLine
		d.text("bad", svgLeft, string(f.Kind)+": "+f.Detail)
	}
	height := d.y + svgLine
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" aria-labelledby="title desc">
  <title id="title">Races and lags of %s</title>
  <desc id="desc">%s</desc>
%s  <rect class="paper" width="%d" height="%d" rx="8"/>
%s</svg>
`, svgWidth, height, escaped(r.Driver), escaped(r.summary()), svgStyle, svgWidth, height, d)
}

// summary returns the results in sentences, for readers who do not see the image.
func (r racesReport) summary() string {
	var all []string
	for _, races := range r.Races {
		all = append(all, fmt.Sprintf("%s: %d of %d rounds had one winner.", races.Of, tallyOf(races).one, len(races.Rounds)))
	}
	for _, l := range r.Lags {
		all = append(all, fmt.Sprintf("%s after write: %d of %d writes were visible within %s.", l.Of, l.Samples-l.Later, l.Samples, short(l.Within)))
	}
	return strings.Join(all, " ")
}

func (d *drawing) races(races doctor.Races) {
	const fits = (svgWidth - 2*svgLeft) / svgSquare
	n := tallyOf(races)
	d.y += svgLine + svgLine/2
	d.text("head", svgLeft, fmt.Sprintf("%s: %d of %d rounds with one winner of %d racers", races.Of, n.one, len(races.Rounds), races.Racers))
	for i, round := range races.Rounds {
		if i%fits == 0 {
			d.y += svgLine
		}
		class := "bar"
		switch {
		case !round.Decided():
			class = "open"
		case round.Winners != 1 || round.Lost:
			class = "bad"
		}
		d.box(class, svgLeft+i%fits*svgSquare, svgSquare-2)
	}
}

func (d *drawing) lag(l doctor.Lag) {
	d.y += svgLine + svgLine/2
	d.text("head", svgLeft, fmt.Sprintf("%s after write: %d writes, %s", l.Of, l.Samples, promiseOf(l)))
	if l.Skipped != "" {
		d.y += svgLine
		d.text("open", svgLeft, "not measured: "+l.Skipped)
		return
	}
	for _, b := range binsOf(l) {
		d.y += svgLine
		d.text("label", svgLabels, b.label)
		width := b.count * svgBars / l.Samples
		d.box("bar", svgLabels+10, width)
		d.text("count", svgLabels+18+width, fmt.Sprint(b.count))
	}
}
