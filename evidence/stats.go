package main

import (
	"math/rand/v2"
	"slices"
	"time"
)

// An interval is a ratio with its 95 % confidence interval.
type interval struct{ Value, Low, High float64 }

const resamples = 2000

// ratioOf returns the ratio of the median of a to the median of b. The 95 % confidence interval of
// the ratio is from a percentile bootstrap. The same measurements always have the same interval,
// because the seed is fixed.
func ratioOf(a, b []time.Duration) interval {
	r := rand.New(rand.NewPCG(1, 2))
	draw := func(of []time.Duration) []time.Duration {
		drawn := make([]time.Duration, len(of))
		for i := range drawn {
			drawn[i] = of[r.IntN(len(of))]
		}
		return drawn
	}
	ratio := func(a, b []time.Duration) float64 { return float64(median(a)) / float64(median(b)) }
	all := make([]float64, resamples)
	for i := range all {
		all[i] = ratio(draw(a), draw(b))
	}
	slices.Sort(all)
	return interval{ratio(a, b), all[resamples*25/1000], all[resamples*975/1000]}
}

func median(times []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(times))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}
