package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

const (
	clients   = 8
	each      = 16   // number of operations of each client
	faultRate = 0.10 // fraction of the calls to the service that have a fault
	checkTime = time.Minute
)

// A verb is an operation of a client on the only record of a history.
type verb int

const (
	readByUser verb = iota
	readByID
	write
	remove
	renew
)

func (v verb) String() string {
	return [...]string{"read by user", "read by ID", "write", "delete", "refresh"}[v]
}

// An input is an operation on the record, with its arguments. The values are access tokens.
type input struct {
	verb  verb
	value string // the value written; for renew, the stale value
	fresh string // for renew: the authorization server's answer
}

type output struct {
	value   string // empty if the record does not exist
	unknown bool   // whether the operation took effect is unknown
}

// register is the model of the record. The state of the model is the access token, or empty if the
// record does not exist. An operation with an unknown outcome either takes effect before it returns
// or never takes effect, because no fault delays a call.
var register = porcupine.NondeterministicModel{
	Init: func() []any { return []any{""} },
	Step: func(state, in, out any) []any {
		s, i, o := state.(string), in.(input), out.(output)
		next, answer := s, s
		switch i.verb {
		case readByUser, readByID:
		case write:
			next, answer = i.value, i.value
		case remove:
			next, answer = "", ""
		case renew:
			if s != "" && s == i.value {
				next, answer = i.fresh, i.fresh
			}
		}
		switch {
		case o.unknown:
			return []any{s, next}
		case o.value != answer:
			return nil
		}
		return []any{next}
	},
	DescribeOperation: func(in, out any) string {
		i, o := in.(input), out.(output)
		answer := cmp.Or(o.value, "absent")
		if o.unknown {
			answer = "unknown"
		}
		return fmt.Sprintf("%v(%s) = %s", i.verb, strings.Trim(i.value+" "+i.fresh, " "), answer)
	},
}

// An unsound describes a history that fails the check.
type unsound struct {
	Seed uint64
	What string
}

// conditions holds the conditions, other than faults, under which a history runs.
type conditions struct {
	name string

	// behind reports whether some reads return earlier states. If behind is set, the history
	// omits all reads except the reads of recorder.end.
	behind bool

	// ownID reports whether the caller chooses the ID of the record.
	ownID bool

	// clocks reports whether the clocks of the clients are sometimes up to four minutes
	// before or after the real time.
	clocks bool
}

// plain sets no condition. allConditions sets each condition alone, and then all conditions
// together.
var (
	plain         = conditions{name: "plain"}
	allConditions = []conditions{
		{name: "reads behind", behind: true},
		{name: "own ID", ownID: true},
		{name: "wrong clocks", clocks: true},
		{name: "all of these", behind: true, ownID: true, clocks: true},
	}
)

// runHistories runs histories under the given conditions, with consecutive seeds that start at
// seed. runHistories returns the total number of operations, and the histories that fail the
// check. err is the error from ctx.
func runHistories(ctx context.Context, service string, under conditions, runs int, seed uint64) (operations int, wrong []unsound, err error) {
	var mu sync.Mutex
	err = parallel(runs, func(i int) error { // in parallel, because a history mostly waits
		at := seed + uint64(i)
		n, err := linearizable(ctx, service, under, at)
		mu.Lock()
		defer mu.Unlock()
		operations += n
		if err != nil {
			wrong = append(wrong, unsound{at, err.Error()})
		}
		return ctx.Err()
	})
	slices.SortFunc(wrong, func(a, b unsound) int { return cmp.Compare(a.Seed, b.Seed) })
	return operations, wrong, err
}

// linearizable runs a history with the given seed on a new service. linearizable returns an error
// if no order of the operations explains the results of the clients, or if the check cannot be
// completed.
func linearizable(ctx context.Context, service string, under conditions, seed uint64) (operations int, err error) {
	b, err := newBed(service, nil, false)
	if err != nil {
		return 0, err
	}
	defer b.close()
	return explained(ctx, b, under, seed)
}

func explained(ctx context.Context, svc *bed, under conditions, seed uint64) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	r := &recorder{under: under, begun: time.Now(), seen: map[string]bool{}}
	dice := rand.New(rand.NewPCG(seed, 1))
	svc.inject(func() (fault, bool) { return r.roll(dice) }, nil)
	var work sync.WaitGroup
	for c := range clients {
		w, err := watch(svc.driver())
		if err != nil {
			return 0, err
		}
		client := &client{recorder: r, number: c, watched: w, dice: rand.New(rand.NewPCG(seed, uint64(c)+2))}
		if client.store, err = tokenstore.New(w, &tokenstore.Options{LeaseTTL: leaseTTL, Now: client.now.Now}); err != nil {
			return 0, err
		}
		work.Go(func() { client.work(ctx) })
	}
	work.Wait()
	svc.inject(nil, nil)
	svc.advance(2 * time.Hour) // make lagging writes visible
	if err := cmp.Or(ctx.Err(), r.end(ctx, svc)); err != nil {
		return len(r.history), err
	}
	result, info := explain(settle(r.history, r.seen, false))
	if result != porcupine.Ok {
		r.history = settle(r.history, r.seen, true)
		result, info = explain(r.history)
	}
	switch result {
	case porcupine.Illegal:
		return len(r.history), fmt.Errorf("the history with the seed %d has no explanation:\n%s", seed, unexplained(r.history, info))
	case porcupine.Unknown:
		return len(r.history), fmt.Errorf("the history with the seed %d was not decided in %v", seed, checkTime)
	}
	return len(r.history), nil
}

type recorder struct {
	under conditions
	begun time.Time
	count atomic.Int64 // number of operations, which makes the values of each operation distinct

	mu      sync.Mutex
	history []porcupine.Operation
	seen    map[string]bool // access tokens that operations have returned, including reads that the history omits
}

// behindRate is the fraction of calls that have the fault readBehind if conditions.behind is set.
const behindRate = 0.3

// roll returns a random fault for a call, and reports whether the call has a fault.
func (r *recorder) roll(dice *rand.Rand) (fault, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch p := dice.Float64(); {
	case p < faultRate:
		return []fault{answerLost, reset, throttled, serverError}[dice.IntN(4)], true
	case r.under.behind && p < faultRate+behindRate:
		return readBehind, true
	}
	return 0, false
}

func (r *recorder) add(client int, called, returned time.Duration, steps []step) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range steps {
		r.history = append(r.history, porcupine.Operation{
			ClientId: client, Call: int64(called), Return: int64(returned), Input: s.input, Output: s.output,
		})
	}
}

func (r *recorder) see(value string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen[value] = true
}

// end reads the final state with two new stores, and adds the reads to the history. end returns
// an error if a store cannot list the records, or lists more than one record.
func (r *recorder) end(ctx context.Context, svc *bed) error {
	for n := range 2 {
		s, err := svc.open(nil)
		if err != nil {
			return err
		}
		called := time.Since(r.begun)
		for _, verb := range []verb{readByUser, readByID} {
			out, _ := perform(ctx, s, r.under, input{verb: verb})
			r.add(clients+n, called, time.Since(r.begun), []step{{input{verb: verb}, out}})
		}
		tokens, err := s.GetTokens(ctx)
		if err != nil || len(tokens) > 1 {
			return fmt.Errorf("in the end there are %d records: %w", len(tokens), err)
		}
	}
	return nil
}

// A client runs operations one after the other, like a separate process.
type client struct {
	*recorder
	number  int
	watched watched
	store   *tokenstore.Store
	dice    *rand.Rand
	now     clock
}

func (c *client) work(ctx context.Context) {
	seen := ""
	for range each {
		if c.under.clocks && c.dice.IntN(4) == 0 {
			const most = 4 * time.Minute
			c.now.set(time.Duration(c.dice.Int64N(int64(2*most))) - most)
		}
		in := draw(c.dice, seen, c.count.Add(1))
		called := time.Since(c.begun)
		lost := c.watched.lost()
		out, asked := perform(ctx, c.store, c.under, in)
		lost = c.watched.lost() - lost
		if out.value != "" {
			seen = out.value
			c.see(seen)
		}
		c.add(c.number, called, time.Since(c.begun), known(c.under, parts(in, out, asked, lost)))
	}
}

// known returns all steps if reads do not lag. If reads lag, known omits the steps that prove
// nothing: reads, and refreshes that stored no token. If the caller also chose the ID, the
// outcome of a deletion becomes unknown, because the deletion searches for the ID with a read.
func known(under conditions, steps []step) []step {
	if !under.behind {
		return steps
	}
	var known []step
	for _, s := range steps {
		switch s.verb {
		case readByUser, readByID:
			continue
		case renew:
			if !s.unknown && s.input.put() != s.output.value {
				continue // the client found a token that is not stale, or no record
			}
		case remove:
			s.unknown = s.unknown || under.ownID
		case write:
		}
		known = append(known, s)
	}
	return known
}

func explain(history []porcupine.Operation) (porcupine.CheckResult, porcupine.LinearizationInfo) {
	return porcupine.CheckOperationsVerbose(register.ToModel(), history, checkTime)
}

// A step is a part of an operation, in terms of the model.
type step struct {
	input
	output
}

// parts returns the steps of an operation for the model. asked reports whether the mint function of
// a refresh was called. lost is the number of the operation's writes to the driver whose outcome is
// unknown.
//
// The store repeats a write with an unknown outcome if another client has changed or deleted
// the record in the meantime. Each attempt can have taken effect, so each attempt is a step.
// If the operation returns the value of another client, the last step is a read of that value.
//
// If reads can be stale, the store also repeats a deletion with an unknown outcome. The
// repetition can remove a record that another client saved after the first attempt.
func parts(in input, out output, asked bool, lost int64) []step {
	written := step{input{verb: write, value: in.put()}, output{unknown: true}}
	changed := !out.unknown && out.value != in.put()
	switch {
	case out.unknown && in.verb != write && in.verb != remove && !asked:
		return nil // without a write, a failed operation has no effect and no result to check
	case in.verb == renew && asked && changed:
		return []step{written, {input{verb: readByID}, out}}
	case in.verb == remove && out.unknown:
		return slices.Repeat([]step{{in, out}}, int(max(1, lost)))
	case in.verb == remove:
		return append(slices.Repeat([]step{{in, output{unknown: true}}}, int(lost)), step{in, out})
	case in.verb != write:
		return []step{{in, out}}
	case out.unknown:
		return slices.Repeat([]step{written}, int(max(1, lost)))
	case changed:
		return append(slices.Repeat([]step{written}, int(max(1, lost))), step{input{verb: readByID}, out})
	}
	return append(slices.Repeat([]step{written}, int(lost)), step{in, out})
}

// put returns the value that an operation writes.
func (i input) put() string {
	if i.verb == renew {
		return i.fresh
	}
	return i.value
}

// settle resolves unknown outcomes where possible, because each unknown outcome doubles the
// number of orders to check. read contains the values that clients have read.
//
// Each value is written by one operation, in one or more attempts. If a client read the value,
// one attempt took effect. If no client read the value, settle drops all attempts, because the
// history has the same explanations without the attempts. The other attempts to write a value
// that was read stay unknown if twice is set, and are dropped otherwise. A deletion is dropped
// if no client found the record absent, and otherwise stays unknown.
func settle(history []porcupine.Operation, read map[string]bool, twice bool) []porcupine.Operation {
	seen, done := maps.Clone(read), map[string]bool{"": true}
	for _, op := range history {
		in, out := op.Input.(input), op.Output.(output)
		switch {
		case out.unknown:
		case in.verb == write || in.verb == renew && out.value == in.put():
			done[in.put()] = true
		default:
			seen[out.value] = true
		}
	}
	var settled []porcupine.Operation
	for _, op := range history {
		in, out := op.Input.(input), op.Output.(output)
		switch value := in.put(); {
		case out.unknown && !seen[value]:
			continue
		case out.unknown && !done[value]:
			done[value] = true
			op.Output = output{value: value}
		case out.unknown && in.verb == write && !twice:
			continue
		}
		settled = append(settled, op)
	}
	return settled
}

// A watched is a driver that counts the writes whose outcome is unknown.
type watched interface {
	driver.Secrets
	lost() int64
}

type watching struct {
	driver.Secrets
	n *atomic.Int64
}

func watch(d driver.Secrets, err error) (watched, error) {
	w := watching{d, new(atomic.Int64)}
	if l, ok := d.(driver.Leaser); ok {
		return watchingLeaser{w, l}, err
	}
	return w, err
}

func (w watching) lost() int64 { return w.n.Load() }

func (w watching) saw(err error) {
	for _, known := range []error{nil, driver.ErrConflict, driver.ErrExists, driver.ErrNotFound} {
		if errors.Is(err, known) {
			return
		}
	}
	w.n.Add(1)
}

func (w watching) Create(ctx context.Context, name string, p driver.Payload) (driver.Version, error) {
	v, err := w.Secrets.Create(ctx, name, p)
	w.saw(err)
	return v, err
}

func (w watching) Update(ctx context.Context, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
	v, err := w.Secrets.Update(ctx, name, base, p)
	w.saw(err)
	return v, err
}

func (w watching) Delete(ctx context.Context, name string, base driver.Secret) error {
	err := w.Secrets.Delete(ctx, name, base)
	w.saw(err)
	return err
}

type watchingLeaser struct {
	watching
	leaser driver.Leaser
}

func (w watchingLeaser) Note(ctx context.Context, name string, base driver.Secret, note string) error {
	return w.leaser.Note(ctx, name, base, note)
}

// unexplained returns the text of the history, in the order in which the operations returned.
// A question mark precedes each operation that is not in the longest partial explanation.
func unexplained(history []porcupine.Operation, info porcupine.LinearizationInfo) string {
	explained := map[int]bool{}
	for _, partial := range info.PartialLinearizations() {
		for _, order := range partial {
			if len(order) > len(explained) {
				clear(explained)
				for _, i := range order {
					explained[i] = true
				}
			}
		}
	}
	var lines []string
	for i, op := range history {
		mark := " "
		if !explained[i] {
			mark = "?"
		}
		lines = append(lines, fmt.Sprintf("%12d %12d %s client %d: %s", op.Return/1000, op.Call/1000, mark, op.ClientId, register.DescribeOperation(op.Input, op.Output)))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// draw returns a random operation with values that contain n. The parameter seen, the last token
// that the client read, is the stale value of a refresh.
func draw(r *rand.Rand, seen string, n int64) input {
	switch p := r.IntN(100); {
	case p < 30:
		return input{verb: readByUser}
	case p < 50:
		return input{verb: readByID}
	case p < 75:
		return input{verb: write, value: fmt.Sprintf("w%d", n)}
	case p < 82:
		return input{verb: remove}
	default:
		return input{verb: renew, value: seen, fresh: fmt.Sprintf("m%d", n)}
	}
}

// perform calls the method of s for the operation. asked reports whether s called the mint
// function of a refresh.
func perform(ctx context.Context, s *tokenstore.Store, under conditions, in input) (out output, asked bool) {
	var t tokenstore.Token
	var err error
	id, own := ids["ann-refresh"], ""
	if under.ownID {
		id, own = "crm", "crm"
	}
	switch in.verb {
	case readByUser:
		t, err = s.FindToken(ctx, tokenstore.Token{UserName: ann.UserName, ClientID: ann.ClientID})
	case readByID:
		t, err = s.FindTokenByID(ctx, id)
	case write:
		t, err = s.SaveToken(ctx, tokenstore.Token{ID: own, UserName: ann.UserName, ClientID: ann.ClientID, AccessToken: tokenstore.Secret(in.value), ExpiresAt: far})
	case remove:
		err = s.DeleteToken(ctx, id)
	case renew:
		t, err = s.Refresh(ctx, id, tokenstore.Secret(in.value), func(context.Context, tokenstore.Token) (tokenstore.Token, error) {
			asked = true
			return tokenstore.Token{AccessToken: tokenstore.Secret(in.fresh), ExpiresAt: far}, nil
		})
	}
	switch {
	case errors.Is(err, tokenstore.ErrNotFound) && !errors.Is(err, tokenstore.ErrNotPersisted):
		return output{}, asked
	case err != nil:
		return output{unknown: true}, asked
	}
	return output{value: string(t.AccessToken)}, asked
}
