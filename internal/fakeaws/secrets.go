package fakeaws

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Limits. Sizes of values, names and tokens are in bytes. Sizes of descriptions and tags are in
// characters.
const (
	maxValue       = 65536 // model: SecretStringType, SecretBinaryType
	maxName        = 512   // model: NameType
	maxDescription = 2048  // model: DescriptionType
	minToken       = 32    // model: ClientRequestTokenType
	maxToken       = 64
	maxStages      = 20  // guide: reference_limits, "Labels attached across all versions of a secret"
	maxVersions    = 100 // model: PutSecretValue, "keeps 100 of the most recent versions"
	maxTags        = 50  // tags
	maxTagKey      = 128
	maxTagValue    = 256

	// keptFor is the minimum age of versions that the service removes (model: PutSecretValue,
	// "it keeps all secret versions created in the last 24 hours").
	keptFor = 24 * time.Hour

	// remembered is the maximum lag of a read.
	remembered = 24 * time.Hour
)

const (
	current  = "AWSCURRENT"
	previous = "AWSPREVIOUS"
)

var (
	legalName = regexp.MustCompile(`^[A-Za-z0-9/_+=.@-]+$`)                                                                // model: CreateSecret, Name
	legalTag  = regexp.MustCompile(`^[\p{L}\p{Z}\p{N}_.:/=+\-@]*$`)                                                        // tags
	illegal   = "Invalid name. Must be a valid name containing alphanumeric characters, or any of the following: -/_+=.@!" // seen
)

// A secret holds the history of one incarnation of a secret, because a lagging read returns an
// earlier state.
type secret struct {
	seq       int
	arn, name string
	created   time.Time
	versions  []*version // the existing versions, in order of creation
	views     []view
}

// A version is one immutable version of a secret.
type version struct {
	id      string
	created time.Time
	text    *string
	binary  []byte
	raw     bool // LocalStack keeps the value as Python bytes: see localstack.go
}

func (v *version) same(other *version) bool {
	return (v.text == nil) == (other.text == nil) && (v.text == nil || *v.text == *other.text) && bytes.Equal(v.binary, other.binary)
}

// A view is the immutable state of a secret between two changes.
type view struct {
	from        time.Time
	gone        bool
	deletion    time.Time // the time of the removal; zero if the secret is not deleted
	changed     time.Time
	description string
	kms         string
	tags        map[string]string
	stages      map[string]*version
}

func (x *secret) is() view { return x.views[len(x.views)-1] }

// was returns the state of the secret at the given time. If the secret did not exist at that time,
// the field gone of the result is set.
func (x *secret) was(at time.Time) view {
	for i := len(x.views) - 1; i >= 0; i-- {
		if !x.views[i].from.After(at) {
			return x.views[i]
		}
	}
	return view{gone: true}
}

// change adds a copy of the last view, changed by f, and removes views that no read can return.
func (x *secret) change(now time.Time, f func(*view)) {
	for len(x.views) > 1 && now.Sub(x.views[1].from) > remembered {
		x.views = x.views[1:]
	}
	v := x.is()
	v.tags, v.stages = maps.Clone(v.tags), maps.Clone(v.stages)
	v.from = now
	f(&v)
	x.views = append(x.views, v)
}

func (x *secret) version(id string) *version {
	for _, v := range x.versions {
		if v.id == id {
			return v
		}
	}
	return nil
}

func (v view) stagesOf(id string) []string {
	labels := []string{}
	for label, on := range v.stages {
		if on.id == id {
			labels = append(labels, label)
		}
	}
	slices.Sort(labels)
	return labels
}

// An input holds the members that requests for any operation can have.
type input struct {
	Name, SecretId, Description, KmsKeyId, ClientRequestToken, VersionId, VersionStage string
	SecretString                                                                       *string
	SecretBinary                                                                       []byte
	Tags                                                                               []tag
	TagKeys, VersionStages, SecretIdList                                               []string
	Filters                                                                            []filter
	MaxResults                                                                         *int
	NextToken, MoveToVersionId, RemoveFromVersionId                                    string
	RecoveryWindowInDays                                                               *int
	ForceDeleteWithoutRecovery, IncludePlannedDeletion, IncludeDeprecated              bool
}

type tag struct{ Key, Value string }

type call struct {
	*Service
	q          *Request
	in         input
	now        time.Time
	read, list time.Time // times of the states that reads and lists return
}

// handle executes a request. It adds the duration stale to ReadLag and ListLag.
func (s *Service) handle(q *Request, stale time.Duration) (any, *refusal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.Now()
	s.remove(now)
	c := &call{Service: s, q: q, now: now, read: now.Add(-s.opts.ReadLag - stale), list: now.Add(-s.opts.ListLag - stale)}
	if err := json.Unmarshal(q.Body, &c.in); err != nil {
		return nil, refuse("SerializationException", "")
	}
	operation, ok := operations[q.Operation]
	if !ok {
		return nil, &refusal{"UnknownOperationException", "", 404}
	}
	if bad := c.validate(); bad != nil {
		return nil, bad
	}
	return operation(c)
}

var operations = map[string]func(*call) (any, *refusal){
	"CreateSecret":             (*call).createSecret,
	"GetSecretValue":           (*call).getSecretValue,
	"BatchGetSecretValue":      (*call).batchGetSecretValue,
	"PutSecretValue":           (*call).putSecretValue,
	"UpdateSecret":             (*call).updateSecret,
	"UpdateSecretVersionStage": (*call).updateSecretVersionStage,
	"DescribeSecret":           (*call).describeSecret,
	"ListSecrets":              (*call).listSecrets,
	"ListSecretVersionIds":     (*call).listSecretVersionIds,
	"TagResource":              (*call).tagResource,
	"UntagResource":            (*call).untagResource,
	"DeleteSecret":             (*call).deleteSecret,
	"RestoreSecret":            (*call).restoreSecret,
}

// validate checks the members of a request against the model.
func (c *call) validate() *refusal {
	invalid := func(member, constraint string) *refusal {
		return refuse("ValidationException", "1 validation error detected: Value at '%s' failed to satisfy constraint: Member must %s", member, constraint)
	}
	in := &c.in
	switch {
	case c.q.Operation == "CreateSecret" && len(in.Name) > maxName:
		return invalid("name", "have length less than or equal to 512")
	case c.q.Operation == "CreateSecret" && !legalName.MatchString(in.Name):
		return refuse("ValidationException", "%s", illegal)
	case in.ClientRequestToken != "" && (len(in.ClientRequestToken) < minToken || len(in.ClientRequestToken) > maxToken):
		return invalid("clientRequestToken", "have length between 32 and 64")
	case in.SecretString != nil && (len(*in.SecretString) < 1 || len(*in.SecretString) > maxValue):
		return invalid("secretString", "have length between 1 and 65536")
	case in.SecretBinary != nil && (len(in.SecretBinary) < 1 || len(in.SecretBinary) > maxValue):
		return invalid("secretBinary", "have length between 1 and 65536")
	case utf8.RuneCountInString(in.Description) > maxDescription:
		return invalid("description", "have length less than or equal to 2048")
	case len(in.SecretIdList) > 20: // model: SecretIdListType
		return invalid("secretIdList", "have length less than or equal to 20")
	case in.MaxResults != nil && (*in.MaxResults < 1 || *in.MaxResults > c.maxResults()):
		return invalid("maxResults", fmt.Sprintf("have value between 1 and %d", c.maxResults()))
	case len(in.Filters) > 10: // model: FiltersListType
		return invalid("filters", "have length less than or equal to 10")
	case in.SecretString != nil && in.SecretBinary != nil:
		return refuse("InvalidParameterException", "You can't specify both a binary secret value and a string secret value in the same secret.")
	case (in.SecretString != nil || in.SecretBinary != nil) && in.ClientRequestToken == "":
		// model: ClientRequestToken, "If you generate a raw HTTP request ... you must".
		return refuse("InvalidRequestException", "You must provide a ClientRequestToken value. We recommend a UUID-type value.")
	}
	for _, f := range in.Filters {
		if bad := f.validate(); bad != nil {
			return bad
		}
	}
	for _, t := range in.Tags {
		switch {
		case t.Key == "" || utf8.RuneCountInString(t.Key) > maxTagKey:
			return invalid("tags", "have keys of length between 1 and 128")
		case utf8.RuneCountInString(t.Value) > maxTagValue:
			return invalid("tags", "have values of length less than or equal to 256")
		case !legalTag.MatchString(t.Key) || !legalTag.MatchString(t.Value):
			return refuse("InvalidParameterException", "Tag keys and values have letters, spaces, numbers, and + - = . _ : / @")
		case strings.HasPrefix(strings.ToLower(t.Key), "aws:"):
			return refuse("InvalidParameterException", "Tag keys that begin with aws: are reserved for AWS use.")
		}
	}
	return nil
}

func (c *call) maxResults() int {
	if c.q.Operation == "BatchGetSecretValue" {
		return maxBatch // model: MaxResultsBatchType
	}
	return 100 // model: MaxResultsType
}

const (
	missing   = "Secrets Manager can't find the specified secret."                                                // seen
	marked    = "You can't perform this operation on the secret because it was marked for deletion."              // seen
	scheduled = "You can't create this secret because a secret with this name is already scheduled for deletion." // seen
)

// find returns the secret that id names at the given time, and its state. id is a name, an ARN,
// or an ARN without its random suffix. The secret is nil if id names no secret at that time.
func (c *call) find(id string, at time.Time) (*secret, view) {
	lives := c.names[id]
	if strings.HasPrefix(id, "arn:") {
		lives = nil
		if x := c.arns[id]; x != nil {
			lives = []*secret{x}
		} else if _, name, ok := strings.Cut(id, ":secret:"); ok {
			lives = c.names[name]
		}
	}
	for _, x := range slices.Backward(lives) {
		if v := x.was(at); !v.gone {
			return x, v
		}
	}
	return nil, view{gone: true}
}

// target returns the secret that the request names, and its state at the given time. It returns
// a refusal if the caller lacks the permission, or the secret did not exist at that time.
func (c *call) target(at time.Time) (*secret, view, *refusal) {
	x, v := c.find(c.in.SecretId, at)
	resource, kms := c.in.SecretId, ""
	switch truth, tv := c.find(c.in.SecretId, c.now); {
	case truth != nil:
		resource, kms = truth.arn, tv.kms
	case !strings.HasPrefix(resource, "arn:"):
		resource = c.arn(resource)
	}
	if bad := c.authorize(resource, kms); bad != nil {
		return nil, v, bad
	}
	if x == nil {
		return nil, v, refuse("ResourceNotFoundException", missing)
	}
	return x, v, nil
}

// live is like target, but also returns a refusal if the state is marked for deletion.
func (c *call) live(at time.Time) (*secret, view, *refusal) {
	x, v, bad := c.target(at)
	if bad == nil && !v.deletion.IsZero() {
		bad = refuse("InvalidRequestException", marked)
	}
	return x, v, bad
}

func (c *call) arn(name string) string {
	return "arn:" + partition(c.q.Region) + ":secretsmanager:" + c.q.Region + ":" + Account + ":secret:" + name
}

func partition(region string) string {
	switch {
	case strings.HasPrefix(region, "cn-"):
		return "aws-cn"
	case strings.HasPrefix(region, "us-gov-"):
		return "aws-us-gov"
	}
	return "aws"
}

func (c *call) createSecret() (any, *refusal) {
	in := &c.in
	if bad := c.authorize(c.arn(in.Name), in.KmsKeyId); bad != nil {
		return nil, bad
	}
	if in.SecretString == nil && in.SecretBinary == nil && in.ClientRequestToken == "" {
		in.ClientRequestToken = rand.Text()
	}
	v := &version{id: in.ClientRequestToken, created: c.second(), text: in.SecretString, binary: in.SecretBinary}
	hasValue := in.SecretString != nil || in.SecretBinary != nil
	if x, is := c.find(in.Name, c.now); x != nil {
		have := x.version(in.ClientRequestToken)
		switch {
		case !is.deletion.IsZero():
			return nil, refuse("InvalidRequestException", scheduled)
		case have != nil && hasValue && have.same(v):
			return c.written(x, have), nil
		case have != nil:
			return nil, refuse("ResourceExistsException", "You can't use ClientRequestToken %s because that value is already in use for a version of secret %s.", have.id, x.arn)
		}
		return nil, refuse("ResourceExistsException", "The operation failed because the secret %s already exists.", in.Name)
	}
	tags := map[string]string{}
	for _, t := range in.Tags {
		tags[t.Key] = t.Value
	}
	if len(tags) > maxTags && !c.opts.LocalStack {
		return nil, tooManyTags()
	}
	x := &secret{seq: len(c.secrets), arn: c.arn(in.Name) + "-" + suffix(), name: in.Name, created: c.now}
	first := view{from: c.now, changed: c.now, description: in.Description, kms: in.KmsKeyId, tags: tags, stages: map[string]*version{}}
	if hasValue {
		x.versions = []*version{v}
		first.stages[current] = v
	}
	x.views = []view{first}
	c.secrets = append(c.secrets, x)
	c.names[x.name] = append(c.names[x.name], x)
	c.arns[x.arn] = x
	c.enter(x, tags)
	answer := map[string]any{"ARN": x.arn, "Name": x.name}
	if hasValue {
		answer["VersionId"] = v.id
	}
	return answer, nil
}

// suffix returns six random characters. The service adds such a suffix to the ARN of a secret.
func suffix() string { return rand.Text()[:6] }

func tooManyTags() *refusal {
	return refuse("InvalidParameterException", "A secret can't have more than %d tags.", maxTags)
}

// written returns the response to an operation that wrote the version v.
func (c *call) written(x *secret, v *version) map[string]any {
	return map[string]any{"ARN": x.arn, "Name": x.name, "VersionId": v.id, "VersionStages": x.is().stagesOf(v.id)}
}

func (c *call) getSecretValue() (any, *refusal) {
	in := &c.in
	at := c.read
	if in.VersionId != "" {
		at = c.now
	}
	x, is, bad := c.live(at)
	if bad != nil {
		return nil, bad
	}
	stage := in.VersionStage
	if stage == "" && in.VersionId == "" {
		stage = current
	}
	v := is.stages[stage]
	if in.VersionId != "" {
		v = x.version(in.VersionId)
		switch {
		case v == nil:
			return nil, refuse("ResourceNotFoundException", "Secrets Manager can't find the specified secret value for VersionId: %s", in.VersionId) // seen
		case stage != "" && is.stages[stage] != v:
			return nil, refuse("InvalidRequestException", "You provided a VersionStage that is not associated to the provided VersionId.") // seen
		}
	}
	if v == nil {
		return nil, refuse("ResourceNotFoundException", "Secrets Manager can't find the specified secret value for staging label: %s", stage) // seen
	}
	return value(x, is, v), nil
}

func value(x *secret, is view, v *version) map[string]any {
	answer := map[string]any{
		"ARN": x.arn, "Name": x.name, "VersionId": v.id, "VersionStages": is.stagesOf(v.id), "CreatedDate": epoch(v.created),
	}
	if v.text != nil {
		answer["SecretString"] = *v.text
	} else {
		answer["SecretBinary"] = v.binary
	}
	return answer
}

// epoch returns t in seconds since the Unix epoch, with three decimal places.
func epoch(t time.Time) json.Number {
	return json.Number(fmt.Sprintf("%d.%03d", t.Unix(), t.Nanosecond()/1e6))
}

func (c *call) putSecretValue() (any, *refusal) {
	in := &c.in
	find := c.live
	if c.opts.LocalStack {
		find = c.target // moto's put_secret_value does not check whether the secret is marked for deletion
	}
	x, _, bad := find(c.now)
	if bad != nil {
		return nil, bad
	}
	if in.SecretString == nil && in.SecretBinary == nil {
		return nil, refuse("InvalidRequestException", "You must provide either SecretString or SecretBinary.")
	}
	stages := in.VersionStages
	if len(stages) == 0 {
		stages = []string{current}
	}
	v, bad := c.add(x, stages)
	if bad != nil {
		return nil, bad
	}
	return c.written(x, v), nil
}

// add adds the version in the request to a secret, with the labels in stages. If the secret has a
// version with the same ID and value, add changes nothing. If only the ID is the same, add returns
// a refusal.
func (c *call) add(x *secret, stages []string) (*version, *refusal) {
	v := &version{
		id: c.in.ClientRequestToken, created: c.second(), text: c.in.SecretString, binary: c.in.SecretBinary,
		raw: c.opts.LocalStack && c.in.SecretBinary != nil,
	}
	if have := x.version(v.id); have != nil {
		if have.same(v) {
			return have, nil // model: PutSecretValue, "the operation succeeds but does nothing"
		}
		return nil, refuse("ResourceExistsException", "You can't use ClientRequestToken %s because that value is already in use for a version of secret %s.", v.id, x.arn) // seen
	}
	if !c.opts.LocalStack {
		if bad := c.makeRoom(x, v, stages); bad != nil {
			return nil, bad
		}
	}
	x.versions = append(x.versions, v)
	x.change(c.now, func(is *view) {
		for _, label := range stages {
			is.attach(label, v)
		}
		is.changed = c.now
	})
	if c.opts.LocalStack {
		c.forget(x, slices.Contains(stages, current))
	}
	return v, nil
}

// makeRoom removes old versions so that the secret has room for v with the labels in stages. It
// returns a refusal if the secret would have too many labels, or has too many versions that must
// be kept.
func (c *call) makeRoom(x *secret, v *version, stages []string) *refusal {
	kept, labels := x.is(), maps.Clone(x.is().stages)
	for _, label := range stages {
		labels[label] = v
	}
	if len(labels) > maxStages {
		return refuse("LimitExceededException", "A secret can't have more than %d staging labels.", maxStages)
	}
	for i := 0; len(x.versions) >= maxVersions && i < len(x.versions); {
		old := x.versions[i]
		if len(kept.stagesOf(old.id)) == 0 && c.now.Sub(old.created) >= keptFor {
			x.versions = slices.Delete(x.versions, i, i+1)
		} else {
			i++
		}
	}
	if len(x.versions) >= maxVersions {
		return refuse("LimitExceededException", "A secret can't have more than %d versions.", maxVersions)
	}
	return nil
}

// attach moves a label to a version. If the label is AWSCURRENT, AWSPREVIOUS moves to the
// version that had AWSCURRENT.
func (is *view) attach(label string, v *version) {
	was := is.stages[label]
	is.stages[label] = v
	if label == current && was != nil && was != v {
		is.stages[previous] = was
	}
}

func (c *call) updateSecret() (any, *refusal) {
	in := &c.in
	x, _, bad := c.live(c.now)
	if bad != nil {
		return nil, bad
	}
	answer := map[string]any{"ARN": x.arn, "Name": x.name}
	if in.SecretString != nil || in.SecretBinary != nil {
		v, bad := c.add(x, []string{current})
		if bad != nil {
			return nil, bad
		}
		answer["VersionId"] = v.id
	}
	x.change(c.now, func(is *view) {
		if in.Description != "" {
			is.description = in.Description
		}
		if in.KmsKeyId != "" {
			is.kms = in.KmsKeyId
		}
		is.changed = c.now
	})
	return answer, nil
}

func (c *call) updateSecretVersionStage() (any, *refusal) {
	in := &c.in
	x, is, bad := c.live(c.now)
	if bad != nil {
		return nil, bad
	}
	on, to := is.stages[in.VersionStage], x.version(in.MoveToVersionId)
	switch {
	case in.MoveToVersionId != "" && to == nil:
		return nil, refuse("ResourceNotFoundException", "Secrets Manager can't find the specified secret value for VersionId: %s", in.MoveToVersionId)
	case on != nil && to != nil && on != to && in.RemoveFromVersionId == "":
		// seen; model: UpdateSecretVersionStage, RemoveFromVersionId
		return nil, refuse("InvalidParameterException", "The parameter RemoveFromVersionId can't be empty. Staging label %s is currently attached to version %s, so you must explicitly reference that version in RemoveFromVersionId.", in.VersionStage, on.id)
	case in.RemoveFromVersionId != "" && (on == nil || on.id != in.RemoveFromVersionId):
		return nil, refuse("InvalidParameterException", "When you move staging label %s, if you specify RemoveFromVersionId, it must be set to the version that currently has the staging label %s.", in.VersionStage, in.VersionStage)
	case to == nil && in.VersionStage == current:
		return nil, refuse("InvalidParameterException", "You can't remove the staging label AWSCURRENT without moving it.")
	case on == nil && to != nil && len(is.stages) >= maxStages:
		return nil, refuse("LimitExceededException", "A secret can't have more than %d staging labels.", maxStages)
	}
	x.change(c.now, func(is *view) {
		if to != nil {
			is.attach(in.VersionStage, to)
		} else {
			delete(is.stages, in.VersionStage)
		}
		is.changed = c.now
	})
	if c.opts.LocalStack {
		x.versions = slices.DeleteFunc(x.versions, func(v *version) bool { return len(x.is().stagesOf(v.id)) == 0 })
	}
	return map[string]any{"ARN": x.arn, "Name": x.name}, nil
}

func (c *call) describeSecret() (any, *refusal) {
	x, is, bad := c.target(c.read) // not live, because the service also describes secrets that are marked for deletion
	if bad != nil {
		return nil, bad
	}
	answer := entry(x, is)
	delete(answer, "SecretVersionsToStages")
	answer["VersionIdsToStages"] = is.labeled()
	return answer, nil
}

// labeled returns the labels of each version that has labels, by the ID of the version.
func (v view) labeled() map[string][]string {
	labeled := map[string][]string{}
	for _, on := range v.stages {
		labeled[on.id] = v.stagesOf(on.id)
	}
	return labeled
}

// entry returns the description of a secret without its value, as in responses.
func entry(x *secret, is view) map[string]any {
	tags := []tag{}
	for _, key := range slices.Sorted(maps.Keys(is.tags)) {
		tags = append(tags, tag{key, is.tags[key]})
	}
	answer := map[string]any{
		"ARN": x.arn, "Name": x.name, "CreatedDate": epoch(x.created), "LastChangedDate": epoch(is.changed),
		"Tags": tags, "SecretVersionsToStages": is.labeled(),
	}
	if is.description != "" {
		answer["Description"] = is.description
	}
	if is.kms != "" {
		answer["KmsKeyId"] = is.kms
	}
	if !is.deletion.IsZero() {
		answer["DeletedDate"] = epoch(is.deletion)
	}
	return answer
}

func (c *call) listSecretVersionIds() (any, *refusal) {
	x, is, bad := c.live(c.read)
	if bad != nil {
		return nil, bad
	}
	versions := []map[string]any{}
	for _, v := range x.versions {
		if labels := is.stagesOf(v.id); !v.created.After(c.read) && (len(labels) > 0 || c.in.IncludeDeprecated) {
			versions = append(versions, map[string]any{"VersionId": v.id, "VersionStages": labels, "CreatedDate": epoch(v.created)})
		}
	}
	return map[string]any{"ARN": x.arn, "Name": x.name, "Versions": versions}, nil
}

func (c *call) tagResource() (any, *refusal) {
	x, is, bad := c.live(c.now)
	if bad != nil {
		return nil, bad
	}
	tags := maps.Clone(is.tags)
	for _, t := range c.in.Tags {
		tags[t.Key] = t.Value
	}
	if len(tags) > maxTags && !c.opts.LocalStack {
		return nil, tooManyTags()
	}
	x.change(c.now, func(is *view) { is.tags = tags })
	c.enter(x, tags)
	return struct{}{}, nil
}

func (c *call) untagResource() (any, *refusal) {
	x, _, bad := c.live(c.now)
	if bad != nil {
		return nil, bad
	}
	x.change(c.now, func(is *view) {
		for _, key := range c.in.TagKeys {
			delete(is.tags, key)
		}
	})
	return struct{}{}, nil
}

func (c *call) deleteSecret() (any, *refusal) {
	in := &c.in
	window := 30 // model: DeleteSecret, RecoveryWindowInDays
	if in.RecoveryWindowInDays != nil {
		window = *in.RecoveryWindowInDays
	}
	switch {
	case in.RecoveryWindowInDays != nil && in.ForceDeleteWithoutRecovery:
		return nil, refuse("InvalidParameterException", "You can't use ForceDeleteWithoutRecovery in conjunction with RecoveryWindowInDays.") // seen
	case window < 7 || window > 30:
		return nil, refuse("InvalidParameterException", "The RecoveryWindowInDays value must be between 7 and 30 days (inclusive).") // seen
	}
	x, is, bad := c.target(c.now)
	switch {
	case bad != nil && bad.code == "ResourceNotFoundException" && in.ForceDeleteWithoutRecovery:
		// model: "If you forcibly delete an already deleted or nonexistent secret,
		// the operation does not return ResourceNotFoundException".
		return map[string]any{"ARN": in.SecretId, "Name": in.SecretId, "DeletionDate": epoch(c.now)}, nil
	case bad != nil:
		return nil, bad
	case in.ForceDeleteWithoutRecovery:
		if !slices.Contains(c.leaving, x) {
			x.change(c.now, func(is *view) { is.deletion = c.now.Add(c.opts.DeleteDelay) })
			c.leaving = append(c.leaving, x)
			c.remove(c.now)
		}
		return map[string]any{"ARN": x.arn, "Name": x.name, "DeletionDate": epoch(c.now)}, nil
	case !is.deletion.IsZero():
		return nil, refuse("InvalidRequestException", marked)
	}
	at := c.now.AddDate(0, 0, window)
	x.change(c.now, func(is *view) { is.deletion = at })
	return map[string]any{"ARN": x.arn, "Name": x.name, "DeletionDate": epoch(at)}, nil
}

// remove completes forced deletions whose delay has passed, as the background process of the
// service does. Afterwards, the names of the removed secrets can be used again.
func (s *Service) remove(now time.Time) {
	s.leaving = slices.DeleteFunc(s.leaving, func(x *secret) bool {
		at := x.is().deletion
		if now.Before(at) {
			return false
		}
		x.change(at, func(is *view) { *is = view{from: at, gone: true} })
		x.versions = nil
		return true
	})
}

func (c *call) restoreSecret() (any, *refusal) {
	x, _, bad := c.target(c.now)
	switch {
	case bad != nil:
		return nil, bad
	case slices.Contains(c.leaving, x):
		return nil, refuse("InvalidRequestException", marked)
	}
	x.change(c.now, func(is *view) { is.deletion = time.Time{} })
	return map[string]any{"ARN": x.arn, "Name": x.name}, nil
}
