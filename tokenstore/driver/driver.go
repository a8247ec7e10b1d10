// Package driver defines what a secret manager must do to hold OAuth tokens for package
// tokenstore.
//
// Application code should use package tokenstore with one of the adapters (awssm,
// gcpsm, vaultstore, k8sstore). Only the author of an adapter needs this package.
// Package driverkit has parts that drivers have in common.
//
// # Division of labor
//
// A driver moves opaque bytes in and out of one secret manager. Everything that has to
// be the same on every backend is done once, in package tokenstore. It matches and
// merges tokens, chooses names, encodes records, computes digests, retries after a
// conflict, and redacts and wraps errors. A driver never looks inside a payload.
//
// # What a driver may rely on
//
//   - A name matches [a-z0-9]{1,64}: it is a legal path element everywhere and needs no
//     escaping.
//   - Payload.Data is not empty and not larger than Properties.MaxSize. No two writes
//     carry the same Data: every record holds a random nonce. A driver whose client
//     retries writes may therefore compare Data to tell a write of its own from another
//     writer's.
//   - A label key matches [a-z][a-z0-9_]{0,31}; a label value is 32 characters and a
//     label nonce 16 characters of the lower-case base32 alphabet a-z2-7. Neither ever
//     contains token material. A payload has at most 32 labels, sorted by key, value
//     and nonce, and no two of them are equal.
//   - A base is a Secret that the same driver returned for the same name. Package
//     tokenstore may also have made it from the Version that Create or Update returned.
//     Its Labels are those that its Data was committed with, even if the driver left
//     them empty.
//
// # What a driver promises
//
// The numbered promises are the ones that package conformance checks, each in a case
// that names it.
//
//   - [DR-01] Get returns Data byte for byte as the last Create or Update committed it,
//     with a Version that Update and Delete accept as base.
//   - [DR-02] Get and Fresh of a name that was never created, or was deleted, fail with
//     an error matching ErrNotFound.
//   - [DR-03] Create of a name that is in use changes nothing and fails with an error
//     matching ErrExists.
//   - [DR-04] Of several concurrent Creates of one name exactly one succeeds.
//   - [DR-05] Update with a base that is not the current state changes nothing and
//     fails with an error matching ErrConflict.
//   - [DR-06] Of several concurrent Updates with one base at most one succeeds, and
//     exactly one if no fault intervenes.
//   - [DR-07] Update of a name that does not exist creates nothing and fails with an
//     error matching ErrNotFound or ErrConflict.
//   - [DR-08] Data and Version change together: no reader sees the Data of one state
//     with the Version of another.
//   - [DR-09] Every state has a Version of its own. It differs from every other Version
//     that the name ever had, also in earlier incarnations.
//   - [DR-10] Delete of the current state removes the secret from Get and, once ListLag
//     has passed, from Lookup and List.
//   - [DR-11] Delete with a base that is not the current state changes nothing and
//     fails with an error matching ErrConflict.
//   - [DR-12] Delete of a name that does not exist returns nil.
//   - [DR-13] Create of a deleted name succeeds, at once or after waiting no longer
//     than ctx allows.
//   - [DR-14] Delete then Create is a new incarnation. An Update or Delete with a base
//     from an earlier incarnation fails with an error matching ErrConflict or
//     ErrNotFound. Neither the call nor its clean-up touches the new secret or the
//     labels it is found by.
//   - [DR-15] Once ListLag has passed, a committed secret is found by each label that it
//     was committed with. This holds at every moment, even after a crash or during a
//     concurrent write. A label is added before the commit that needs it, and removed
//     only by a later write that had it in its base.
//   - [DR-16] Two labels that differ in Nonce alone are two labels: if one is removed,
//     the secret is still found by the other. Lookup ignores Nonce.
//   - [DR-17] Lookup yields every secret that carries one of the given labels, each
//     once, with the state that Get would return. It may also yield secrets that no
//     longer carry them: package tokenstore reads the Data of each result and relies
//     only on that.
//   - [DR-18] List yields every secret, and Names every name, each once. Names may also
//     yield deleted names; List yields none.
//   - [DR-19] The iterators stop when the loop body returns false. An error that is
//     yielded with a Name concerns that secret alone, whatever its class, and the
//     iteration continues. An error without a Name ends the iteration.
//   - [DR-20] Two drivers opened with different prefixes do not see each other's
//     secrets, even if one prefix is the beginning of the other.
//   - [DR-21] A second driver opened with the same arguments, in this process or
//     another, sees the same secrets once ReadLag has passed. Of concurrent writes
//     through both drivers on one base, at most one succeeds.
//   - [DR-22] Every method returns promptly once its context is done, with an error
//     matching ctx.Err(). A method called with a context that is done changes nothing.
//   - [DR-23] A payload of MaxSize bytes of any value is stored and read back.
//   - [DR-24] The text of an error contains no part of a payload. Errors of a decoder
//     are not wrapped, because they quote their input.
//   - [DR-25] A driver keeps no reference to the slices it is given and returns slices
//     that the caller may change.
//   - [DR-26] All methods are safe for concurrent use.
//   - [DR-27] Fresh returns the newest state that the service can prove. That state is
//     at least as new as the argument than.
//   - [DR-28] If a secret under the driver's prefix is not in the form that the driver
//     writes, Get fails with an error matching ErrCorrupt. Get does not change the
//     secret. List and Lookup yield the name of a secret that cannot be read together
//     with the reason, whatever it is, and continue.
//
// A driver that is a [Leaser] makes two more promises:
//
//   - [DR-29] Note replaces the note beside a secret and nothing else. Of several
//     concurrent Notes on one base at most one succeeds, and exactly one if no fault
//     intervenes. With a base whose state or note is not the current one, Note changes
//     nothing. The error then matches ErrConflict, or ErrNotFound if the secret does
//     not exist.
//   - [DR-30] Fresh returns the note. The note stays through every Update except one
//     whose Drop equals it, and is removed with the secret.
//
// One promise distinguishes a quota from an outage:
//
//   - [DR-33] A call that the service rejects because there were too many fails with an
//     error matching ErrThrottled, and therefore ErrUnavailable. A failure of another
//     kind does not match ErrThrottled. A rejected call succeeds when it is repeated
//     after the service accepts calls again.
//
// Two promises bind encrypted records to their store and name:
//
//   - [DR-31] If Properties.Place is not empty, every driver that is opened with the
//     same arguments has the same Place. A driver with another prefix has a different
//     Place.
//   - [DR-32] If a driver returns an Incarnation with a Secret, it is the Incarnation
//     that was passed to Create. It stays the same while the secret exists, whatever
//     Data is.
//
// # Errors
//
// A driver classifies an error by wrapping one of the sentinels below together with the
// error of the underlying service, as in
//
//	fmt.Errorf("%w: %w", driver.ErrNotFound, err)
//
// so that errors.Is finds the class and errors.As still finds the service's own type.
// An error that fits no class is returned as it is. Errors from the context package are
// never reclassified.
//
// After a time-out or a lost response, a driver cannot tell whether the service applied
// a write. The error of that write must match none of ErrConflict, ErrExists and
// ErrNotFound. Package tokenstore then calls Fresh and looks for its own nonce before it
// decides what to do.
//
// # Retries
//
// Drivers leave retries of transient failures to the client they were given. They retry
// a call themselves only if the client has no retries, or while Create waits for a name
// that is still being deleted. As far as possible, drivers do not repeat a throttled
// call whose context is from [WithoutRetries].
package driver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"math"
	"time"
)

// Error classes. See the package documentation for how to use them.
var (
	// ErrNotFound means that no secret has the given name.
	ErrNotFound = errors.New("not found")

	// ErrExists means that Create found a secret with the given name.
	// Nothing was changed.
	ErrExists = errors.New("already exists")

	// ErrConflict means that the current state of the secret is not the one
	// that Update or Delete was told to replace. Nothing was changed.
	ErrConflict = errors.New("changed concurrently")

	// ErrDenied means that the service refused the caller's credentials or that
	// the caller lacks a permission. Retrying does not help.
	ErrDenied = errors.New("access denied")

	// ErrCredentials means that the service does not accept the credentials
	// themselves: they are absent, malformed, unknown, revoked or expired. It is not
	// a class: an error matches it in addition to ErrDenied, or to ErrUnavailable if
	// the credentials could not be fetched. An ErrDenied without it is about a
	// permission.
	ErrCredentials = errors.New("the credentials are not accepted")

	// ErrRefused means that the service refused the call because of how the service, the
	// secret or the client is set up. Examples are a replica, a policy of the
	// organization, a disabled version or key, and an engine of the wrong kind. Nothing
	// was changed. Retrying does not help until an operator changes the set-up.
	ErrRefused = errors.New("the set-up does not allow it")

	// ErrUnavailable means that the service throttled the call, failed, or could
	// not be reached, even after the client's own retries. A write may have been
	// applied.
	ErrUnavailable = errors.New("store unavailable")

	// ErrThrottled means that the service rejected the call because there were too
	// many, even after the client's own retries. An error of this class also matches
	// ErrUnavailable. A write may have been applied, because an earlier attempt of the
	// client may have been applied without a response. The class does not include quotas
	// that are not replenished over time, nor the limit on the states of a secret in a
	// day.
	ErrThrottled = fmt.Errorf("%w: too many calls", ErrUnavailable)

	// ErrCorrupt means that the secret exists but does not have the form that
	// this module writes, for example because it was edited by hand.
	ErrCorrupt = errors.New("unexpected form")
)

// Unbounded is the lag of a backend that documents no bound.
const Unbounded time.Duration = math.MaxInt64

// A Version identifies one state of one secret. It is opaque: package tokenstore
// compares versions for equality and passes them back to the driver, nothing
// else. The zero Version identifies no state.
type Version string

// A Label is a searchable attribute of a secret.
type Label struct {
	Key   string // what is indexed: "user", "refresh"
	Value string // a digest of it
	Nonce string // of the write that added the label; not searched for
}

// A Payload is the data that package tokenstore asks a driver to store.
type Payload struct {
	// Data is the encoded record.
	Data []byte

	// Labels are all labels by which the secret must be found.
	Labels []Label

	// Former are labels that earlier states of the secret were committed with and that
	// the secret may still have. Lookup need not find the secret by them. See Update.
	Former []Label

	// Drop is a note. This write removes the note of the secret if it equals
	// Drop. A driver that is not a Leaser ignores it.
	Drop string

	// Incarnation is a random string that distinguishes the secret from earlier ones of
	// its name. All writes of one incarnation have the same string. A driver that can
	// store the string of Create beside Data, and read both at no further cost, returns
	// it with every Secret. Data of an earlier incarnation that is restored by hand is
	// then refused. Other drivers ignore Incarnation and return none.
	Incarnation string
}

// A Secret is a stored payload.
type Secret struct {
	// Payload is the stored payload. Drivers may leave Labels empty when they
	// return a Secret, because the record in Data has them.
	Payload

	// Version is the state that was read.
	Version Version

	// Note is the note of the secret. Only Fresh of a Leaser has to return it.
	Note string

	// Updated is when the state was written, by the service's clock, or the zero Time if
	// the service does not say.
	Updated time.Time
}

// Named is a Secret together with its name.
type Named struct {
	Name string
	Secret
}

// Format prints the size of p, but no part of Data.
func (p Payload) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, p.text()) }

// LogValue returns what package slog logs.
func (p Payload) LogValue() slog.Value { return slog.StringValue(p.text()) }

// MarshalJSON returns an error, because p holds tokens.
func (p Payload) MarshalJSON() ([]byte, error) {
	return nil, errors.New("driver: a payload is not marshaled: it holds tokens")
}

func (p Payload) text() string {
	return fmt.Sprintf("driver.Payload{%d bytes, %d labels}", len(p.Data), len(p.Labels))
}

// Format prints the version and the size of s, but no part of Data.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.text()) }

// LogValue returns what package slog logs.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.text()) }

func (s Secret) text() string {
	return fmt.Sprintf("driver.Secret{version %q, %d bytes, %d labels}", s.Version, len(s.Data), len(s.Labels))
}

// Format prints the name, the version and the size of n, but no part of Data.
func (n Named) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, n.text()) }

// LogValue returns what package slog logs.
func (n Named) LogValue() slog.Value { return slog.StringValue(n.text()) }

func (n Named) text() string {
	return fmt.Sprintf("driver.Named{name %q, version %q, %d bytes, %d labels}", n.Name, n.Version, len(n.Data), len(n.Labels))
}

// Properties are facts about a backend. They do not change while a driver is in
// use.
type Properties struct {
	// Name names the backend in errors and logs: "awssm".
	Name string

	// Place identifies the namespace. It is the same for every driver that sees the
	// same secrets, and different for a driver with another prefix. Encrypted
	// records are bound to it, so it must not change while the secrets exist. It
	// holds no secret. An empty Place means that the driver does not identify the
	// namespace.
	Place string

	// MaxSize is the maximum size of Payload.Data in bytes. It is at least 16
	// KiB.
	MaxSize int

	// ListLag is how long a completed write may stay invisible to Lookup, List
	// and Names. ReadLag is how long it may stay invisible to Get. Zero promises that
	// these methods see every write that has returned. Otherwise the lag is the bound
	// that the service documents, or Unbounded.
	ListLag, ReadLag time.Duration

	// ListBatch is the number of secrets that List and Lookup return with one call; 0
	// means one.
	ListBatch int

	// LabelBatch is the number of labels that Update removes with one call; 0 means that
	// labels change together with the state. If it is not 0, package tokenstore leaves
	// some labels to a later Update.
	LabelBatch int

	// DailyWrites is the number of states of one secret that the service accepts
	// within 24 hours; 0 means no limit. Package tokenstore does not begin a
	// refresh that might exceed it.
	DailyWrites int
}

// Secrets stores named secrets in one namespace of one secret manager. The
// package documentation has the promises that its methods keep.
type Secrets interface {
	// Properties returns facts about the backend.
	Properties() Properties

	// Get returns the state of the named secret in one call, as current as one
	// call can be. The error matches ErrNotFound if the secret does not exist.
	//
	// An outdated result does no harm. If the state is no longer current, the following
	// Update fails with ErrConflict; if Get has missed a secret, Create fails with
	// ErrExists.
	Get(ctx context.Context, name string) (Secret, error)

	// Fresh returns the newest state of the named secret that the driver can prove.
	// The state is at least as new as than, the newest state that the caller knows. If
	// the caller knows none, than is the zero Secret. Fresh may take several calls.
	// Package tokenstore calls Fresh before it takes a lease, after ErrExists or
	// ErrConflict, and after a write of unknown outcome.
	Fresh(ctx context.Context, name string, than Secret) (Secret, error)

	// Create stores a secret under a name that is not in use, and returns its
	// version. If a secret has that name, the error matches ErrExists.
	Create(ctx context.Context, name string, p Payload) (Version, error)

	// Update replaces the state of the named secret if it is still base, and
	// returns the new version. Otherwise the error matches ErrConflict, or
	// ErrNotFound if the secret does not exist.
	//
	// Labels in p that are not in base are added before the commit. Labels in
	// base that are not in p are removed afterwards, except those in p.Former. Labels
	// in base.Former that are in neither Labels nor Former of p may be removed at any
	// time, even if Update fails. If they are removed concurrently with the commit, the
	// caller does not wait for them. A failure to remove labels does not affect the
	// result.
	Update(ctx context.Context, name string, base Secret, p Payload) (Version, error)

	// Delete removes the named secret and its earlier versions if its state is
	// still base; otherwise the error matches ErrConflict. It returns nil if the
	// secret does not exist.
	Delete(ctx context.Context, name string, base Secret) error

	// Lookup yields the secrets that carry at least one of the labels, whatever
	// their nonces, in no particular order. The result may lag: see ListLag.
	Lookup(ctx context.Context, any []Label) iter.Seq2[Named, error]

	// List yields all secrets, in no particular order and in as few calls as
	// the service allows.
	List(ctx context.Context) iter.Seq2[Named, error]

	// Names yields the names of all secrets, in no particular order.
	Names(ctx context.Context) iter.Seq2[string, error]

	// Close releases what the driver itself acquired. It does not close the
	// client that the driver was given.
	Close() error
}

// A Leaser is a Secrets that can attach a short note to a secret at a lower cost
// than that of an Update. Package tokenstore keeps the lease of a refresh in the
// note if the driver is a Leaser, and otherwise in the record.
type Leaser interface {
	Secrets

	// Note replaces base.Note by note if the secret's state and note are still
	// those of base, which Fresh returned. An empty note removes the current one. The
	// Version does not change. A note has at most 63 characters of [a-z0-9.-]. If the
	// note has changed but the state has not, the error may be a *NoteError, which holds
	// the current note.
	Note(ctx context.Context, name string, base Secret, note string) error
}

// A Sweeper is a Leaser that keeps earlier states for a while.
type Sweeper interface {
	Leaser

	// Sweep removes earlier states that nothing needs. It ignores failures. base is the
	// state and note that a Note has just proved to be current. Package tokenstore calls
	// Sweep while it waits for an authorization server, and cancels ctx when the server
	// has answered.
	Sweep(ctx context.Context, name string, base Secret)
}

// A NoteError is the error of a Note whose base does not have the note of the secret.
// It matches ErrConflict.
type NoteError struct {
	Note string // the note of the secret, or "" if it has none
	Err  error  // matches ErrConflict
}

// Error returns the text of Err.
func (e *NoteError) Error() string { return e.Err.Error() }

// Unwrap returns Err.
func (e *NoteError) Unwrap() error { return e.Err }

// A Labeler is a Secrets that chooses the nonces of the labels that a write adds. It can
// then distinguish labels that a failed write may remove from labels that an earlier
// write over the same base has left.
type Labeler interface {
	Secrets

	// Relabel returns the labels in added with the nonces that they must have. The
	// next write over base adds these labels to the named secret. base is "" if the
	// write is a Create. Labels of base keep their nonces and are not in added. Each
	// call is for one write.
	Relabel(name string, base Version, added []Label) []Label
}
