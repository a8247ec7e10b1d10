package main

import (
	"fmt"
	"image/color"
	"path/filepath"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"github.com/tokenkeep/tokenkeep/integration/evidence"
)

// title is what people call a service.
var title = map[string]string{"aws": "AWS Secrets Manager", "gcp": "Google Cloud Secret Manager", "vault": "Vault KV v2"}

// The colours of contenders: those of Okabe and Ito, which colour-blind people
// tell apart.
var colors = map[string]color.Color{
	evidence.Tokenkeep: color.RGBA{0, 114, 178, 255},
	evidence.PerUser:   color.RGBA{213, 94, 0, 255},
	evidence.OneBlob:   color.RGBA{0, 158, 115, 255},
	evidence.ListScan:  color.RGBA{204, 121, 167, 255},
	evidence.Unindexed: color.RGBA{230, 159, 0, 255},
}

// plot writes all plots.
func (r *results) plot(folder string) error {
	for _, service := range evidence.Names {
		if err := r.plotCalls(service, filepath.Join(folder, "find-"+service+".svg")); err != nil {
			return err
		}
		if err := r.plotRatios(service, filepath.Join(folder, "times-"+service+".svg")); err != nil {
			return err
		}
	}
	if err := r.plotStampede(filepath.Join(folder, "stampede.svg")); err != nil {
		return err
	}
	return r.plotMonth(filepath.Join(folder, "month.svg"))
}

// newPlot returns an empty plot on white, with room around the text.
func newPlot(heading, x, y string) *plot.Plot {
	p := plot.New()
	p.Title.Text = heading
	p.Title.Padding = vg.Points(10)
	p.X.Label.Text, p.Y.Label.Text = x, y
	p.BackgroundColor = color.White
	for _, style := range []*text.Style{&p.Title.TextStyle, &p.X.Label.TextStyle, &p.Y.Label.TextStyle, &p.X.Tick.Label, &p.Y.Tick.Label, &p.Legend.TextStyle} {
		style.Font.Variant = "Sans"
	}
	p.Legend.Top, p.Legend.XOffs = true, vg.Points(-8)
	p.Legend.Padding = vg.Points(3)
	return p
}

// newLabels returns the numbers on top of bars.
func newLabels(numbers plotter.XYLabels) (*plotter.Labels, error) {
	labels, err := plotter.NewLabels(numbers)
	if err != nil {
		return nil, err
	}
	for i := range labels.TextStyle {
		labels.TextStyle[i].Font.Variant = "Sans"
	}
	return labels, nil
}

// counts labels the powers of ten of a logarithmic axis as plain numbers.
func counts(low, high float64) []plot.Tick {
	ticks := plot.LogTicks{Prec: -1}.Ticks(low, high)
	for i, t := range ticks {
		if t.Label != "" {
			ticks[i].Label = strconv.FormatFloat(t.Value, 'f', -1, 64)
		}
	}
	return ticks
}

// plotCalls shows how many calls it takes to find a token by its user alone, of how
// many tokens there are.
func (r *results) plotCalls(service, file string) error {
	p := newPlot("Calls to find a token by its user alone: "+title[service], "tokens in the store", "calls of the service")
	p.X.Scale, p.Y.Scale = plot.LogScale{}, plot.LogScale{}
	p.X.Tick.Marker, p.Y.Tick.Marker = plot.TickerFunc(counts), plot.TickerFunc(counts)
	p.Legend.Left, p.Legend.XOffs = true, vg.Points(8)
	for i, name := range evidence.Contenders {
		var points plotter.XYs
		for _, m := range r.measured[service] {
			if m.Contender == name && m.Operation == evidence.ByUser && m.Missing == "" {
				points = append(points, plotter.XY{X: float64(m.Tokens), Y: float64(m.Calls)})
			}
		}
		if len(points) == 0 {
			continue
		}
		line, dots, err := plotter.NewLinePoints(points)
		if err != nil {
			return err
		}
		line.Color, line.Width = colors[name], vg.Points(2)
		if name == evidence.Unindexed { // drawn over "list and scan", which makes the same calls
			line.Dashes = []vg.Length{vg.Points(6), vg.Points(6)}
		}
		dots.Color, dots.Shape, dots.Radius = colors[name], plotShape(i), vg.Points(4)
		p.Add(line, dots)
		p.Legend.Add(name, line, dots)
	}
	p.Add(plotter.NewGrid())
	p.Y.Min, p.Y.Max = 0.8, float64(max(1, r.tokens[len(r.tokens)-1]))*2
	p.X.Min, p.X.Max = float64(r.tokens[0])*0.8, float64(r.tokens[len(r.tokens)-1])*1.25
	return p.Save(7*vg.Inch, 4.2*vg.Inch, file)
}

func plotShape(i int) draw.GlyphDrawer {
	shapes := []draw.GlyphDrawer{draw.CircleGlyph{}, draw.BoxGlyph{}, draw.TriangleGlyph{}, draw.PyramidGlyph{}, draw.SquareGlyph{}}
	return shapes[i%len(shapes)]
}

// compared is how many tokens there are where times are shown: as many as all
// contenders were timed among.
func (r *results) compared() int {
	n := r.tokens[0]
	for _, t := range r.tokens {
		if t <= 1000 {
			n = t
		}
	}
	return n
}

// points are values with intervals, for plotter.
type intervals struct {
	plotter.XYs
	plotter.YErrors
}

// plotRatios shows how long the contenders take compared with tokenkeep.
func (r *results) plotRatios(service, file string) error {
	n := r.compared()
	p := newPlot(fmt.Sprintf("Time relative to tokenkeep among %d tokens: %s", n, title[service]), "", "times as long (95 % confidence)")
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.TickerFunc(counts)
	one := plotter.NewFunction(func(float64) float64 { return 1 })
	one.Color, one.Width = colors[evidence.Tokenkeep], vg.Points(1.5)
	p.Add(plotter.NewGrid(), one)
	p.Legend.Add(evidence.Tokenkeep, one)
	p.Y.Min, p.Y.Max = 0.1, 10
	for i, name := range evidence.Contenders[1:] {
		var v intervals
		for at, op := range evidence.Operations {
			m, ok := find(r.measured[service], op, name, n)
			if !ok || m.Ratio.Value == 0 {
				continue
			}
			v.XYs = append(v.XYs, plotter.XY{X: float64(at) + float64(i-1)*0.14, Y: m.Ratio.Value})
			v.YErrors = append(v.YErrors, struct{ Low, High float64 }{m.Ratio.Value - m.Ratio.Low, m.Ratio.High - m.Ratio.Value})
			p.Y.Max = max(p.Y.Max, m.Ratio.High*2)
		}
		if len(v.XYs) == 0 {
			continue
		}
		dots, err := plotter.NewScatter(v)
		if err != nil {
			return err
		}
		bars, err := plotter.NewYErrorBars(v)
		if err != nil {
			return err
		}
		dots.Color, dots.Shape, dots.Radius = colors[name], plotShape(i+1), vg.Points(4)
		bars.Color = colors[name]
		p.Add(bars, dots)
		p.Legend.Add(name, dots)
	}
	p.NominalX("cold start", "find: ID", "user+client", "user alone", "refresh token", "access token", "save", "expired", "list")
	p.X.Min, p.X.Max = -0.5, float64(len(evidence.Operations))-0.5
	one.XMin, one.XMax = p.X.Min, p.X.Max
	return p.Save(9*vg.Inch, 4.5*vg.Inch, file)
}

func find(all []evidence.Measured, op, contender string, tokens int) (evidence.Measured, bool) {
	for _, m := range all {
		if m.Operation == op && m.Contender == contender && m.Tokens == tokens {
			return m, true
		}
	}
	return evidence.Measured{}, false
}

// plotStampede shows how many instances are left without a token.
func (r *results) plotStampede(file string) error {
	p := newPlot(fmt.Sprintf("%d instances find one token expired", r.instances), "", "instances left without a token")
	kinds := []struct {
		name, contender string
		strict          bool
	}{
		{"Get and Put, Zoho's limit", evidence.PerUser, false},
		{"Get and Put, rotating refresh tokens", evidence.PerUser, true},
		{"tokenkeep, Zoho's limit", evidence.Tokenkeep, false},
		{"tokenkeep, rotating refresh tokens", evidence.Tokenkeep, true},
	}
	shades := []color.Color{colors[evidence.PerUser], colors[evidence.Unindexed], colors[evidence.Tokenkeep], colors[evidence.OneBlob]}
	width := vg.Points(28)
	var names []string
	for i, k := range kinds {
		var values plotter.Values
		var numbers plotter.XYLabels
		for at, service := range evidence.Names {
			for _, s := range r.stampedes[service] {
				if s.Contender == k.contender && s.Strict == k.strict {
					values = append(values, float64(s.Failed))
					numbers.XYs = append(numbers.XYs, plotter.XY{X: float64(at), Y: float64(s.Failed)})
					numbers.Labels = append(numbers.Labels, strconv.Itoa(s.Failed))
				}
			}
		}
		bars, err := plotter.NewBarChart(values, width)
		if err != nil {
			return err
		}
		bars.Color, bars.LineStyle.Width, bars.Offset = shades[i], 0, width*vg.Length(float64(i)-1.5)
		labels, err := newLabels(numbers)
		if err != nil {
			return err
		}
		labels.Offset = vg.Point{X: bars.Offset - vg.Points(7), Y: vg.Points(2)}
		p.Add(bars, labels)
		p.Legend.Add(k.name, bars)
	}
	for _, service := range evidence.Names {
		names = append(names, title[service])
	}
	p.NominalX(names...)
	p.Y.Min, p.Y.Max = 0, float64(r.instances)*1.6
	p.X.Min, p.X.Max = -0.6, float64(len(evidence.Names))-0.4
	return p.Save(8*vg.Inch, 4.5*vg.Inch, file)
}

// plotMonth shows what a record costs in a month.
func (r *results) plotMonth(file string) error {
	p := newPlot("A record that is refreshed every hour, for a month, at list prices", "", "dollars")
	var below *plotter.BarChart
	items := []string{"secret or versions", "calls or accesses"}
	var names []string
	sums := make([]float64, 0, 2)
	for i, item := range items {
		var values plotter.Values
		for _, service := range evidence.Names {
			costs := r.usage[service].Costs()
			if costs == nil {
				continue // no price
			}
			values = append(values, costs[i].Dollars)
			if i == 0 {
				names = append(names, title[service])
				sums = append(sums, r.usage[service].Dollars())
			}
		}
		bars, err := plotter.NewBarChart(values, vg.Points(60))
		if err != nil {
			return err
		}
		bars.Color, bars.LineStyle.Width = []color.Color{colors[evidence.Tokenkeep], colors[evidence.Unindexed]}[i], 0
		if below != nil {
			bars.StackOn(below)
		}
		below = bars
		p.Add(bars)
		p.Legend.Add(item, bars)
	}
	var numbers plotter.XYLabels
	for i, sum := range sums {
		numbers.XYs = append(numbers.XYs, plotter.XY{X: float64(i), Y: sum})
		numbers.Labels = append(numbers.Labels, fmt.Sprintf("$%.3f", sum))
	}
	labels, err := newLabels(numbers)
	if err != nil {
		return err
	}
	labels.Offset = vg.Point{X: vg.Points(-18), Y: vg.Points(3)}
	p.Add(labels)
	p.NominalX(names...)
	p.Y.Min, p.Y.Max = 0, 0.6
	p.X.Min, p.X.Max = -0.7, float64(len(names))-0.3
	return p.Save(6*vg.Inch, 4*vg.Inch, file)
}
