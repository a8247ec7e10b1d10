package tokenkeep_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// workflows returns the text of each workflow and composite action by path.
func workflows(t *testing.T) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(".github", func(path string, entry fs.DirEntry, err error) error {
		if ext := filepath.Ext(path); err != nil || entry.IsDir() || ext != ".yml" && ext != ".yaml" {
			return err
		}
		text, err := os.ReadFile(path)
		files[filepath.ToSlash(path)] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatal("no workflow was found")
	}
	return files
}

var (
	// use matches each action, reusable workflow or image that a workflow uses.
	use = regexp.MustCompile(`(?m)^[\s-]*["']?uses["']?\s*:\s*(.*)$`)

	// pinned matches the name of an action with a full commit, and the version in a comment.
	pinned = regexp.MustCompile(`^[\w.-]+(/[\w.-]+)+@[0-9a-f]{40} # v\d+(\.\d+)*$`)

	// local matches the path of an action in this repository.
	local = regexp.MustCompile(`^\./[\w./-]+$`)

	// image matches a key that names the image of a job or of a service. The tag of an image
	// can move.
	image = regexp.MustCompile(`(?m)^[\s-]*(container|image)\s*:`)

	// grant matches a permission to write that a workflow or a job grants to its token.
	grant    = regexp.MustCompile(`(?m)^\s+([a-z-]+): (write|admin)\b`)
	grantAll = regexp.MustCompile(`(?m)permissions:\s*(read|write)-all`)
)

// unpinned returns the actions in text that are not pinned by a full commit with a version, and the
// keys of images. The code of these actions and images can change even though the workflow does
// not.
func unpinned(text string) (names []string) {
	for _, m := range use.FindAllStringSubmatch(text, -1) {
		if name := strings.TrimSpace(m[1]); !pinned.MatchString(name) && !local.MatchString(name) {
			names = append(names, name)
		}
	}
	for _, m := range image.FindAllString(text, -1) {
		names = append(names, strings.TrimSpace(m))
	}
	return names
}

// TestWorkflowsPinActions checks that workflows pin their actions, so that a moved tag cannot
// run other code in a job with credentials. It also checks that no checkout keeps its
// credentials in the work tree.
func TestWorkflowsPinActions(t *testing.T) {
	t.Parallel()
	for path, text := range workflows(t) {
		for _, name := range unpinned(text) {
			t.Errorf("%s: %q is not pinned by commit, with its version in a comment", path, name)
		}
		if checkouts := strings.Count(text, "uses: actions/checkout@"); checkouts != strings.Count(text, "persist-credentials: false") {
			t.Errorf("%s: a checkout leaves its token in the work tree", path)
		}
	}
}

func TestUnpinnedActionsAreFound(t *testing.T) {
	t.Parallel()
	const commit = "11bd71901bbe5b1630ceea73d27597364c9af683"
	for text, found := range map[string]bool{
		"      - uses: actions/checkout@" + commit + " # v4.2.2": false,
		"      - uses: ./.github/actions/setup":                  false,
		"      - uses: actions/checkout@v4":                      true,
		"      - uses: actions/checkout@" + commit:               true,
		"      - uses: actions/checkout@11bd719 # v4.2.2":        true,
		"      - uses: actions/checkout@main":                    true,
		"      - name: x\n        uses: a/b@v1":                  true,
		"      - \"uses\": a/b@v1":                               true,
		"      - uses: docker://alpine:3":                        true,
		"    container: golang:1.26":                             true,
	} {
		if got := len(unpinned(text)) > 0; got != found {
			t.Errorf("%q: found is %v, want %v", text, got, found)
		}
	}
}

// granted maps a workflow to the write permissions that its jobs need besides id-token.
var granted = map[string][]string{
	".github/workflows/codeql.yml":    {"security-events"},
	".github/workflows/release.yml":   {"attestations", "contents", "packages"},
	".github/workflows/scorecard.yml": {"security-events"},
}

// TestWorkflowsMayOnlyRead checks that the tokens of jobs may only read, apart from the
// permissions in granted.
func TestWorkflowsMayOnlyRead(t *testing.T) {
	t.Parallel()
	for path, text := range workflows(t) {
		if !strings.HasPrefix(path, ".github/workflows/") {
			continue
		}
		if !strings.Contains(text, "\npermissions:\n  contents: read\n\n") {
			t.Errorf("%s: the permissions at the top are not exactly contents: read", path)
		}
		if all := grantAll.FindString(text); all != "" {
			t.Errorf("%s: %q grants every permission at once", path, strings.TrimSpace(all))
		}
		if strings.Contains(text, "pull_request_target") {
			t.Errorf("%s: pull_request_target runs what a fork sent, with this repository's secrets", path)
		}
		for _, m := range grant.FindAllStringSubmatch(text, -1) {
			if m[1] != "id-token" && !slices.Contains(granted[path], m[1]) {
				t.Errorf("%s: %q is more than a job needs", path, strings.TrimSpace(m[0]))
			}
		}
	}
}

// TestNightlyKeepsFigures checks that the nightly jobs with real accounts measure the services,
// and keep the figures for 90 days.
func TestNightlyKeepsFigures(t *testing.T) {
	t.Parallel()
	text := workflows(t)[".github/workflows/nightly.yml"]
	for _, name := range []string{"awssm", "gcpsm"} {
		for _, want := range []string{
			"doctor --races --yes --timeout 30m --json --svg figures/" + name + ".svg > figures/" + name + ".json\n",
			"          name: races-" + name + "\n          path: figures\n          retention-days: 90\n",
		} {
			if !strings.Contains(text, want) {
				t.Errorf("nightly.yml does not have %q", want)
			}
		}
	}
}
