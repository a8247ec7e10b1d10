package tokenstore_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"iter"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/handover"
	"github.com/tokenkeep/tokenkeep/internal/stored"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

var (
	modelHistories = flag.Int("model.histories", 40, "histories of TestRefreshModel")
	modelSeed      = flag.Uint64("model.seed", 0, "the first of their seeds")
)

// A history consists of rounds in which processes refresh one record. In each round, all
// processes find the access token expired, and call Refresh until they get another token.
type history struct {
	testing.TB
	ctx    context.Context
	rand   *rand.Rand
	memory *memstore.Driver
	id     string
	began  time.Time

	notes bool          // the driver is a driver.Leaser, so leases are in notes
	daily int           // number of states that the service accepts in a day; 0 means no limit
	lag   time.Duration // how old the result of Get may be

	mu      sync.Mutex
	past    []state     // states of the record since the last round
	written []time.Time // times of all writes
	server  rotator
	event   time.Time                 // the last death, interrupted mint, consent or beginning of a round
	mints   map[tokenstore.Secret]int // number of current calls of mint, by refresh token
	lasted  time.Duration             // how long the last successful call of mint took
	stats   stats
	trace   []string
}

// say adds a line to the trace that is printed if the history fails. The caller must hold
// h.mu.
func (h *history) say(p *proc, format string, args ...any) {
	h.trace = append(h.trace, fmt.Sprintf("%10.3f %d: %s", float64(time.Since(h.began).Milliseconds())/1000, p.number, fmt.Sprintf(format, args...)))
}

// A state is a stored state of the record, with the time of its write.
type state struct {
	secret driver.Secret
	at     time.Time
}

type stats struct{ rounds, mints, deaths, lost, full, slowest int }

// A rotator is an authorization server that replaces the refresh token at each use. A rotator
// treats a second use of a refresh token as theft, and revokes all tokens.
type rotator struct {
	family, n int
	revoked   bool
	excused   bool  // the response to the last use was lost permanently
	by        *proc // the process that got the last response
}

func (r *rotator) token() tokenstore.Secret {
	return tokenstore.Secret(fmt.Sprintf("refresh-%d-%d", r.family, r.n))
}

type proc struct {
	*history
	number   int
	deadline time.Duration // of the calls of the process; 0 means no deadline
	cold     bool          // the process is restarted after each call that reaches its deadline
	off      atomic.Int64  // offset of the clock of the process, in nanoseconds
	killed   chan struct{}
	store    *tokenstore.Store
	failed   time.Time     // when a request of the process last failed
	unseen   time.Duration // how long calls of the process have watched the lease without storing that time
}

func (p *proc) dead() bool {
	select {
	case <-p.killed:
		return true
	default:
		return false
	}
}

func (p *proc) now() time.Time { return time.Now().Round(0).Add(time.Duration(p.off.Load())) }

// random returns a random duration that is less than most.
func (h *history) random(most time.Duration) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return time.Duration(h.rand.Int64N(int64(most)))
}

// one returns true with a probability of 1/n.
func (h *history) one(n int) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.rand.IntN(n) == 0
}

// A link is the connection of a process to the service.
type link struct{ *proc }

// through makes one call to the service. The call takes some time, and may fail before or
// after it takes effect.
func through[T any](l link, ctx context.Context, write bool, do func() (T, error)) (T, error) {
	var zero T
	if err := l.sleep(ctx, l.random(80*time.Millisecond)); err != nil {
		return zero, err
	}
	if l.one(40) {
		return zero, l.fails("before")
	}
	l.mu.Lock()
	if write && l.full() {
		l.mu.Unlock()
		return zero, fmt.Errorf("%w: no more states today", driver.ErrUnavailable)
	}
	v, err := do()
	if write && err == nil {
		l.wrote()
		l.say(l.proc, "wrote lease %+v refresh %s", l.stored().Lease, l.stored().RefreshToken)
	}
	l.mu.Unlock()
	if err != nil {
		return zero, err
	}
	if write && l.one(40) {
		return zero, l.fails("after")
	}
	return v, l.sleep(ctx, l.random(40*time.Millisecond))
}

// fails records that a request of the process fails, and returns the error of the request.
func (l link) fails(when string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed = time.Now()
	return fmt.Errorf("%w: %s", driver.ErrUnavailable, when)
}

// sleep waits for d. It returns errCrashed once the process is killed, and ctx.Err() once ctx
// is done.
func (l link) sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
	case <-ctx.Done():
		return ctx.Err()
	case <-l.killed:
	}
	if l.dead() {
		return errCrashed
	}
	return nil
}

// full reports whether the service has accepted h.daily states in the last 24 hours. The
// caller must hold h.mu.
func (h *history) full() bool { return h.daily > 0 && h.within(24*time.Hour) >= h.daily }

// wrote appends the current state of the record to h.past, unless it is already the last
// element. The caller must hold h.mu.
func (h *history) wrote() {
	secret, err := h.memory.Get(context.Background(), h.id)
	if err != nil {
		h.Fatal(err)
	}
	if n := len(h.past); n > 0 && h.past[n-1].secret.Version == secret.Version {
		return
	}
	h.past = append(h.past, state{secret, time.Now()})
	h.written = append(h.written, time.Now())
}

func (l link) Properties() driver.Properties {
	p := l.memory.Properties()
	p.DailyWrites, p.ReadLag = l.daily, l.lag
	return p
}

func (l link) Get(ctx context.Context, name string) (driver.Secret, error) {
	age := time.Duration(0)
	if l.lag > 0 {
		age = l.random(l.lag)
	}
	return through(l, ctx, false, func() (driver.Secret, error) {
		for i := len(l.past) - 1; i >= 0; i-- {
			if s := l.past[i]; time.Since(s.at) >= age {
				return s.secret, nil
			}
		}
		return l.memory.Get(ctx, name)
	})
}

func (l link) Fresh(ctx context.Context, name string, than driver.Secret) (driver.Secret, error) {
	return through(l, ctx, false, func() (driver.Secret, error) { return l.memory.Fresh(ctx, name, than) })
}

func (l link) Update(ctx context.Context, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
	return through(l, ctx, true, func() (driver.Version, error) { return l.memory.Update(ctx, name, base, p) })
}

func (l link) Create(context.Context, string, driver.Payload) (driver.Version, error) {
	l.Error("a refresh creates a record")
	return "", driver.ErrDenied
}

func (l link) Delete(context.Context, string, driver.Secret) error {
	l.Error("a refresh deletes a record")
	return driver.ErrDenied
}

func (l link) Lookup(ctx context.Context, any []driver.Label) iter.Seq2[driver.Named, error] {
	return l.memory.Lookup(ctx, any)
}
func (l link) List(ctx context.Context) iter.Seq2[driver.Named, error] { return l.memory.List(ctx) }
func (l link) Names(ctx context.Context) iter.Seq2[string, error]      { return l.memory.Names(ctx) }
func (l link) Close() error                                            { return nil }

// linkWithNotes is a link to a service that is a driver.Leaser.
type linkWithNotes struct{ link }

func (l linkWithNotes) Note(ctx context.Context, name string, base driver.Secret, note string) error {
	_, err := through(l.link, ctx, false, func() (struct{}, error) { return struct{}{}, l.memory.Note(ctx, name, base, note) })
	return err
}

func (p *proc) open() *tokenstore.Store {
	if p.store != nil {
		return p.store
	}
	var d driver.Secrets = link{p}
	if p.notes {
		d = linkWithNotes{link{p}}
	}
	s, err := tokenstore.New(d, &tokenstore.Options{LeaseTTL: ttl, Now: p.now})
	if err != nil {
		p.Fatal(err)
	}
	p.store = s
	return s
}

func (h *history) stored() stored.Record {
	secret, err := h.memory.Get(context.Background(), h.id)
	if err != nil {
		h.Fatal(err)
	}
	record, err := stored.Decode(secret.Data)
	if err != nil {
		h.Fatal(err)
	}
	return record
}

func (p *proc) mint(ctx context.Context, used tokenstore.Token) (tokenstore.Token, error) {
	begun := time.Now()
	p.mu.Lock()
	p.stats.mints++
	p.say(p, "mint with %s", string(used.RefreshToken))
	if p.mints[used.RefreshToken]++; p.mints[used.RefreshToken] > 1 {
		p.Errorf("two mints with %s at a time", string(used.RefreshToken))
	}
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.mints[used.RefreshToken]--
		p.say(p, "mint is over")
	}()
	if err := p.asks(ctx); err != nil {
		return tokenstore.Token{}, err
	}
	t, err := p.answer(used.RefreshToken)
	if err != nil {
		return tokenstore.Token{}, err
	}
	if err := p.asks(ctx); err != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.stats.lost++
		p.server.excused = p.server.excused || p.server.by == p
		return tokenstore.Token{}, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lasted = time.Since(begun)
	return t, nil
}

func (p *proc) asks(ctx context.Context) error {
	took := p.random(200 * time.Millisecond)
	if p.one(10) {
		took += p.random(time.Second)
	}
	if p.one(50) {
		took += p.random(15 * time.Second)
	}
	err := link{p}.sleep(ctx, took)
	if err != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.event = time.Now()
	}
	return err
}

// answer returns the authorization server's response to a request. The parameter used is the
// refresh token in the request.
func (p *proc) answer(used tokenstore.Secret) (tokenstore.Token, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := &p.server
	if used != s.token() || s.revoked {
		var family, n int
		_, err := fmt.Sscanf(string(used), "refresh-%d-%d", &family, &n)
		if err != nil || family == s.family && !s.excused && !s.revoked {
			p.Errorf("the server was asked with %s, its last answer was %s: that was lost", string(used), string(s.token()))
		}
		s.revoked = s.revoked || family == s.family
		return tokenstore.Token{}, &tokenstore.RefreshError{Code: "invalid_grant", Permanent: true}
	}
	s.n++
	s.by = p
	return tokenstore.Token{
		AccessToken: tokenstore.Secret(fmt.Sprintf("access-%d-%d", s.family, s.n)), RefreshToken: s.token(), ExpiresAt: time.Now().Add(time.Hour),
	}, nil
}

// consent gives the record a refresh token of a new family if the server has revoked the
// current refresh token.
func (h *history) consent() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.server.revoked {
		return
	}
	h.server = rotator{family: h.server.family + 1}
	h.event = time.Now()
	s, err := tokenstore.New(h.memory, nil)
	if err == nil {
		_, err = s.SaveToken(h.ctx, tokenstore.Token{ID: h.id, RefreshToken: h.server.token()})
	}
	if err != nil {
		h.Fatal(err)
	}
	h.wrote()
}

func (p *proc) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.killed)
	p.say(p, "killed")
	p.stats.deaths++
	p.event = time.Now()
	if s := &p.server; s.by == p && p.stored().RefreshToken != string(s.token()) {
		s.excused = true
		p.stats.lost++
	}
}

// run calls Refresh until a call returns a token other than stale, the process is killed, or
// the service has no room for a new token.
func (p *proc) run(stale tokenstore.Secret) {
	for !p.dead() {
		begun := time.Now()
		ctx, cancel := context.WithCancel(p.ctx)
		if p.deadline > 0 {
			ctx, cancel = context.WithTimeout(p.ctx, p.deadline)
		}
		p.mu.Lock()
		p.say(p, "begins, deadline %v, cold %v", p.deadline, p.cold)
		p.mu.Unlock()
		if p.cold {
			ctx = handover.Context(ctx)
			// If FindTokenByID succeeds, Refresh begins with the record that it has read.
			_, _ = p.open().FindTokenByID(ctx, p.id)
		}
		got, err := p.open().Refresh(ctx, p.id, stale, p.mint)
		cancel()
		refused, ok := errors.AsType[*tokenstore.RefreshError](err)
		switch {
		case p.dead():
			return
		case err == nil && got.AccessToken != stale:
			return
		case ok && refused.Code == "invalid_grant":
			p.consent()
		case errors.Is(err, tokenstore.ErrNotPersisted):
			if !p.saved(got) {
				p.Errorf("a token was not stored: %v", err)
			}
			return
		case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
			if p.cold {
				p.store = nil
			}
			p.unseen += p.disturbed(begun)
		case errors.Is(err, tokenstore.ErrUnavailable):
			if p.crowded() {
				return
			}
			p.unseen += time.Since(begun)
		default:
			p.Errorf("Refresh: token %t, error %v", got.AccessToken != "", err)
			return
		}
		_ = link{p}.sleep(p.ctx, p.random(20*time.Millisecond))
	}
}

// saved reports whether Refresh may return t without storing t, because saves of other
// processes used up the daily writes while mint ran. If so, saved excuses the loss of
// the refresh token in t.
func (p *proc) saved(t tokenstore.Token) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.full() {
		return false
	}
	p.stats.full++
	p.server.excused = p.server.excused || t.RefreshToken == p.server.token()
	return true
}

// disturbed returns the duration of a call that began at begun, or 0 if the call stored that
// duration in the lease. disturbed assumes that the call stored the duration unless a request
// failed, or a process wrote the record, after the call began.
func (p *proc) disturbed(begun time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.written); p.failed.Before(begun) && (n == 0 || p.written[n-1].Before(begun)) {
		return 0
	}
	return time.Since(begun)
}

// crowded reports whether the service may lack room for the writes of a refresh. crowded
// counts each such case in h.stats.
func (h *history) crowded() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.daily > 0 && h.within(26*time.Hour) > h.daily-7 {
		h.stats.full++
		return true
	}
	return false
}

// round plays one round. Processes refresh the record, while some of them die, some clocks
// change, and other processes save the record.
func (h *history) round() {
	if h.daily > 0 && h.one(8) {
		h.fill(h.daily - h.rand.IntN(10))
	}
	stale := tokenstore.Secret(h.stored().AccessToken)
	h.trace, h.began = nil, time.Now()
	begun := time.Now()
	h.event = begun
	procs := make([]*proc, 2+h.rand.IntN(4))
	deadlines := []time.Duration{3 * time.Second, 10 * time.Second, 29 * time.Second, 0}
	for i := range procs {
		procs[i] = &proc{history: h, number: i, killed: make(chan struct{}), deadline: deadlines[h.rand.IntN(len(deadlines))], cold: h.rand.IntN(3) == 0}
		procs[i].off.Store(int64(time.Duration(h.rand.IntN(121)-60) * time.Second))
	}
	var running, around sync.WaitGroup
	full := h.stats.full
	for i, p := range procs {
		running.Go(func() {
			_ = link{p}.sleep(h.ctx, h.random(2*time.Second))
			p.run(stale)
		})
		if i > 0 && h.one(2) { // the first process survives
			around.Go(func() { pass(h.random(4 * time.Second)); p.kill() })
		}
		if h.one(3) {
			around.Go(func() {
				pass(h.random(20 * time.Second))
				p.off.Add(-int64(h.random(2 * time.Minute))) // clocks differ by less than five minutes
			})
		}
	}
	if h.one(2) {
		saver := &proc{history: h, number: len(procs), killed: make(chan struct{})}
		saves := int(h.random(6))
		around.Go(func() {
			for i := range saves {
				pass(time.Second + h.random(3*time.Second))
				_, _ = saver.open().SaveToken(h.ctx, tokenstore.Token{ID: h.id, APIDomain: fmt.Sprintf("https://%d.example", time.Now().Unix()+int64(i))})
			}
		})
	}
	running.Wait()
	around.Wait()
	h.fresh(stale, procs, full < h.stats.full)
}

// fill saves the record until the number of states in the last 24 hours reaches the parameter
// most.
func (h *history) fill(most int) {
	s, err := tokenstore.New(link{&proc{history: h, killed: make(chan struct{})}}, nil)
	if err != nil {
		h.Fatal(err)
	}
	for i := 0; h.today() < most && i < 2*most; i++ {
		_, _ = s.SaveToken(h.ctx, tokenstore.Token{ID: h.id, APIDomain: fmt.Sprintf("https://%d.example", time.Now().UnixNano())})
	}
}

func (h *history) today() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.within(24 * time.Hour)
}

// within returns how many states were written less than the given duration ago. The caller
// must hold h.mu.
func (h *history) within(while time.Duration) int {
	n := 0
	for _, at := range h.written {
		if time.Since(at) < while {
			n++
		}
	}
	return n
}

// fresh checks that a fresh token was stored in time in a round. If full is set, the round
// may have stored no fresh token.
func (h *history) fresh(stale tokenstore.Secret, procs []*proc, full bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stats.rounds++
	for i, s := range h.past {
		record, err := stored.Decode(s.secret.Data)
		if err != nil {
			h.Fatal(err)
		}
		if tokenstore.Secret(record.AccessToken) == stale || i == 0 {
			continue
		}
		took := s.at.Sub(h.event) - h.lasted
		most := ttl + 500*time.Millisecond + 4*time.Second // allowed for requests, some of which fail
		most += unseen(procs)
		h.stats.slowest = max(h.stats.slowest, int(took.Seconds()))
		if took > most {
			h.Errorf("a fresh token came %v after the last event, want %v at most", took, most)
		}
		h.past = h.past[len(h.past)-1:]
		return
	}
	if !full {
		h.Errorf("a round has left no fresh token")
	}
}

// unseen returns how long the processes may have to watch a lease beyond its length. The Store
// of a process that is not cold remembers how long it has watched the lease. A cold process
// must watch the lease again for the time that its calls could not store.
func unseen(procs []*proc) time.Duration {
	least := time.Duration(math.MaxInt64)
	for _, p := range procs {
		switch {
		case p.dead():
		case !p.cold:
			return 0
		default:
			least = min(least, ttl+p.unseen)
		}
	}
	return least
}

// TestRefreshModel checks three properties of refreshes in random histories. No two calls of
// mint use the same refresh token at the same time. No surviving process loses a new refresh
// token. After the last death, interrupted mint or consent of a round, a process stores a
// fresh token in time.
func TestRefreshModel(t *testing.T) {
	t.Parallel()
	var all stats
	var mu sync.Mutex
	for seed := *modelSeed; seed < *modelSeed+uint64(*modelHistories); seed++ {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 0))
			h := &history{
				TB: t, ctx: t.Context(), rand: r, memory: memstore.NewDriver(), mints: map[tokenstore.Secret]int{},
				notes: r.IntN(3) == 0, server: rotator{family: 1},
			}
			if r.IntN(2) == 0 {
				h.daily = 100
			}
			if r.IntN(2) == 0 {
				h.lag = time.Second
			}
			s, err := tokenstore.New(h.memory, nil)
			if err != nil {
				t.Fatal(err)
			}
			saved, err := s.SaveToken(t.Context(), tokenstore.Token{UserName: user, ClientID: client, RefreshToken: h.server.token(), AccessToken: "access0"})
			if err != nil {
				t.Fatal(err)
			}
			h.id = saved.ID
			h.wrote()
			for range 8 + r.IntN(30) {
				h.round()
				pass(h.random(time.Hour))
				if t.Failed() {
					t.Fatalf("-model.seed=%d -model.histories=1\n%s", seed, strings.Join(h.trace, "\n"))
				}
			}
			mu.Lock()
			defer mu.Unlock()
			all.add(h.stats)
		})
	}
	t.Logf("%d rounds, %d mints, %d deaths, %d answers lost by them, %d refusals for want of room; at most %d s",
		all.rounds, all.mints, all.deaths, all.lost, all.full, all.slowest)
}

func (s *stats) add(o stats) {
	s.rounds += o.rounds
	s.mints += o.mints
	s.deaths += o.deaths
	s.lost += o.lost
	s.full += o.full
	s.slowest = max(s.slowest, o.slowest)
}
