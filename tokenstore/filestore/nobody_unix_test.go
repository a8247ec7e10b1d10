//go:build unix

package filestore_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// asNobody changes cmd to run as a user without privileges. cmd then runs a copy of this program
// that the user can read. asNobody returns true.
func asNobody(t *testing.T, cmd *exec.Cmd) bool {
	t.Helper()
	const nobody = 65534
	dir := t.TempDir()
	temp := filepath.Join(dir, "tmp")
	exe, err := os.ReadFile(cmd.Path)
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		os.Chmod(filepath.Dir(dir), 0o755), os.Chmod(dir, 0o755), os.Mkdir(temp, 0o700), os.Chown(temp, nobody, nobody),
		os.WriteFile(filepath.Join(dir, "test"), exe, 0o600), os.Chmod(filepath.Join(dir, "test"), 0o755),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	cmd.Path, cmd.Dir = filepath.Join(dir, "test"), temp
	cmd.Args[0] = cmd.Path
	cmd.Env = append(cmd.Env, "TMPDIR="+temp)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	return true
}
