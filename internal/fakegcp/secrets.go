package fakegcp

import (
	"context"
	"hash/crc32"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// remembered is the maximum lag of a read.
const remembered = 24 * time.Hour

// A secret is the history of a resource name.
type secret struct{ states []state }

// A state is the state of a secret between two changes.
type state struct {
	at     time.Time
	secret *secretmanagerpb.Secret // nil if the secret did not exist
	life   *life
}

// A life holds the versions of one incarnation of a secret.
type life struct{ versions []*version }

func (l *life) clone() *life {
	c := &life{}
	for _, v := range l.versions {
		copied := *v
		copied.states = slices.Clone(v.states)
		c.versions = append(c.versions, &copied)
	}
	return c
}

func (l *life) version(n int64) *version {
	if n < 1 || n > int64(len(l.versions)) {
		return nil
	}
	return l.versions[n-1]
}

type version struct {
	number  int64
	created time.Time
	data    []byte
	summed  bool // the client sent a checksum
	states  []versionState
}

type versionState struct {
	at    time.Time
	state secretmanagerpb.SecretVersion_State
	etag  string
}

func (v *version) last() versionState { return v.states[len(v.states)-1] }

// at returns the state of the version at the time t. It returns false if the version did not
// exist at that time.
func (v *version) at(t time.Time) (versionState, bool) {
	for _, s := range slices.Backward(v.states) {
		if !s.at.After(t) {
			return s, true
		}
	}
	return versionState{}, false
}

func (v *version) message(secret string, s versionState) *secretmanagerpb.SecretVersion {
	m := &secretmanagerpb.SecretVersion{
		Name:                           secret + "/versions/" + strconv.FormatInt(v.number, 10),
		CreateTime:                     timestamppb.New(v.created),
		State:                          s.state,
		Etag:                           s.etag,
		ClientSpecifiedPayloadChecksum: v.summed,
	}
	if s.state == secretmanagerpb.SecretVersion_DESTROYED {
		m.DestroyTime = timestamppb.New(s.at)
	}
	return m
}

func (s *secret) last() state { return s.states[len(s.states)-1] }

// at returns the state of the secret at the time t, or the zero state if the secret had no state
// at that time.
func (s *secret) at(t time.Time) state {
	for _, st := range slices.Backward(s.states) {
		if !st.at.After(t) {
			return st
		}
	}
	return state{}
}

// put sets the state of the named secret to m, and its versions to l. A nil m deletes the secret.
// The caller must hold s.mu.
func (s *Server) put(name string, m *secretmanagerpb.Secret, l *life) {
	sec := s.secrets[name]
	if sec == nil {
		sec = &secret{}
		s.secrets[name] = sec
	}
	now := s.Now()
	for len(sec.states) > 1 && now.Sub(sec.states[1].at) > remembered {
		sec.states = sec.states[1:]
	}
	sec.states = append(sec.states, state{now, m, l})
}

// find returns the named secret. The error is INVALID_ARGUMENT for an invalid name, and NOT_FOUND
// if the secret does not exist. The caller must hold s.mu.
func (s *Server) find(name string) (*secret, error) {
	if !secretName.MatchString(name) {
		return nil, invalid("%q is not the name of a secret", name)
	}
	sec := s.secrets[name]
	if sec == nil || sec.last().secret == nil {
		return nil, status.Errorf(codes.NotFound, "Secret [%s] not found.", name)
	}
	return sec, nil
}

// see returns the state of the named secret for a read with the given lag, and the time that the
// read shows. The error is NOT_FOUND if the secret did not exist at that time. The caller must hold
// s.mu.
func (s *Server) see(ctx context.Context, name string, lag time.Duration) (state, time.Time, error) {
	if !secretName.MatchString(name) {
		return state{}, time.Time{}, invalid("%q is not the name of a secret", name)
	}
	t := s.when(ctx, lag)
	if sec := s.secrets[name]; sec != nil {
		st := sec.at(t)
		if st.secret != nil {
			return st, t, nil
		}
	}
	return state{}, t, status.Errorf(codes.NotFound, "Secret [%s] not found.", name)
}

// checkEtag returns an error if the etag in a write differs from the current etag. The current etag
// is in the parameter have, and the etag in the write is in the parameter given. The documentation
// says: "if an etag is provided and matches the current resource etag, the request succeeds;
// otherwise, it fails with a FAILED_PRECONDITION error" (docs: etags). A write without an etag, or
// to a resource without an etag, passes this check.
func checkEtag(have, given string) error {
	if have != "" && given != "" && given != have {
		return status.Error(codes.FailedPrecondition, "The etag provided does not match the current etag of the resource.")
	}
	return nil
}

// CreateSecret implements secretmanagerpb.SecretManagerServiceServer.
func (s *Server) CreateSecret(_ context.Context, r *secretmanagerpb.CreateSecretRequest) (*secretmanagerpb.Secret, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := r.GetParent() + "/secrets/" + r.GetSecretId()
	m := proto.CloneOf(r.GetSecret())
	switch {
	case !parentName.MatchString(r.GetParent()):
		return nil, invalid("%q is not a project or location", r.GetParent())
	case !secretID.MatchString(r.GetSecretId()):
		return nil, invalid("%q is not a secret ID", r.GetSecretId())
	case m == nil:
		return nil, invalid("secret is required")
	}
	if _, err := s.find(name); err == nil {
		return nil, status.Errorf(codes.AlreadyExists, "Secret [%s] already exists.", name)
	}
	if err := checkReplication(name, m); err != nil {
		return nil, err
	}
	if err := checkSecret(m, 0); err != nil {
		return nil, err
	}
	s.keep(m)
	m.Name, m.CreateTime, m.Etag, m.Tags = name, timestamppb.New(s.Now()), s.etag(), nil // proto: tags are input only
	s.put(name, m, &life{})
	return proto.CloneOf(m), nil
}

// GetSecret implements secretmanagerpb.SecretManagerServiceServer.
func (s *Server) GetSecret(ctx context.Context, r *secretmanagerpb.GetSecretRequest) (*secretmanagerpb.Secret, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st, _, err := s.see(ctx, r.GetName(), s.lag.Metadata)
	return proto.CloneOf(st.secret), err
}

// UpdateSecret implements secretmanagerpb.SecretManagerServiceServer. All fields of the mask
// change together. "Even when an update doesn't change a resource's state, it still updates the
// resource etag" (docs: etags).
func (s *Server) UpdateSecret(_ context.Context, r *secretmanagerpb.UpdateSecretRequest) (*secretmanagerpb.Secret, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	given := r.GetSecret()
	sec, err := s.find(given.GetName())
	if err != nil {
		return nil, err
	}
	now := sec.last()
	if err := checkEtag(now.secret.GetEtag(), given.GetEtag()); err != nil {
		return nil, err
	}
	if len(r.GetUpdateMask().GetPaths()) == 0 {
		return nil, invalid("update_mask is required")
	}
	next := proto.CloneOf(now.secret)
	for _, p := range r.GetUpdateMask().GetPaths() {
		switch p {
		case "labels":
			next.Labels = maps.Clone(given.GetLabels())
		case "annotations":
			next.Annotations = maps.Clone(given.GetAnnotations())
		case "version_aliases":
			next.VersionAliases = maps.Clone(given.GetVersionAliases())
		case "expire_time":
			next.Expiration = given.GetExpiration()
		default: // the fake does not support other fields
			return nil, invalid("update_mask has %q", p)
		}
	}
	if err := checkSecret(next, int64(len(now.life.versions))); err != nil {
		return nil, err
	}
	s.keep(next)
	next.Etag = s.etag()
	s.put(next.GetName(), next, now.life)
	return proto.CloneOf(next), nil
}

// DeleteSecret implements secretmanagerpb.SecretManagerServiceServer. The deletion removes all
// versions, and takes effect immediately for writes and for accesses by number. If the secret is
// created again, the version numbers begin with 1.
func (s *Server) DeleteSecret(_ context.Context, r *secretmanagerpb.DeleteSecretRequest) (*emptypb.Empty, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sec, err := s.find(r.GetName())
	if err != nil {
		return nil, err
	}
	if err := checkEtag(sec.last().secret.GetEtag(), r.GetEtag()); err != nil {
		return nil, err
	}
	s.put(r.GetName(), nil, nil)
	return &emptypb.Empty{}, nil
}

// ListSecrets implements secretmanagerpb.SecretManagerServiceServer. The list is sorted by name
// (docs: filtering, about filtered lists).
func (s *Server) ListSecrets(ctx context.Context, r *secretmanagerpb.ListSecretsRequest) (*secretmanagerpb.ListSecretsResponse, error) {
	if !parentName.MatchString(r.GetParent()) {
		return nil, invalid("%q is not a project or location", r.GetParent())
	}
	matches, err := parseFilter(r.GetFilter())
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.when(ctx, s.lag.List)
	var found []*secretmanagerpb.Secret
	for name, sec := range s.secrets {
		if parent, _, _ := strings.Cut(name, "/secrets/"); parent != r.GetParent() {
			continue
		}
		if m := sec.at(t).secret; m != nil && matches(secretFields(m)) {
			found = append(found, m)
		}
	}
	slices.SortFunc(found, func(a, b *secretmanagerpb.Secret) int { return strings.Compare(a.GetName(), b.GetName()) })
	total := len(found)
	found, next, err := page(found, r.GetPageSize(), r.GetPageToken(), (*secretmanagerpb.Secret).GetName)
	if err != nil {
		return nil, err
	}
	answer := &secretmanagerpb.ListSecretsResponse{NextPageToken: next}
	if r.GetFilter() == "" { // proto: total_size is 0 if the filter is set
		answer.TotalSize = int32(total)
	}
	for _, m := range found {
		answer.Secrets = append(answer.Secrets, proto.CloneOf(m))
	}
	return answer, nil
}

// page returns one page of a sorted list, the parameter all. The page has at most size elements,
// and begins with the smallest key that is greater than token. page also returns the token of the
// next page, or "" if there is no next page. If size is 0 or larger than maxPage, maxPage applies.
func page[T any](all []T, size int32, token string, key func(T) string) ([]T, string, error) {
	if size < 0 {
		return nil, "", invalid("page_size is negative")
	}
	if size == 0 || size > maxPage {
		size = maxPage
	}
	if token != "" {
		i := slices.IndexFunc(all, func(m T) bool { return key(m) > token })
		if i < 0 {
			i = len(all)
		}
		all = all[i:]
	}
	if len(all) <= int(size) {
		return all, "", nil
	}
	return all[:size], key(all[size-1]), nil
}

// AddSecretVersion implements secretmanagerpb.SecretManagerServiceServer. The request has no etag,
// and the new version does not change the etag of the secret: "updating a secret version doesn't
// affect the secret etag" (docs: etags).
func (s *Server) AddSecretVersion(_ context.Context, r *secretmanagerpb.AddSecretVersionRequest) (*secretmanagerpb.SecretVersion, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sec, err := s.find(r.GetParent())
	if err != nil {
		return nil, err
	}
	p := r.GetPayload()
	switch {
	case len(p.GetData()) == 0: // inferred: gcloud says that a payload cannot be empty
		return nil, invalid("the payload is empty")
	case len(p.GetData()) > maxPayload:
		return nil, invalid("the payload has %d bytes, the limit is %d", len(p.GetData()), maxPayload)
	case p != nil && p.DataCrc32C != nil && p.GetDataCrc32C() != checksum(p.GetData()):
		return nil, invalid("the payload does not have the given checksum")
	}
	l := sec.last().life
	v := &version{
		number:  int64(len(l.versions)) + 1, // proto: SecretVersion.name: consecutive numbers from 1
		created: s.Now(),
		data:    slices.Clone(p.GetData()),
		summed:  p.DataCrc32C != nil,
	}
	v.states = []versionState{{v.created, secretmanagerpb.SecretVersion_ENABLED, s.etag()}}
	l.versions = append(l.versions, v)
	return v.message(r.GetParent(), v.last()), nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(data []byte) int64 { return int64(crc32.Checksum(data, castagnoli)) }

// target returns the version in st with the alias id, or the newest version if id is "latest". If
// there is no such version, target returns nil.
func target(st state, id string) *version {
	switch n, isAlias := st.secret.GetVersionAliases()[id]; {
	case isAlias:
		return st.life.version(n)
	case id == "latest": // proto: AccessSecretVersionRequest.name: the most recently created
		return st.life.version(int64(len(st.life.versions)))
	}
	return nil
}

// locate finds the version that a resource name identifies by number or alias. It returns the name
// of the secret, the version, and the state of the version. If strong is set and name contains a
// number, the state is the current state. Otherwise, locate uses the secret, its aliases and the
// state that a read with the given lag shows. The caller must hold s.mu.
func (s *Server) locate(ctx context.Context, name string, lag time.Duration, strong bool) (string, *version, versionState, error) {
	sec, id, ok := strings.Cut(name, "/versions/")
	missing := status.Errorf(codes.NotFound, "Secret Version [%s] not found.", name)
	if !ok {
		return "", nil, versionState{}, invalid("%q is not the name of a version", name)
	}
	number := versionNumber.MatchString(id)
	if number && strong {
		now, err := s.find(sec)
		if err != nil {
			return "", nil, versionState{}, err
		}
		n, _ := strconv.ParseInt(id, 10, 64)
		v := now.last().life.version(n)
		if v == nil {
			return "", nil, versionState{}, missing
		}
		return sec, v, v.last(), nil
	}
	st, t, err := s.see(ctx, sec, lag)
	if err != nil {
		return "", nil, versionState{}, err
	}
	v := target(st, id)
	if number {
		n, _ := strconv.ParseInt(id, 10, 64)
		v = st.life.version(n)
	}
	if v == nil {
		return "", nil, versionState{}, missing
	}
	vs, exists := v.at(t)
	if !exists {
		return "", nil, versionState{}, missing
	}
	return sec, v, vs, nil
}

// AccessSecretVersion implements secretmanagerpb.SecretManagerServiceServer. An access by number
// is strongly consistent (docs: reference/consistency). An access by an alias may return the
// payload of an earlier version, but never the payload of a disabled or destroyed version.
func (s *Server) AccessSecretVersion(ctx context.Context, r *secretmanagerpb.AccessSecretVersionRequest) (*secretmanagerpb.AccessSecretVersionResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sec, v, _, err := s.locate(ctx, r.GetName(), s.lag.Alias, true)
	if err != nil {
		return nil, err
	}
	if st := v.last().state; st != secretmanagerpb.SecretVersion_ENABLED {
		return nil, status.Errorf(codes.FailedPrecondition, "Secret Version [%s] is in %s state.", r.GetName(), st)
	}
	sum := checksum(v.data)
	return &secretmanagerpb.AccessSecretVersionResponse{
		Name:    v.message(sec, v.last()).GetName(),
		Payload: &secretmanagerpb.SecretPayload{Data: slices.Clone(v.data), DataCrc32C: &sum},
	}, nil
}

// GetSecretVersion implements secretmanagerpb.SecretManagerServiceServer.
func (s *Server) GetSecretVersion(ctx context.Context, r *secretmanagerpb.GetSecretVersionRequest) (*secretmanagerpb.SecretVersion, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sec, v, st, err := s.locate(ctx, r.GetName(), s.lag.Metadata, false)
	if err != nil {
		return nil, err
	}
	return v.message(sec, st), nil
}

// ListSecretVersions implements secretmanagerpb.SecretManagerServiceServer. The newest version
// comes first.
func (s *Server) ListSecretVersions(ctx context.Context, r *secretmanagerpb.ListSecretVersionsRequest) (*secretmanagerpb.ListSecretVersionsResponse, error) {
	matches, err := parseFilter(r.GetFilter())
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st, t, err := s.see(ctx, r.GetParent(), s.lag.Metadata)
	if err != nil {
		return nil, err
	}
	var found []*secretmanagerpb.SecretVersion
	for _, v := range slices.Backward(st.life.versions) {
		if vs, exists := v.at(t); exists {
			if m := v.message(r.GetParent(), vs); matches(versionFields(m)) {
				found = append(found, m)
			}
		}
	}
	total := len(found)
	// page needs ascending keys, and the numbers descend.
	key := func(m *secretmanagerpb.SecretVersion) string {
		n, _ := strconv.Atoi(m.GetName()[strings.LastIndex(m.GetName(), "/")+1:])
		return strconv.Itoa(1<<30 - n)
	}
	found, next, err := page(found, r.GetPageSize(), r.GetPageToken(), key)
	if err != nil {
		return nil, err
	}
	answer := &secretmanagerpb.ListSecretVersionsResponse{Versions: found, NextPageToken: next}
	if r.GetFilter() == "" {
		answer.TotalSize = int32(total)
	}
	return answer, nil
}

// EnableSecretVersion implements secretmanagerpb.SecretManagerServiceServer.
func (s *Server) EnableSecretVersion(_ context.Context, r *secretmanagerpb.EnableSecretVersionRequest) (*secretmanagerpb.SecretVersion, error) {
	return s.turn(r.GetName(), r.GetEtag(), secretmanagerpb.SecretVersion_ENABLED)
}

// DisableSecretVersion implements secretmanagerpb.SecretManagerServiceServer.
func (s *Server) DisableSecretVersion(_ context.Context, r *secretmanagerpb.DisableSecretVersionRequest) (*secretmanagerpb.SecretVersion, error) {
	return s.turn(r.GetName(), r.GetEtag(), secretmanagerpb.SecretVersion_DISABLED)
}

// DestroySecretVersion implements secretmanagerpb.SecretManagerServiceServer.
func (s *Server) DestroySecretVersion(_ context.Context, r *secretmanagerpb.DestroySecretVersionRequest) (*secretmanagerpb.SecretVersion, error) {
	return s.turn(r.GetName(), r.GetEtag(), secretmanagerpb.SecretVersion_DESTROYED)
}

// turn changes the state of the named version to the given state. name must contain the number of
// the version: "access by alias is only supported on GetSecretVersion and AccessSecretVersion"
// (proto: Secret.version_aliases). The state of a destroyed version cannot change.
func (s *Server) turn(name, etag string, to secretmanagerpb.SecretVersion_State) (*secretmanagerpb.SecretVersion, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, id, _ := strings.Cut(name, "/versions/"); !versionNumber.MatchString(id) {
		return nil, invalid("%q has no version number", name)
	}
	sec, v, now, err := s.locate(context.Background(), name, 0, true)
	if err != nil {
		return nil, err
	}
	if err := checkEtag(now.etag, etag); err != nil {
		return nil, err
	}
	if now.state == secretmanagerpb.SecretVersion_DESTROYED {
		return nil, status.Errorf(codes.FailedPrecondition, "Secret Version [%s] is in DESTROYED state.", name)
	}
	v.states = append(v.states, versionState{s.Now(), to, s.etag()})
	if to == secretmanagerpb.SecretVersion_DESTROYED {
		v.data = nil
	}
	return v.message(sec, v.last()), nil
}
