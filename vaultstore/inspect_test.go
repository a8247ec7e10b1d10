package vaultstore_test

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/internal/fakevault"
	"github.com/tokenkeep/tokenkeep/internal/stored"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/doctor"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
	"github.com/tokenkeep/tokenkeep/vaultstore"
)

var (
	nameKey  = []byte("a key of names, 16 bytes or more")
	indexKey = []byte("the present key of labels")
	oldKey   = []byte("an earlier key of labels")
)

// markerName is the name of the secret that identifies the keys of a store.
const markerName = "keys"

// A ward has a store that a test damages and Check repairs. want lists the tokens that the
// store must hold after the repair.
type ward struct {
	*env
	store *tokenstore.Store
	want  []tokenstore.Token
	next  int
}

func newWard(t testing.TB) *ward {
	w := &ward{env: newEnv(t, nil)}
	w.store = w.open(w.Secrets, indexKey, oldKey)
	for range 3 { // undamaged records must stay unchanged and unreported
		w.keep(w.save(w.user()))
	}
	w.keep(w.save(w.anonymous()))
	return w
}

func (w *ward) open(d driver.Secrets, index ...[]byte) *tokenstore.Store {
	w.Helper()
	s, err := tokenstore.New(d, &tokenstore.Options{NameKey: nameKey, IndexKeys: index})
	if err != nil {
		w.Fatal(err)
	}
	return s
}

// user returns a token of a new user; anonymous returns a token without a user.
func (w *ward) user() tokenstore.Token {
	t := w.anonymous()
	t.UserName = fmt.Sprintf("user%d@example.com", w.next)
	return t
}

func (w *ward) anonymous() tokenstore.Token {
	w.next++
	secret := func(kind string) tokenstore.Secret { return tokenstore.Secret(fmt.Sprintf("%s-%d", kind, w.next)) }
	return tokenstore.Token{
		ClientID: "client", ClientSecret: "secret", RefreshToken: secret("refresh"), AccessToken: secret("access"),
		ExpiresAt: time.Unix(4_000_000_000+int64(w.next), 0).UTC(),
	}
}

func (w *ward) save(t tokenstore.Token) tokenstore.Token { return w.saveTo(w.store, t) }

func (w *ward) saveTo(s *tokenstore.Store, t tokenstore.Token) tokenstore.Token {
	w.Helper()
	saved, err := s.SaveToken(w.Context(), t)
	if err != nil {
		w.Fatal(err)
	}
	return saved
}

// keep adds t to w.want, and returns the ID of t.
func (w *ward) keep(t tokenstore.Token) string {
	w.want = append(w.want, t)
	return t.ID
}

// edit changes a record without using the store. The secret gets the labels that the
// changed record lists.
func (w *ward) edit(name string, change func(*stored.Record)) {
	w.Helper()
	s, rec := w.record(name)
	s.Labels = labelsOf(rec)
	change(&rec)
	if _, err := w.Update(w.Context(), name, s, w.payload(name, rec)); err != nil {
		w.Fatal(err)
	}
}

// plant stores rec under any name, even if the store would not derive that name from rec.
func (w *ward) plant(name string, rec stored.Record) {
	w.Helper()
	if _, err := w.Create(w.Context(), name, w.payload(name, rec)); err != nil {
		w.Fatal(err)
	}
}

func (w *ward) record(name string) (driver.Secret, stored.Record) {
	w.Helper()
	s, err := w.Get(w.Context(), name)
	if err != nil {
		w.Fatal(err)
	}
	rec, err := stored.Decode(s.Data)
	if err != nil {
		w.Fatal(err)
	}
	return s, rec
}

func (w *ward) payload(name string, rec stored.Record) driver.Payload {
	w.Helper()
	w.next++
	rec.Nonces = []string{fmt.Sprintf("edit%d", w.next)}
	data, err := stored.Encode(rec)
	if err != nil {
		w.Fatal(err)
	}
	return driver.Payload{Data: data, Labels: labelsOf(rec)}
}

func labelsOf(rec stored.Record) []driver.Label {
	var labels []driver.Label
	for _, l := range rec.Labels {
		labels = append(labels, driver.Label(l))
	}
	return labels
}

// labelled returns the label with the given key of the named record.
func (w *ward) labelled(name, key string) stored.Label {
	w.Helper()
	_, rec := w.record(name)
	i := slices.IndexFunc(rec.Labels, func(l stored.Label) bool { return l.Key == key })
	if i < 0 {
		w.Fatalf("%s has no label %q", name, key)
	}
	return rec.Labels[i]
}

func entryPath(name string, l stored.Label) string {
	return "metadata/" + app + "/index/" + l.Key + "/" + l.Value + "/" + name + "." + l.Nonce
}

// must sends a request directly to the server, as an operator does. The test fails if the
// server refuses the request.
func (w *ward) must(method, path, body string) {
	w.Helper()
	if status, answer := w.vault(method, path, body); status >= http.StatusMultipleChoices {
		w.Fatalf("%s %s: %d %s", method, path, status, answer)
	}
}

// A mortal driver passes a limited number of writes to Secrets, and fails all later writes.
type mortal struct {
	driver.Secrets
	left atomic.Int64
}

var errDied = fmt.Errorf("the process is dead: %w", context.Canceled)

func (m *mortal) Create(ctx context.Context, name string, p driver.Payload) (driver.Version, error) {
	if m.left.Add(-1) < 0 {
		return "", errDied
	}
	return m.Secrets.Create(ctx, name, p)
}

func (m *mortal) Update(ctx context.Context, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
	if m.left.Add(-1) < 0 {
		return "", errDied
	}
	return m.Secrets.Update(ctx, name, base, p)
}

func (m *mortal) Delete(ctx context.Context, name string, base driver.Secret) error {
	if m.left.Add(-1) < 0 {
		return errDied
	}
	return m.Secrets.Delete(ctx, name, base)
}

// promote assigns a user to the record id, in a process that is killed after the given
// number of writes.
func (w *ward) promote(id, user string, writes int64) {
	w.Helper()
	m := &mortal{Secrets: w.Secrets}
	m.left.Store(writes)
	_, err := w.open(m, indexKey, oldKey).SaveToken(w.Context(), tokenstore.Token{ID: id, UserName: user})
	if writes < 3 && !errors.Is(err, context.Canceled) || writes >= 3 && err != nil {
		w.Fatalf("the move ends with %v after %d writes", err, writes)
	}
}

// digest returns a digest as package tokenstore computes it for names and labels.
func digest(key []byte, kind string, parts ...string) string {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(kind))
	for _, p := range parts {
		_ = binary.Write(h, binary.BigEndian, uint64(len(p)))
		h.Write([]byte(p))
	}
	return base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").EncodeToString(h.Sum(nil))[:32]
}

func secretName(letter byte, parts ...string) string {
	return string(letter) + digest(nameKey, string(letter), parts...)
}

// A blind driver finds no records in look-ups, as if the index lagged.
type blind struct{ driver.Secrets }

func (blind) Lookup(context.Context, []driver.Label) iter.Seq2[driver.Named, error] {
	return func(func(driver.Named, error) bool) {}
}

// An apart driver keeps the secret markerName in own, and all other secrets in Secrets. List
// yields only the secrets in own. Stores with different keys can therefore write records under
// one prefix.
type apart struct {
	driver.Secrets
	own *memstore.Driver
}

// stranger opens a store with opts, whose keys may differ from those of w.store.
func (w *ward) stranger(opts *tokenstore.Options) *tokenstore.Store {
	w.Helper()
	s, err := tokenstore.New(apart{w.Secrets, memstore.NewDriver()}, opts)
	if err != nil {
		w.Fatal(err)
	}
	return s
}

func (a apart) of(name string) driver.Secrets {
	if name == markerName {
		return a.own
	}
	return a.Secrets
}

func (a apart) Get(ctx context.Context, name string) (driver.Secret, error) {
	return a.of(name).Get(ctx, name)
}

func (a apart) Fresh(ctx context.Context, name string, than driver.Secret) (driver.Secret, error) {
	return a.of(name).Fresh(ctx, name, than)
}

func (a apart) Create(ctx context.Context, name string, p driver.Payload) (driver.Version, error) {
	return a.of(name).Create(ctx, name, p)
}

func (a apart) Update(ctx context.Context, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
	return a.of(name).Update(ctx, name, base, p)
}

func (a apart) List(ctx context.Context) iter.Seq2[driver.Named, error] { return a.own.List(ctx) }

// gone saves and deletes a record, and returns the ID of the record. The ID is also the name of the
// secret.
func (w *ward) gone() string {
	w.Helper()
	id := w.save(w.user()).ID
	if err := w.store.DeleteToken(w.Context(), id); err != nil {
		w.Fatal(err)
	}
	return id
}

// dataOf returns the data of version n of a secret, read directly from the server.
func (w *ward) dataOf(name string, n int) string {
	w.Helper()
	_, body := w.vault("GET", fmt.Sprintf("data/%s/tokens/%s?version=%d", app, name, n), "")
	var answer struct {
		Data struct{ Data json.RawMessage }
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil || len(answer.Data.Data) == 0 {
		w.Fatalf("version %d of %s: %s", n, name, body)
	}
	return string(answer.Data.Data)
}

// damage describes one way to damage a store.
type damage struct {
	what string
	kind doctor.Kind
	do   func(w *ward) (name string) // returns the name of the secret that Check must report

	remedy doctor.Remedy // the remedy that repairs the damage; empty means RemedyRepair
	also   []doctor.Kind // kinds of other findings that the damage may cause
}

const (
	purged = doctor.RemedyPurge
	merged = doctor.RemedyMerge
	manual = doctor.RemedyManual
	rekey  = doctor.RemedyRekey
)

// unfinished returns a function that assigns a user to a record, in a process that is killed
// after the given number of writes. If existing is true, the user already has another record.
// The function returns the name that Check must report.
func unfinished(writes int64, existing bool) func(*ward) string {
	return func(w *ward) string {
		t := w.anonymous()
		t.GrantToken = tokenstore.Secret(fmt.Sprintf("grant-%d", w.next))
		g := w.save(t)
		user := fmt.Sprintf("mover%d@example.com", w.next)
		u := secretName('u', user, "client")
		if existing {
			earlier := w.anonymous()
			earlier.UserName, earlier.ExpiresAt = user, time.Unix(3_000_000_000, 0)
			w.save(earlier)
		}
		w.promote(g.ID, user, writes)
		t.ID, t.UserName = u, user
		w.keep(t)
		if writes == 1 {
			return u
		}
		return g.ID
	}
}

func damages() []damage {
	return []damage{
		{what: "an index entry was removed", kind: doctor.KindLabelMissing, do: func(w *ward) string {
			id := w.keep(w.save(w.user()))
			w.must("DELETE", entryPath(id, w.labelled(id, "refresh")), "")
			return id
		}},
		{what: "a record was committed without one of its labels", kind: doctor.KindLabelMissing, do: func(w *ward) string {
			id := w.keep(w.save(w.user()))
			w.edit(id, func(r *stored.Record) { r.Labels = r.Labels[1:] })
			return id
		}},
		{what: "a label is by an earlier key", kind: doctor.KindLabelOldKey, remedy: rekey, do: func(w *ward) string {
			return w.keep(w.saveTo(w.stranger(&tokenstore.Options{NameKey: nameKey, IndexKeys: [][]byte{oldKey}}), w.user()))
		}},
		{what: "a label is by a key that is not configured", kind: doctor.KindLabelUnknownKey, do: func(w *ward) string {
			return w.keep(w.saveTo(w.stranger(&tokenstore.Options{NameKey: nameKey, IndexKeys: [][]byte{[]byte("a key that was forgotten")}}), w.user()))
		}},
		{what: "a label is without a key", kind: doctor.KindLabelUnkeyed, do: func(w *ward) string {
			t := w.user()
			id := w.keep(w.save(t))
			w.edit(id, func(r *stored.Record) {
				for i := range r.Labels {
					if r.Labels[i].Key == "refresh" {
						print := digest(nameKey, "r", "client", string(t.RefreshToken))
						r.Labels[i].Value = digest(nil, "refresh", print)
						r.Labels[i].Nonce = "unkeyedunkeyedaa"
					}
				}
			})
			return id
		}},
		{what: "a label that nothing in the record accounts for", kind: doctor.KindLabelStale, do: func(w *ward) string {
			id := w.keep(w.save(w.user()))
			w.edit(id, func(r *stored.Record) {
				r.Labels = append(r.Labels, stored.Label{Key: "access", Value: strings.Repeat("z", 32), Nonce: "stalestalestalea"})
				slices.SortFunc(r.Labels, func(a, b stored.Label) int { return cmp.Compare(a.Key+a.Value, b.Key+b.Value) })
			})
			return id
		}},
		{what: "a writer died after it had added a label", kind: doctor.KindLabelLeftOver, remedy: purged, do: func(w *ward) string {
			id := w.keep(w.save(w.user()))
			w.must("POST", entryPath(id, stored.Label{Key: "grant", Value: strings.Repeat("y", 32), Nonce: "leftleftleftleft"}), `{"custom_metadata":{"by":"hand"}}`)
			return id
		}},
		{what: "a label of a secret that there is not", kind: doctor.KindLabelLeftOver, remedy: purged, do: func(w *ward) string {
			name := secretName('u', "nobody", "")
			w.must("POST", entryPath(name, stored.Label{Key: "user", Value: strings.Repeat("y", 32), Nonce: "leftleftleftleft"}), `{"custom_metadata":{"by":"hand"}}`)
			return name
		}},
		{what: "a move was interrupted after the first swap", kind: doctor.KindPromotionUnfinished, do: unfinished(1, false)},
		{what: "a move to an existing record was interrupted after the first swap", kind: doctor.KindPromotionUnfinished, do: unfinished(1, true)},
		{what: "a move was interrupted after the second swap", kind: doctor.KindPromotionUnfinished, do: unfinished(2, false)},
		{what: "a move was interrupted after the third swap", kind: doctor.KindPromotionUnfinished, do: unfinished(3, true)},
		{what: "a record has moved to one that does not know of it", kind: doctor.KindPromotionUnfinished, also: []doctor.Kind{doctor.KindLabelStale}, do: func(w *ward) string {
			g := unfinished(2, true)(w)
			_, rec := w.record(g)
			w.edit(rec.Moved.Name, func(r *stored.Record) { r.Joining = nil })
			return g
		}},
		{what: "a record has moved to one that was deleted", kind: doctor.KindDead, also: []doctor.Kind{doctor.KindTombstone}, do: func(w *ward) string {
			g := unfinished(2, false)(w)
			w.want = w.want[:len(w.want)-1]
			_, rec := w.record(g)
			s, u := w.record(rec.Moved.Name)
			s.Labels = labelsOf(u)
			if err := w.Delete(w.Context(), rec.Moved.Name, s); err != nil {
				w.Fatal(err)
			}
			return g
		}},
		{what: "an alias leads to a record that was deleted", kind: doctor.KindAliasBroken, also: []doctor.Kind{doctor.KindTombstone}, do: func(w *ward) string {
			g := unfinished(9, false)(w)
			u := w.want[len(w.want)-1]
			w.want = w.want[:len(w.want)-1]
			w.edit(u.ID, func(r *stored.Record) { r.Absorbed = nil })
			if err := w.store.DeleteToken(w.Context(), u.ID); err != nil {
				w.Fatal(err)
			}
			return g
		}},
		{what: "a record waits for one that is gone", kind: doctor.KindPromotionStale, do: func(w *ward) string {
			id := w.keep(w.save(w.user()))
			w.save(tokenstore.Token{ID: id, GrantToken: "gone"}) // adds a label for the grant token
			w.want[len(w.want)-1].GrantToken = "gone"
			w.edit(id, func(r *stored.Record) {
				r.Joining = []stored.Ref{{Name: secretName('g', "client", "gone"), Born: "once"}}
			})
			return id
		}},
		{what: "a record without a token", kind: doctor.KindEmpty, do: func(w *ward) string {
			user := w.user().UserName
			name := secretName('u', user, "client")
			w.plant(name, stored.Record{Fields: codec.Fields{UserName: user, ClientID: "client"}, Born: "empty"})
			return name
		}},
		{what: "two records without a user hold one token", kind: doctor.KindDuplicate, remedy: merged, do: func(w *ward) string {
			t := w.anonymous()
			g := w.save(tokenstore.Token{ClientID: "client", GrantToken: tokenstore.Secret(fmt.Sprintf("grant-%d", w.next))})
			w.save(tokenstore.Token{ID: g.ID, RefreshToken: t.RefreshToken, APIDomain: "https://api"})
			late := w.saveTo(w.open(blind{w.Secrets}, indexKey), t)
			t.ID, t.GrantToken, t.APIDomain = late.ID, g.GrantToken, "https://api"
			w.edit(g.ID, func(r *stored.Record) { r.Updated -= 1000 })
			w.keep(t)
			return g.ID
		}},
		{what: "an operator has copied a user's record", kind: doctor.KindDuplicate, remedy: merged, also: []doctor.Kind{doctor.KindNameForeign, doctor.KindLabelMissing}, do: func(w *ward) string {
			id := w.keep(w.save(w.user()))
			_, rec := w.record(id)
			name := secretName('u', "copy", rec.UserName)
			rec.Labels = nil
			w.plant(name, rec)
			return name
		}},
		{what: "two records have one ID", kind: doctor.KindDuplicateID, remedy: manual, do: func(w *ward) string {
			late := w.user()
			late.ID = "17"
			w.saveTo(w.open(blind{w.Secrets}, indexKey), late)
			name := secretName('u', late.UserName, "client")
			w.edit(name, func(r *stored.Record) { r.Updated -= 1000 })
			first := w.user()
			first.ID = "17"
			w.saveTo(w.open(blind{w.Secrets}, indexKey), first)
			return name
		}},
		{what: "two users hold one token", kind: doctor.KindTokenShared, remedy: manual, do: func(w *ward) string {
			first := w.user()
			first.AccessToken = ""
			id := w.save(first).ID
			w.edit(id, func(r *stored.Record) { r.Updated -= 1000 })
			second := w.user()
			second.RefreshToken = first.RefreshToken
			w.save(second)
			return id
		}},
		{what: "a record was edited by hand", kind: doctor.KindUnreadable, remedy: manual, do: func(w *ward) string {
			id := w.save(w.user()).ID
			w.must("POST", "data/"+app+"/tokens/"+id, `{"data":{"record":"edited"}}`)
			return id
		}},
		{what: "an index entry of a record of another key of names was removed", kind: doctor.KindLabelMissing, remedy: manual, also: []doctor.Kind{doctor.KindNameForeign}, do: func(w *ward) string {
			id := w.saveTo(w.stranger(&tokenstore.Options{NameKey: []byte("another key of the names"), IndexKeys: [][]byte{indexKey}}), w.user()).ID
			w.must("DELETE", entryPath(id, w.labelled(id, "refresh")), "")
			return id
		}},
		{what: "a record of another key of names", kind: doctor.KindNameForeign, remedy: manual, do: func(w *ward) string {
			return w.saveTo(w.stranger(&tokenstore.Options{NameKey: []byte("another key of names"), IndexKeys: [][]byte{indexKey}}), w.user()).ID
		}},
		{what: "a record from before there was a key of names", kind: doctor.KindNameUnkeyed, remedy: manual, do: func(w *ward) string {
			return w.saveTo(w.stranger(nil), w.user()).ID
		}},
		{what: "a process died with the lease", kind: doctor.KindLeaseLapsed, do: func(w *ward) string {
			id := w.keep(w.save(w.user()))
			w.edit(id, func(r *stored.Record) {
				r.Lease = &stored.Lease{ID: "dead", Until: time.Now().Add(-time.Hour).UnixMilli()}
			})
			return id
		}},
		{what: "a process died in the middle of a deletion", kind: doctor.KindDue, also: []doctor.Kind{doctor.KindTombstone}, do: func(w *ward) string {
			id := w.save(w.user()).ID
			w.server.Inject(on("write destroy", 1, fakevault.Fault{Status: http.StatusForbidden}))
			if err := w.store.DeleteToken(w.Context(), id); !errors.Is(err, tokenstore.ErrDenied) {
				w.Fatalf("DeleteToken returns %v, want a refusal", err)
			}
			w.server.Inject(nil)
			return id
		}},
		{what: "a tombstone", kind: doctor.KindTombstone, remedy: purged, do: func(w *ward) string { return w.gone() }},
		{what: "an operator has deleted the last version", kind: doctor.KindDeleted, remedy: purged, also: []doctor.Kind{doctor.KindLabelLeftOver}, do: func(w *ward) string {
			id := w.save(w.anonymous()).ID
			w.must("DELETE", "data/"+app+"/tokens/"+id, "")
			return id
		}},
		{what: "a secret without a version", kind: doctor.KindNoState, remedy: purged, do: func(w *ward) string {
			name := secretName('u', "no version")
			w.must("POST", "metadata/"+app+"/tokens/"+name, `{"custom_metadata":{"by":"hand"}}`)
			return name
		}},
		{what: "an operator has rolled back", kind: doctor.KindRolledBack, also: []doctor.Kind{doctor.KindLabelMissing, doctor.KindLabelLeftOver}, do: func(w *ward) string {
			t := w.save(w.user())
			first := w.dataOf(t.ID, 1)
			t.AccessToken, t.ExpiresAt = "later", time.Unix(4_100_000_000, 0).UTC()
			w.keep(w.save(t))
			w.must("POST", "data/"+app+"/tokens/"+t.ID, `{"data":`+first+`}`)
			return t.ID
		}},
		{what: "an alias that is not needed", kind: doctor.KindAlias, do: unfinished(9, false)},
	}
}

func (w *ward) check(opts doctor.CheckOptions) []doctor.Finding {
	w.Helper()
	opts.Grace = -1
	var findings []doctor.Finding
	for f, err := range w.store.Check(w.Context(), &opts) {
		if err != nil {
			w.Fatalf("Check: %v", err)
		}
		findings = append(findings, f)
	}
	return findings
}

func describe(f doctor.Finding) string {
	return fmt.Sprintf("%s %s (%s): %s; repaired %v, %v", f.Kind, f.Name, f.Remedy, f.Detail, f.Repaired, f.Err)
}

// whole checks that a search by each key of each token in w.want finds the token unchanged.
func (w *ward) whole() {
	w.Helper()
	for _, t := range w.want {
		likes := []tokenstore.Token{
			{ID: t.ID},
			{ClientID: t.ClientID, RefreshToken: t.RefreshToken},
			{AccessToken: t.AccessToken},
		}
		if t.UserName != "" {
			likes = append(likes, tokenstore.Token{UserName: t.UserName, ClientID: t.ClientID}, tokenstore.Token{UserName: t.UserName})
		}
		if t.GrantToken != "" {
			likes = append(likes, tokenstore.Token{ClientID: t.ClientID, GrantToken: t.GrantToken})
		}
		for i, like := range likes {
			got, err := w.store.FindToken(w.Context(), like)
			if err != nil || got != t {
				w.Errorf("by key %d of %s (user %q) the store finds %s, %v; the same: %v", i, t.ID, t.UserName, got.ID, err, got == t)
			}
		}
	}
}

var everything = doctor.CheckOptions{Repair: true, MergeDuplicates: true, Purge: true}

// TestCheckRepair checks that Check reports each kind of damage, and otherwise only findings that
// the damage causes. The test also checks that a repair loses no token, and removes the damage
// unless the remedy is manual.
func TestCheckRepair(t *testing.T) {
	t.Parallel()
	for _, d := range damages() {
		t.Run(d.what, func(t *testing.T) {
			t.Parallel()
			w := newWard(t)
			hurt := d.do(w)

			w.server.Reset()
			findings := w.check(doctor.CheckOptions{})
			for _, q := range w.server.Requests() {
				if q.Operation != "read" && q.Operation != "list" {
					t.Errorf("a check without Repair makes a %s of %s", q.Operation, q.Path)
				}
			}
			named := false
			for _, f := range findings {
				isIt := f.Kind == d.kind && f.Name == hurt
				if !isIt && !slices.Contains(d.also, f.Kind) || named && isIt {
					t.Errorf("Check finds what there is not: %s", describe(f))
				}
				if isIt && f.Remedy != cmp.Or(d.remedy, doctor.RemedyRepair) {
					t.Errorf("it takes another remedy: %s", describe(f))
				}
				named = named || isIt
			}
			if !named {
				t.Errorf("Check does not find %s of %s, but %d others", d.kind, hurt, len(findings))
			}

			w.repair(d.remedy)
			for _, f := range w.check(doctor.CheckOptions{}) {
				if !f.Kind.Harmless() && d.remedy != manual || f.Kind == d.kind && f.Name == hurt && d.remedy != manual {
					t.Errorf("afterwards there is still %s", describe(f))
				}
			}
			w.whole()
		})
	}
}

// repair applies the remedy r, and checks that no repair fails.
func (w *ward) repair(r doctor.Remedy) {
	w.Helper()
	opts := doctor.CheckOptions{Repair: true, MergeDuplicates: r == merged, Purge: r == purged}
	for _, f := range w.check(opts) {
		if f.Err != nil && f.Remedy != manual || !f.Repaired && opts.Wants(f.Remedy) {
			w.Errorf("a repair fails: %s", describe(f))
		}
	}
	if r == rekey {
		w.rekey()
	}
}

func (w *ward) rekey() {
	w.Helper()
	for r, err := range w.store.Rekey(w.Context(), nil) {
		if err != nil && !errors.Is(err, tokenstore.ErrCorrupt) && !errors.Is(err, tokenstore.ErrIDMismatch) {
			w.Errorf("Rekey of %q: %v", r.Name, err)
		}
	}
}

func TestCheckRepairAll(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	hurt, left := map[string]damage{}, map[string]bool{} // left: the findings that only an operator can repair
	for _, d := range damages() {
		name := d.do(w)
		hurt[string(d.kind)+" "+name] = d
		for _, kind := range append(d.also, d.kind) {
			left[string(kind)+" "+name] = d.remedy == manual
		}
	}
	missed := len(hurt)
	for _, f := range w.check(doctor.CheckOptions{}) {
		if _, ok := hurt[string(f.Kind)+" "+f.Name]; ok {
			missed--
		}
	}
	if missed != 0 {
		t.Errorf("of %d damages Check does not name %d", len(damages()), missed)
	}
	for _, f := range w.check(everything) {
		if !f.Repaired && everything.Wants(f.Remedy) {
			t.Errorf("a repair fails: %s", describe(f))
		}
	}
	w.rekey()
	for range 2 {
		w.check(everything) // repairs faults that the first repairs have left
	}
	for _, f := range w.check(doctor.CheckOptions{}) {
		if !left[string(f.Kind)+" "+f.Name] {
			t.Errorf("afterwards there is still %s", describe(f))
		}
	}
	w.whole()
	t.Logf("%d of %d damages were named", len(hurt)-missed, len(damages()))
}

// TestCheckMissingCapability checks that Check reports exactly the call that needs a capability
// that the policy lacks. Each case removes one capability.
func TestCheckMissingCapability(t *testing.T) {
	t.Parallel()
	rules := regexp.MustCompile(`path "([^"]*)" \{\n  capabilities = (\[[^]]*\])`).FindAllStringSubmatch(vaultstore.Policy("secret", app), -1)
	refused := func(t *testing.T, policy string) []string {
		e := newEnv(t, nil)
		s, err := tokenstore.New(e.Secrets, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := e.server.Policy("", "p", policy); err != nil {
			t.Fatal(err)
		}
		if _, err := s.SaveToken(t.Context(), tokenstore.Token{UserName: "ann", AccessToken: "access"}); err != nil {
			t.Fatal(err)
		}
		e.client.SetToken(e.server.Token("", 0, "p"))
		var details []string
		for f, err := range s.Check(t.Context(), &doctor.CheckOptions{Permissions: true}) {
			if err != nil && !errors.Is(err, tokenstore.ErrDenied) { // the rest of Check may also need the missing capability
				t.Fatal(err)
			}
			if f.Kind == doctor.KindPermission {
				details = append(details, f.Detail)
				if !errors.Is(f.Err, tokenstore.ErrDenied) {
					t.Errorf("%s: %v", f.Name, f.Err)
				}
			}
		}
		return details
	}
	full, n := "", 0
	for i, r := range rules {
		full += r[0] + "\n}\n"
		var capabilities []string
		if err := json.Unmarshal([]byte(r[2]), &capabilities); err != nil {
			t.Fatal(err)
		}
		for _, c := range capabilities {
			n++
			var policy strings.Builder
			for j, other := range rules {
				text := other[0]
				if j == i {
					text = strings.Replace(text, `"`+c+`"`, `"sudo"`, 1)
				}
				policy.WriteString(text + "\n}\n")
			}
			t.Run(c+" of "+r[1], func(t *testing.T) {
				t.Parallel()
				got := refused(t, policy.String())
				want := fmt.Sprintf("it needs the capability %q on %s", c, r[1])
				if len(got) != 1 || !strings.HasSuffix(got[0], want) {
					t.Errorf("Check says %q, want one that ends with %q", got, want)
				}
			})
		}
	}
	if n != 10 {
		t.Errorf("the policy has %d capabilities", n)
	}
	if got := refused(t, full); len(got) > 0 {
		t.Errorf("with the whole policy Check says %q", got)
	}
}

// TestProbingLeavesNoMoreThanOneTombstone checks that repeated probes leave exactly one
// tombstone, and no entry in the index.
func TestProbingLeavesNoMoreThanOneTombstone(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	for range 3 {
		if findings := w.check(doctor.CheckOptions{Permissions: true}); len(findings) > 0 {
			t.Errorf("Check finds %s", describe(findings[0]))
		}
	}
	if _, body := w.vault("LIST", "metadata/"+app+"/tokens/", ""); strings.Count(body, "probe") != 1 {
		t.Errorf("there is %s", body)
	}
	if status, body := w.vault("LIST", "metadata/"+app+"/index/probe/"+strings.Repeat("probe", 7)[:32]+"/", ""); status != http.StatusNotFound {
		t.Errorf("in the index there is %s", body)
	}
	w.whole()
}
