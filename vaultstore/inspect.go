package vaultstore

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/driverkit"
)

var _ driver.Inspector = (*secrets)(nil)

// probeName is the name of the secret that Probe writes. The only version of that secret is a
// tombstone. The names of records have a different form.
const probeName = "tokenkeepprobe"

// never is a version number that no secret reaches. Vault refuses a write over that version even if
// the token has the permission to write.
const never = 1 << 30

// Inspect implements driver.Inspector. Inspect makes two LIST requests, one more for each kind of
// label, and one more for each label. For each secret, Inspect makes at most one GET request for
// the current version, one for the metadata, and one for every earlier version that remains.
func (s *secrets) Inspect(ctx context.Context) iter.Seq2[driver.Inspection, error] {
	return driverkit.Seq(func(yield func(driver.Inspection, error) bool) error {
		labels, err := s.allLabels(ctx)
		if err != nil {
			return err
		}
		names, err := s.names(ctx)
		if err != nil {
			return err
		}
		names = slices.AppendSeq(names, maps.Keys(labels))
		slices.Sort(names)
		names = slices.DeleteFunc(slices.Compact(names), func(name string) bool { return name == probeName })
		driverkit.FetchListed(ctx, names, wrongEngine, func(ctx context.Context, name string) (driver.Inspection, error) {
			faults, err := s.faults(ctx, name)
			return driver.Inspection{Name: name, Labels: labels[name], Faults: faults}, err
		})(yield)
		return nil
	})
}

// allLabels returns the labels in the index, grouped by the names of their secrets.
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
	labels, i := map[string][]driver.Label{}, 0
	for keys, err := range driverkit.Fetch(ctx, folders, s.entries) {
		if err != nil {
			return nil, err
		}
		for _, k := range keys {
			if name, nonce, ok := parseEntry(k); ok {
				labels[name] = append(labels[name], driver.Label{Key: folders[i].Key, Value: folders[i].Value, Nonce: nonce})
			}
		}
		i++
	}
	return labels, nil
}

// entries returns the last path elements of the index entries for a label.
func (s *secrets) entries(ctx context.Context, l driver.Label) ([]string, error) {
	return s.list(ctx, s.folder(l))
}

// faults returns the faults of the named secret. A secret that does not exist has no faults.
func (s *secrets) faults(ctx context.Context, name string) ([]driver.Fault, error) {
	v, err := s.describe(ctx, name)
	switch {
	case errors.Is(err, driver.ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, err
	case v.Current == 0:
		return []driver.Fault{{
			Kind: driver.FaultEmpty, Exclusive: true, Action: "remove it",
			Detail: "it has metadata and no version, which this program never leaves",
			Mend:   func(ctx context.Context) error { return s.remove(ctx, name, 0) },
		}}, nil
	}
	st, err := s.read(ctx, name, 0, true)
	if err != nil {
		return nil, err
	}
	kept := v.kept(st.number)
	switch {
	case st.number != v.Current:
		return nil, nil // another process is writing the secret
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
				return s.destroyUpTo(ctx, name, st.number)
			},
		}}, nil
	case st.err == nil:
		faults, err := s.rolledBack(ctx, name, st, kept)
		return append(faults, v.expiring(st.number)...), err
	}
	return nil, nil
}

// expiring returns a fault if Vault will delete the given version at a later time, and otherwise
// nil. The version must be readable.
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

func (s *secrets) tombstoneFaults(name string, st state, kept []int) []driver.Fault {
	var faults []driver.Fault
	if len(kept) > 0 {
		faults = append(faults, driver.Fault{
			Kind: driver.FaultDue, Action: "destroy them",
			Detail: fmt.Sprintf("it was deleted, and %d versions before the tombstone are not destroyed", len(kept)),
			Mend:   func(ctx context.Context) error { return s.destroyUpTo(ctx, name, st.number-1) },
		})
	}
	return append(faults, driver.Fault{
		Kind: driver.FaultTombstone, Exclusive: true, Action: "remove it with its metadata",
		Detail: fmt.Sprintf("its version %d is a tombstone", st.number),
		Mend:   func(ctx context.Context) error { return s.remove(ctx, name, st.number) },
	})
}

// remove deletes a secret with its metadata if its last version is a tombstone with the given
// number. If number is 0, the secret must have no version. For a secret in another state, the
// error matches ErrConflict.
func (s *secrets) remove(ctx context.Context, name string, number int) error {
	st, err := s.read(ctx, name, 0, true)
	switch {
	case err != nil:
		return err
	case st.number != number || number > 0 && st.tombstone == "":
		return fmt.Errorf("%w: %s has changed", driver.ErrConflict, s.data(name))
	}
	err = s.do(ctx, request{method: http.MethodDelete, path: s.metadata(name)}, nil)
	if errors.Is(err, driver.ErrDenied) {
		return fmt.Errorf(`%w (it needs the capability "delete" on %s, which stores do without)`, err, s.metadata("*"))
	}
	return err
}

// rolledBack returns a fault if the current version repeats an earlier version, as after 'vault kv
// rollback'. Two writes of a store never have equal data. The repair writes the data of the last
// different version again.
func (s *secrets) rolledBack(ctx context.Context, name string, st state, kept []int) ([]driver.Fault, error) {
	var lost state
	for _, n := range slices.Backward(kept) {
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
			continue // no different version is between old and the current version
		}
		return []driver.Fault{{
			Kind: driver.FaultRolledBack, Action: fmt.Sprintf("make version %d the current one again", lost.number),
			Detail: fmt.Sprintf("version %d repeats version %d: another tool has rolled it back, over version %d", st.number, old.number, lost.number),
			Mend: func(ctx context.Context) error {
				if _, err := s.write(ctx, name, st.number, encode(lost.data)); err != nil {
					return err
				}
				// If version st.number remained, the next check would report the repair as a
				// rollback.
				return s.destroy(ctx, name, st.number)
			},
		}}, nil
	}
	return nil, nil
}

// Present implements driver.Inspector.
func (s *secrets) Present(ctx context.Context, name string, labels []driver.Label) ([]driver.Label, error) {
	var present []driver.Label
	i := 0
	for keys, err := range driverkit.Fetch(ctx, labels, s.entries) {
		if err != nil {
			return nil, err
		}
		if slices.Contains(keys, name+"."+labels[i].Nonce) {
			present = append(present, labels[i])
		}
		i++
	}
	return present, nil
}

// Unlabel implements driver.Inspector.
func (s *secrets) Unlabel(ctx context.Context, name string, labels []driver.Label) error {
	return driverkit.Each(ctx, labels, func(ctx context.Context, l driver.Label) error { return s.detach(ctx, name, l) })
}

// Probe implements driver.Inspector. Vault checks permissions before it looks for the secret. Most
// calls of Probe therefore name a secret that does not exist, or have a base that Vault refuses.
// Probe yields no results until a call is allowed. If no call is allowed, the token may be invalid:
// OpenBao sends the same response for an invalid token and a missing capability.
func (s *secrets) Probe(ctx context.Context) iter.Seq2[driver.Probed, error] {
	return driverkit.Seq(func(yield func(driver.Probed, error) bool) error {
		if err := s.reads(ctx); err != nil {
			return err
		}
		var denied []driver.Probed
		allowed := false
		for p, err := range driverkit.Probes(ctx, slices.Concat(s.recordProbes(), s.indexProbes())) {
			if err != nil || wrongEngine(p.Err) {
				return cmp.Or(err, p.Err)
			}
			denied = append(denied, p)
			if allowed = allowed || !errors.Is(p.Err, driver.ErrDenied); !allowed {
				continue
			}
			if !yieldAll(denied, yield) {
				return nil
			}
			denied = nil
		}
		if allowed {
			return nil
		}
		if err := s.unknown(ctx); err != nil {
			return err
		}
		yieldAll(denied, yield)
		return nil
	})
}

// yieldAll passes the elements of probed to yield until yield returns false. yieldAll reports
// whether yield returned true for all elements.
func yieldAll(probed []driver.Probed, yield func(driver.Probed, error) bool) bool {
	return !slices.ContainsFunc(probed, func(p driver.Probed) bool { return !yield(p, nil) })
}

// unknown returns an error matching ErrCredentials if the token may not even look itself up, and
// otherwise nil.
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

// probe returns the probe of a call that requires the given capability on the paths with the given
// class and folder.
func (s *secrets) probe(call, capability, class, folder string, do func(context.Context) error) driverkit.Probe {
	return driverkit.Probe{Call: call, Needs: fmt.Sprintf("the capability %q on %s/%s/%s/%s/*", capability, s.mount, class, s.prefix, folder), Do: do}
}

// recordProbes returns the probes of the calls that read and write records. If the secret probeName
// does not exist and the token may not create that secret, the second PUT is not tried.
func (s *secrets) recordProbes() []driverkit.Probe {
	absent, recorded := strings.ToLower(rand.Text())[:16], false
	call := func(q request) func(context.Context) error {
		return func(ctx context.Context) error { return s.do(ctx, q, nil) }
	}
	write := func(ctx context.Context, name string, base int) error {
		_, err := s.write(ctx, name, base, field{fieldDeleted, absent})
		return err
	}
	return []driverkit.Probe{
		s.probe("the LIST of the records", "list", "metadata", "tokens", func(ctx context.Context) error { _, err := s.names(ctx); return err }),
		s.probe("the GET of a record", "read", "data", "tokens", call(request{method: http.MethodGet, path: s.data(absent)})),
		s.probe("the GET of a record's versions", "read", "metadata", "tokens", call(request{method: http.MethodGet, path: s.metadata(absent)})),
		s.probe("the first PUT of a record", "create", "data", "tokens", func(ctx context.Context) error {
			recorded = !errors.Is(write(ctx, probeName, 0), driver.ErrDenied)
			return write(ctx, absent, never)
		}),
		s.probe("the next PUT of a record", "update", "data", "tokens", func(ctx context.Context) error {
			if st, err := s.read(ctx, probeName, 0, true); !recorded && (err != nil || st.number == 0) {
				return driverkit.ErrUntried
			}
			return write(ctx, probeName, never)
		}),
		s.probe("the PUT that destroys versions", "update", "destroy", "tokens", func(ctx context.Context) error { return s.destroy(ctx, absent, 1) }),
	}
}

// indexProbes returns the probes of the calls that read and write the index. If the first POST
// fails, the repeated POST is not tried.
func (s *secrets) indexProbes() []driverkit.Probe {
	label := driver.Label{Key: "probe", Value: strings.Repeat("probe", 7)[:32], Nonce: strings.ToLower(rand.Text())[:16]}
	indexed := false
	attach := func(ctx context.Context) error { return s.attach(ctx, probeName, []driver.Label{label}) }
	return []driverkit.Probe{
		s.probe("the first POST of an index entry", "create", "metadata", "index", func(ctx context.Context) error {
			err := attach(ctx)
			indexed = err == nil
			return err
		}),
		s.probe("a repeated POST of an index entry", "update", "metadata", "index", func(ctx context.Context) error {
			if !indexed {
				return driverkit.ErrUntried
			}
			return attach(ctx)
		}),
		s.probe("the LIST of index entries", "list", "metadata", "index", func(ctx context.Context) error { _, err := s.entries(ctx, label); return err }),
		s.probe("the DELETE of an index entry", "delete", "metadata", "index", func(ctx context.Context) error { return s.detach(ctx, probeName, label) }),
	}
}
