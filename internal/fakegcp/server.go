package fakegcp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"
	"google.golang.org/api/option"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/tokenkeep/tokenkeep/internal/fakeserver"
)

// Options configures a Server. With the zero value or a nil *Options, the Server uses the real
// clock and does not lag.
type Options struct {
	// Addr is the listening address. Empty means a free port on the loopback interface.
	Addr string

	// Now is the clock for timestamps and for the age of reads. Nil means time.Now. Advance
	// moves the clock forward.
	Now func() time.Time

	// Lag is the lag of reads.
	Lag Lag

	// Quota limits the calls of a project.
	Quota Quota

	// Drops lists the fields that the server accepts but does not keep, as some emulators do:
	// "labels", "annotations", "version_aliases", "etag". A server that drops "etag" does not compare
	// the etags in requests.
	Drops []string

	// NoSocket makes New return a Server without a socket. The Server has no Addr, and its clients
	// use Direct.
	NoSocket bool
}

// A Lag is the age of the state that reads return, at most a day. An access to a payload by the
// number of a version never lags. The documentation says that "other operations within Secret
// Manager are eventually consistent" and "may take a few hours" (docs: reference/consistency).
// Writes, including the comparison of etags, always use the current state.
type Lag struct {
	Alias    time.Duration // lag of AccessSecretVersion by an alias or "latest"
	Metadata time.Duration // lag of GetSecret, GetSecretVersion and ListSecretVersions
	List     time.Duration // lag of ListSecrets

	// Uneven gives each read a random lag, up to the lag of the method. A later read may then
	// return an earlier state.
	Uneven bool
}

// All returns a Lag in which every read lags by d.
func All(d time.Duration) Lag { return Lag{Alias: d, Metadata: d, List: d} }

// A Quota limits the calls of a project (docs: quotas).
type Quota struct {
	Access fakeserver.Rate // AccessSecretVersion
	Read   fakeserver.Rate // other methods that only read
	Write  fakeserver.Rate // methods that write

	// Change limits the calls of AddSecretVersion and UpdateSecret for one secret. Secret Manager
	// enforces this limit softly, and continues to accept calls "as long as our backend systems can
	// handle the load". Calls that this Rate refuses still count as Write.
	Change fakeserver.Rate
}

// Documented returns the quota of a project (docs: quotas), with the rate of a global secret.
// The documentation names no capacity for bursts.
func Documented() Quota {
	return Quota{
		Access: fakeserver.PerMinute(90_000),
		Read:   fakeserver.PerMinute(600),
		Write:  fakeserver.PerMinute(600),
		Change: fakeserver.PerSecond(2),
	}
}

// A Server simulates Secret Manager. Its methods are safe for concurrent use.
type Server struct {
	secretmanagerpb.UnimplementedSecretManagerServiceServer

	// Addr is the listening address, such as "127.0.0.1:8080".
	Addr string

	fakeserver.Clock
	fakeserver.Log[Call, Fault]

	stop func()

	mu      sync.Mutex
	lag     Lag
	quota   Quota
	drops   []string
	denied  map[string]bool    // the permissions that Deny has revoked
	secrets map[string]*secret // by resource name
	serial  uint64             // makes etags unique
	taken   fakeserver.Quotas
}

// A Call is a call that the server received.
type Call struct {
	Method   string // "AccessSecretVersion"
	Resource string // the name or parent in the request
	Request  proto.Message
}

// A Fault is an injected failure or delay of one call. A call with a Fault is not refused for a
// missing permission or an exhausted quota.
type Fault struct {
	// Wait delays the call until the channel is closed. If the client disconnects first, the
	// server does not execute the call.
	Wait <-chan struct{}

	// Err, if not nil, replaces the response.
	Err error

	// Applied makes the server execute the call even if Err is set.
	Applied bool

	// Hold delays the response to an executed call until the channel is closed or the client
	// disconnects.
	Hold <-chan struct{}

	// Stale, if positive, replaces the lag of a read.
	Stale time.Duration

	// Damage changes one byte of the payload in the response, but not its checksum.
	Damage bool
}

// New starts a server. Close stops the server. New panics if the server cannot listen.
func New(opts *Options) *Server {
	var o Options
	if opts != nil {
		o = *opts
	}
	s := &Server{
		stop:    func() {},
		lag:     o.Lag,
		quota:   o.Quota,
		drops:   o.Drops,
		secrets: map[string]*secret{},
	}
	s.SetClock(o.Now)
	if !o.NoSocket {
		s.listen(cmp.Or(o.Addr, "127.0.0.1:0"))
	}
	return s
}

// listen starts to serve calls at addr. It panics if the server cannot listen.
func (s *Server) listen(addr string) {
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", addr)
	if err != nil {
		panic(fmt.Sprintf("fakegcp: %v", err))
	}
	s.Addr = listener.Addr().String()
	server, done := grpc.NewServer(grpc.UnaryInterceptor(s.intercept)), make(chan struct{})
	secretmanagerpb.RegisterSecretManagerServiceServer(server, s)
	go func() {
		defer close(done)
		_ = server.Serve(listener)
	}()
	s.stop = func() {
		server.Stop()
		<-done
	}
}

// Close stops the server and closes its connections.
func (s *Server) Close() { s.stop() }

// ClientOptions returns the options that make secretmanager.NewClient use the server.
func (s *Server) ClientOptions() []option.ClientOption {
	return []option.ClientOption{
		option.WithEndpoint(s.Addr),
		option.WithoutAuthentication(),
		option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())),
	}
}

// SetLag changes the lags of reads.
func (s *Server) SetLag(l Lag) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lag = l
}

// Deny revokes the given permissions, such as "secretmanager.versions.destroy", from all
// clients, and restores all other permissions.
func (s *Server) Deny(permissions ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.denied = map[string]bool{}
	for _, p := range permissions {
		s.denied[p] = true
	}
}

// Count returns the number of calls to each method since the last Reset.
func (s *Server) Count() map[string]int { return s.CountBy(func(c Call) string { return c.Method }) }

// methods maps each method to its permission and its quota class (docs: access-control, quotas).
var methods = map[string]struct{ permission, class string }{
	"AccessSecretVersion":  {"secretmanager.versions.access", "Access"},
	"ListSecrets":          {"secretmanager.secrets.list", "Read"},
	"GetSecret":            {"secretmanager.secrets.get", "Read"},
	"ListSecretVersions":   {"secretmanager.versions.list", "Read"},
	"GetSecretVersion":     {"secretmanager.versions.get", "Read"},
	"CreateSecret":         {"secretmanager.secrets.create", "Write"},
	"UpdateSecret":         {"secretmanager.secrets.update", "Write"},
	"DeleteSecret":         {"secretmanager.secrets.delete", "Write"},
	"AddSecretVersion":     {"secretmanager.versions.add", "Write"},
	"EnableSecretVersion":  {"secretmanager.versions.enable", "Write"},
	"DisableSecretVersion": {"secretmanager.versions.disable", "Write"},
	"DestroySecretVersion": {"secretmanager.versions.destroy", "Write"},
}

// intercept executes one call with the fault that the injected function chooses. If the call has no
// fault, a missing permission or an exhausted quota makes the call fail.
func (s *Server) intercept(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	message, ok := req.(proto.Message)
	if !ok {
		return nil, status.Error(codes.Internal, "the request is no message")
	}
	c := &Call{Method: path.Base(info.FullMethod), Resource: resource(req), Request: message}
	s.mu.Lock()
	refused := s.admit(c)
	s.mu.Unlock()
	fault := s.Receive(c)
	switch {
	case fault == nil && refused != nil:
		return nil, refused
	case fault == nil:
		return handle(ctx, req)
	case !fakeserver.Await(ctx, fault.Wait):
		return nil, status.FromContextError(ctx.Err()).Err()
	case fault.Err != nil && !fault.Applied:
		return nil, fault.Err
	}
	if fault.Stale > 0 {
		ctx = context.WithValue(ctx, stale{}, fault.Stale)
	}
	answer, err := handle(ctx, req)
	switch {
	case !fakeserver.Await(ctx, fault.Hold):
		return nil, status.FromContextError(ctx.Err()).Err()
	case fault.Err != nil:
		return nil, fault.Err
	}
	if a, ok := answer.(*secretmanagerpb.AccessSecretVersionResponse); ok && a != nil && fault.Damage {
		a.GetPayload().GetData()[0]++
	}
	return answer, err
}

// stale is the context key under which a call carries the Stale of its Fault.
type stale struct{}

// resource returns the name of the resource in a request, or the name of the parent.
func resource(req any) string {
	switch r := req.(type) {
	case *secretmanagerpb.UpdateSecretRequest:
		return r.GetSecret().GetName()
	case interface{ GetName() string }:
		return r.GetName()
	case interface{ GetParent() string }:
		return r.GetParent()
	}
	return ""
}

// admit charges the call to the quotas. It returns an error if the permission for the call is
// denied or a quota is exhausted. The caller must hold s.mu.
func (s *Server) admit(c *Call) error {
	m := methods[c.Method]
	if s.denied[m.permission] {
		return status.Errorf(codes.PermissionDenied, "Permission '%s' denied for resource '%s' (or it may not exist).", m.permission, c.Resource)
	}
	rate := map[string]fakeserver.Rate{"Access": s.quota.Access, "Read": s.quota.Read, "Write": s.quota.Write}[m.class]
	if !s.taken.Take(s.Now(), m.class, rate) {
		return exhausted(c, m.class, "RequestsPerMinutePerProject", rate)
	}
	if changing := c.Method == "AddSecretVersion" || c.Method == "UpdateSecret"; changing && !s.taken.Take(s.Now(), c.Resource, s.quota.Change) {
		return exhausted(c, m.class, "RequestsPerSecondPerSecret", s.quota.Change)
	}
	return nil
}

// exhausted returns the error for a call that exceeds a quota. The message and the
// google.rpc.ErrorInfo have the form that Resource Manager and Cloud KMS use (inferred: the
// names of the limits).
func exhausted(c *Call, class, limit string, r fakeserver.Rate) error {
	const service, consumer = "secretmanager.googleapis.com", "123456789012"
	metric, per := strings.ToLower(class), "minute"
	if r.Per == time.Second {
		per = "second"
	}
	s := status.Newf(codes.ResourceExhausted,
		"Quota exceeded for quota metric '%s requests' and limit '%s requests per %s' of service '%s' for consumer 'project_number:%s'.",
		class, class, per, service, consumer)
	detailed, err := s.WithDetails(&errdetails.ErrorInfo{
		Reason: "RATE_LIMIT_EXCEEDED",
		Domain: "googleapis.com",
		Metadata: map[string]string{
			"consumer":          "projects/" + consumer,
			"quota_limit":       class + limit,
			"quota_limit_value": strconv.Itoa(r.Calls),
			"quota_location":    location(c.Resource),
			"quota_metric":      service + "/" + metric + "_requests",
			"service":           service,
		},
	})
	if err != nil {
		return s.Err()
	}
	return detailed.Err()
}

// location returns the location in a resource name, or "global".
func location(resource string) string {
	part := strings.Split(resource, "/")
	if len(part) > 3 && part[2] == "locations" {
		return part[3]
	}
	return "global"
}

// when returns the time of the state that a read with the given lag returns. The caller must hold
// s.mu.
func (s *Server) when(ctx context.Context, lag time.Duration) time.Time {
	if d, ok := ctx.Value(stale{}).(time.Duration); ok {
		lag = d
	} else if s.lag.Uneven && lag > 0 {
		lag = rand.N(lag + 1)
	}
	return s.Now().Add(-lag)
}

// keep removes from m the fields that the server does not keep. The caller must hold s.mu.
func (s *Server) keep(m *secretmanagerpb.Secret) {
	for _, field := range s.drops {
		switch field {
		case "labels":
			m.Labels = nil
		case "annotations":
			m.Annotations = nil
		case "version_aliases":
			m.VersionAliases = nil
		}
	}
}

// etag returns a new unique etag, or "" if the server drops etags. The caller must hold s.mu.
func (s *Server) etag() string {
	if slices.Contains(s.drops, "etag") {
		return ""
	}
	s.serial++
	return fmt.Sprintf("%q", fmt.Sprintf("%x-%x", s.serial, rand.Uint32()))
}

// Secret returns the current state of the named secret, or nil if the secret does not exist.
func (s *Server) Secret(name string) *secretmanagerpb.Secret {
	s.mu.Lock()
	defer s.mu.Unlock()
	sec, err := s.find(name)
	if err != nil {
		return nil
	}
	return proto.CloneOf(sec.last().secret)
}

// Versions returns the current state of all versions of the named secret, ordered by number, or
// nil if the secret does not exist.
func (s *Server) Versions(name string) []*secretmanagerpb.SecretVersion {
	s.mu.Lock()
	defer s.mu.Unlock()
	sec, err := s.find(name)
	if err != nil {
		return nil
	}
	var all []*secretmanagerpb.SecretVersion
	for _, v := range sec.last().life.versions {
		all = append(all, v.message(name, v.last()))
	}
	return all
}

// Active returns the numbers of the enabled and disabled versions of the named secret. Secret
// Manager charges for these versions (docs: pricing).
func (s *Server) Active(name string) []int64 {
	var active []int64
	for i, v := range s.Versions(name) {
		if v.GetState() != secretmanagerpb.SecretVersion_DESTROYED {
			active = append(active, int64(i+1))
		}
	}
	return active
}

// Names returns the names of all secrets, sorted.
func (s *Server) Names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := slices.Sorted(maps.Keys(s.secrets))
	return slices.DeleteFunc(names, func(name string) bool {
		_, err := s.find(name)
		return err != nil
	})
}

// Fill adds n copies of the named secret to the same project or location. Copy i has the ID id(i)
// and the labels labels(i), for i from 0. Fill returns an error if the named secret does not exist,
// a copy exists already, or a label is invalid. Earlier copies remain.
func (s *Server) Fill(name string, n int, id func(i int) string, labels func(i int) map[string]string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	from, err := s.find(name)
	if err != nil {
		return err
	}
	parent, _, _ := strings.Cut(name, "/secrets/")
	for i := range n {
		to := parent + "/secrets/" + id(i)
		if _, err := s.find(to); err == nil {
			return errors.New("fakegcp: " + to + " exists")
		}
		meta := proto.CloneOf(from.last().secret)
		meta.Name, meta.Labels, meta.Etag = to, labels(i), s.etag()
		if err := checkSecret(meta, int64(len(from.last().life.versions))); err != nil {
			return err
		}
		s.put(to, meta, from.last().life.clone())
	}
	return nil
}
