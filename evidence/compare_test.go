package main

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"
)

// budgets returns the expected number of calls, by contender and operation, in a store of n
// tokens.
func budgets(service string, n int) map[string]map[string]int {
	all := listBudget(service, n)
	index := map[string]int{"aws": 2, "gcp": 3, "vault": 3, "k8s": 2}[service] // a read by a derived name, a search by a label and, on gcp and vault, a read of the record
	renew := map[string]int{"aws": 4, "gcp": 6, "vault": 5, "k8s": 3}[service]
	save := map[string]int{"aws": 3, "gcp": 4, "vault": 4, "k8s": 2}[service]
	return map[string]map[string]int{
		tokenkeep: {coldStart: 1, byID: 1, byClient: 1, byUser: index, byRefresh: index, byAccess: index, saveAccess: save, renewToken: renew, listAll: ownListBudget(service, n)},
		perUser:   {coldStart: 1, byClient: 1, saveAccess: 1, renewToken: 2, listAll: all},
		oneBlob:   {coldStart: 1, byClient: 1, byUser: 1, byRefresh: 1, byAccess: 1, saveAccess: 2, renewToken: 2, listAll: 1},
		listScan:  {byUser: all, byRefresh: all, byAccess: all},
	}
}

func TestCallBudgets(t *testing.T) {
	for _, service := range services {
		t.Run(service, func(t *testing.T) {
			t.Parallel()
			all, err := compareAll(t.Context(), service, compareOptions{Tokens: []int{10, 100}})
			if err != nil {
				t.Fatal(err)
			}
			if len(all) != 2*len(comparedBy)*len(contenderNames) {
				t.Errorf("%d were measured", len(all))
			}
			for _, m := range all {
				want, offered := budgets(service, m.Tokens)[m.Contender][m.Operation]
				if m.Calls != want || offered != (m.Missing == "") {
					t.Errorf("%s, %s among %d: %d calls, %q; want %d", m.Contender, m.Operation, m.Tokens, m.Calls, m.Missing, want)
				}
			}
		})
	}
}

func TestOneBlobOutgrowsASecret(t *testing.T) {
	t.Parallel()
	for service, fits := range map[string]bool{"aws": false, "gcp": false, "vault": true, "k8s": true} {
		w, err := newWorld(t.Context(), service, worldOptions{users: 300})
		if err != nil {
			t.Fatal(err)
		}
		w.close()
		if w.noBlob == fits {
			t.Errorf("%s: 300 tokens fit into one secret: %v", service, !w.noBlob)
		}
	}
}

func TestStampedes(t *testing.T) {
	for _, service := range services {
		t.Run(service, func(t *testing.T) {
			t.Parallel()
			all, err := stampedes(t.Context(), service, 100, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range all {
				switch {
				case s.Contender == tokenkeep && (s.Requests != 1 || s.Failed != 0 || !s.Usable):
					t.Errorf("%+v", s)
				case s.Contender == perUser && s.Requests == 1:
					t.Errorf("no process came second, so there was no stampede: %+v", s)
				}
			}
		})
	}
}

// BenchmarkOperations counts the calls of each operation and measures its time with a delay
// of 20 ms for each call.
func BenchmarkOperations(b *testing.B) {
	for _, service := range services {
		w, err := newWorld(b.Context(), service, worldOptions{users: 10})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(w.close)
		w.meter.delay.Store(int64(20 * time.Millisecond))
		for _, op := range comparedBy {
			for _, c := range w.contenders() {
				if c.do[op] != nil {
					b.Run(fmt.Sprintf("service=%s/op=%s/by=%s", service, op, c.name), func(b *testing.B) { w.bench(b, c, op) })
				}
			}
		}
	}
}

func (w *world) bench(b *testing.B, c contender, op string) {
	ctx := context.Background()
	calls := 0
	for b.Loop() {
		b.StopTimer()
		if reset := c.reset[op]; reset != nil {
			if err := w.meter.free(func() error { return reset(ctx) }); err != nil {
				b.Fatal(err)
			}
		}
		w.forget()
		w.meter.take()
		b.StartTimer()
		if err := c.do[op](ctx); err != nil {
			b.Fatal(err)
		}
		calls += total(w.meter.take())
	}
	b.ReportMetric(float64(calls)/float64(b.N), "rpcs/op")
}

func TestRatioOf(t *testing.T) {
	t.Parallel()
	twice := []time.Duration{190, 195, 200, 205, 210}
	once := []time.Duration{95, 98, 100, 102, 105}
	r := ratioOf(twice, once)
	if r.Value != 2 || r.Low < 1.8 || r.Low > 2 || r.High < 2 || r.High > 2.3 {
		t.Errorf("%+v", r)
	}
	if r != ratioOf(twice, once) {
		t.Error("it is another one the second time")
	}
	if m := median(slices.Concat(once, once[:1])); m != 99 {
		t.Errorf("the median is %d", m)
	}
}
