package main

import (
	"net/http"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tokenkeep/tokenkeep/internal/fakeaws"
	"github.com/tokenkeep/tokenkeep/internal/fakegcp"
	"github.com/tokenkeep/tokenkeep/internal/fakevault"
)

// A fault is what goes wrong with one call.
type fault int

// The faults. A process that is killed makes no call afterwards.
const (
	denied       fault = iota // refused, and not applied
	answerLost                // applied, and the connection breaks
	timedOut                  // not applied, and no answer until the caller's time is up
	timedOutDone              // applied, and no answer until the caller's time is up
	throttled                 // not applied
	serverError               // not applied
	reset                     // the connection breaks, and not applied
	staleRead                 // a read answers with what was true an hour ago
	killedBefore              // the process dies before the call
	killedAfter               // and just after it was applied
	clockBack                 // the process's clock is set back by an hour, and the call goes on
	faults

	// A read that is behind answers with what was true a moment ago. runHistories have
	// it, and not the matrix, where staleRead finds more.
	readBehind = faults
)

// moment is how far a read that is behind is behind: a few operations.
const moment = 30 * time.Millisecond

// String returns a heading.
func (f fault) String() string {
	return [...]string{"denied", "answer lost", "time-out", "time-out, applied", "throttled", "5xx", "reset", "stale read",
		"killed before", "killed after", "clock back", "read behind"}[f]
}

func (f fault) killed() bool { return f == killedBefore || f == killedAfter }
func (f fault) waits() bool  { return f == timedOut || f == timedOutDone }

// An effect is what a fault does to a call, whatever the service.
type effect struct {
	refused refusal
	broken  bool          // the connection breaks
	applied bool          // and the call is carried out all the same
	waits   bool          // there is no answer until the caller's time is up
	stale   time.Duration // how old what a read answers with is
}

// A refusal is how the services say no.
type refusal struct {
	aws  string
	http int
	grpc codes.Code
}

var effects = map[fault]effect{
	denied:       {refused: refusal{"AccessDeniedException", http.StatusForbidden, codes.PermissionDenied}},
	answerLost:   {broken: true, applied: true},
	timedOut:     {broken: true, waits: true},
	timedOutDone: {broken: true, applied: true, waits: true},
	throttled:    {refused: refusal{"ThrottlingException", http.StatusTooManyRequests, codes.ResourceExhausted}},
	serverError:  {refused: refusal{"InternalServiceError", http.StatusInternalServerError, codes.Internal}},
	reset:        {broken: true},
	staleRead:    {stale: time.Hour},
	killedBefore: {broken: true},
	killedAfter:  {broken: true, applied: true},
	readBehind:   {stale: moment},
}

// A strike says which fault a call has, if any. What waits does so until hold is
// closed. A nil strike breaks nothing.
type strike func() (fault, bool)

// effect returns what becomes of the next call, and its channels to wait for before
// and after it is carried out.
func (s strike) effect(hold <-chan struct{}) (e effect, before, after <-chan struct{}, any bool) {
	if s == nil {
		return e, nil, nil, false
	}
	f, any := s()
	e = effects[f]
	switch {
	case e.waits && e.applied:
		after = hold
	case e.waits:
		before = hold
	}
	return e, before, after, any
}

func injectAWS(server *fakeaws.Service) func(strike, <-chan struct{}) {
	return func(s strike, hold <-chan struct{}) {
		server.Inject(func(*fakeaws.Request) *fakeaws.Fault {
			e, before, after, any := s.effect(hold)
			if !any {
				return nil
			}
			f := &fakeaws.Fault{Wait: before, Hold: after, Drop: e.broken, Applied: e.applied, Stale: e.stale, Code: e.refused.aws}
			if e.refused.http >= http.StatusInternalServerError {
				f.Status = e.refused.http
			}
			return f
		})
	}
}

func injectGCP(server *fakegcp.Server) func(strike, <-chan struct{}) {
	return func(s strike, hold <-chan struct{}) {
		server.Inject(func(*fakegcp.Call) *fakegcp.Fault {
			e, before, after, any := s.effect(hold)
			if !any {
				return nil
			}
			f := &fakegcp.Fault{Wait: before, Hold: after, Applied: e.applied, Stale: e.stale}
			switch {
			case e.broken:
				f.Err = status.Error(codes.Unavailable, "the connection was reset")
			case e.refused.grpc != codes.OK:
				f.Err = status.Error(e.refused.grpc, "refused")
			}
			return f
		})
	}
}

// injectVault breaks nothing that reads lag: the active node does not.
func injectVault(server *fakevault.Server) func(strike, <-chan struct{}) {
	return func(s strike, hold <-chan struct{}) {
		server.Inject(func(*fakevault.Request) *fakevault.Fault {
			e, before, after, any := s.effect(hold)
			if !any || e.stale > 0 {
				return nil
			}
			f := &fakevault.Fault{Wait: before, Hold: after, Drop: e.broken, Applied: e.applied, Status: e.refused.http}
			if f.Status == http.StatusForbidden {
				f.Errors = []string{"permission denied"}
			}
			return f
		})
	}
}
