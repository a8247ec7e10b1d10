package vaultstore

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

var _ driver.Inspector = (*secrets)(nil)

// probeName is the secret that Probe writes to. It has one version, a tombstone,
// and is no record's: those have names of another form.
const probeName = "tokenkeepprobe"

// never is a version that no secret gets to: a write with it as the base is
// refused, once it has been allowed.
const never = 1 << 30

// Inspect implements driver.Inspector. It takes a LIST for each label, and for
// each secret a GET of it, one of its metadata and one of each earlier version
// that there still is.
func (s *secrets) Inspect(ctx context.Context) iter.Seq2[driver.Inspection, error] {
	return func(yield func(driver.Inspection, error) bool) {
		labels, err := s.allLabels(ctx)
		var names []string
		if err == nil {
			names, err = s.names(ctx)
		}
		if err != nil {
			yield(driver.Inspection{}, err)
			return
		}
		for name := range labels {
			names = append(names, name)
		}
		slices.Sort(names)
		names = slices.DeleteFunc(slices.Compact(names), func(name string) bool { return name == probeName })
		var failures streak
		for batch := range slices.Chunk(names, width) {
			found := make([]driver.Inspection, len(batch))
			errs := make([]error, len(batch))
			var work sync.WaitGroup
			for i, name := range batch {
				found[i] = driver.Inspection{Name: name, Labels: labels[name]}
				work.Go(func() { found[i].Faults, errs[i] = s.faults(ctx, name) })
			}
			work.Wait()
			for i, err := range errs {
				if ctx.Err() != nil || failures.ofAll(err) {
					yield(driver.Inspection{}, cmp.Or(ctx.Err(), err))
					return
				}
				if !yield(found[i], err) {
					return
				}
			}
		}
	}
}

// allLabels returns the labels of all names, from the index.
func (s *secrets) allLabels(ctx context.Context) (map[string][]driver.Label, error) {
	root := s.mount + "/metadata/" + s.prefix + "/index"
	kinds, err := s.list(ctx, root)
	if err != nil {
		return nil, err
	}
	var folders []driver.Label // without nonces
	for _, kind := range kinds {
		kind, ok := strings.CutSuffix(kind, "/")
		if !ok {
			continue
		}
		values, err := s.list(ctx, root+"/"+kind)
		if err != nil {
			return nil, err
		}
		for _, value := range values {
			if value, ok := strings.CutSuffix(value, "/"); ok {
				folders = append(folders, driver.Label{Key: kind, Value: value})
			}
		}
	}
	var mu sync.Mutex
	labels := map[string][]driver.Label{}
	err = each(ctx, folders, func(ctx context.Context, l driver.Label) error {
		keys, err := s.list(ctx, s.folder(l))
		mu.Lock()
		defer mu.Unlock()
		for _, k := range keys {
			if name, nonce, ok := strings.Cut(k, "."); ok && legalName.MatchString(name) && legalNonce.MatchString(nonce) {
				labels[name] = append(labels[name], driver.Label{Key: l.Key, Value: l.Value, Nonce: nonce})
			}
		}
		return err
	})
	return labels, err
}

// versions is what Vault tells about a secret.
type versions struct {
	Current  int `json:"current_version"`
	Versions map[int]struct {
		Created   string `json:"created_time"`
		Deleted   string `json:"deletion_time"`
		Destroyed bool   `json:"destroyed"`
	} `json:"versions"`
}

// kept returns the versions before the given one that can still be read, or be
// brought back, the latest first.
func (v versions) kept(before int) []int {
	var kept []int
	for n, at := range v.Versions {
		if n < before && !at.Destroyed {
			kept = append(kept, n)
		}
	}
	slices.Sort(kept)
	slices.Reverse(kept)
	return kept
}

func (s *secrets) metadata(name string) string {
	return s.mount + "/metadata/" + s.prefix + "/tokens/" + name
}

// faults returns what is wrong with the secret of the given name. There may be
// none.
func (s *secrets) faults(ctx context.Context, name string) ([]driver.Fault, error) {
	var answer struct {
		Data versions `json:"data"`
	}
	err := s.do(ctx, request{method: http.MethodGet, path: s.metadata(name), active: true}, &answer)
	if errors.Is(err, driver.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	v := answer.Data
	if v.Current == 0 {
		return []driver.Fault{{
			Kind: driver.FaultEmpty, Exclusive: true, Action: "remove it",
			Detail: "it has metadata and no version: this program does not leave one",
			Mend:   func(ctx context.Context) error { return s.purge(ctx, name, 0) },
		}}, nil
	}
	st, err := s.read(ctx, name, 0, true)
	if err != nil {
		return nil, err
	}
	kept := v.kept(st.number)
	switch {
	case st.number != v.Current:
		return nil, nil // it is being written
	case st.tombstone != "":
		return s.tombstoneFaults(name, st, kept), nil
	case errors.Is(st.err, driver.ErrNotFound):
		return []driver.Fault{{
			Kind: driver.FaultDeleted, Exclusive: true, Action: "delete it for good",
			Detail: fmt.Sprintf("its version %d was deleted with another tool, and %d before it are still there; 'vault kv undelete' brings it back", st.number, len(kept)),
			Mend: func(ctx context.Context) error {
				if _, err := s.write(ctx, name, st.number, field{fieldDeleted, rand.Text()}); err != nil {
					return err
				}
				return s.destroy(ctx, name, st.number)
			},
		}}, nil
	case st.err == nil:
		faults, err := s.rolledBack(ctx, name, st, kept)
		return append(faults, v.expiring(st.number)...), err
	}
	return nil, nil
}

// expiring reports that Vault will delete a version that can be read.
func (v versions) expiring(number int) []driver.Fault {
	at := v.Versions[number].Deleted
	if at == "" {
		return nil
	}
	return []driver.Fault{{
		Kind: driver.FaultExpires,
		Detail: fmt.Sprintf("Vault deletes its version %d on %s, because delete_version_after is set on the secret or the mount; "+
			"set it to 0 and save the record again", number, at),
	}}
}

// tombstoneFaults returns what remains of a deleted secret.
func (s *secrets) tombstoneFaults(name string, st state, kept []int) []driver.Fault {
	var faults []driver.Fault
	if len(kept) > 0 {
		faults = append(faults, driver.Fault{
			Kind: driver.FaultDue, Action: "destroy them",
			Detail: fmt.Sprintf("it was deleted, and %d versions before the tombstone are not destroyed", len(kept)),
			Mend:   func(ctx context.Context) error { return s.destroy(ctx, name, st.number-1) },
		})
	}
	return append(faults, driver.Fault{
		Kind: driver.FaultTombstone, Exclusive: true, Action: "remove it with its metadata",
		Detail: fmt.Sprintf("its version %d is a tombstone", st.number),
		Mend:   func(ctx context.Context) error { return s.purge(ctx, name, st.number) },
	})
}

// purge removes a secret with its metadata, if its last version is a tombstone
// with the given number, or if there is none and number is 0.
func (s *secrets) purge(ctx context.Context, name string, number int) error {
	st, err := s.read(ctx, name, 0, true)
	switch {
	case err != nil:
		return err
	case st.number != number || number > 0 && st.tombstone == "":
		return fmt.Errorf("%w: %s is another one now", driver.ErrConflict, s.data(name))
	}
	err = s.do(ctx, request{method: http.MethodDelete, path: s.metadata(name)}, nil)
	if errors.Is(err, driver.ErrDenied) {
		return fmt.Errorf(`%w (it needs the capability "delete" on %s, which stores do without)`, err, s.metadata("*"))
	}
	return err
}

// rolledBack reports that the present version repeats an earlier one, as 'vault kv
// rollback' makes it: no two writes of a store are equal. The last version between
// the two is what is made the present one again.
func (s *secrets) rolledBack(ctx context.Context, name string, st state, kept []int) ([]driver.Fault, error) {
	var lost state
	for _, n := range kept {
		old, err := s.read(ctx, name, n, true)
		switch {
		case err != nil:
			return nil, err
		case old.err != nil:
			continue
		case !bytes.Equal(old.data, st.data):
			if lost.number == 0 {
				lost = old
			}
			continue
		case lost.number == 0:
			continue // it repeats the version before: nothing came in between
		}
		return []driver.Fault{{
			Kind: driver.FaultRolledBack, Action: fmt.Sprintf("make version %d the present one again", lost.number),
			Detail: fmt.Sprintf("version %d repeats version %d: another tool has rolled it back, over version %d", st.number, old.number, lost.number),
			Mend: func(ctx context.Context) error {
				if _, err := s.write(ctx, name, st.number, record(lost.data)); err != nil {
					return err
				}
				// Or the next check would take this for a roll-back too.
				return s.destroyVersions(ctx, name, []int{st.number})
			},
		}}, nil
	}
	return nil, nil
}

func (s *secrets) destroyVersions(ctx context.Context, name string, versions []int) error {
	return s.do(ctx, request{
		method: http.MethodPut, path: s.mount + "/destroy/" + s.prefix + "/tokens/" + name,
		body: map[string]any{"versions": versions},
	}, nil)
}

// Present implements driver.Inspector.
func (s *secrets) Present(ctx context.Context, name string, labels []driver.Label) ([]driver.Label, error) {
	var (
		mu      sync.Mutex
		present []driver.Label
	)
	err := each(ctx, labels, func(ctx context.Context, l driver.Label) error {
		keys, err := s.list(ctx, s.folder(l))
		if slices.Contains(keys, name+"."+l.Nonce) {
			mu.Lock()
			defer mu.Unlock()
			present = append(present, l)
		}
		return err
	})
	return present, err
}

// Unlabel implements driver.Inspector.
func (s *secrets) Unlabel(ctx context.Context, name string, labels []driver.Label) error {
	return each(ctx, labels, func(ctx context.Context, l driver.Label) error {
		err := s.do(ctx, request{method: http.MethodDelete, path: s.entry(name, l)}, nil)
		if errors.Is(err, driver.ErrNotFound) {
			return nil
		}
		return err
	})
}

// Probe implements driver.Inspector. Vault checks whether a call is allowed before
// it looks at what is there, so that most of these calls are about a secret that
// there is not, or are refused for their base. What is yielded waits until a call is
// allowed: where none is it may be the token that is not valid, of which OpenBao says
// no more than of a missing capability.
func (s *secrets) Probe(ctx context.Context) iter.Seq2[driver.Probed, error] {
	return func(yield func(driver.Probed, error) bool) {
		if err := s.reads(ctx); err != nil {
			yield(driver.Probed{}, err)
			return
		}
		var denied []driver.Probed
		allowed := false
		for _, p := range s.probes() {
			err := probed(ctx, p)
			switch {
			case errors.Is(err, errNothingThere):
				continue
			case ctx.Err() != nil || errors.Is(err, driver.ErrCredentials) || wrongEngine(err):
				yield(driver.Probed{}, cmp.Or(ctx.Err(), err))
				return
			}
			denied = append(denied, driver.Probed{Call: p.call, Needs: p.needs, Err: err})
			if allowed = allowed || !errors.Is(err, driver.ErrDenied); !allowed {
				continue
			}
			if !yieldAll(denied, yield) {
				return
			}
			denied = nil
		}
		if allowed {
			return
		}
		if err := s.unknown(ctx); err != nil {
			yield(driver.Probed{}, err)
			return
		}
		yieldAll(denied, yield)
	}
}

// yieldAll yields what is in all, and reports whether more is wanted.
func yieldAll(all []driver.Probed, yield func(driver.Probed, error) bool) bool {
	return !slices.ContainsFunc(all, func(p driver.Probed) bool { return !yield(p, nil) })
}

// probed makes the call of a probe. What Vault refuses for its base it has allowed.
func probed(ctx context.Context, p probe) error {
	err := p.do(ctx)
	if errors.Is(err, driver.ErrNotFound) || errors.Is(err, driver.ErrConflict) {
		return nil
	}
	return err
}

// unknown returns an error if Vault refuses to say what the token is, too.
func (s *secrets) unknown(ctx context.Context) error {
	token, err := s.token(ctx)
	if err == nil {
		err = s.lookUp(ctx, token)
	}
	if errors.Is(err, driver.ErrDenied) {
		return fmt.Errorf("%w: every call is denied: the token has expired or was revoked, or has no policy for anything: %w", errCredentials, unclassed(err))
	}
	return nil
}

// errNothingThere means that a call could not be tried, because one before it is
// not allowed.
var errNothingThere = errors.New("there is nothing to try it on")

type probe struct {
	call, needs string
	do          func(context.Context) error
}

// probes are the calls that the driver makes.
func (s *secrets) probes() []probe {
	absent := strings.ToLower(rand.Text())[:16]
	label := driver.Label{Key: "probe", Value: strings.Repeat("probe", 7)[:32], Nonce: absent}
	call := func(q request) func(context.Context) error {
		return func(ctx context.Context) error { return s.do(ctx, q, nil) }
	}
	write := func(name string, base int) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := s.write(ctx, name, base, field{fieldDeleted, absent})
			return err
		}
	}
	// What may not be created is not there to be changed.
	recorded, indexed := false, false
	index := func(ctx context.Context) error { return s.index(ctx, probeName, []driver.Label{label}) }
	needs := func(capability, class, folder string) string {
		return fmt.Sprintf("the capability %q on %s/%s/%s/%s/*", capability, s.mount, class, s.prefix, folder)
	}
	metadata := s.mount + "/metadata/" + s.prefix
	return []probe{
		{"the LIST of the records", needs("list", "metadata", "tokens"), func(ctx context.Context) error {
			_, err := s.list(ctx, metadata+"/tokens")
			return err
		}},
		{"the GET of a record", needs("read", "data", "tokens"), call(request{method: http.MethodGet, path: s.data(absent)})},
		{"the GET of a record's versions", needs("read", "metadata", "tokens"), call(request{method: http.MethodGet, path: s.metadata(absent)})},
		{"the first PUT of a record", needs("create", "data", "tokens"), func(ctx context.Context) error {
			err := write(probeName, 0)(ctx)
			recorded = !errors.Is(err, driver.ErrDenied)
			return write(absent, never)(ctx)
		}},
		{"the next PUT of a record", needs("update", "data", "tokens"), func(ctx context.Context) error {
			if st, err := s.read(ctx, probeName, 0, true); !recorded && (err != nil || st.number == 0) {
				return errNothingThere
			}
			return write(probeName, never)(ctx)
		}},
		{"the PUT that destroys versions", needs("update", "destroy", "tokens"), func(ctx context.Context) error {
			return s.destroyVersions(ctx, absent, []int{1})
		}},
		{"the first POST of an index entry", needs("create", "metadata", "index"), func(ctx context.Context) error {
			err := index(ctx)
			indexed = err == nil
			return err
		}},
		{"a repeated POST of an index entry", needs("update", "metadata", "index"), func(ctx context.Context) error {
			if !indexed {
				return errNothingThere
			}
			return index(ctx)
		}},
		{"the LIST of index entries", needs("list", "metadata", "index"), func(ctx context.Context) error {
			_, err := s.list(ctx, s.folder(label))
			return err
		}},
		{"the DELETE of an index entry", needs("delete", "metadata", "index"), call(request{method: http.MethodDelete, path: s.entry(probeName, label)})},
	}
}
