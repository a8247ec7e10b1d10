package main

import (
	"net/http"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/tokenkeep/tokenkeep/internal/fakeaws"
	"github.com/tokenkeep/tokenkeep/internal/fakegcp"
	"github.com/tokenkeep/tokenkeep/internal/fakek8s"
	"github.com/tokenkeep/tokenkeep/internal/fakevault"
)

type fault int

// The faults. A killed process makes no further calls.
const (
	denied       fault = iota // refused and not applied
	answerLost                // applied, but the connection breaks
	timedOut                  // not applied, and no answer before the caller's timeout
	timedOutDone              // applied, but no answer before the caller's timeout
	throttled                 // not applied
	serverError               // not applied
	reset                     // not applied, and the connection breaks
	staleRead                 // a read returns the state of an hour ago
	killedBefore              // the process ends before the call
	killedAfter               // the process ends just after the call
	clockBack                 // the process's clock is set back by an hour, and the call proceeds
	faults

	// readBehind makes a read return the state of a moment ago. Only histories use readBehind.
	// The matrix uses staleRead, which finds more bugs.
	readBehind = faults
)

// moment is the lag of readBehind, which is long enough for a few operations.
const moment = 30 * time.Millisecond

// String returns the name of the fault for a heading.
func (f fault) String() string {
	return [...]string{"denied", "answer lost", "time-out", "time-out, applied", "throttled", "5xx", "reset", "stale read",
		"killed before", "killed after", "clock back", "read behind"}[f]
}

func (f fault) killed() bool { return f == killedBefore || f == killedAfter }
func (f fault) waits() bool  { return f == timedOut || f == timedOutDone }

// An effect describes what a fault does to a call, independently of the service.
type effect struct {
	refused refusal
	broken  bool          // the connection breaks
	applied bool          // the call is carried out despite the fault
	waits   bool          // no answer before the caller's timeout
	stale   time.Duration // age of the state that a read returns
}

// A refusal holds the answers with which the services refuse a call. The zero refusal refuses
// no call.
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

// A strike returns the fault of the next call, if any. A nil strike causes no faults.
type strike func() (fault, bool)

// effect returns the effect of s on the next call. The result any reports whether the call has a
// fault. If the channel before is not nil, the service must receive from it before the call. If the
// channel after is not nil, the service must receive from it after the call. If the fault is a
// timeout, one of these channels is hold.
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

// injectVault returns a function that injects faults into server. The function injects no stale
// reads, because reads from Vault's active node do not lag.
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

// injectK8s returns a function that injects faults into server. The function injects no stale
// reads, because reads from the API server do not lag. The refusals have no Retry-After header.
// With that header, client-go would repeat the call and hide the fault from the adapter.
func injectK8s(server *fakek8s.Server) func(strike, <-chan struct{}) {
	return func(s strike, hold <-chan struct{}) {
		server.Inject(func(q *fakek8s.Request) *fakek8s.Fault {
			e, before, after, any := s.effect(hold)
			if !any || e.stale > 0 {
				return nil
			}
			f := &fakek8s.Fault{Wait: before, Hold: after, Drop: e.broken, Applied: e.applied}
			if code := e.refused.http; code != 0 {
				status := apierrors.NewGenericServerResponse(code, q.Verb, v1.Resource("secrets"), q.Name, "refused", 0, false).Status()
				f.Status = &status
			}
			return f
		})
	}
}
