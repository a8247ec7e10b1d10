// Package driver defines the interface through which package tokenstore keeps OAuth tokens
// in a secret manager.
//
// Application code should use package tokenstore with one of the adapters (awssm, gcpsm,
// vaultstore, k8sstore). Only the author of an adapter needs this package. Package
// driverkit holds the parts that drivers have in common.
//
// # Division of labor
//
// A driver reads and writes opaque payloads in one secret manager, and never interprets a
// payload. Everything that must be the same on every backend is in package tokenstore. That
// package matches and merges tokens, chooses names, encodes records, computes digests, retries
// after a conflict, and redacts and wraps errors.
//
// # What a driver may rely on
//
//   - A name matches [a-z0-9]{1,64} and needs no escaping in a path.
//   - Payload.Data is not empty and not larger than Properties.MaxSize. No two writes have the
//     same Data, because each write puts a random nonce into the record. A driver whose client
//     retries writes may therefore compare Data to distinguish its own write from another
//     writer's.
//   - A label key matches [a-z][a-z0-9_]{0,31}; a label value has 32 characters, and a
//     label nonce 16 characters, of the base32 alphabet a-z2-7. A label contains no part of
//     a token. A payload has at most 32 labels, sorted by key, value and nonce, without
//     duplicates.
//   - The Version of a base was returned by a read, Create or Update of the same name.
//     Package tokenstore sets base.Labels to the labels with which base.Data was committed,
//     even if the driver left Labels empty.
//
// # What a driver promises
//
// Package conformance checks each numbered promise, in a test case that names the promise.
//
//   - [DR-01] Get returns Data byte for byte as the last Create or Update committed it,
//     with a Version that Update and Delete accept as base.
//   - [DR-02] Get and Fresh of a name that was never created, or was deleted, fail with
//     an error matching ErrNotFound.
//   - [DR-03] Create of a name that is in use changes nothing and fails with an error
//     matching ErrExists.
//   - [DR-04] Of several concurrent Creates of one name, exactly one succeeds.
//   - [DR-05] Update with a base that is not the current state changes nothing and
//     fails with an error matching ErrConflict.
//   - [DR-06] Of several concurrent Updates with one base, at most one succeeds. If no call
//     fails for another reason, exactly one succeeds.
//   - [DR-07] Update of a name that does not exist creates nothing and fails with an
//     error matching ErrNotFound or ErrConflict.
//   - [DR-08] Data and Version change together: no reader sees the Data of one state
//     with the Version of another.
//   - [DR-09] The Version of a state differs from the Versions of all other states that the
//     name has had, including those of earlier incarnations.
//   - [DR-10] After a Delete of the current state, Get does not find the secret. Once
//     ListLag has passed, Lookup and List do not find it either.
//   - [DR-11] Delete with a base that is not the current state changes nothing and
//     fails with an error matching ErrConflict.
//   - [DR-12] Delete of a name that does not exist returns nil.
//   - [DR-13] Create of a deleted name succeeds. Create may wait until the service accepts the
//     name again or ctx is done.
//   - [DR-14] Create of a deleted name begins a new incarnation. An Update or Delete with a
//     base from an earlier incarnation fails with an error matching ErrConflict or
//     ErrNotFound. Neither the call nor its cleanup changes the new secret or its labels.
//   - [DR-15] Once ListLag has passed, Lookup finds a secret by each label of its commit,
//     even after a crash or during a concurrent write. A driver adds a label before the
//     commit that needs the label. The label is removed only by a later write whose base has the
//     label.
//   - [DR-16] Labels that differ only in Nonce are separate labels: after the removal of
//     one of them, Lookup still finds the secret by the other label. Lookup ignores Nonce.
//   - [DR-17] Lookup yields every secret that carries one of the given labels, each once,
//     with the state that Get would return. It may also yield secrets that once had one of
//     these labels, because package tokenstore relies only on the Data of each result.
//   - [DR-18] List yields every secret once, and Names yields every name once. Names may
//     also yield the names of deleted secrets, but List does not.
//   - [DR-19] The iterators stop when the loop body returns false. An error of any class that is
//     yielded with a Name concerns only the secret with that name, and the iteration continues.
//     An error without a Name ends the iteration.
//   - [DR-20] Two drivers opened with different prefixes do not see each other's
//     secrets, even if one prefix is the beginning of the other.
//   - [DR-21] A second driver opened with the same arguments, in this process or
//     another, sees the same secrets once ReadLag has passed. Of concurrent writes
//     through both drivers on one base, at most one succeeds.
//   - [DR-22] Every method returns promptly once its context is done, with an error
//     matching ctx.Err(). A method called with a context that is done changes nothing.
//   - [DR-23] A driver stores, and returns unchanged, Data of up to MaxSize arbitrary bytes.
//   - [DR-24] The text of an error contains no part of a payload. A driver does not wrap the
//     errors of a decoder, because such errors may quote the input.
//   - [DR-25] A driver keeps no reference to a slice that it receives. The caller may
//     change a slice that the driver returns.
//   - [DR-26] All methods are safe for concurrent use.
//   - [DR-27] Fresh returns the newest state that the service can prove. This state is never
//     older than the Secret that the caller passed.
//   - [DR-28] If a secret under the driver's prefix is not in the form that the driver
//     writes, Get fails with an error matching ErrCorrupt. Get does not change the secret.
//     If a secret cannot be read, for whatever reason, List and Lookup yield its name with
//     the error and continue.
//
// A driver that is a [Leaser] makes two more promises:
//
//   - [DR-29] Note changes only the note of a secret. Of several concurrent Notes with one
//     base, at most one succeeds. If no call fails for another reason, exactly one
//     succeeds. If the state or the note of base is not current, Note changes nothing. The
//     error then matches ErrConflict, or ErrNotFound if the secret does not exist.
//   - [DR-30] Fresh returns the note of the secret. Update removes the note if Payload.Drop
//     equals the note, and otherwise keeps the note. Delete removes the note.
//
// One promise lets callers distinguish an exhausted quota from an outage:
//
//   - [DR-33] If the service rejects a call because there were too many calls, the error
//     matches ErrThrottled, and therefore ErrUnavailable. No other error matches
//     ErrThrottled. A rejected call succeeds if it is repeated once the service accepts
//     calls again.
//
// Two promises are needed to bind encrypted records to their store, and to the incarnation of
// their secret:
//
//   - [DR-31] If Properties.Place is not empty, every driver that is opened with the
//     same arguments has the same Place. A driver with another prefix has a different
//     Place.
//   - [DR-32] An Incarnation that a driver returns with a Secret is the one that was passed
//     to Create. It does not change while the secret exists, even if Data is replaced.
//
// # Errors
//
// A driver classifies an error by wrapping one of the sentinels below together with the
// error of the underlying service, as in
//
//	fmt.Errorf("%w: %w", driver.ErrNotFound, err)
//
// errors.Is then finds the class, and errors.As still finds the service's own type. If no class
// fits an error, a driver returns the error unchanged. A driver never adds a class to an error
// of package context.
//
// After a timeout or a lost response, a driver cannot tell whether the service applied a write. The
// error of that write must not match ErrConflict, ErrExists or ErrNotFound. Package tokenstore then
// calls Fresh, and searches the result for the nonce of the write.
//
// # Retries
//
// A driver leaves retries after transient failures to the client of the service. The driver
// itself retries only if the client does not. Create may also repeat its call while the service
// is still deleting an earlier secret with the name. A driver should not repeat a throttled call
// if [Retries] returns false for the context of the call.
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

// Error classes. See "Errors" in the package documentation.
var (
	// ErrNotFound means that no secret has the given name.
	ErrNotFound = errors.New("not found")

	// ErrExists means that Create found a secret with the given name. Create did not change
	// that secret.
	ErrExists = errors.New("already exists")

	// ErrConflict means that the current state or note of the secret differs from the base of
	// the call. The call did not change the secret.
	ErrConflict = errors.New("changed concurrently")

	// ErrDenied means that the service refused the caller's credentials or that
	// the caller lacks a permission. Retrying does not help.
	ErrDenied = errors.New("access denied")

	// ErrCredentials means that the credentials are absent, malformed, unknown, revoked or
	// expired, or could not be fetched. ErrCredentials is not a class. An error that matches
	// ErrCredentials also matches ErrUnavailable if the credentials could not be fetched, and
	// otherwise ErrDenied. If an error matches ErrDenied but not ErrCredentials, a permission
	// is missing, unless the service hides the cause.
	ErrCredentials = errors.New("the credentials are not accepted")

	// ErrRefused means that the service refused the call because of how the service, the secret
	// or the client is set up. Examples are a read-only replica, a policy of the organization,
	// a disabled version or key, and an engine of the wrong kind. Retrying does not help until
	// an operator changes the set-up.
	ErrRefused = errors.New("the set-up does not allow it")

	// ErrUnavailable means that the service throttled the call, failed, or could
	// not be reached, even after the client's own retries. A write may have been
	// applied.
	ErrUnavailable = errors.New("store unavailable")

	// ErrThrottled means that the service or its client rejected the call because there were
	// too many calls, even after the client's own retries. An error of this class also matches
	// ErrUnavailable. A write may have been applied: the response to an earlier attempt by the
	// client may have been lost. Errors about quotas that time does not replenish, and errors
	// about a daily limit on the states of a secret, do not match ErrThrottled.
	ErrThrottled = fmt.Errorf("%w: too many calls", ErrUnavailable)

	// ErrCorrupt means that the secret exists but does not have the form that this module
	// writes, for example because an operator has edited the secret.
	ErrCorrupt = errors.New("unexpected form")
)

// Unbounded is the ListLag or ReadLag of a backend that documents no bound.
const Unbounded time.Duration = math.MaxInt64

// A Version identifies one state of one secret. Versions are opaque: package tokenstore only
// compares them for equality and passes them back to the driver. The zero Version identifies no
// state.
type Version string

// A Label is a searchable attribute of a secret.
type Label struct {
	Key   string // what the label indexes, such as "user"
	Value string // a digest of the indexed value
	Nonce string // identifies the write that added the label; Lookup ignores Nonce
}

// A Payload is the data that package tokenstore asks a driver to store.
type Payload struct {
	// Data is the encoded record.
	Data []byte

	// Labels are all labels by which Lookup must find the secret.
	Labels []Label

	// Former are labels with which earlier states of the secret were committed, and which the
	// secret may still have. Lookup need not find the secret by these labels. See
	// Secrets.Update.
	Former []Label

	// Drop is a note, or empty. Update removes the note of the secret if that note equals
	// Drop. A driver that is not a Leaser ignores Drop.
	Drop string

	// Incarnation is a random string that distinguishes the secret from earlier secrets with
	// the same name. Create and all Updates of one secret get the same string. A driver that
	// can store the string beside Data in Create, and read both without a further call, returns
	// the string with every Secret. Package tokenstore then refuses Data that an operator has
	// restored from an earlier incarnation. Other drivers ignore Incarnation and return an empty
	// string.
	Incarnation string
}

// A Secret is one state of a stored secret.
type Secret struct {
	// Payload is the payload of the state. Drivers may leave Labels empty when they return a
	// Secret, because Data also contains the labels.
	Payload

	// Version identifies the state that was read.
	Version Version

	// Note is the note of the secret, or empty. The method Fresh of a Leaser must set Note;
	// other methods need not.
	Note string

	// Updated is the time of the write by the service's clock, or the zero Time if the driver
	// does not know that time.
	Updated time.Time
}

// A Named is a Secret with its name.
type Named struct {
	Name string
	Secret
}

// Format prints only the size of Data and the number of labels.
func (p Payload) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, p.text()) }

// LogValue returns the text that Format prints, for package slog.
func (p Payload) LogValue() slog.Value { return slog.StringValue(p.text()) }

// MarshalJSON always returns an error, because p holds tokens.
func (p Payload) MarshalJSON() ([]byte, error) {
	return nil, errors.New("driver: a payload is not marshaled: it holds tokens")
}

func (p Payload) text() string {
	return fmt.Sprintf("driver.Payload{%d bytes, %d labels}", len(p.Data), len(p.Labels))
}

// Format prints only the version, the size of Data and the number of labels.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.text()) }

// LogValue returns the text that Format prints, for package slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.text()) }

func (s Secret) text() string {
	return fmt.Sprintf("driver.Secret{version %q, %d bytes, %d labels}", s.Version, len(s.Data), len(s.Labels))
}

// Format prints only the name, the version, the size of Data and the number of labels.
func (n Named) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, n.text()) }

// LogValue returns the text that Format prints, for package slog.
func (n Named) LogValue() slog.Value { return slog.StringValue(n.text()) }

func (n Named) text() string {
	return fmt.Sprintf("driver.Named{name %q, version %q, %d bytes, %d labels}", n.Name, n.Version, len(n.Data), len(n.Labels))
}

// Properties describes a backend. The values do not change while a driver is in use.
type Properties struct {
	// Name is the name of the backend in errors and logs, such as "awssm".
	Name string

	// Place identifies the namespace in which the driver stores secrets. Drivers that see the
	// same secrets have the same Place, and drivers with different prefixes have different
	// Places. Place must not change while encrypted records exist, because such records are
	// bound to Place. Place contains no credential. An empty Place means that the driver does
	// not identify the namespace.
	Place string

	// MaxSize is the maximum size of Payload.Data in bytes, at least 16 KiB.
	MaxSize int

	// ListLag is how long a completed write may stay invisible to Lookup, List and Names.
	// ReadLag is how long a completed write may stay invisible to Get. Zero means that these
	// methods see every write that has returned. Any other value is the bound that the service
	// documents or the caller configures, or Unbounded.
	ListLag, ReadLag time.Duration

	// ListBatch is the number of secrets that List and Lookup read with one call to the service;
	// 0 means one secret.
	ListBatch int

	// LabelBatch is the number of labels that Update removes with one call; 0 means that
	// labels change together with the state. If LabelBatch is not 0, package tokenstore
	// leaves the removal of some labels to a later Update.
	LabelBatch int

	// DailyWrites is the number of states of one secret that the service accepts within 24
	// hours; 0 means no limit. Package tokenstore does not begin a refresh that might
	// exceed this number.
	DailyWrites int
}

// Secrets stores named secrets in one namespace of one secret manager. The package
// documentation lists the promises of the methods.
type Secrets interface {
	// Properties returns the properties of the backend without I/O.
	Properties() Properties

	// Get returns the state of the named secret, which may be out of date by up to
	// Properties.ReadLag. Get should make only one call to the service. The error matches
	// ErrNotFound if the secret does not exist, and ErrCorrupt if the secret does not have the
	// driver's form.
	//
	// An outdated result is safe. An Update over an outdated state fails with an error matching
	// ErrConflict or ErrNotFound. If Get misses a secret, a Create of that secret fails with an
	// error matching ErrExists.
	Get(ctx context.Context, name string) (Secret, error)

	// Fresh returns the newest state of the named secret that the driver can prove. The parameter
	// than is the newest state that the caller has seen, or the zero Secret if the caller has seen
	// none. The result is never older than this state. The error matches ErrNotFound if the secret
	// does not exist. Fresh may make several requests to the service. Package tokenstore calls
	// Fresh before it takes a lease, after ErrExists or ErrConflict, and after a write of unknown
	// outcome.
	Fresh(ctx context.Context, name string, than Secret) (Secret, error)

	// Create stores a secret under a name that is not in use, and returns the new version. If a
	// secret already has the name, the error matches ErrExists.
	Create(ctx context.Context, name string, p Payload) (Version, error)

	// Update replaces the state of the named secret if the current state is base, and returns
	// the new version. Otherwise the error matches ErrConflict. If the secret does not exist,
	// the error may match ErrNotFound instead.
	//
	// Update adds the labels in p.Labels that are not in base.Labels, no later than the commit.
	// Update removes the labels in base.Labels that are in neither p.Labels nor p.Former, no
	// earlier than the commit. At any time, and even if the commit fails, Update may remove
	// labels in base.Former that are in neither p.Labels nor p.Former. Update need not wait for
	// a removal that runs concurrently with the commit. A failure to remove labels does not
	// affect the result.
	Update(ctx context.Context, name string, base Secret, p Payload) (Version, error)

	// Delete removes the named secret with all its states if the current state is base.
	// Otherwise the error matches ErrConflict. If the secret does not exist, Delete returns
	// nil.
	Delete(ctx context.Context, name string, base Secret) error

	// Lookup yields, in no particular order, each secret that has at least one of the given
	// labels. Lookup ignores the nonces of labels. The result may lag: see Properties.ListLag.
	Lookup(ctx context.Context, any []Label) iter.Seq2[Named, error]

	// List yields all secrets, in no particular order and in as few calls as
	// the service allows.
	List(ctx context.Context) iter.Seq2[Named, error]

	// Names yields the names of all secrets, and possibly of deleted secrets, in no particular
	// order.
	Names(ctx context.Context) iter.Seq2[string, error]

	// Close releases the resources that the driver itself acquired, but not the client that was
	// passed to the driver.
	Close() error
}

// A Leaser is a Secrets that can attach a short note to a secret at a lower cost than an
// Update. If a record has a user, package tokenstore keeps the lease of a refresh in such a
// note instead of in the record.
type Leaser interface {
	Secrets

	// Note replaces the note of the secret if the current state and note are those in base.
	// Otherwise the error matches ErrConflict, or ErrNotFound if the secret does not exist. The
	// parameter base is a result of Fresh, or such a result with the note that an earlier call of
	// Note stored. An empty note removes the current note. The Version does not change. A note has
	// at most 63 characters of [a-z0-9.-]. If the note has changed but the state has not, the error
	// may be a *NoteError, which holds the current note.
	Note(ctx context.Context, name string, base Secret, note string) error
}

// A Sweeper is a Leaser that keeps earlier states of a secret for some time after an Update.
type Sweeper interface {
	Leaser

	// Sweep removes earlier states of the named secret that no reader needs, and ignores
	// failures. base holds the state and note that a call of Note has just proved to be
	// current. Package tokenstore calls Sweep while it waits for an authorization server, and
	// cancels ctx when the server has answered.
	Sweep(ctx context.Context, name string, base Secret)
}

// A NoteError is the error that Note may return if base does not hold the current note of the
// secret. A NoteError matches ErrConflict.
type NoteError struct {
	Note string // the current note of the secret, or ""
	Err  error  // matches ErrConflict
}

// Error returns the text of Err.
func (e *NoteError) Error() string { return e.Err.Error() }

// Unwrap returns Err.
func (e *NoteError) Unwrap() error { return e.Err }

// A Labeler is a Secrets that chooses the nonces of the labels that a write adds. A failed write
// can then remove its own labels without removing equal labels from an earlier write over the same
// base.
type Labeler interface {
	Secrets

	// Relabel returns the labels that the next write over base adds, with the nonces that these
	// labels must have. base is "" if the write is a Create. Labels that the state base already has
	// keep their nonces, and are not passed to Relabel. Package tokenstore calls Relabel once for
	// each write.
	Relabel(name string, base Version, added []Label) []Label
}
