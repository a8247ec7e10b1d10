package fakevault

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// defaultMaxVersions is the number of versions kept by default (kv: backend.go).
const defaultMaxVersions = 10

// Limits of custom_metadata: the number of keys, and the sizes of a key and a value in bytes
// (kv: path_metadata.go).
const (
	maxCustomKeys  = 64
	maxCustomKey   = 128
	maxCustomValue = 512
)

// Config is an operator's configuration of a mount.
type Config struct {
	MaxVersions        int           // versions to keep; 0 means 10
	CASRequired        bool          // every write of data must name a version
	DeleteVersionAfter time.Duration // lifetime of a version; 0 means forever

	// KV1 selects version 1 of the engine, which ignores the other settings. A path holds the
	// data of the last write to the path, and the response to a write has no body.
	KV1 bool
}

// A mount is one KV secrets engine. The keys are immutable, so that a lagging node can show
// earlier states: a write replaces a key.
type mount struct {
	config  Config
	keys    map[string]*key
	folders map[string]map[string]int // for each folder, the number of keys under each name in the folder
	past    map[string][]moment       // nil unless reads may lag
}

type moment struct {
	at  time.Time
	key *key // nil if the key did not exist
}

type key struct {
	created, updated time.Time
	current, oldest  int
	versions         map[int]version
	maxVersions      int
	casRequired      bool
	deleteAfter      time.Duration
	custom           map[string]string // nil if never set
}

type version struct {
	data      map[string]any
	created   time.Time
	deletion  time.Time // zero means none
	destroyed bool
}

func newMount(c Config, remember bool) *mount {
	m := &mount{config: c, keys: map[string]*key{}, folders: map[string]map[string]int{}}
	if remember {
		m.past = map[string][]moment{}
	}
	return m
}

// set stores k under path. A nil k removes the key.
func (m *mount) set(path string, k *key, now time.Time) {
	was := m.keys[path]
	if k == nil {
		delete(m.keys, path)
	} else {
		m.keys[path] = k
	}
	switch {
	case was == nil && k != nil:
		m.file(path, 1)
	case was != nil && k == nil:
		m.file(path, -1)
	}
	if m.past != nil {
		m.past[path] = append(m.past[path], moment{now, k})
	}
}

// file adds n to the numbers of keys in m.folders, for path and for each folder above path.
func (m *mount) file(path string, n int) {
	above := ""
	for part := range strings.SplitAfterSeq(path, "/") {
		in := m.folders[above]
		if in == nil {
			in = map[string]int{}
			m.folders[above] = in
		}
		if in[part] += n; in[part] == 0 {
			delete(in, part)
		}
		if len(in) == 0 {
			delete(m.folders, above)
		}
		above += part
	}
}

// at returns the key that was at path at the time asOf, or nil if there was none. A zero asOf means
// the current state.
func (m *mount) at(path string, asOf time.Time) *key {
	if asOf.IsZero() || m.past == nil {
		return m.keys[path]
	}
	for _, then := range slices.Backward(m.past[path]) {
		if !then.at.After(asOf) {
			return then.key
		}
	}
	return nil
}

func (k *key) clone() *key {
	c := *k
	c.versions = maps.Clone(k.versions)
	return &c
}

func (v version) gone(now time.Time) bool {
	return v.destroyed || !v.deletion.IsZero() && v.deletion.Before(now)
}

// handle executes an operation on a path of the engine. The path, such as "data/x" or "metadata/x",
// is in the parameter rest. If asOf is not zero, reads and lists of version 2 show the state at
// that time.
func (m *mount) handle(operation, rest string, query url.Values, body []byte, now, asOf time.Time) *answer {
	if m.config.KV1 {
		return m.handle1(operation, rest, body, now)
	}
	class, path, _ := strings.Cut(rest, "/")
	var fields map[string]json.RawMessage
	if operation == "write" || operation == "patch" {
		if err := json.Unmarshal(body, &fields); err != nil && len(body) > 0 {
			return failure(http.StatusBadRequest, "error parsing JSON")
		}
	}
	switch {
	case path == "" && operation != "list" && class != "config":
		return m.invalid(rest, operation)
	case class == "data" && strings.HasSuffix(path, "/"):
		return m.invalid(rest, operation)
	}
	switch class + " " + operation {
	case "data read":
		return m.readData(m.at(path, asOf), query, now)
	case "data write":
		return m.writeData(path, fields, now)
	case "data patch":
		return m.patchData(path, fields, now)
	case "data delete":
		return m.deleteData(path, now)
	case "metadata read":
		return m.readMetadata(m.at(path, asOf))
	case "metadata list":
		return m.list(path, asOf)
	case "metadata write":
		return m.writeMetadata(path, fields, now)
	case "metadata patch":
		return m.patchMetadata(path, fields, now)
	case "metadata delete":
		if m.keys[path] != nil {
			m.set(path, nil, now) // removes the version counter, too (kv: path_metadata.go, pathMetadataDelete)
		}
		return &answer{}
	case "destroy write", "delete write", "undelete write":
		return m.markVersions(class, path, fields, now)
	case "config read":
		return &answer{data: map[string]any{
			"max_versions": m.config.MaxVersions, "cas_required": m.config.CASRequired,
			"delete_version_after": m.config.DeleteVersionAfter.String(),
		}}
	case "config write":
		return m.writeConfig(fields)
	}
	if slices.Contains([]string{"data", "metadata", "destroy", "delete", "undelete", "config"}, class) {
		return failure(http.StatusMethodNotAllowed, "1 error occurred:\n\t* unsupported operation\n\n")
	}
	return m.invalid(rest, operation)
}

// handle1 executes an operation of version 1 (kv: passthrough.go).
func (m *mount) handle1(operation, path string, body []byte, now time.Time) *answer {
	switch operation {
	case "read":
		k := m.keys[path]
		if k == nil {
			return failure(http.StatusNotFound)
		}
		return &answer{data: k.versions[1].data}
	case "list":
		return m.list(path, time.Time{})
	case "delete":
		m.set(path, nil, now)
		return &answer{}
	case "write":
		var data map[string]any
		if err := decode(body, &data); err != nil {
			return failure(http.StatusBadRequest, "error parsing JSON")
		}
		if len(data) == 0 {
			return failure(http.StatusBadRequest, "missing data fields")
		}
		m.set(path, &key{versions: map[int]version{1: {data: data, created: now}}}, now)
		return &answer{}
	}
	return failure(http.StatusMethodNotAllowed, "1 error occurred:\n\t* unsupported operation\n\n")
}

// invalid returns the answer for a path that the engine does not have (kv: backend.go,
// pathInvalid).
func (m *mount) invalid(rest, operation string) *answer {
	a := &answer{status: http.StatusNotFound}
	if slices.Contains([]string{"metadata", "data", "delete", "undelete", "destroy"}, strings.TrimSuffix(rest, "/")) {
		a.warnings = []string{"Non-listing operations on the root of a K/V v2 mount are not supported."}
		return a
	}
	verb := map[string]string{"write": "put", "patch": "patch", "read": "get", "list": "list", "delete": "delete"}[operation]
	a.warnings = []string{"Invalid path for a versioned K/V secrets engine. See the API docs for the appropriate API endpoints " +
		"to use. If using the Vault CLI, use 'vault kv " + verb + "' for this operation."}
	return a
}

// describe returns the metadata of a version in the form that responses to reads and writes of data
// contain.
func (k *key) describe(n int) map[string]any {
	v := k.versions[n]
	return map[string]any{
		"version": n, "created_time": stamp(v.created), "deletion_time": stamp(v.deletion),
		"destroyed": v.destroyed, "custom_metadata": k.custom,
	}
}

// readData implements kv: path_data.go, pathDataRead. For a deleted or destroyed version, the
// answer is a 404 with the metadata of the version. For a version that does not exist, the
// answer is a 404 with an empty list of errors.
func (m *mount) readData(k *key, query url.Values, now time.Time) *answer {
	if k == nil {
		return failure(http.StatusNotFound)
	}
	n := k.current
	if asked, err := strconv.Atoi(query.Get("version")); err == nil && asked > 0 {
		n = asked
	}
	v, ok := k.versions[n]
	if !ok {
		return failure(http.StatusNotFound)
	}
	a := &answer{data: map[string]any{"data": nil, "metadata": k.describe(n)}}
	if v.gone(now) {
		a.status = http.StatusNotFound
	} else {
		a.data["data"] = v.data
	}
	return a
}

// checkCAS implements kv: path_data.go, validateCheckAndSetOption. A write without cas is
// allowed unless cas is required. A cas of 0 matches a secret without versions.
func (m *mount) checkCAS(fields map[string]json.RawMessage, k *key) *answer {
	var options map[string]any
	if raw, ok := fields["options"]; ok {
		if err := decode(raw, &options); err != nil {
			return failure(http.StatusBadRequest, `Field validation failed: error converting input for field "options"`)
		}
	}
	cas, ok := options["cas"]
	if !ok {
		if m.config.CASRequired || k.casRequired {
			return failure(http.StatusBadRequest, "check-and-set parameter required for this call")
		}
		return nil
	}
	n, err := weakInt(cas)
	if err != nil {
		return failure(http.StatusBadRequest, "error parsing check-and-set parameter")
	}
	if n != k.current {
		return failure(http.StatusBadRequest, "check-and-set parameter did not match the current version")
	}
	return nil
}

// writeData implements kv: path_data.go, pathDataWrite.
func (m *mount) writeData(path string, fields map[string]json.RawMessage, now time.Time) *answer {
	var data map[string]any
	raw, ok := fields["data"]
	if !ok {
		return failure(http.StatusBadRequest, "no data provided")
	}
	if err := decode(raw, &data); err != nil {
		return failure(http.StatusBadRequest, `Field validation failed: error converting input for field "data"`)
	}
	k := &key{}
	if old := m.keys[path]; old != nil {
		k = old.clone()
	}
	if bad := m.checkCAS(fields, k); bad != nil {
		return bad
	}
	m.commit(path, k, data, now)
	a := &answer{data: k.describe(k.current)}
	a.warnings = unrecognized(fields, "data", "options", "version")
	return a
}

// commit adds a version to k, removes old versions beyond max_versions, and stores k (kv:
// path_data.go, AddVersion). The larger of the mount's and the key's max_versions applies.
func (m *mount) commit(path string, k *key, data map[string]any, now time.Time) {
	if k.versions == nil {
		k.versions = map[int]version{}
	}
	if k.created.IsZero() {
		k.created = now
	}
	k.current++
	k.updated = now
	k.versions[k.current] = version{data: data, created: now, deletion: m.deletion(k, now)}
	keep := max(m.config.MaxVersions, k.maxVersions)
	if keep == 0 {
		keep = defaultMaxVersions
	}
	if k.current-k.oldest >= keep {
		last := k.current - keep
		for n := k.oldest; n <= last; n++ {
			delete(k.versions, n)
		}
		k.oldest = last + 1
	}
	m.set(path, k, now)
}

// deletion returns the time at which a version created now is deleted automatically, or the zero
// Time if the version is kept forever (kv: delete_version_after.go). The smaller of the mount's and
// the key's delete_version_after applies, and 0 means no limit.
func (m *mount) deletion(k *key, now time.Time) time.Time {
	after := m.config.DeleteVersionAfter
	if k.deleteAfter != 0 && (after == 0 || k.deleteAfter < after) {
		after = k.deleteAfter
	}
	if after <= 0 {
		return time.Time{}
	}
	return now.Add(after)
}

// patchData implements kv: path_data.go, pathDataPatch. A patch obeys cas as a write does, and
// fails if the current version is deleted or destroyed.
func (m *mount) patchData(path string, fields map[string]json.RawMessage, now time.Time) *answer {
	var patch map[string]any
	if raw, ok := fields["data"]; !ok || decode(raw, &patch) != nil {
		return failure(http.StatusBadRequest, "no data provided")
	}
	old := m.keys[path]
	if old == nil {
		return failure(http.StatusNotFound)
	}
	k := old.clone()
	if bad := m.checkCAS(fields, k); bad != nil {
		return bad
	}
	v, ok := k.versions[k.current]
	if !ok {
		return failure(http.StatusNotFound)
	}
	if v.gone(now) {
		return &answer{status: http.StatusNotFound, data: k.describe(k.current)}
	}
	m.commit(path, k, mergePatch(v.data, patch), now)
	return &answer{data: k.describe(k.current)}
}

// deleteData marks the current version as deleted, and does not change the version counter (kv:
// path_data.go, pathDataDelete).
func (m *mount) deleteData(path string, now time.Time) *answer {
	old := m.keys[path]
	if old == nil {
		return &answer{}
	}
	if v, ok := old.versions[old.current]; ok && !v.gone(now) {
		k := old.clone()
		v.deletion = now.Add(-1) // in the past, so that the version is deleted even if the clock does not advance
		k.versions[k.current] = v
		m.set(path, k, now)
	}
	return &answer{}
}

// markVersions deletes, undeletes or destroys versions, depending on class (kv:
// path_delete.go, path_destroy.go).
func (m *mount) markVersions(class, path string, fields map[string]json.RawMessage, now time.Time) *answer {
	numbers, err := versionNumbers(fields["versions"])
	if err != nil {
		return failure(http.StatusBadRequest, `Field validation failed: error converting input for field "versions"`)
	}
	if len(numbers) == 0 {
		if class == "destroy" {
			return failure(http.StatusBadRequest, "no version number provided")
		}
		return failure(http.StatusBadRequest, "No version number provided")
	}
	old := m.keys[path]
	if old == nil {
		return &answer{}
	}
	k := old.clone()
	for _, n := range numbers {
		v, ok := k.versions[n]
		if !ok || v.destroyed {
			continue
		}
		switch {
		case class == "destroy":
			v.destroyed, v.data = true, nil
		case class == "undelete":
			v.deletion = m.deletion(k, now)
		case !v.gone(now):
			v.deletion = now.Add(-1)
		}
		k.versions[n] = v
	}
	m.set(path, k, now)
	return &answer{}
}

// readMetadata implements kv: path_metadata.go, pathMetadataRead.
func (m *mount) readMetadata(k *key) *answer {
	if k == nil {
		return failure(http.StatusNotFound)
	}
	versions := map[string]any{}
	for n, v := range k.versions {
		versions[strconv.Itoa(n)] = map[string]any{
			"created_time": stamp(v.created), "deletion_time": stamp(v.deletion), "destroyed": v.destroyed,
			"created_by": nil, "deleted_by": nil,
		}
	}
	return &answer{data: map[string]any{
		"versions": versions, "current_version": k.current, "oldest_version": k.oldest,
		"created_time": stamp(k.created), "updated_time": stamp(k.updated), "max_versions": k.maxVersions,
		"cas_required": k.casRequired, "delete_version_after": k.deleteAfter.String(), "custom_metadata": k.custom,
		"last_updated_by": nil,
	}}
}

// list returns the names and folders in a folder. A key and a folder may have the same name
// (kv: path_metadata.go, pathMetadataList). The answer for an empty list is a 404 (core:
// sdk/logical/response_util.go).
func (m *mount) list(path string, asOf time.Time) *answer {
	var found []string
	if m.past == nil {
		found = sorted(m.folders[path])
	} else {
		found = m.listPast(path, asOf)
	}
	if len(found) == 0 {
		return failure(http.StatusNotFound)
	}
	return &answer{data: map[string]any{"keys": found}}
}

func (m *mount) listPast(path string, asOf time.Time) []string {
	found := map[string]bool{}
	for name := range m.past {
		if rest, ok := strings.CutPrefix(name, path); ok && m.at(name, asOf) != nil {
			first, _, deeper := strings.Cut(rest, "/")
			if deeper {
				first += "/"
			}
			found[first] = true
		}
	}
	return sorted(found)
}

// writeMetadata implements kv: path_metadata.go, pathMetadataWrite. The server ignores cas, and
// unknown fields cause no warning. A request without a known field changes nothing. A new
// custom_metadata replaces the old value.
func (m *mount) writeMetadata(path string, fields map[string]json.RawMessage, now time.Time) *answer {
	k := &key{created: now, updated: now}
	if old := m.keys[path]; old != nil {
		k = old.clone()
	}
	known := false
	for _, name := range []string{"max_versions", "cas_required", "delete_version_after", "custom_metadata"} {
		raw, ok := fields[name]
		if !ok {
			continue
		}
		known = true
		if name != "custom_metadata" {
			if bad := k.setting(name, raw); bad != nil {
				return bad
			}
			continue
		}
		var custom map[string]any
		if err := decode(raw, &custom); err != nil {
			return failure(http.StatusBadRequest, `Field validation failed: error converting input for field "custom_metadata"`)
		}
		values, bad := customMetadata(custom, false)
		if bad != nil {
			return bad
		}
		k.custom = values
	}
	if known {
		m.set(path, k, now)
	}
	return &answer{}
}

// patchMetadata implements kv: path_metadata.go, pathMetadataPatch. The limits apply only to the
// keys in the patch, so a patch can add a 65th key.
func (m *mount) patchMetadata(path string, fields map[string]json.RawMessage, now time.Time) *answer {
	var custom map[string]any
	if raw, ok := fields["custom_metadata"]; ok {
		if err := decode(raw, &custom); err != nil {
			return failure(http.StatusBadRequest, `Field validation failed: error converting input for field "custom_metadata"`)
		}
	}
	values, bad := customMetadata(custom, true)
	if bad != nil {
		return bad
	}
	old := m.keys[path]
	if old == nil {
		return failure(http.StatusNotFound)
	}
	k := old.clone()
	for _, name := range []string{"max_versions", "cas_required", "delete_version_after"} {
		if raw, ok := fields[name]; ok {
			if bad := k.setting(name, raw); bad != nil {
				return bad
			}
		}
	}
	if custom != nil {
		merged := maps.Clone(k.custom)
		if merged == nil {
			merged = map[string]string{}
		}
		for name, value := range custom {
			if value == nil {
				delete(merged, name)
			} else {
				merged[name] = values[name]
			}
		}
		k.custom = merged
	}
	m.set(path, k, now)
	return &answer{}
}

func (k *key) setting(name string, raw json.RawMessage) *answer {
	var err error
	switch name {
	case "max_versions":
		var value any
		if err = decode(raw, &value); err == nil {
			k.maxVersions, err = weakInt(value)
		}
	case "cas_required":
		err = json.Unmarshal(raw, &k.casRequired)
	case "delete_version_after":
		k.deleteAfter, err = duration(raw)
	}
	if err != nil {
		return failure(http.StatusBadRequest, fmt.Sprintf("Field validation failed: error converting input for field %q", name))
	}
	return nil
}

// writeConfig implements kv: path_config.go.
func (m *mount) writeConfig(fields map[string]json.RawMessage) *answer {
	c := &key{maxVersions: m.config.MaxVersions, casRequired: m.config.CASRequired, deleteAfter: m.config.DeleteVersionAfter}
	for _, name := range []string{"max_versions", "cas_required", "delete_version_after"} {
		if raw, ok := fields[name]; ok {
			if bad := c.setting(name, raw); bad != nil {
				return bad
			}
		}
	}
	m.config = Config{MaxVersions: c.maxVersions, CASRequired: c.casRequired, DeleteVersionAfter: c.deleteAfter}
	return &answer{}
}

// customMetadata checks custom metadata, and returns the values as text (kv: path_metadata.go,
// parseCustomMetadata and validateCustomMetadata). Objects and arrays are errors. Null becomes
// "", or is omitted if skipNull is set.
func customMetadata(raw map[string]any, skipNull bool) (map[string]string, *answer) {
	const prefix = "custom_metadata validation failed: "
	values := map[string]string{}
	for name, value := range raw {
		switch v := value.(type) {
		case nil:
			if !skipNull {
				values[name] = ""
			}
		case string:
			values[name] = v
		case json.Number:
			values[name] = v.String()
		case bool:
			values[name] = map[bool]string{true: "1", false: "0"}[v]
		default:
			return nil, failure(http.StatusBadRequest, fmt.Sprintf("%s'' expected type 'string', got unconvertible type '%T'", prefix, value))
		}
	}
	if len(values) > maxCustomKeys {
		return nil, failure(http.StatusBadRequest, fmt.Sprintf(
			"1 error occurred:\n\t* %spayload must contain at most %d keys, provided %d\n\n", prefix, maxCustomKeys, len(values)))
	}
	var wrong []string
	for _, name := range sorted(values) {
		value := values[name]
		if len(name) == 0 || len(name) > maxCustomKey {
			wrong = append(wrong, fmt.Sprintf("%slength of key %q is %d but must be 0 < len(key) <= %d", prefix, name, len(name), maxCustomKey))
		}
		if len(value) == 0 || len(value) > maxCustomValue {
			wrong = append(wrong, fmt.Sprintf("%slength of value for key %q is %d but must be 0 < len(value) <= %d",
				prefix, name, len(value), maxCustomValue))
		}
		if !printable(name) {
			wrong = append(wrong, fmt.Sprintf("%skey %q (%s) contains unprintable characters", prefix, name, name))
		}
		if !printable(value) {
			wrong = append(wrong, fmt.Sprintf("%svalue for key %q contains unprintable characters", prefix, name))
		}
	}
	switch len(wrong) {
	case 0:
		return values, nil
	case 1:
		return nil, failure(http.StatusBadRequest, "1 error occurred:\n\t* "+wrong[0]+"\n\n")
	}
	return nil, failure(http.StatusBadRequest, fmt.Sprintf("%d errors occurred:\n\t* %s\n\n", len(wrong), strings.Join(wrong, "\n\t* ")))
}

// unrecognized returns a warning about the fields that are not in known, or nil (core:
// sdk/framework/backend.go). Only responses with a body contain warnings.
func unrecognized(fields map[string]json.RawMessage, known ...string) []string {
	var ignored []string
	for _, name := range sorted(fields) {
		if !slices.Contains(known, name) {
			ignored = append(ignored, name)
		}
	}
	if ignored == nil {
		return nil
	}
	return []string{fmt.Sprintf("Endpoint ignored these unrecognized parameters: %v", ignored)}
}

// mergePatch implements RFC 7396.
func mergePatch(target, patch map[string]any) map[string]any {
	merged := maps.Clone(target)
	if merged == nil {
		merged = map[string]any{}
	}
	for name, value := range patch {
		switch v := value.(type) {
		case nil:
			delete(merged, name)
		case map[string]any:
			under, _ := merged[name].(map[string]any)
			merged[name] = mergePatch(under, v)
		default:
			merged[name] = v
		}
	}
	return merged
}

// versionNumbers decodes a number, a string of numbers joined by commas, or a list in which each
// element is a number or a string with one number.
func versionNumbers(raw json.RawMessage) ([]int, error) {
	if raw == nil {
		return nil, nil
	}
	var value any
	if err := decode(raw, &value); err != nil {
		return nil, err
	}
	var items []any
	switch v := value.(type) {
	case []any:
		items = v
	case string:
		for _, item := range strings.Split(v, ",") {
			items = append(items, item)
		}
	default:
		items = []any{v}
	}
	var numbers []int
	for _, item := range items {
		n, err := weakInt(item)
		if err != nil {
			return nil, err
		}
		numbers = append(numbers, n)
	}
	return numbers, nil
}

// weakInt converts a value to a number as mapstructure's WeakDecode does.
func weakInt(value any) (int, error) {
	switch v := value.(type) {
	case nil:
		return 0, nil
	case bool:
		return map[bool]int{true: 1}[v], nil
	case json.Number:
		return strconv.Atoi(v.String())
	case string:
		if v == "" {
			return 0, nil
		}
		n, err := strconv.ParseInt(v, 0, 0)
		return int(n), err
	}
	return 0, errors.New("not a number")
}

// duration decodes a number of seconds or a string such as "3h".
func duration(raw json.RawMessage) (time.Duration, error) {
	text := strings.Trim(string(raw), `"`)
	if seconds, err := strconv.Atoi(text); err == nil {
		return time.Duration(seconds) * time.Second, nil
	}
	return time.ParseDuration(text)
}

// decode unmarshals one JSON value, and keeps the literals of numbers.
func decode(raw []byte, out any) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if err := d.Decode(out); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one value")
	}
	return nil
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// printable implements strutil.Printable of go-secure-stdlib.
func printable(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0
}
