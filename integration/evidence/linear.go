package evidence

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// The shape of a history.
const (
	clients   = 8
	each      = 16   // operations of each
	faultRate = 0.10 // of the calls of the service
	checkTime = time.Minute
)

// checks holds a place for each check that is under way. What is undecided after
// checkTime was not just short of a processor.
var checks = make(chan struct{}, runtime.GOMAXPROCS(0))

// A verb is what a client does to the one record of a history.
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

// An input is an operation on the record: its access token is the register.
type input struct {
	verb  verb
	value string // of a write; for renew what is stale
	fresh string // for renew: what the authorization server answers
}

// An output is what came back.
type output struct {
	value   string // "": there is no record
	unknown bool   // whether it was done
}

// register is the model: a record that is absent or has an access token. An
// operation of unknown outcome has been done or not, but is over when it returns:
// none of the faults applies a call later.
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

// Linearizable runs a history with the seed and reports whether some order of its
// operations explains what the clients saw.
func Linearizable(ctx context.Context, service string, seed uint64) (operations int, err error) {
	svc := Start[service]()
	defer svc.close()
	return linearizable(ctx, svc, seed)
}

func linearizable(ctx context.Context, svc *Service, seed uint64) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	var mu sync.Mutex
	dice := rand.New(rand.NewPCG(seed, 1))
	svc.inject(func() (Fault, bool) {
		mu.Lock()
		defer mu.Unlock()
		if dice.Float64() >= faultRate {
			return 0, false
		}
		return []Fault{AnswerLost, Reset, Throttled, ServerError}[dice.IntN(4)], true
	}, nil)
	defer svc.inject(nil, nil)

	var history []porcupine.Operation
	var count atomic.Int64
	begun := time.Now()
	var work sync.WaitGroup
	for c := range clients {
		w, err := watch(svc.driver())
		if err != nil {
			return 0, err
		}
		s, err := tokenstore.New(w, &tokenstore.Options{LeaseTTL: leaseTTL})
		if err != nil {
			return 0, err
		}
		r := rand.New(rand.NewPCG(seed, uint64(c)+2))
		work.Go(func() {
			seen := ""
			for range each {
				in := draw(r, seen, count.Add(1))
				called := time.Since(begun)
				lost := w.lost()
				out, asked := perform(ctx, s, in)
				lost = w.lost() - lost
				returned := time.Since(begun)
				if out.value != "" {
					seen = out.value
				}
				op := porcupine.Operation{ClientId: c, Call: int64(called), Return: int64(returned)}
				mu.Lock()
				for _, part := range parts(in, out, asked, lost > 0) {
					op.Input, op.Output = part.input, part.output
					history = append(history, op)
				}
				mu.Unlock()
			}
		})
	}
	work.Wait()
	if err := ctx.Err(); err != nil {
		return len(history), err
	}
	checks <- struct{}{}
	result, info := porcupine.CheckOperationsVerbose(register.ToModel(), history, checkTime)
	<-checks
	switch result {
	case porcupine.Illegal:
		return len(history), fmt.Errorf("the history with the seed %d has no explanation:\n%s", seed, unexplained(history, info))
	case porcupine.Unknown:
		return len(history), fmt.Errorf("the history with the seed %d was not decided in %v", seed, checkTime)
	}
	return len(history), nil
}

// A step is one part of an operation that the model knows.
type step struct {
	input
	output
}

// parts returns what an operation was, for the model. After a lost answer a write
// comes back with the record as it is by then, which others may have changed: that
// is a write, which may have been the one that was seen, and a read. And if the
// record was deleted meanwhile nobody can tell whether the write was applied
// before: it is done again, and may have been seen twice.
func parts(in input, out output, asked, lost bool) []step {
	changed := out.value != in.value
	value := in.value
	if in.verb == renew {
		changed, value = out.value != in.fresh, in.fresh
	}
	switch {
	case out.unknown && (in.verb == readByID || in.verb == readByUser):
		return nil // a read that failed says nothing
	case in.verb == write && !out.unknown && changed, in.verb == renew && !out.unknown && changed && asked:
		written := step{input{verb: write, value: value}, output{unknown: true}}
		return []step{written, {input{verb: readByID}, out}}
	case in.verb == write && !out.unknown && lost:
		return []step{{in, output{unknown: true}}, {in, out}}
	}
	return []step{{in, out}}
}

// A watched driver counts the writes whose outcome it did not tell.
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

type watchingLeaser struct {
	watching
	leaser driver.Leaser
}

func (w watchingLeaser) Note(ctx context.Context, name string, base driver.Secret, note string) error {
	return w.leaser.Note(ctx, name, base, note)
}

// unexplained returns the operations around the point up to which a history can be
// explained.
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
	first := int64(math.MaxInt64)
	for i, op := range history {
		if !explained[i] {
			first = min(first, op.Return)
		}
	}
	var lines []string
	for i, op := range history {
		if op.Return >= first-around && op.Call <= first+around {
			mark := " "
			if !explained[i] {
				mark = "?"
			}
			lines = append(lines, fmt.Sprintf("%12d %12d %s client %d: %s", op.Call/1000, op.Return/1000, mark, op.ClientId, register.DescribeOperation(op.Input, op.Output)))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// around is how much of a history is shown before and after that point.
const around = int64(20 * time.Millisecond)

// draw draws an operation. What a client takes for stale is what it saw last.
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

// perform does an operation. asked says that the authorization server was.
func perform(ctx context.Context, s *tokenstore.Store, in input) (out output, asked bool) {
	var t tokenstore.Token
	var err error
	switch in.verb {
	case readByUser:
		t, err = s.FindToken(ctx, tokenstore.Token{UserName: ann.UserName, ClientID: ann.ClientID})
	case readByID:
		t, err = s.FindTokenByID(ctx, ids["ann-refresh"])
	case write:
		t, err = s.SaveToken(ctx, tokenstore.Token{UserName: ann.UserName, ClientID: ann.ClientID, AccessToken: tokenstore.Secret(in.value), ExpiresAt: far})
	case remove:
		err = s.DeleteToken(ctx, ids["ann-refresh"])
	case renew:
		t, err = s.Refresh(ctx, ids["ann-refresh"], tokenstore.Secret(in.value), func(context.Context, tokenstore.Token) (tokenstore.Token, error) {
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
