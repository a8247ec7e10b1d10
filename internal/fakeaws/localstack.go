package fakeaws

import "time"

// What LocalStack 4.14.0 does otherwise than Secrets Manager, by
// localstack/services/secretsmanager/provider.py of its tag v4.14.0 and
// moto/secretsmanager of moto 5.1.22, which that version runs on:
//
//   - PutSecretValue and UpdateSecret keep SecretBinary as Python bytes
//     (base64.b64encode), which GetSecretValue decodes and BatchGetSecretValue,
//     moto's own, cannot write as JSON: it fails as a whole with a 500. CreateSecret
//     keeps text, and BatchGetSecretValue is fine.
//   - BatchGetSecretValue with filters reads all that match before it pages, and
//     fails as a whole for a secret that is marked for deletion or has no value.
//   - PutSecretValue does not look whether the secret is marked for deletion.
//   - 100 versions without a label are kept, whatever their age. What moves a label
//     other than by a new AWSCURRENT removes all of them.
//   - There is no limit of tags, labels and versions, and the time of a version is
//     in whole seconds.

// second is the time of a version.
func (c *call) second() time.Time {
	if c.opts.LocalStack {
		return c.now.Truncate(time.Second)
	}
	return c.now
}

// forget removes versions without a label after one was added
// (fake_secret_reset_default_version, fake_secret_remove_version_stages_from_old_versions).
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

// batchOfLocalStack is BatchGetSecretValue with filters.
func (c *call) batchOfLocalStack() (any, *refusal) {
	for _, x := range c.candidates(0) {
		is := x.was(c.list)
		if is.gone || !c.meets(x, is) {
			continue
		}
		switch {
		case is.stages[current] == nil:
			return nil, &refusal{"ResourceNotFoundException", "Secrets Manager can't find the specified secret value for VersionId: AWSCURRENT", 404}
		case !is.deletion.IsZero():
			return nil, refuse("InvalidRequestException", "An error occurred (InvalidRequestException) when calling the GetSecretValue operation: You tried to                 perform the operation on a secret that's currently marked deleted.")
		}
	}
	found, next, bad := c.page(maxBatch, false)
	if bad != nil {
		return nil, bad
	}
	values := []map[string]any{}
	for _, x := range found {
		is := x.was(c.read)
		v := is.stages[current]
		if v.raw {
			return nil, &refusal{"InternalError", "exception while calling secretsmanager.BatchGetSecretValue: Object of type bytes is not JSON serializable", 500}
		}
		values = append(values, value(x, is, v))
	}
	return paged(map[string]any{"SecretValues": values, "Errors": []any{}}, next), nil
}
