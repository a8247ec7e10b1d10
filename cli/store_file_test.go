package cli

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/tokenkeep/tokenkeep/cli/internal/files"
)

// TestExportTarget checks that export does not replace a target that is not a regular file.
func TestExportTarget(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("links need a privilege")
	}
	e := fileStoreEnv(t)
	e.ok(t, `{"user_name":"ann","refresh_token":"s3cret"}`, "save")
	dir := t.TempDir()
	file, link, dangling := filepath.Join(dir, "file"), filepath.Join(dir, "link"), filepath.Join(dir, "dangling")
	for _, err := range []error{os.WriteFile(file, []byte("precious"), 0o600), os.Symlink(file, link), os.Symlink(file+"2", dangling)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for target, want := range map[string]string{os.DevNull: "not a regular file", dir: "not a regular file", link: "symbolic link", dangling: "symbolic link"} {
		for _, flags := range [][]string{nil, {"--force"}} {
			text := e.fails(t, 2, "", append([]string{"export", target}, flags...)...)
			if !strings.Contains(text, want) || strings.Contains(text, "--force") {
				t.Errorf("export %s %v: %s", target, flags, text)
			}
		}
	}
	if got := readFile(t, link); got != "precious" {
		t.Errorf("the file holds %q", got)
	}
	if info, err := os.Lstat(os.DevNull); err != nil || info.Mode()&os.ModeDevice == 0 {
		t.Errorf("%s is %v, %v", os.DevNull, info.Mode(), err)
	}
	if files.Exists(file + "2") {
		t.Error("a file was made through a link")
	}
}
