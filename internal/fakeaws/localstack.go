package fakeaws

import "time"

// LocalStack 4.14.0 differs from Secrets Manager in the following points. The sources are
// localstack/services/secretsmanager/provider.py of LocalStack's tag v4.14.0, and
// moto/secretsmanager of moto 5.1.22, which LocalStack 4.14.0 uses.
//
//   - PutSecretValue and UpdateSecret keep SecretBinary as Python bytes (base64.b64encode).
//     GetSecretValue decodes the bytes, but moto's BatchGetSecretValue with filters cannot write
//     bytes as JSON and fails as a whole with status 500. CreateSecret keeps text, which
//     BatchGetSecretValue can write.
//   - BatchGetSecretValue with filters reads all matching secrets before it pages. The call
//     fails as a whole if one of these secrets is marked for deletion or has no value.
//   - PutSecretValue does not check whether the secret is marked for deletion.
//   - An operation that adds a version with AWSCURRENT keeps the newest 100 versions without a
//     label, whatever their age. Any other operation that changes labels removes all versions
//     without a label.
//   - The numbers of tags, labels and versions are not limited. The time of a version is in
//     whole seconds.

// second returns the time of a new version. With Options.LocalStack, the time is in whole
// seconds.
func (c *call) second() time.Time {
	if c.opts.LocalStack {
		return c.now.Truncate(time.Second)
	}
	return c.now
}

// forget removes the oldest versions without a label, as LocalStack does after it adds a version.
// If isCurrent is set, forget keeps the newest maxVersions of the versions without a label;
// otherwise, forget removes all of these versions (moto: fake_secret_reset_default_version,
// fake_secret_remove_version_stages_from_old_versions).
func (c *call) forget(x *secret, isCurrent bool) {
	var unlabeled []*version
	for _, v := range x.versions {
		if len(x.is().stagesOf(v.id)) == 0 {
			unlabeled = append(unlabeled, v)
		}
	}
	keep := 0
	if isCurrent {
		keep = maxVersions
	}
	gone := map[*version]bool{}
	for _, v := range unlabeled[:max(0, len(unlabeled)-keep)] {
		gone[v] = true
	}
	var left []*version
	for _, v := range x.versions {
		if !gone[v] {
			left = append(left, v)
		}
	}
	x.versions = left
}

// batchOfLocalStack executes BatchGetSecretValue with filters, and fails where LocalStack
// fails.
func (c *call) batchOfLocalStack() (any, *refusal) {
	for _, x := range c.candidates(0) {
		is := x.was(c.list)
		if is.gone || !c.meets(x, is) {
			continue
		}
		if bad := failsBatch(is); bad != nil {
			return nil, bad
		}
	}
	found, next, bad := c.page(maxBatch, false)
	if bad != nil {
		return nil, bad
	}
	values := []map[string]any{}
	for _, x := range found {
		is := x.was(c.read)
		if bad := failsBatch(is); bad != nil {
			return nil, bad // reads lag more than lists, and show an earlier state
		}
		v := is.stages[current]
		if v.raw {
			return nil, &refusal{"InternalError", "exception while calling secretsmanager.BatchGetSecretValue: Object of type bytes is not JSON serializable", 500}
		}
		values = append(values, value(x, is, v))
	}
	return paged(map[string]any{"SecretValues": values, "Errors": []any{}}, next), nil
}

// failsBatch returns the error with which BatchGetSecretValue fails for a secret in the given
// state, or nil. A secret that a lagging read does not show has no value.
func failsBatch(is view) *refusal {
	switch {
	case is.stages[current] == nil:
		return &refusal{"ResourceNotFoundException", "Secrets Manager can't find the specified secret value for VersionId: AWSCURRENT", 404}
	case !is.deletion.IsZero():
		return refuse("InvalidRequestException", "An error occurred (InvalidRequestException) when calling the GetSecretValue operation: You tried to                 perform the operation on a secret that's currently marked deleted.")
	}
	return nil
}
