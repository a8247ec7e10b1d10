package filestore_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/filestore"
)

const (
	header = "id,user_name,client_id,client_secret,refresh_token,access_token,grant_token,expiry_time,redirect_uri,api_domain\r\n"
	annRow = "1,ann,c1,canary-s,canary-r,canary-a,,1767225600000,,https://www.zohoapis.com\r\n"
	bobRow = "2,bob,c1,canary-t,canary-q,canary-b,,1767225600000,,https://www.zohoapis.com\r\n"
)

// allMethods calls every method of a TokenStore for Ann's record, and returns the errors by
// method.
func allMethods(t *testing.T, s *filestore.Store) map[string]error {
	t.Helper()
	ctx := t.Context()
	errs := map[string]error{}
	_, errs["FindToken"] = s.FindToken(ctx, token{UserName: "ann", ClientID: "c1"})
	_, errs["FindTokenByID"] = s.FindTokenByID(ctx, "1")
	_, errs["SaveToken"] = s.SaveToken(ctx, token{UserName: "ann", ClientID: "c1", AccessToken: "canary-n"})
	errs["DeleteToken"] = s.DeleteToken(ctx, "1")
	_, errs["GetTokens"] = s.GetTokens(ctx)
	errs["DeleteTokens"] = s.DeleteTokens(ctx)
	return errs
}

// isClass fails the test unless err matches class, is a *tokenstore.Error of a filestore, and
// quotes no secret.
func isClass(t *testing.T, what string, err, class error) {
	t.Helper()
	var e *tokenstore.Error
	if !errors.Is(err, class) || !errors.As(err, &e) || e.Store != "filestore" {
		t.Errorf("%s: error %v, want %v", what, err, class)
	}
	if text := fmt.Sprintf("%v %+v %q", err, err, err); strings.Contains(text, "canary") {
		t.Errorf("%s: the error quotes the file: %s", what, text)
	}
}

func TestCorruptFile(t *testing.T) {
	t.Parallel()
	for what, data := range map[string]string{
		"text":                         "canary",
		"a line of text":               "canary\r\n",
		"bytes":                        "\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR canary",
		"JSON":                         `{"refresh_token":"canary"}`,
		"a row of few columns":         header + "1,ann,c1,canary-s\r\n",
		"a last row of few columns":    header + annRow + "2,bob,c1,canary-t\r\n",
		"a row of many columns":        header + strings.Replace(annRow, ",c1,", ",c1,canary,", 1),
		"a quote that is never closed": header + strings.Replace(annRow, "ann", `"ann`, 1),
		"text after a quoted field":    header + strings.Replace(annRow, "ann", `"ann"canary`, 1) + bobRow,
		"columns in another order":     strings.Replace(header, "id,user_name", "user_name,id", 1) + annRow,
		"two headers":                  header + annRow + header + bobRow,
		"the end cut off":              header + annRow + bobRow[:len(bobRow)-12],
	} {
		path := place(t, []byte(data))
		for method, err := range allMethods(t, open(t, path, nil)) {
			isClass(t, what+", "+method, err, tokenstore.ErrCorrupt)
		}
		if got := content(t, path); string(got) != data {
			t.Errorf("%s: the file was changed to %q", what, got)
		}
	}
}

func TestTruncatedFileRead(t *testing.T) {
	t.Parallel()
	for _, f := range sdkFiles {
		whole, all := testdata(t, f.file), sdkTokens(t, f.file)
		slices.SortFunc(all, func(a, b token) int {
			return bytes.Index(whole, []byte(a.RefreshToken)) - bytes.Index(whole, []byte(b.RefreshToken))
		})
		path := place(t, nil)
		s := open(t, path, nil)
		for n := 1; n < len(whole); n++ {
			if err := os.WriteFile(path, whole[:n], 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := s.GetTokens(t.Context())
			if err != nil {
				isClass(t, fmt.Sprintf("%s, the first %d bytes", f.file, n), err, tokenstore.ErrCorrupt)
				continue
			}
			// Each record that a successful read returns must be complete.
			slices.SortFunc(got, func(a, b token) int {
				return bytes.Index(whole, []byte(a.RefreshToken)) - bytes.Index(whole, []byte(b.RefreshToken))
			})
			for i, g := range got {
				w := all[i]
				if last := i == len(got)-1; last && f.dialect == codec.Node {
					// The file of this SDK does not end with a line break, so a truncated last field
					// is not detectable.
					g.APIDomain, w.APIDomain = "", ""
				}
				if g != w {
					t.Errorf("%s: of the first %d bytes record %s is read, and it is not whole", f.file, n, g.ID)
				}
			}
			// Some SDKs leave a file that consists only of a header of nine or ten names. Such a
			// file is not truncated, even though it has no line break.
			names := bytes.HasSuffix(whole[:n], []byte(",redirect_uri")) || bytes.HasSuffix(whole[:n], []byte(",api_domain"))
			if f.dialect == codec.Python && whole[n-1] != '\n' && whole[n-1] != '\r' && !names {
				t.Errorf("%s: the first %d bytes end in the middle of a line, and are read", f.file, n)
			}
		}
	}
}

func TestTruncatedFileUnchanged(t *testing.T) {
	t.Parallel()
	whole := testdata(t, "python_filestore.csv")
	path := place(t, nil)
	s := open(t, path, nil)
	for n := 1; n < len(whole); n += 97 {
		if whole[n-1] == '\n' || whole[n-1] == '\r' {
			continue
		}
		if err := os.WriteFile(path, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		for method, err := range allMethods(t, s) {
			isClass(t, fmt.Sprintf("the first %d bytes, %s", n, method), err, tokenstore.ErrCorrupt)
		}
		if !bytes.Equal(content(t, path), whole[:n]) {
			t.Errorf("the first %d bytes were changed", n)
		}
	}
}

func TestDamagedRow(t *testing.T) {
	t.Parallel()
	for what, row := range map[string]string{
		"an expiry that is no number":    strings.Replace(annRow, "1767225600000", "canary", 1),
		"an expiry that is too large":    strings.Replace(annRow, "1767225600000", "99999999999999999999", 1),
		"an expiry after the year 9999":  strings.Replace(annRow, "1767225600000", "253402300800000", 1),
		"a negative expiry":              strings.Replace(annRow, "1767225600000", "-1", 1),
		"invalid UTF-8 in a token":       strings.Replace(annRow, "canary-r", "canary-\xff", 1),
		"invalid UTF-8 in an API domain": strings.Replace(annRow, "zohoapis", "\xc3", 1),
	} {
		data := header + row + bobRow
		path := place(t, []byte(data))
		s := open(t, path, nil)
		for method, err := range allMethodsButDeleteTokens(t, s) {
			isClass(t, what+", "+method, err, tokenstore.ErrCorrupt)
		}
		if got := content(t, path); string(got) != data {
			t.Errorf("%s: the file was changed to %q", what, got)
		}
		if got, err := s.FindToken(t.Context(), token{UserName: "bob", ClientID: "c1"}); err != nil || got.ID != "2" {
			t.Errorf("%s: Bob's record: %+v, error %v", what, got, err)
		}
		got, err := s.GetTokens(t.Context())
		isClass(t, what, err, tokenstore.ErrCorrupt)
		if len(got) != 1 || got[0].ID != "2" {
			t.Errorf("%s: the others are %+v", what, got)
		}
		if _, err := s.SaveToken(t.Context(), token{UserName: "bob", ClientID: "c1", AccessToken: "new"}); err != nil {
			t.Errorf("%s: Bob's record is not saved: %v", what, err)
		}
		if !bytes.Contains(content(t, path), []byte(row)) {
			t.Errorf("%s: the damaged row was changed by another one's save", what)
		}
		isClass(t, what+", DeleteTokens", s.DeleteTokens(t.Context()), tokenstore.ErrCorrupt)
		if got := content(t, path); string(got) != header+row {
			t.Errorf("%s: DeleteTokens left %q", what, got)
		}
	}
}

func allMethodsButDeleteTokens(t *testing.T, s *filestore.Store) map[string]error {
	t.Helper()
	errs := map[string]error{}
	_, errs["FindToken"] = s.FindToken(t.Context(), token{UserName: "ann", ClientID: "c1"})
	_, errs["FindTokenByID"] = s.FindTokenByID(t.Context(), "1")
	_, errs["SaveToken"] = s.SaveToken(t.Context(), token{UserName: "ann", ClientID: "c1", AccessToken: "canary-n"})
	errs["DeleteToken"] = s.DeleteToken(t.Context(), "1")
	return errs
}

func TestEmptyFile(t *testing.T) {
	t.Parallel()
	for what, data := range map[string]string{"no bytes": "", "a header": header, "a byte order mark": "\ufeff", "blank lines": "\r\n\r\n"} {
		path := place(t, []byte(data))
		s := open(t, path, nil)
		holds(t, what, s, nil)
		saved, err := s.SaveToken(t.Context(), token{UserName: "ann", RefreshToken: "r"})
		if err != nil || saved.ID != "1" {
			t.Errorf("%s: saved as %+v, error %v", what, saved, err)
		}
		holds(t, what+" and a record", s, []token{saved})
		if !strings.HasPrefix(string(content(t, path)), "id,") {
			t.Errorf("%s: the file has no header: %q", what, content(t, path))
		}
	}
}

func TestWhatIsNoFileIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	loop := filepath.Join(dir, "loop")
	if err := os.Symlink(loop, loop); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(dir, "missing", "tokens")
	linked := filepath.Join(dir, "linked")
	if err := os.Symlink(missing, linked); err != nil {
		t.Fatal(err)
	}
	paths := map[string]string{
		"a directory": dir, "a path below a file": filepath.Join(file, "tokens"), "a link to itself": loop,
		"a file in no directory": missing, "a link into no directory": linked,
	}
	if runtime.GOOS != "windows" {
		paths["a device"] = os.DevNull
	}
	for what, path := range paths {
		for method, err := range allMethods(t, open(t, path, nil)) {
			isClass(t, what+", "+method, err, tokenstore.ErrRefused)
			if strings.HasSuffix(what, "no directory") && !strings.Contains(err.Error(), "there is no directory "+filepath.Dir(missing)+": create it") {
				t.Errorf("%s, %s: %v does not say what to do", what, method, err)
			}
		}
		_, err := open(t, path, nil).SaveAll(t.Context(), []token{{UserName: "ann", RefreshToken: "canary"}})
		isClass(t, what+", SaveAll", err, tokenstore.ErrRefused)
		if _, err := os.Lstat(path + ".lock"); err == nil {
			t.Errorf("%s: a lock file was made", what)
		}
	}
	if _, err := os.Stat(filepath.Dir(missing)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory was made: error %v", err)
	}
}

func TestSaveUnreadableRecord(t *testing.T) {
	t.Parallel()
	data := testdata(t, "node_filestore.txt")
	path := place(t, data)
	s := open(t, path, nil)
	for what, given := range map[string]token{
		"a comma in a user's name": {UserName: "o'neil, sean", RefreshToken: "canary"},
		"a control character":      {UserName: "ann", RefreshToken: "canary\n"},
		"invalid UTF-8":            {UserName: "ann", RefreshToken: "canary\xff"},
		"the text null":            {UserName: "ann", RefreshToken: "null"},
		"an ID that is no number":  {ID: "python_ann_PRODUCTION", UserName: "ann", RefreshToken: "canary"},
		"an ID of 10,000 bytes":    {ID: strings.Repeat("1", 10_000), UserName: "ann", RefreshToken: "canary"},
		"an ID like a derived one": {ID: "u" + strings.Repeat("a", 32), UserName: "ann", RefreshToken: "canary"},
		"a redacted secret":        {UserName: "ann", RefreshToken: "[redacted]"},
	} {
		_, err := s.SaveToken(t.Context(), given)
		isClass(t, what, err, tokenstore.ErrInvalidToken)
	}
	big := tokenstore.Secret(strings.Repeat("x", 30<<10))
	_, err := s.SaveToken(t.Context(), token{UserName: "ann", RefreshToken: big, AccessToken: big, GrantToken: big})
	isClass(t, "a record that is too large", err, tokenstore.ErrTooLarge)
	if !bytes.Equal(content(t, path), data) {
		t.Error("the file was changed")
	}
}

func TestFileMode(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	fresh := filepath.Join(dir, "fresh")
	wide := filepath.Join(dir, "wide")
	if err := os.WriteFile(wide, []byte(header+bobRow), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{fresh, wide} {
		if _, err := open(t, path, nil).SaveToken(t.Context(), token{UserName: "ann", RefreshToken: "r"}); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{path, path + ".lock"} {
			info, err := os.Stat(name)
			if err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%s has mode %v, error %v, want 0600", filepath.Base(name), info.Mode().Perm(), err)
			}
		}
	}
}

func TestSymlink(t *testing.T) {
	t.Parallel()
	path := place(t, []byte(header+bobRow))
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, link, nil).SaveToken(t.Context(), token{UserName: "ann", RefreshToken: "r"}); err != nil {
		t.Fatal(err)
	}
	if target, err := os.Readlink(link); err != nil || target != path {
		t.Errorf("the link leads to %q, error %v", target, err)
	}
	if got, err := open(t, path, nil).GetTokens(t.Context()); err != nil || len(got) != 2 {
		t.Errorf("%d records, error %v, want 2", len(got), err)
	}
}

// TestFilePermissionDenied checks that methods that lack a permission fail with ErrDenied and
// leave the file unchanged. File modes do not apply to root, so under root the test runs itself
// again as another user.
func TestFilePermissionDenied(t *testing.T) {
	if os.Geteuid() == 0 {
		cmd := helper(t, "TestFilePermissionDenied")
		if !asNobody(t, cmd) {
			t.Skip("modes do not bind root, and there is no way to become another user on this system")
		}
		if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("PASS")) {
			t.Errorf("as another user: %v\n%s", err, out)
		}
		return
	}
	data := []byte(header + annRow + bobRow)
	for _, c := range []struct {
		what      string
		file, dir fs.FileMode
		readable  bool
	}{
		{"a file that may not be written", 0o400, 0o700, true},
		{"a directory that may not be written", 0o600, 0o500, true},
		{"a file that may not be read", 0o200, 0o700, false},
		{"a directory that may not be searched", 0o600, 0o600, false},
	} {
		path := place(t, data)
		dir := filepath.Dir(path)
		chmod(t, path, c.file)
		chmod(t, dir, c.dir)
		s := open(t, path, nil)
		errs := allMethods(t, s)
		got, readErr := s.FindTokenByID(t.Context(), "2")
		chmod(t, dir, 0o700)
		chmod(t, path, 0o600)
		for method, err := range errs {
			if reads := method == "FindToken" || method == "FindTokenByID" || method == "GetTokens"; reads && c.readable {
				if err != nil {
					t.Errorf("%s, %s: %v", c.what, method, err)
				}
				continue
			}
			isClass(t, c.what+", "+method, err, tokenstore.ErrDenied)
		}
		if c.readable && (readErr != nil || got.UserName != "bob") {
			t.Errorf("%s: Bob's record: error %v", c.what, readErr)
		}
		if !bytes.Equal(content(t, path), data) {
			t.Errorf("%s: the file was changed", c.what)
		}
		if left, err := filepath.Glob(path + ".writing"); err != nil || len(left) > 0 {
			t.Errorf("%s: %v is left", c.what, left)
		}
	}
}

func chmod(t *testing.T, path string, mode fs.FileMode) {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func helper(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "-test.run=^"+name+"$", "-test.count=1")
	cmd.Env = append(os.Environ(), helperArgs+"="+strings.Join(args, "\n"))
	return cmd
}

const helperArgs = "TOKENKEEP_FILESTORE_HELPER"
