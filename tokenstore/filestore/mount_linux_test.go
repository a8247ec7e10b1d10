package filestore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/conformance"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/doctor"
)

// inNamespace runs the test again in a new process. The new process can mount files, because it
// is root in a separate user and mount namespace. inNamespace returns true in the new process.
func inNamespace(t *testing.T) bool {
	t.Helper()
	const env = "TOKENKEEP_FILESTORE_MOUNTS"
	if os.Getenv(env) != "" {
		return true
	}
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.count=1", "-test.v")
	cmd.Env = append(os.Environ(), env+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Skipf("no process may have namespaces of its own here: %v", err)
	}
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if bytes.Contains(out, []byte("--- SKIP: "+t.Name())) {
		t.Skipf("%s", out)
	}
	return false
}

func mount(t testing.TB, from, to string, flags uintptr) {
	t.Helper()
	err := syscall.Mount(from, to, "", syscall.MS_BIND, "")
	if errors.Is(err, syscall.EPERM) {
		t.Skipf("nothing can be mounted here: %v", err)
	}
	if err == nil && flags != 0 {
		err = syscall.Mount("", to, "", syscall.MS_BIND|syscall.MS_REMOUNT|flags, "")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(to, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

// container mounts file, without its directory, in a new directory, and returns the path of the
// mount.
func container(t testing.TB, file string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "with blank\\and", "sdk_tokens.txt")
	if err := errors.Join(os.Mkdir(filepath.Dir(path), 0o700), os.WriteFile(path, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	mount(t, file, path, 0)
	return path
}

// hostFile creates a token file with two records, as an SDK writes it, and returns its path.
func hostFile(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sdk_tokens.txt")
	rows := "id,user_name,client_id,client_secret,refresh_token,access_token,grant_token,expiry_time,redirect_url,api_domain\n" +
		"1,ann,c,s,refresh1,access1,,1767225600000,,https://www.zohoapis.com\n2,bob,c,s,refresh2,access2,,1767225600000,,https://www.zohoapis.com"
	if err := os.WriteFile(path, []byte(rows), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func openAt(t testing.TB, path string) *Store {
	t.Helper()
	s, err := New(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func users(t testing.TB, path string) string {
	t.Helper()
	tokens, err := openAt(t, path).GetTokens(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, token := range tokens {
		all = append(all, token.UserName+"="+string(token.AccessToken))
	}
	return strings.Join(all, " ")
}

// TestMountedFile checks that a store writes a mounted file in place, and that a program outside
// the mount sees the changes.
func TestMountedFile(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	for name, dir := range map[string]uintptr{"directory": 0, "read-only directory": syscall.MS_RDONLY} {
		t.Run(name, func(t *testing.T) {
			file := hostFile(t)
			path := container(t, file)
			if dir != 0 {
				mount(t, filepath.Dir(path), filepath.Dir(path), dir)
				mount(t, file, path, 0)
			}
			before, err := os.Stat(file)
			if err != nil {
				t.Fatal(err)
			}
			s := openAt(t, path)
			for _, step := range []struct {
				do   func() error
				want string
			}{
				{func() error { return save(t, s, "ann", strings.Repeat("x", 9000)) }, "ann=" + strings.Repeat("x", 9000) + " bob=access2"},
				{func() error { return save(t, s, "ann", "b") }, "ann=b bob=access2"},
				{func() error { return save(t, s, "cid", "c") }, "ann=b bob=access2 cid=c"},
				{func() error { return s.DeleteToken(t.Context(), "2") }, "ann=b cid=c"},
				{func() error { return s.DeleteTokens(t.Context()) }, ""},
			} {
				if err := step.do(); err != nil {
					t.Fatal(err)
				}
				if got := users(t, file); got != step.want {
					t.Errorf("the file has %.60q, want %.60q", got, step.want)
				}
			}
			if now, err := os.Stat(file); err != nil || !os.SameFile(now, before) {
				t.Errorf("the file is another, %v", err)
			}
			for _, suffix := range []string{".writing", copySuffix} {
				if _, err := os.Lstat(path + suffix); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%s is left, %v", suffix, err)
				}
			}
		})
	}
}

func save(t *testing.T, s *Store, user, access string) error {
	t.Helper()
	_, err := s.SaveToken(t.Context(), tokenstore.Token{UserName: user, ClientID: "c", AccessToken: tokenstore.Secret(access)})
	return err
}

// TestMountedReadOnly checks that a store reads a file that is mounted read-only, and that
// writes fail with ErrRefused.
func TestMountedReadOnly(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	file := hostFile(t)
	path := container(t, file)
	mount(t, file, path, syscall.MS_RDONLY)
	s := openAt(t, path)
	if got := users(t, path); got != "ann=access1 bob=access2" {
		t.Errorf("the file has %q", got)
	}
	if err := save(t, s, "ann", "b"); !errors.Is(err, tokenstore.ErrRefused) || !strings.Contains(err.Error(), "mounted for writing") {
		t.Errorf("SaveToken returned error %v, want %q", err, tokenstore.ErrRefused)
	}
	if got := found(t, s, nil); got != "file-mounted!" {
		t.Errorf("Check finds %q", got)
	}
}

// found returns the kinds of the findings of Check. A repaired finding has the suffix " repaired",
// and a finding with an error the suffix "!".
func found(t *testing.T, s *Store, o *doctor.CheckOptions) string {
	t.Helper()
	var kinds []string
	for f, err := range s.Check(t.Context(), o) {
		if err != nil {
			t.Fatal(err)
		}
		kind := string(f.Kind)
		if f.Repaired {
			kind += " repaired"
		}
		if f.Err != nil {
			kind += "!"
		}
		kinds = append(kinds, kind)
	}
	return strings.Join(kinds, " ")
}

// TestMountedFileAfterACrash checks that a store reads and completes, from the copy, a file that
// a killed process left partial.
func TestMountedFileAfterACrash(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	for name, next := range map[string]func(t *testing.T, s *Store) error{
		"the next save": func(t *testing.T, s *Store) error { return save(t, s, "ann", "access3") },
		"doctor": func(t *testing.T, s *Store) error {
			if got := found(t, s, &doctor.CheckOptions{Repair: true}); got != "file-mounted file-left-over repaired" {
				return fmt.Errorf("Check finds %q", got)
			}
			return save(t, s, "ann", "access3")
		},
	} {
		t.Run(name, func(t *testing.T) {
			file := hostFile(t)
			path := container(t, file)
			s := openAt(t, path)
			old := readFile(t, file)
			whole := bytes.Replace(old, []byte("\n2,bob"), []byte("\n3,cid,c,s,refresh3,access4,,,,\n2,bob"), 1)
			bob := bytes.Index(whole, []byte("2,bob"))
			for _, half := range [][]byte{old[:5], whole[:len(whole)-20], append(bytes.Clone(whole[:bob]), old[bob:]...)} {
				if err := errors.Join(os.WriteFile(path+copySuffix, joinCopy(old, whole), 0o600), os.WriteFile(file, half, 0o600)); err != nil {
					t.Fatal(err)
				}
				if got := users(t, path); got != "ann=access1 bob=access2 cid=access4" {
					t.Errorf("of %q the file has %q", half, got)
				}
			}
			if err := next(t, s); err != nil {
				t.Fatal(err)
			}
			if got := users(t, file); got != "ann=access3 bob=access2 cid=access4" {
				t.Errorf("afterwards the file has %q", got)
			}
			if got := found(t, s, nil); got != "file-mounted" {
				t.Errorf("Check finds %q", got)
			}
			// A store must keep the content that another program wrote after the crash.
			since := bytes.Replace(old, []byte("access2"), []byte("since"), 1)
			if err := errors.Join(os.WriteFile(path+copySuffix, joinCopy(old, whole), 0o600), os.WriteFile(file, since, 0o600)); err != nil {
				t.Fatal(err)
			}
			if got := users(t, path); got != "ann=access1 bob=since" {
				t.Errorf("the file has %q", got)
			}
		})
	}
}

// TestTwoMountsOfOneFile checks that writes and refreshes through two mounts of one file exclude
// each other, even though the mounts share no other file.
func TestTwoMountsOfOneFile(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	file := hostFile(t)
	stores := []*Store{openAt(t, container(t, file)), openAt(t, container(t, file))}
	var wg sync.WaitGroup
	for i, s := range stores {
		for j := range 20 {
			wg.Go(func() {
				if err := save(t, s, fmt.Sprintf("user%d-%d", i, j), "a"); err != nil {
					t.Error(err)
				}
				if _, err := s.FindTokenByID(t.Context(), "1"); err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	if all, err := stores[0].GetTokens(t.Context()); err != nil || len(all) != 42 {
		t.Errorf("there are %d records, want 42, %v", len(all), err)
	}
	var minted atomic.Int32
	for range 8 {
		for _, s := range stores {
			wg.Go(func() {
				got, err := s.Refresh(t.Context(), "1", "access1", func(context.Context, tokenstore.Token) (tokenstore.Token, error) {
					minted.Add(1)
					return tokenstore.Token{AccessToken: "fresh", ExpiresAt: time.Now().Add(time.Hour)}, nil
				})
				if err != nil || got.AccessToken != "fresh" {
					t.Errorf("Refresh returned %q, %v", string(got.AccessToken), err)
				}
			})
		}
	}
	wg.Wait()
	if n := minted.Load(); n != 1 {
		t.Errorf("mint was called %d times", n)
	}
}

// TestMountedReleaseOfALateCall checks that Refresh returns soon after its deadline if another
// program has locked the mounted file for a long write. Refresh must also keep the refusal that
// mint returned.
func TestMountedReleaseOfALateCall(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	file := hostFile(t)
	s := openAt(t, container(t, file))
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	other, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	begun := time.Now()
	_, err = s.Refresh(ctx, "1", "access1", func(context.Context, tokenstore.Token) (tokenstore.Token, error) {
		if locked, err := tryLockByte(other, writeByte, false); !locked {
			t.Errorf("the file is not locked: %v", err)
		}
		return tokenstore.Token{}, &tokenstore.RefreshError{Code: "invalid_grant", Permanent: true}
	})
	if refused := new(tokenstore.RefreshError); !errors.As(err, &refused) {
		t.Errorf("Refresh returns %v", err)
	}
	if took := time.Since(begun); took > s.file.lockTimeout/2 {
		t.Errorf("Refresh returns after %v", took)
	}
	if _, leased, err := s.file.Peek(t.Context(), "1"); leased || err != nil {
		t.Errorf("the right is still held: %v", err)
	}
}

func TestMountedConformance(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	c := suite(false)
	open := c.Reopen
	c.Open = func(t testing.TB) tokenstore.TokenStore {
		empty := filepath.Join(t.TempDir(), "empty")
		if err := os.WriteFile(empty, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		return open(t, &Store{file: &file{path: container(t, empty)}})
	}
	conformance.RunStore(t, c)
}

// TestMountedExtensions checks that a store keeps, beside a mounted file, the fields that have no
// column. If the directory is not writable, a save must refuse such fields, and a refresh must
// store the new token without them.
func TestMountedExtensions(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	s := openAt(t, container(t, hostFile(t)))
	saved, err := s.SaveToken(t.Context(), extended("eve", "https://one.example"))
	if err != nil || find(t, openAt(t, s.file.path), saved.ID) != saved {
		t.Errorf("the fields are not kept: %v", err)
	}

	dir := t.TempDir()
	path := filepath.Join(dir, "sdk_tokens.txt")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	file := hostFile(t)
	mount(t, dir, dir, syscall.MS_RDONLY)
	mount(t, file, path, 0)
	s = openAt(t, path)
	if _, err := s.SaveToken(t.Context(), extended("eve", "https://one.example")); !errors.Is(err, tokenstore.ErrInvalidToken) || !strings.Contains(err.Error(), "IDToken, Issuer") {
		t.Errorf("a field without a place: %v", err)
	}
	if got := users(t, path); got != "ann=access1 bob=access2" {
		t.Errorf("the refused save has written %s", got)
	}
	_, err = s.Refresh(t.Context(), "1", "access1", func(context.Context, tokenstore.Token) (tokenstore.Token, error) {
		return tokenstore.Token{AccessToken: "new", ExpiresAt: time.Now().Add(time.Hour), TokenType: "bearer", Scope: "a", Extra: `{"a":1}`}, nil
	})
	if got := users(t, path); err != nil || got != "ann=new bob=access2" {
		t.Errorf("after a refresh: %s, %v", got, err)
	}
}
