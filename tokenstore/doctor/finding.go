package doctor

import (
	"maps"
	"slices"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// A Finding is one result of Check. It holds no secret and no user name.
type Finding struct {
	Kind Kind

	// Name is the name of the secret, row, file or call that the finding is about. It is
	// empty if the finding is about the store as a whole.
	Name string

	// ID is the ID of the record, if a record exists and could be read.
	ID string

	// Detail describes the finding in one line.
	Detail string

	// Remedy is the way to repair the fault. Action describes the repair. Action is empty if
	// Remedy is RemedyManual.
	Remedy Remedy
	Action string

	// Repaired is set if the fault was repaired. Err is the error of a failed repair, or the
	// error that the finding reports.
	Repaired bool
	Err      error
}

// A Remedy is a way to repair a fault.
type Remedy string

// The values of Finding.Remedy.
const (
	RemedyRepair Remedy = "repair" // Check with Repair
	RemedyMerge  Remedy = "merge"  // Check with MergeDuplicates
	RemedyPurge  Remedy = "purge"  // Check with Purge
	RemedyRekey  Remedy = "rekey"  // Rekey
	RemedyManual Remedy = "manual" // an operator must decide
)

// A Kind is a kind of Finding, such as KindUnreadable. Programs may rely on the values of the
// constants.
type Kind string

// The kinds of finding about records and their tokens.
const (
	KindUnreadable  Kind = "record-unreadable"
	KindEmpty       Kind = "record-empty"
	KindDead        Kind = "record-dead"
	KindDuplicate   Kind = "duplicate"
	KindDuplicateID Kind = "duplicate-id"
	KindTokenShared Kind = "token-shared"
	KindLeaseLapsed Kind = "lease-lapsed"
)

// The kinds of finding that only stores on a driver can have.
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
	KindProbeLeftBehind     Kind = "probe-left-behind"
)

// The kinds of deviation that Measure finds.
const (
	KindNotOneWinner Kind = "not-one-winner"
	KindLag          Kind = "lag-above-promise"
)

// The kinds of finding that drivers report, with the values of package driver.
const (
	KindTombstone  Kind = driver.FaultTombstone
	KindNoState    Kind = driver.FaultEmpty
	KindDeleted    Kind = driver.FaultDeleted
	KindRolledBack Kind = driver.FaultRolledBack
	KindExpires    Kind = driver.FaultExpires
	KindDue        Kind = driver.FaultDue
)

// The kinds of finding that only stores in files and tables can have.
const (
	KindFileUnreadable Kind = "file-unreadable"
	KindFileMode       Kind = "file-mode"
	KindFileLeftOver   Kind = "file-left-over"
	KindFileMounted    Kind = "file-mounted"
	KindFileLockOwner  Kind = "file-lock-owner"
	KindIDNotNumeric   Kind = "id-not-numeric"
	KindColumnNarrow   Kind = "column-narrow"
)

// kinds maps each kind to its meaning, and says whether the kind is harmless.
var kinds = map[Kind]struct {
	harmless bool
	meaning  string
}{
	KindUnreadable:  {false, "The record exists but cannot be read: it was edited, is encrypted with an unknown key, or the service refuses it. It is not found, and nothing overwrites it."},
	KindEmpty:       {true, "A record without a token. It was created for another record to move to, which was deleted. It is not found."},
	KindDead:        {true, "A record that had moved to another one, which was deleted. It is not found. Its tokens are still stored."},
	KindDuplicate:   {false, "Duplicate records: several of one user and client, or one with a user and others with the same token but without a user. A search may find the wrong one, or fail because it is ambiguous."},
	KindDuplicateID: {false, "Several records have the same ID. A search by this ID fails because it is ambiguous."},
	KindTokenShared: {false, "Records of different users or clients have the same token. A search by this token fails because it is ambiguous."},
	KindLeaseLapsed: {true, "A process that was refreshing the token was killed. The next refresh waits until the lease has ended."},

	KindStoreUnkeyed:        {true, "Names and IDs are digests without a key: anyone who can list the store can test guesses of user names."},
	KindKeysForeign:         {false, "The keys of the check do not seem to be those of the store."},
	KindNameForeign:         {false, "The name of the record does not derive from its user and client, or from its first token: it was written with another name key, or copied. Searches by the user and client, or by the first token, do not find the record."},
	KindNameUnkeyed:         {false, "The name of the record was made without a key, although there is a name key. It is not found by its user and client."},
	KindLabelMissing:        {false, "A label of the record is missing. Searches by that key do not find the record."},
	KindLabelOldKey:         {true, "A label was made with an index key other than the first. The record is found as long as that key remains among the index keys."},
	KindLabelUnknownKey:     {false, "A label was made with a key that is not an index key. Searches by it do not find the record."},
	KindLabelUnkeyed:        {false, "A label is a digest without a key, although there are index keys. Searches by it do not find the record, and anyone who sees it can test guesses."},
	KindLabelStale:          {true, "A label that does not belong to anything in the record. Searches by it read the record unnecessarily."},
	KindLabelLeftOver:       {true, "A label of a write that was not committed. Searches by it read the secret unnecessarily."},
	KindPromotionUnfinished: {false, "An unfinished move of a record to that of its user, whose process was killed. Both are found; their tokens are in two places."},
	KindPromotionStale:      {false, "A record waits for the move of a record that does not exist. Eight such waits prevent further moves."},
	KindAlias:               {true, "A redirect from a record that was merged into another record. Without the redirect, the same IDs still find that record. The service bills the redirect as a secret."},
	KindAliasBroken:         {true, "A redirect to a record that was deleted."},
	KindPermission:          {false, "A call that the store makes is not allowed."},
	KindNotCompared:         {false, "The server does not compare before it writes, like some emulators: of two concurrent writes, one is lost without an error. Do not keep tokens there."},

	KindProbeLeftBehind: {true, "A temporary secret of a measurement that was killed. Programs do not see it. It is billed as a secret."},

	KindNotOneWinner: {false, "Of several concurrent writes over one state, not exactly one succeeded. Writes can be lost. Do not keep tokens there."},
	KindLag:          {false, "A write stayed invisible for longer than the driver promises. A search or a list misses recent records. If the lag can be configured, as for Vault, configure a longer one."},

	KindTombstone:  {true, "A remnant without content that the service keeps of a deleted secret."},
	KindNoState:    {true, "A secret without content: a process was killed during its creation, or another tool has created it."},
	KindDeleted:    {false, "A secret that another tool has deleted, but not permanently: it can be restored, and its tokens are still stored."},
	KindRolledBack: {false, "Another tool has restored an earlier state of the secret. Later tokens are not found; writers would conflict with them."},
	KindExpires:    {false, "The service will delete the secret at a set time. The record and its tokens are then lost."},
	KindDue:        {true, "Earlier states of a secret that were not destroyed yet. They contain earlier tokens, and may cost money."},

	KindFileUnreadable: {false, "The file cannot be read as a token file. Every operation fails, and nothing is written."},
	KindFileMode:       {false, "Users other than the owner can read or write the file."},
	KindFileLockOwner:  {false, "The lock file and the token file have different owners. The owner of the token file cannot write."},
	KindFileMounted:    {true, "The token file itself is a mount point and cannot be replaced. It is written in place: a crash of the machine during a write may truncate it. Mount its directory instead."},
	KindFileLeftOver:   {true, "A file that a killed process left beside the token file. It may contain tokens."},
	KindColumnNarrow:   {true, "A column of the table is too short for the tokens of some authorization servers. A longer token is refused; a refresh that obtains one widens the column, if it has the permission."},
	KindIDNotNumeric:   {false, "The SDK of the file cannot read the ID."},
}

// Kinds returns all kinds, sorted.
func Kinds() []Kind { return slices.Sorted(maps.Keys(kinds)) }

// Meaning returns, in English sentences, what a finding of the kind k means to users. It
// returns "" for an unknown kind.
func (k Kind) Meaning() string { return kinds[k].meaning }

// Harmless reports whether a finding of the kind k leaves users of the store unaffected. It
// returns false for an unknown kind.
func (k Kind) Harmless() bool { return kinds[k].harmless }
