package filestore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/doctor"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/lockfile"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rowstore"
)

// unreadable returns the finding about a token file that cannot be read. err is the error from the
// read, and matches tokenstore.ErrCorrupt.
func unreadable(err error) doctor.Finding {
	return doctor.Finding{
		Kind: doctor.KindFileUnreadable, Remedy: doctor.RemedyManual, Err: err,
		Detail: "it does not have the form of a token file, or is cut off; repair it with an editor, or restore a copy",
	}
}

// checkAround returns the findings about the token file as a whole and about the files beside it.
// It makes the repairs that o asks for.
func (f *file) checkAround(ctx context.Context, o doctor.CheckOptions) rowstore.Findings {
	return func(yield func(doctor.Finding, error) bool) {
		path, err := resolve(f.path)
		e := examination{file: f, o: o, path: path}
		if err == nil {
			err = e.run(ctx)
		}
		for _, found := range e.findings {
			if !yield(found, nil) {
				return
			}
		}
		if err != nil {
			yield(doctor.Finding{}, err)
		}
	}
}

// An examination is one check of a token file and of the files beside it.
type examination struct {
	*file
	o        doctor.CheckOptions
	path     string // resolved
	findings []doctor.Finding
}

func (e *examination) run(ctx context.Context) error {
	info, err := os.Stat(e.path)
	switch {
	case err == nil:
		e.checkMode(e.path, info)
		if beside, err := os.Lstat(e.path + Beside); err == nil {
			e.checkMode(e.path+Beside, beside)
		}
		if mountPoint(e.path) {
			e.findings = append(e.findings, mountedFinding(e.path))
		}
	case !errors.Is(err, fs.ErrNotExist):
		return classed(err)
	}
	e.checkLockOwner(ctx, info)
	if err := e.checkStrays(ctx); err != nil {
		return err
	}
	for _, suffix := range []string{".writing", copySuffix, Beside + ".writing"} {
		if err := e.checkLeftOver(ctx, suffix); err != nil {
			return err
		}
	}
	return nil
}

// repair adds f to the findings. If e.o asks for repairs, repair first calls the function do, which
// repairs the fault.
func (e *examination) repair(f doctor.Finding, do func() error) {
	f.Remedy = doctor.RemedyRepair
	if e.o.Wants(f.Remedy) {
		f.Err = classed(do())
		f.Repaired = f.Err == nil
	}
	e.findings = append(e.findings, f)
}

// checkMode reports a file whose mode gives a permission to users other than the owner.
func (e *examination) checkMode(path string, info fs.FileInfo) {
	if runtime.GOOS == "windows" || info.Mode()&fs.FileMode(0o077) == 0 {
		return
	}
	e.repair(doctor.Finding{
		Kind: doctor.KindFileMode, Name: path, Action: "set the mode to 0600",
		Detail: fmt.Sprintf("the mode is %#o", info.Mode().Perm()),
	}, func() error { return os.Chmod(path, 0o600) })
}

// checkStrays reports entries of the second file that belong to no row of the token file. Such
// an entry remains if another program changes or removes its row, or if a process crashes
// between two writes.
func (e *examination) checkStrays(ctx context.Context) error {
	is, err := e.read(ctx)
	if errors.Is(err, tokenstore.ErrCorrupt) {
		return nil // the check of the rows reports the corrupt file
	}
	if err != nil {
		return err
	}
	n := len(is.beside.all) - len(is.change().after())
	if n == 0 {
		return nil
	}
	f := doctor.Finding{
		Kind: doctor.KindDue, Name: e.path + Beside, Remedy: doctor.RemedyPurge, Action: "remove them",
		Detail: fmt.Sprintf("%d entries belong to no row as it is", n),
	}
	if e.o.Wants(f.Remedy) {
		f.Err = e.update(ctx, func(*view) (bool, error) { return true, nil })
		f.Repaired = f.Err == nil
	}
	e.findings = append(e.findings, f)
	return nil
}

// checkLockOwner reports a lock file whose owner differs from the owner of the token file.
func (e *examination) checkLockOwner(ctx context.Context, info fs.FileInfo) {
	name := e.path + ".lock"
	lock, err := os.Lstat(name)
	if err != nil || !lock.Mode().IsRegular() || lockfile.SameOwner(lock, info) {
		return
	}
	e.repair(doctor.Finding{
		Kind: doctor.KindFileLockOwner, Name: name, Action: "give it to the owner of the token file",
		Detail: "the lock file and the token file belong to different users",
	}, func() error {
		held, err := e.lock(ctx, e.path) // lock gives the lock file the owner of the token file
		if err != nil {
			return err
		}
		defer held.release()
		if lock, err := os.Lstat(name); err == nil && !lockfile.SameOwner(lock, info) {
			return fmt.Errorf("%w: only root or its owner can", fs.ErrPermission)
		}
		return nil
	})
}

// mountedFinding returns the finding that the token file is a mount point. If the file cannot be
// opened for writing, the field Err of the finding says why.
func mountedFinding(path string) doctor.Finding {
	f := doctor.Finding{
		Kind: doctor.KindFileMounted, Name: path, Remedy: doctor.RemedyManual,
		Detail: "the file is a mount point: mount its directory instead",
	}
	w, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		f.Err = classed(err)
		return f
	}
	_ = w.Close()
	return f
}

// checkLeftOver reports a file that a killed process left beside the token file.
func (e *examination) checkLeftOver(ctx context.Context, suffix string) error {
	name := e.path + suffix
	if _, err := os.Lstat(name); err != nil {
		return nil
	}
	// Only the holder of the lock creates this file. If the file exists while this process holds
	// the lock, a killed process left it.
	held, err := e.lock(ctx, e.path)
	if err != nil {
		return err
	}
	defer held.release()
	if _, err := os.Lstat(name); err != nil {
		return nil
	}
	f := doctor.Finding{
		Kind: doctor.KindFileLeftOver, Name: name, Action: "remove it",
		Detail: "a process died while it wrote; what it was writing never took the place of the file",
	}
	remove := func() error { return os.Remove(name) }
	if suffix == copySuffix {
		f.Detail, f.Action = "a process died while it wrote the file in place, of which this is a copy", "complete the file, and remove it"
		remove = func() error { return e.complete(e.path) }
	}
	e.repair(f, remove)
	return nil
}
