package fakegcp

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/tokenkeep/tokenkeep/internal/fakeserver"
)

// Options configures a Server. The zero value, and a nil *Options, make one on
// the real clock that does not lag.
type Options struct {
	// Addr is where it listens. "" means a free port on the loopback interface.
	Addr string

	// Now is the clock of what the service notes and of how old a read may be.
	// Nil means time.Now. Advance adds to it.
	Now func() time.Time

	// Lag is how far reads are behind.
	Lag Lag

	// Quota is what a project may ask for.
	Quota Quota

	// Drops are the fields that the server takes and does not keep, as emulators
	// of a part of the service do: "labels", "annotations", "version_aliases",
	// "etag". Without etags no write is refused for one.
	Drops []string
}

// A Lag is how long writes may stay invisible. To read the payload of a version
// by its number is never behind; "other operations within Secret Manager are
// eventually consistent" and "may take a few hours" (docs: reference/consistency).
// Writes, and the etags they carry, are decided on what is true.
type Lag struct {
	Alias    time.Duration // to AccessSecretVersion by an alias or "latest"
	Metadata time.Duration // to GetSecret, GetSecretVersion, ListSecretVersions
	List     time.Duration // to ListSecrets

	// Uneven makes each read lag by another time, up to the above: what one read
	// has shown, the next may not show yet.
	Uneven bool
}

// All returns a Lag of d to all reads.
func All(d time.Duration) Lag { return Lag{Alias: d, Metadata: d, List: d} }

// A Quota is how many calls a project may make in a minute (docs: quotas). 0
// means any number.
type Quota struct{ Access, Read, Write int }

// A Server is a Secret Manager. Its methods are safe for concurrent use.
type Server struct {
	secretmanagerpb.UnimplementedSecretManagerServiceServer

	// Addr is where it listens: "127.0.0.1:…".
	Addr string

	fakeserver.Clock
	fakeserver.Log[Call, Fault]

	grpc *grpc.Server
	done chan struct{}

	mu      sync.Mutex
	lag     Lag
	quota   Quota
	drops   []string
	denied  map[string]bool    // permissions; nil: none
	secrets map[string]*secret // by resource name
	serial  uint64             // makes etags unlike each other
	minute  int64              // that used is about
	used    map[string]int     // calls in that minute, by class
}

// A Call is what a client asked for.
type Call struct {
	Method   string // "AccessSecretVersion"
	Resource string // the name or parent in the request
	Request  proto.Message
}

// A Fault is what goes wrong with one call.
type Fault struct {
	// Wait holds the call up until it is closed, or the client goes away.
	Wait <-chan struct{}

	// Err, if it is not nil, is answered in place of what would be.
	Err error

	// Applied says that the call is carried out all the same.
	Applied bool

	// Hold holds the answer back, once the call has been carried out, until it
	// is closed, or the client goes away.
	Hold <-chan struct{}

	// Stale makes a read answer with what was true so long ago.
	Stale time.Duration

	// Damage changes one byte of the payload in the answer, and not its checksum.
	Damage bool
}

// New starts a server. Close stops it. New panics if it cannot listen.
func New(opts *Options) *Server {
	var o Options
	if opts != nil {
		o = *opts
	}
	if o.Addr == "" {
		o.Addr = "127.0.0.1:0"
	}
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", o.Addr)
	if err != nil {
		panic(fmt.Sprintf("fakegcp: %v", err))
	}
	s := &Server{
		Addr:    listener.Addr().String(),
		done:    make(chan struct{}),
		lag:     o.Lag,
		quota:   o.Quota,
		drops:   o.Drops,
		secrets: map[string]*secret{},
		used:    map[string]int{},
	}
	s.SetClock(o.Now)
	s.grpc = grpc.NewServer(grpc.UnaryInterceptor(s.intercept))
	secretmanagerpb.RegisterSecretManagerServiceServer(s.grpc, s)
	go func() {
		defer close(s.done)
		_ = s.grpc.Serve(listener)
	}()
	return s
}

// Close stops the server and closes its connections.
func (s *Server) Close() {
	s.grpc.Stop()
	<-s.done
}

// ClientOptions are what secretmanager.NewClient needs to talk to the server.
func (s *Server) ClientOptions() []option.ClientOption {
	return []option.ClientOption{
		option.WithEndpoint(s.Addr),
		option.WithoutAuthentication(),
		option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())),
	}
}

// SetLag changes how far reads are behind.
func (s *Server) SetLag(l Lag) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lag = l
}

// Deny takes permissions from all clients, such as
// "secretmanager.versions.destroy", and gives back those denied before.
func (s *Server) Deny(permissions ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.denied = map[string]bool{}
	for _, p := range permissions {
		s.denied[p] = true
	}
}

// Count returns how many calls of each method there were since the last Reset.
func (s *Server) Count() map[string]int { return s.CountBy(func(c Call) string { return c.Method }) }

// methods are the permissions that the methods need, and the class of quota
// they are counted in (docs: access-control, quotas).
var methods = map[string]struct{ permission, class string }{
	"AccessSecretVersion":  {"secretmanager.versions.access", "access"},
	"ListSecrets":          {"secretmanager.secrets.list", "read"},
	"GetSecret":            {"secretmanager.secrets.get", "read"},
	"ListSecretVersions":   {"secretmanager.versions.list", "read"},
	"GetSecretVersion":     {"secretmanager.versions.get", "read"},
	"CreateSecret":         {"secretmanager.secrets.create", "write"},
	"UpdateSecret":         {"secretmanager.secrets.update", "write"},
	"DeleteSecret":         {"secretmanager.secrets.delete", "write"},
	"AddSecretVersion":     {"secretmanager.versions.add", "write"},
	"EnableSecretVersion":  {"secretmanager.versions.enable", "write"},
	"DisableSecretVersion": {"secretmanager.versions.disable", "write"},
	"DestroySecretVersion": {"secretmanager.versions.destroy", "write"},
}

// intercept answers one call.
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

// stale is the key of a Fault's Stale in the context of its call.
type stale struct{}

// resource returns the name of what a request is about.
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

// admit returns why a call may not be made. s.mu is held.
func (s *Server) admit(c *Call) error {
	m := methods[c.Method]
	if s.denied[m.permission] {
		return status.Errorf(codes.PermissionDenied, "Permission '%s' denied for resource '%s' (or it may not exist).", m.permission, c.Resource)
	}
	limit := map[string]int{"access": s.quota.Access, "read": s.quota.Read, "write": s.quota.Write}[m.class]
	if minute := s.Now().Unix() / 60; minute != s.minute {
		s.minute, s.used = minute, map[string]int{}
	}
	s.used[m.class]++
	if limit > 0 && s.used[m.class] > limit {
		return status.Errorf(codes.ResourceExhausted, "Quota exceeded for quota metric '%s requests' and limit '%s requests per minute'.", m.class, m.class)
	}
	return nil
}

// when returns the time that a read with the given lag shows. s.mu is held.
func (s *Server) when(ctx context.Context, lag time.Duration) time.Time {
	if d, ok := ctx.Value(stale{}).(time.Duration); ok {
		lag = d
	} else if s.lag.Uneven && lag > 0 {
		lag = rand.N(lag + 1)
	}
	return s.Now().Add(-lag)
}

// keep takes from m what the server does not keep. s.mu is held.
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

// etag returns an etag that no resource has had before, or "" if the server has
// none. s.mu is held.
func (s *Server) etag() string {
	if slices.Contains(s.drops, "etag") {
		return ""
	}
	s.serial++
	return fmt.Sprintf("%q", fmt.Sprintf("%x-%x", s.serial, rand.Uint32()))
}

// Secret returns the named secret as it is, or nil if there is none.
func (s *Server) Secret(name string) *secretmanagerpb.Secret {
	s.mu.Lock()
	defer s.mu.Unlock()
	sec, err := s.find(name)
	if err != nil {
		return nil
	}
	return proto.CloneOf(sec.last().secret)
}

// Versions returns all versions of the named secret as they are, by number.
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

// Active returns the numbers of the versions that are paid for: those that are
// enabled or disabled (docs: pricing).
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

// Fill adds n secrets to the project or location at parent, which are copies of
// the named one under other IDs, with labels of their own in the place of its.
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
