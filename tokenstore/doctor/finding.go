package doctor

import (
	"maps"
	"slices"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// A Finding is one result of Check. It holds no secret and no user name.
type Finding struct {
	Kind Kind

	// Name is the name of the secret or, in other stores, of a row or a call. It is
	// empty if the finding is about the store as a whole.
	Name string

	// ID is the ID of the record, if there is a record and it could be read.
	ID string

	// Detail describes the finding in one line.
	Detail string

	// Remedy says how to repair the fault. Action says what was or would be done; it is
	// empty if Check can do nothing.
	Remedy Remedy
	Action string

	// Repaired says that the fault was repaired, Err why the repair failed.
	Repaired bool
	Err      error
}

// A Remedy says how a fault can be repaired.
type Remedy string

// The remedies.
const (
	RemedyRepair Remedy = "repair" // Check with Repair
	RemedyMerge  Remedy = "merge"  // Check with MergeDuplicates
	RemedyPurge  Remedy = "purge"  // Check with Purge
	RemedyRekey  Remedy = "rekey"  // Rekey
	RemedyManual Remedy = "manual" // a person has to decide
)

// A Kind is a kind of Finding. Programs may rely on the constants below.
type Kind string

// The kinds of finding that every store has.
const (
	KindUnreadable  Kind = "record-unreadable"
	KindEmpty       Kind = "record-empty"
	KindDead        Kind = "record-dead"
	KindDuplicate   Kind = "duplicate"
	KindDuplicateID Kind = "duplicate-id"
	KindTokenShared Kind = "token-shared"
	KindLeaseLapsed Kind = "lease-lapsed"
)

// The kinds of finding that stores on a driver have.
const (
	KindStoreUnkeyed        Kind = "store-unkeyed"
	KindKeysForeign         Kind = "keys-foreign"
	KindNameForeign         Kind = "name-foreign"
	KindNameUnkeyed         Kind = "name-unkeyed"
	KindLabelMissing        Kind = "label-missing"
	KindLabelOldKey         Kind = "label-old-key"
	KindLabelUnknownKey     Kind = "label-unknown-key"
	KindLabelUnkeyed        Kind = "label-unkeyed"
	KindLabelStale          Kind = "label-stale"
	KindLabelLeftOver       Kind = "label-left-over"
	KindPromotionUnfinished Kind = "promotion-unfinished"
	KindPromotionStale      Kind = "promotion-stale"
	KindAlias               Kind = "alias"
	KindAliasBroken         Kind = "alias-broken"
	KindPermission          Kind = "permission-missing"
	KindNotCompared         Kind = "not-compared"
)

// The kinds of finding that the drivers have, under the names that package driver
// gives them.
const (
	KindTombstone  Kind = driver.FaultTombstone
	KindNoState    Kind = driver.FaultEmpty
	KindDeleted    Kind = driver.FaultDeleted
	KindRolledBack Kind = driver.FaultRolledBack
	KindExpires    Kind = driver.FaultExpires
	KindDue        Kind = driver.FaultDue
)

// The kinds of finding that stores in files and tables have.
const (
	KindFileUnreadable Kind = "file-unreadable"
	KindFileMode       Kind = "file-mode"
	KindFileLeftOver   Kind = "file-left-over"
	KindFileMounted    Kind = "file-mounted"
	KindFileLockOwner  Kind = "file-lock-owner"
	KindIDNotNumeric   Kind = "id-not-numeric"
	KindColumnNarrow   Kind = "column-narrow"
)

// kinds has the meaning of each kind.
var kinds = map[Kind]struct {
	harmless bool
	meaning  string
}{
	KindUnreadable:  {false, "The record is there and cannot be read: it was edited, is encrypted with a key that is not given, or the service refuses it. It is not found, and nothing writes over it."},
	KindEmpty:       {true, "A record without any token. It was made for another record to move to, which was deleted. It is not found."},
	KindDead:        {true, "A record that had moved to another one, which was deleted. It is not found. Its tokens are still stored."},
	KindDuplicate:   {false, "Several records are the same one: those of one user and client, or one of a user and others that hold the same token without one. A search may find the wrong one, or fail because it is ambiguous."},
	KindDuplicateID: {false, "Several records have one ID. A search by it fails because it is ambiguous."},
	KindTokenShared: {false, "Records of different users or clients hold the same token. A search by it fails because it is ambiguous."},
	KindLeaseLapsed: {true, "A process took the right to refresh the token, and died. The next refresh waits for it, at most as long as a lease lasts."},

	KindStoreUnkeyed:        {true, "Names and IDs are digests without a key: those who can list the store can test guesses of user names."},
	KindKeysForeign:         {false, "The keys that the check was given do not seem to be those that the store is used with."},
	KindNameForeign:         {false, "The name of the record is not what its user and client, or its first token, derive: it was written with another name key, or copied. It is not found by them."},
	KindNameUnkeyed:         {false, "The name of the record was derived without a key, before the store had a name key. It is not found by its user and client."},
	KindLabelMissing:        {false, "A label is missing that the record should be found by. It is not found by that key."},
	KindLabelOldKey:         {true, "A label is by an index key other than the first. The record is found for as long as that key stays among the index keys."},
	KindLabelUnknownKey:     {false, "A label is by a key that is not one of the index keys. The record is not found by it."},
	KindLabelUnkeyed:        {false, "A label is a digest without a key, although there are index keys. The record is not found by it, and those who see it can test guesses."},
	KindLabelStale:          {true, "A label that nothing in the record accounts for. Searches that it answers read the record needlessly."},
	KindLabelLeftOver:       {true, "A label that no write has committed. Searches that it answers read the secret needlessly."},
	KindPromotionUnfinished: {false, "A record is on its way to that of its user, and the process that moved it died. Both are found; their tokens are in two places."},
	KindPromotionStale:      {false, "A record waits for another one to move to it that does not exist any more. Eight of these keep further ones from moving."},
	KindAlias:               {true, "What is left of a record that became part of another one, which is found by the same IDs without it. It costs what a secret costs."},
	KindAliasBroken:         {true, "What is left of a record that became part of another one, which was deleted."},
	KindPermission:          {false, "A call that the store makes is not allowed."},
	KindNotCompared:         {false, "The server does not compare before it writes, as an emulator may: of two writers at once one loses what it wrote, without an error. Do not keep tokens there."},

	KindTombstone:  {true, "A deleted secret of which the service keeps a remnant without content."},
	KindNoState:    {true, "A secret that has no content: a process died while it created it, or another tool has created it."},
	KindDeleted:    {false, "A secret that another tool has deleted, but not for good: it can be brought back, and its tokens are still stored."},
	KindRolledBack: {false, "Another tool has made an earlier state of the secret the present one. Later tokens are not found; writers would conflict with them."},
	KindExpires:    {false, "The service has been told to delete the secret at a certain time. The record and its tokens are lost then."},
	KindDue:        {true, "Earlier states of a secret that are not destroyed yet. They hold earlier tokens, and may cost money."},

	KindFileUnreadable: {false, "The file cannot be read as a token file. Every operation fails, and nothing is written."},
	KindFileMode:       {false, "Others than the owner may read or write the file."},
	KindFileLockOwner:  {false, "The lock file belongs to another user than the token file, whose owner cannot write."},
	KindFileMounted:    {true, "The token file alone is mounted, and cannot be replaced. It is written in place: a machine that fails in that moment may leave it cut off. Mount its directory instead."},
	KindFileLeftOver:   {true, "A file beside the token file that a process left behind when it died. It may hold tokens."},
	KindColumnNarrow:   {true, "A column of the table has less room than some authorization servers' tokens need. A longer token is refused; one that a refresh has brought makes the column wider, if that is permitted."},
	KindIDNotNumeric:   {false, "The ID is one that the SDK of the file does not read."},
}

// Kinds returns all kinds, sorted.
func Kinds() []Kind { return slices.Sorted(maps.Keys(kinds)) }

// Meaning returns what a finding of this kind means to users, in sentences.
func (k Kind) Meaning() string { return kinds[k].meaning }

// Harmless reports whether a finding of this kind does not affect users of the store:
// it is a remnant, or a remark.
func (k Kind) Harmless() bool { return kinds[k].harmless }
