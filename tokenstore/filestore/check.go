package filestore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"runtime"
	"slices"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/lockfile"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rowset"
)

var _ tokenstore.Checker = (*Store)(nil)

// Check implements tokenstore.Checker. It reports rows that cannot be read, IDs
// that the SDKs cannot, records that are the same, a file that others may read, one
// that is a mount point, a lock file of another user, and what a process that died
// while it wrote has left beside the file. Repair sets the file's mode to 0600, gives
// the lock file to its owner and removes what was left; MergeDuplicates makes one
// record of those that are the same. The ID that is given up is forgotten, because
// the file has no room for it. Permissions, Purge and Grace have no meaning here.
func (s *Store) Check(ctx context.Context, opts *tokenstore.CheckOptions) iter.Seq2[tokenstore.Finding, error] {
	return func(yield func(tokenstore.Finding, error) bool) {
		var o tokenstore.CheckOptions
		if opts != nil {
			o = *opts
		}
		if err := s.check(ctx, o, func(f tokenstore.Finding) bool { return yield(f, nil) }); err != nil {
			yield(tokenstore.Finding{}, wrap("check", "", err))
		}
	}
}

func (s *Store) check(ctx context.Context, o tokenstore.CheckOptions, yield func(tokenstore.Finding) bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if (o.MergeDuplicates || o.Purge) && !o.Repair {
		return fmt.Errorf("%w: MergeDuplicates and Purge go with Repair", tokenstore.ErrInvalidToken)
	}
	path, err := resolve(s.path)
	if err != nil {
		return err
	}
	around, err := s.checkAround(ctx, path, o)
	for _, f := range around {
		if !yield(f) {
			return nil
		}
	}
	if err != nil {
		return err
	}
	v, err := s.read(ctx)
	if errors.Is(err, tokenstore.ErrCorrupt) {
		yield(tokenstore.Finding{
			Kind: tokenstore.KindFileUnreadable, Remedy: tokenstore.RemedyManual, Err: err,
			Detail: "it has not the form of a token file, or is cut off; mend it with an editor, or bring back a copy",
		})
		return nil
	}
	if err != nil {
		return err
	}
	problems := v.problems(s.o.AnyID)
	if o.MergeDuplicates {
		if problems, err = s.merge(ctx, problems); err != nil {
			return err
		}
	}
	for _, p := range problems {
		if !yield(p.Finding) {
			return nil
		}
	}
	if o.Progress != nil {
		o.Progress(len(v.Records))
	}
	return nil
}

func (v *view) problems(anyID bool) []rowset.Problem {
	return v.Problems(func(i int) string { return fmt.Sprintf("line %d", v.file.Line(i)) }, anyID)
}

// checkAround reports what is wrong with the file but its content, and mends it.
func (s *Store) checkAround(ctx context.Context, path string, o tokenstore.CheckOptions) ([]tokenstore.Finding, error) {
	var findings []tokenstore.Finding
	mend := func(f tokenstore.Finding, do func() error) {
		f.Remedy = tokenstore.RemedyRepair
		if o.Wants(f.Remedy) {
			f.Err = classed(do())
			f.Repaired = f.Err == nil
		}
		findings = append(findings, f)
	}
	info, err := os.Stat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, classed(err)
	}
	if mode := fs.FileMode(0o077); err == nil && runtime.GOOS != "windows" && info.Mode()&mode != 0 {
		mend(tokenstore.Finding{
			Kind: tokenstore.KindFileMode, Name: path, Action: "set the mode to 0600",
			Detail: fmt.Sprintf("the mode is %#o", info.Mode().Perm()),
		}, func() error { return os.Chmod(path, 0o600) })
	}
	if err == nil && mountPoint(path) {
		findings = append(findings, mountedFinding(path))
	}
	if lock, err := os.Lstat(path + ".lock"); err == nil && lock.Mode().IsRegular() && !lockfile.SameOwner(lock, info) {
		mend(tokenstore.Finding{
			Kind: tokenstore.KindFileLockOwner, Name: path + ".lock", Action: "give it to the owner of the token file",
			Detail: "the lock file belongs to another user than the token file",
		}, func() error {
			held, err := s.lock(ctx, path) // which does it
			if err != nil {
				return err
			}
			defer held.release()
			if lock, err := os.Lstat(path + ".lock"); err == nil && !lockfile.SameOwner(lock, info) {
				return fmt.Errorf("%w: only root or its owner can", fs.ErrPermission)
			}
			return nil
		})
	}
	for _, suffix := range []string{".writing", copySuffix} {
		if err := s.checkLeftOver(ctx, path, suffix, mend); err != nil {
			return findings, err
		}
	}
	return findings, nil
}

// mountedFinding says that the token file is a mount point, and whether it can be
// written at all.
func mountedFinding(path string) tokenstore.Finding {
	f := tokenstore.Finding{
		Kind: tokenstore.KindFileMounted, Name: path, Remedy: tokenstore.RemedyManual,
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

// checkLeftOver reports a file beside the token file that a process has left behind.
func (s *Store) checkLeftOver(ctx context.Context, path, suffix string, mend func(tokenstore.Finding, func() error)) error {
	if _, err := os.Lstat(path + suffix); err != nil {
		return nil
	}
	// The process that has the lock is the only one that writes there.
	held, err := s.lock(ctx, path)
	if err != nil {
		return err
	}
	defer held.release()
	if _, err := os.Lstat(path + suffix); err != nil {
		return nil
	}
	f := tokenstore.Finding{
		Kind: tokenstore.KindFileLeftOver, Name: path + suffix, Action: "remove it",
		Detail: "a process died while it wrote; what it was writing never took the place of the file",
	}
	remove := func() error { return os.Remove(path + suffix) }
	if suffix == copySuffix {
		f.Detail, f.Action = "a process died while it wrote the file in place, of which this is a copy", "complete the file, and remove it"
		remove = func() error { return s.complete(path) }
	}
	mend(f, remove)
	return nil
}

// merge merges the records that are the same, as they are when the file is locked,
// and returns the problems with what has become of them.
func (s *Store) merge(ctx context.Context, problems []rowset.Problem) ([]rowset.Problem, error) {
	mergeable := func(p rowset.Problem) bool { return p.Remedy == tokenstore.RemedyMerge }
	if !slices.ContainsFunc(problems, mergeable) {
		return problems, nil
	}
	err := s.update(ctx, func(v *view) (changed bool, err error) {
		problems = v.problems(s.o.AnyID)
		merged := map[int]tokenstore.Token{}
		var gone []int
		for _, p := range problems {
			if !mergeable(p) {
				continue
			}
			into, ok := merged[p.Into]
			if !ok {
				into = v.Records[p.Into].Token
			}
			merged[p.Into] = tokenstore.Absorb(into, v.Records[p.Other].Token)
			gone = append(gone, p.Other)
		}
		for i, t := range merged {
			if err := v.put(i, t); err != nil {
				return false, err
			}
		}
		for _, i := range slices.Backward(slices.Sorted(slices.Values(gone))) {
			v.remove(i)
		}
		return len(gone) > 0, nil
	})
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	for i := range problems {
		if mergeable(problems[i]) {
			problems[i].Err, problems[i].Repaired = err, err == nil
		}
	}
	return problems, nil
}
