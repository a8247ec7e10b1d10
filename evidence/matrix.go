package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/driverkit"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

// far is an expiry time that no clock of the runs reaches.
var far = time.Date(2090, 1, 1, 0, 0, 0, 0, time.UTC)

// The records that exist before each operation. Two records have users, the third has a grant
// token but no user, and the fourth has an ID that the caller chose.
var (
	ann  = tokenstore.Token{UserName: "ann@example.com:1", ClientID: "c1", ClientSecret: "s1", RefreshToken: "ann-refresh", AccessToken: "ann-access", ExpiresAt: time.UnixMilli(1000).UTC()}
	bob  = tokenstore.Token{UserName: "bob@example.com:2", ClientID: "c1", ClientSecret: "s1", RefreshToken: "bob-refresh", AccessToken: "bob-access", ExpiresAt: far}
	code = tokenstore.Token{ClientID: "c1", ClientSecret: "s1", GrantToken: "code", RefreshToken: "code-refresh", AccessToken: "code-access", ExpiresAt: far}
	own  = tokenstore.Token{ID: "crm-sync", ClientID: "c2", RefreshToken: "own-refresh", AccessToken: "own-access", ExpiresAt: far}
)

// ids maps the refresh tokens of ann, bob and code to the IDs that every store without keys
// derives.
var ids = func() map[tokenstore.Secret]string {
	ids := map[tokenstore.Secret]string{}
	s := memstore.New(nil)
	for _, t := range []tokenstore.Token{ann, bob, code} {
		saved, err := s.SaveToken(context.Background(), t)
		if err != nil {
			panic(err) // ann, bob or code is invalid
		}
		ids[t.RefreshToken] = saved.ID
	}
	return ids
}()

// An operation is one call of a method of the store.
type operation struct {
	name string
	do   func(ctx context.Context, s *tokenstore.Store) error
	// partial reports whether the operation can leave any subset of the earlier records if
	// the operation fails.
	partial bool
}

// operations lists the rows of the fault matrix.
var operations = []operation{
	{name: "find by ID", do: func(ctx context.Context, s *tokenstore.Store) error {
		return expect(s.FindTokenByID(ctx, ids["ann-refresh"]))(ann)
	}},
	{name: "find by user", do: func(ctx context.Context, s *tokenstore.Store) error {
		return expect(s.FindToken(ctx, tokenstore.Token{UserName: ann.UserName, ClientID: "c1"}))(ann)
	}},
	{name: "find by refresh token", do: func(ctx context.Context, s *tokenstore.Store) error {
		return expect(s.FindToken(ctx, tokenstore.Token{ClientID: "c1", RefreshToken: "bob-refresh"}))(bob)
	}},
	{name: "find by own ID", do: func(ctx context.Context, s *tokenstore.Store) error {
		return expect(s.FindTokenByID(ctx, own.ID))(own)
	}},
	{name: "save, new", do: save(tokenstore.Token{UserName: "carl@example.com:3", ClientID: "c1", RefreshToken: "carl-refresh", AccessToken: "carl-access"})},
	{name: "save, changed", do: save(tokenstore.Token{UserName: ann.UserName, ClientID: "c1", AccessToken: "ann-access-2", ExpiresAt: far})},
	{name: "save, same", do: save(bob)},
	{name: "save, first user", do: save(tokenstore.Token{ID: ids["code-refresh"], UserName: "dan@example.com:4"})},
	{name: "save, second consent", do: save(tokenstore.Token{ID: ids["code-refresh"], UserName: bob.UserName})},
	{name: "delete", do: func(ctx context.Context, s *tokenstore.Store) error {
		return s.DeleteToken(ctx, ids["bob-refresh"])
	}},
	{name: "delete by own ID", do: func(ctx context.Context, s *tokenstore.Store) error {
		return s.DeleteToken(ctx, own.ID)
	}},
	{name: "save, by own ID", do: save(tokenstore.Token{ID: own.ID, AccessToken: "own-access-2", ExpiresAt: far})},
	{name: "list", do: func(ctx context.Context, s *tokenstore.Store) error {
		tokens, err := s.GetTokens(ctx)
		if err == nil && len(tokens) != 4 {
			err = wrongAnswer(fmt.Sprintf("%d tokens", len(tokens)))
		}
		return err
	}},
	{name: "delete all", partial: true, do: func(ctx context.Context, s *tokenstore.Store) error { return s.DeleteTokens(ctx) }},
	{name: "refresh", do: func(ctx context.Context, s *tokenstore.Store) error {
		t, err := s.Refresh(ctx, ids["ann-refresh"], ann.AccessToken, func(context.Context, tokenstore.Token) (tokenstore.Token, error) {
			return tokenstore.Token{AccessToken: "ann-access-3", ExpiresAt: far}, nil
		})
		if (err == nil || errors.Is(err, tokenstore.ErrNotPersisted)) && t.AccessToken != "ann-access-3" {
			err = wrongAnswer("not the token that was minted")
		}
		return err
	}},
}

// A wrongAnswer is the error for an operation with a wrong result.
type wrongAnswer string

func (w wrongAnswer) Error() string { return "wrong answer: " + string(w) }

func expect(got tokenstore.Token, err error) func(want tokenstore.Token) error {
	return func(want tokenstore.Token) error {
		if err == nil && (got.UserName != want.UserName || got.RefreshToken != want.RefreshToken || got.AccessToken != want.AccessToken) {
			return wrongAnswer("another record")
		}
		return err
	}
}

func save(t tokenstore.Token) func(context.Context, *tokenstore.Store) error {
	return func(ctx context.Context, s *tokenstore.Store) error {
		_, err := s.SaveToken(ctx, t)
		return err
	}
}

// prepare stores the records that exist before each operation. Each record also has an earlier
// state, for reads of the state of an hour ago.
func prepare(ctx context.Context, s *tokenstore.Store, advance func(time.Duration)) error {
	for _, t := range []tokenstore.Token{ann, bob, code, own} {
		earlier := t
		earlier.APIDomain = "https://earlier.example"
		if _, err := s.SaveToken(ctx, earlier); err != nil {
			return err
		}
	}
	advance(2 * time.Hour)
	for _, t := range []tokenstore.Token{ann, bob, code, own} {
		t.APIDomain = "https://www.zohoapis.com"
		if _, err := s.SaveToken(ctx, t); err != nil {
			return err
		}
	}
	return nil
}

// state returns the text of each record in s, by ID. state returns an error if the records cannot
// be listed, or if two records have the same user and client. It also returns an error if a search
// by a key of a record does not find the record.
func state(ctx context.Context, s *tokenstore.Store) (map[string]string, error) {
	tokens, err := s.GetTokens(ctx)
	if err != nil {
		return nil, err
	}
	found := map[string]string{}
	users := map[string]bool{}
	for _, t := range tokens {
		if key := t.UserName + " " + t.ClientID; t.UserName != "" {
			if users[key] {
				return nil, fmt.Errorf("two records of one user: %s", key)
			}
			users[key] = true
		}
		found[t.ID] = text(t)
		if err := foundBy(ctx, s, t); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// foundBy returns an error if a search by one of the keys of t does not find t.
func foundBy(ctx context.Context, s *tokenstore.Store, t tokenstore.Token) error {
	for _, key := range []struct {
		name string
		like tokenstore.Token
		has  bool
	}{
		{"ID", tokenstore.Token{ID: t.ID}, true},
		{"user", tokenstore.Token{UserName: t.UserName, ClientID: t.ClientID}, t.UserName != ""},
		{"refresh token", tokenstore.Token{ClientID: t.ClientID, RefreshToken: t.RefreshToken}, t.RefreshToken != ""},
		{"code", tokenstore.Token{ClientID: t.ClientID, GrantToken: t.GrantToken}, t.GrantToken != ""},
		{"access token", tokenstore.Token{AccessToken: t.AccessToken}, t.AccessToken != ""},
	} {
		if !key.has {
			continue
		}
		got, err := s.FindToken(ctx, key.like)
		if err != nil {
			return fmt.Errorf("%s is not found by its %s: %w", t.ID, key.name, err)
		}
		if text(got) != text(t) {
			return fmt.Errorf("the %s of %s finds %s", key.name, t.ID, got.ID)
		}
	}
	return nil
}

func text(t tokenstore.Token) string {
	return strings.Join([]string{t.ID, t.UserName, t.ClientID, string(t.ClientSecret), string(t.RefreshToken), string(t.AccessToken),
		string(t.GrantToken), t.ExpiresAt.Format(time.RFC3339), t.APIDomain}, " | ")
}

// An outcome holds the two states in which an operation may leave the records: the state before
// the operation, and the state after a success.
type outcome struct{ before, after map[string]string }

// outcomes returns the outcomes of the operations on a memstore, by the names of the
// operations.
var outcomes = sync.OnceValues(func() (map[string]outcome, error) {
	all := map[string]outcome{}
	for _, op := range operations {
		o, err := outcomeOf(context.Background(), op)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", op.name, err)
		}
		all[op.name] = o
	}
	return all, nil
})

func outcomeOf(ctx context.Context, op operation) (o outcome, err error) {
	s := memstore.New(nil)
	if err := prepare(ctx, s, func(time.Duration) {}); err != nil {
		return outcome{}, err
	}
	if o.before, err = state(ctx, s); err != nil {
		return outcome{}, err
	}
	if err := op.do(ctx, s); err != nil {
		return outcome{}, err
	}
	o.after, err = state(ctx, s)
	return o, err
}

// A cell holds the results of one operation with one fault. In each run, the fault occurs at a
// different call of the operation.
type cell struct {
	Service, Operation string
	Fault              fault
	Calls              int // number of runs, one for each call; 0 if the service cannot have the fault
	Failures           []string
}

// planned is a fault and the number of the call at which the fault occurs, counted from 0.
type planned struct {
	at    int
	fault fault
}

// matrix injects each fault at each call of each operation of a service. matrix skips stale reads
// on services whose reads do not lag.
func matrix(ctx context.Context, service string) ([]cell, error) {
	var cells []cell
	for _, op := range operations {
		calls, err := countCalls(ctx, service, op)
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", service, op.name, err)
		}
		row := make([]cell, faults)
		type job struct{ fault, at int }
		var jobs []job
		for f := range row {
			row[f] = cell{Service: service, Operation: op.name, Fault: fault(f)}
			if fault(f) == staleRead && current[service] {
				continue // the tests of vaultstore cover standbys of Vault, which lag
			}
			row[f].Calls = calls
			for at := range calls {
				jobs = append(jobs, job{f, at})
			}
		}
		var mu sync.Mutex
		err = parallel(len(jobs), func(i int) error {
			j := jobs[i]
			if err := try(ctx, service, newBed, op, planned{j.at, fault(j.fault)}); err != nil {
				mu.Lock()
				defer mu.Unlock()
				row[j.fault].Failures = append(row[j.fault].Failures, fmt.Sprintf("call %d: %v", j.at, err))
			}
			return ctx.Err()
		})
		if err != nil {
			return nil, err
		}
		cells = append(cells, row...)
	}
	return cells, nil
}

// A double is a failed run with two faults.
type double struct {
	Seed               uint64
	Service, Operation string
	What               string
}

// doubles makes the given number of runs, each with two faults in one operation, and
// returns the failed runs. seed determines the faults and the operations. inBubble calls its
// argument in a new testing/synctest bubble, and returns the error from that call. Each run has
// its own bubble, so that the runs neither wait in real time nor depend on the load of the machine.
func doubles(ctx context.Context, service string, runs int, seed uint64, inBubble func(func(context.Context) error) error) ([]double, error) {
	calls := map[string]int{}
	for _, op := range operations {
		n, err := countCalls(ctx, service, op)
		if err != nil {
			return nil, err
		}
		calls[op.name] = n
	}
	var mu sync.Mutex
	var wrong []double
	err := parallel(runs, func(i int) error {
		at := seed + uint64(i)
		r := rand.New(rand.NewPCG(at, 0))
		op := operations[r.IntN(len(operations))]
		n := calls[op.name] + 2 // a fault can cause further calls
		plan := []planned{{r.IntN(n), fault(r.IntN(int(faults)))}, {r.IntN(n), fault(r.IntN(int(faults)))}}
		err := inBubble(func(ctx context.Context) error { return try(ctx, service, newBubbleBed, op, plan...) })
		if err != nil {
			mu.Lock()
			defer mu.Unlock()
			wrong = append(wrong, double{at, service, op.name, fmt.Sprintf("%v at %d, %v at %d: %v", plan[0].fault, plan[0].at, plan[1].fault, plan[1].at, err)})
		}
		return ctx.Err()
	})
	slices.SortFunc(wrong, func(a, b double) int { return cmp.Compare(a.Seed, b.Seed) })
	return wrong, err
}

// countCalls returns the number of calls that an operation makes without faults.
func countCalls(ctx context.Context, service string, op operation) (int, error) {
	b, err := newBed(service, nil, false)
	if err != nil {
		return 0, err
	}
	defer b.close()
	s, err := b.prepared(ctx, nil) // the default lease, because a lease of leaseTTL may expire on a slow machine
	if err != nil {
		return 0, err
	}
	b.meter.take()
	err = op.do(ctx, s)
	return total(b.meter.take()), err
}

// prepared opens a store with opts, and stores the records that exist before each operation.
func (b *bed) prepared(ctx context.Context, opts *tokenstore.Options) (*tokenstore.Store, error) {
	s, err := b.open(opts)
	if err != nil {
		return nil, err
	}
	return s, prepare(ctx, s, b.advance)
}

const (
	operationTime = 300 * time.Millisecond // timeout of an operation that gets no answer to a call
	leaseTTL      = time.Second            // limits how long a refresh tries to store its result
	cellTime      = time.Minute
)

type trial struct {
	op           operation
	plan         []planned
	bed          *bed
	now          clock // clock of the process
	calls        atomic.Int64
	dead, struck atomic.Bool
}

// A start is a function that starts a service: newBed or newBubbleBed.
type start func(service string, now func() time.Time, quotas bool) (*bed, error)

// try runs an operation with the planned faults, and checks the state that the operation leaves.
// The operation runs on a bed from the function start.
func try(ctx context.Context, service string, start start, op operation, plan ...planned) error {
	ctx, cancel := context.WithTimeout(ctx, cellTime)
	defer cancel()
	b, err := start(service, nil, false)
	if err != nil {
		return err
	}
	defer b.close()
	t := &trial{op: op, plan: plan, bed: b}
	s, err := b.prepared(ctx, &tokenstore.Options{LeaseTTL: leaseTTL, Now: t.now.Now})
	if err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	opErr := t.do(ctx, s)
	if err := class(opErr, plan, t.dead.Load()); err != nil {
		return err
	}
	return t.check(ctx, opErr)
}

func (t *trial) do(ctx context.Context, s *tokenstore.Store) error {
	hold := make(chan struct{})
	t.bed.inject(t.strike, hold)
	ctx, stop := t.until(ctx)
	err := t.op.do(ctx, s)
	stop()
	close(hold)
	t.bed.inject(nil, nil)
	return err
}

// strike returns the fault of the next call, if any.
func (t *trial) strike() (fault, bool) {
	at := int(t.calls.Add(1)) - 1
	if t.dead.Load() {
		return killedBefore, true
	}
	for _, p := range t.plan {
		if p.at != at {
			continue
		}
		t.struck.Store(true)
		if p.fault == clockBack {
			t.now.advance(-time.Hour)
			continue
		}
		if p.fault.killed() {
			t.dead.Store(true)
		}
		return p.fault, true
	}
	return 0, false
}

// until returns a context that ends after operationTime if a fault in the plan waits for the
// caller's timeout. Otherwise, if a fault kills the process, the context ends about 20 ms after
// the fault, because a killed process does not retry.
func (t *trial) until(ctx context.Context) (context.Context, context.CancelFunc) {
	if t.has(fault.waits) {
		return context.WithTimeout(ctx, operationTime)
	}
	ctx, stop := context.WithCancel(ctx)
	if t.has(fault.killed) {
		go func() {
			for !t.dead.Load() && ctx.Err() == nil {
				_ = driverkit.Sleep(ctx, time.Millisecond)
			}
			_ = driverkit.Sleep(ctx, 20*time.Millisecond)
			stop()
		}()
	}
	return ctx, stop
}

func (t *trial) has(is func(fault) bool) bool {
	return slices.ContainsFunc(t.plan, func(p planned) bool { return is(p.fault) })
}

// check opens a store like a newly started process, and compares the records that the operation
// left with the expected outcomes. Then check repeats the operation, which must succeed.
func (t *trial) check(ctx context.Context, opErr error) error {
	expected, err := outcomes()
	if err != nil {
		return err
	}
	before, after := expected[t.op.name].before, expected[t.op.name].after
	t.bed.advance(2 * time.Hour) // make lagging writes visible and leases expire
	cold, err := t.bed.open(&tokenstore.Options{Now: func() time.Time { return time.Now().Add(time.Hour) }})
	if err != nil {
		return err
	}
	left, err := t.state(ctx, cold)
	switch {
	case err != nil:
		return fmt.Errorf("after %v: %w", opErr, err)
	case opErr == nil && t.struck.Load() && !same(left, after) && !stale(t.plan):
		return fmt.Errorf("it reported success, and left\n%s", show(left))
	case !same(left, before) && !same(left, after) && !(t.op.partial && partOf(left, before)):
		return fmt.Errorf("after %v it left\n%s", opErr, show(left))
	}
	if err := t.op.do(ctx, cold); err != nil {
		return fmt.Errorf("trying again after %v: %w", opErr, err)
	}
	if left, err = state(ctx, cold); err != nil || !same(left, after) {
		return fmt.Errorf("trying again after %v left %w\n%s", opErr, err, show(left))
	}
	return nil
}

// state returns the remaining records. If the process was killed while it deleted all records,
// state retries after ErrNotFound, because deletions that had already begun may complete
// between the list and the read of a record.
func (t *trial) state(ctx context.Context, cold *tokenstore.Store) (map[string]string, error) {
	left, err := state(ctx, cold)
	for i := 0; i < 50 && t.op.partial && t.dead.Load() && errors.Is(err, tokenstore.ErrNotFound); i++ {
		<-time.After(20 * time.Millisecond)
		left, err = state(ctx, cold)
	}
	return left, err
}

func stale(plan []planned) bool {
	return slices.ContainsFunc(plan, func(p planned) bool { return p.fault == staleRead })
}

// class returns an error unless err matches a class that the documentation allows for the faults in
// plan. A stale read also allows a wrong answer. If the process was killed, class does not check
// err.
func class(err error, plan []planned, dead bool) error {
	if err == nil || dead {
		return nil
	}
	allowed := []error{tokenstore.ErrUnavailable}
	for _, p := range plan {
		switch {
		case p.fault == denied:
			allowed = append(allowed, tokenstore.ErrDenied)
		case p.fault.waits():
			allowed = append(allowed, context.DeadlineExceeded)
		case p.fault == staleRead:
			// A read of the state of an hour ago does not find a newer record.
			allowed = append(allowed, tokenstore.ErrNotFound)
		}
	}
	var w wrongAnswer
	if errors.As(err, &w) && !stale(plan) {
		return err
	}
	if errors.As(err, &w) || slices.ContainsFunc(allowed, func(class error) bool { return errors.Is(err, class) }) {
		return nil
	}
	return fmt.Errorf("not a class that is documented for this: %w", err)
}

func same(a, b map[string]string) bool { return len(a) == len(b) && partOf(a, b) }

func partOf(a, of map[string]string) bool {
	for id, t := range a {
		if of[id] != t {
			return false
		}
	}
	return true
}

func show(state map[string]string) string {
	var lines []string
	for _, t := range state {
		lines = append(lines, "\t"+t)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// parallel calls f(0) to f(n-1), with at most eight concurrent calls. After the first error,
// parallel starts no more calls. When all calls have returned, parallel returns the first error.
func parallel(n int, f func(i int) error) error {
	const width = 8
	var at atomic.Int64
	var first atomic.Value
	var work sync.WaitGroup
	for range min(width, n) {
		work.Go(func() {
			for i := at.Add(1) - 1; i < int64(n) && first.Load() == nil; i = at.Add(1) - 1 {
				if err := f(int(i)); err != nil {
					first.CompareAndSwap(nil, err)
				}
			}
		})
	}
	work.Wait()
	err, _ := first.Load().(error)
	return err
}
