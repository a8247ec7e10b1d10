package deploy

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"sigs.k8s.io/yaml"
)

// A release is the part of .goreleaser.yaml with which other files must agree.
type release struct {
	Builds []struct {
		Main   string
		Goos   []string
		Goarch []string
		Flags  []string
	}
	Archives []struct{ Files []struct{ Src string } }
	Nfpms    []struct{ Contents []struct{ Src string } }
	Images   []struct {
		Images    []string
		Platforms []string
	} `json:"dockers_v2"`
}

func readRelease(t *testing.T) (r release) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", ".goreleaser.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// TestRelease checks the platforms and flags of the build, and the existence of the files that
// a release needs. "make release-check" checks the syntax of .goreleaser.yaml.
func TestRelease(t *testing.T) {
	t.Parallel()
	r := readRelease(t)
	b := r.Builds[0]
	if !slices.Equal(b.Goos, []string{"linux", "darwin", "windows"}) || !slices.Equal(b.Goarch, []string{"amd64", "arm64"}) {
		t.Errorf("the program is built for %v on %v", b.Goos, b.Goarch)
	}
	// Without -trimpath, the binary depends on the path of the folder. Without -buildvcs=true, a
	// build without Git succeeds, and the binary does not contain its version.
	if !slices.Equal(b.Flags, []string{"-trimpath", "-buildvcs=true"}) {
		t.Errorf("the program is built with %q", b.Flags)
	}
	needed := []string{b.Main, "Dockerfile"}
	for _, f := range r.Archives[0].Files {
		needed = append(needed, f.Src)
	}
	for _, f := range r.Nfpms[0].Contents {
		needed = append(needed, f.Src)
	}
	for _, name := range needed {
		if strings.HasPrefix(name, "build/") {
			continue // internal/release/pages.sh writes this file
		}
		if _, err := os.Stat(filepath.Join("..", name)); err != nil || name == "" {
			t.Errorf("a release needs %q: %v", name, err)
		}
	}
}

// TestImageName checks that the chart and docs/installing.md name the image that a release
// pushes, and that the base image is pinned.
func TestImageName(t *testing.T) {
	t.Parallel()
	i := readRelease(t).Images[0]
	if !slices.Equal(i.Platforms, []string{"linux/amd64", "linux/arm64"}) || len(i.Images) != 1 {
		t.Fatalf("images %v on %v", i.Images, i.Platforms)
	}
	c, err := loader.Load(chart)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Values["image"].(map[string]any)["repository"]; got != i.Images[0] {
		t.Errorf("the chart runs %v, and a release pushes %s", got, i.Images[0])
	}
	page, err := os.ReadFile(filepath.Join("..", "docs", "installing.md"))
	if err != nil || !strings.Contains(string(page), i.Images[0]+":VERSION") {
		t.Errorf("docs/installing.md does not name %s: %v", i.Images[0], err)
	}
	text, err := os.ReadFile(filepath.Join("..", "Dockerfile"))
	if err != nil || !regexp.MustCompile(`(?m)^ARG BASE=\S+@sha256:[0-9a-f]{64}$`).Match(text) {
		t.Errorf("the base of the image is not pinned: %v", err)
	}
}
