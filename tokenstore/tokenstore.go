package tokenstore

import "context"

// A TokenStore keeps OAuth token records. Its methods correspond to find_token,
// find_token_by_id, save_token, delete_token, get_tokens and delete_tokens in the Zoho CRM
// SDKs. The package documentation states the rules for these methods. The tests in package
// conformance check these rules.
//
// Tokens are passed and returned by value. All methods are safe for concurrent use by
// several goroutines and processes.
type TokenStore interface {
	// FindToken returns the record that the given token describes. In the result, the non-empty
	// fields of that token replace those of the record. See "Matching" in the package
	// documentation. The error matches ErrNotFound if no record matches, and ErrInvalidToken if
	// the token is invalid or describes nothing. The error matches ErrAmbiguous if several
	// records match and no rule prefers one of them.
	FindToken(ctx context.Context, like Token) (Token, error)

	// FindTokenByID returns the record with the given ID. The error matches ErrNotFound if no
	// record has the ID, ErrAmbiguous if several records have the ID, and ErrInvalidToken if
	// id is empty or invalid.
	FindTokenByID(ctx context.Context, id string) (Token, error)

	// SaveToken stores t and returns the stored record, with its ID. If t describes an
	// existing record, the non-empty fields of t replace those of the record. All other fields
	// keep their values. If t cannot be saved, the error matches ErrInvalidToken, ErrTooLarge,
	// ErrIDMismatch, ErrAmbiguous or ErrNotFound. See "Saving" in the package documentation.
	SaveToken(ctx context.Context, t Token) (Token, error)

	// DeleteToken removes the record with the given ID, and returns nil if the record does not
	// exist. The error matches ErrAmbiguous if several records have the ID, and
	// ErrInvalidToken if id is empty or invalid.
	DeleteToken(ctx context.Context, id string) error

	// GetTokens returns all records, ordered by ID. If some records cannot be read,
	// GetTokens returns the other records and an error that joins an *UnreadableError for
	// each unreadable record. After any other error, the tokens are nil.
	GetTokens(ctx context.Context) ([]Token, error)

	// DeleteTokens removes all records that can be read. If some records cannot be read,
	// DeleteTokens does not change them, and returns an error that joins an *UnreadableError
	// for each unreadable record.
	DeleteTokens(ctx context.Context) error
}

// A Refresher is a store that can replace the access token of a record. If several goroutines
// and processes refresh a record concurrently, only one of them asks the authorization
// server.
type Refresher interface {
	// Refresh returns the record with the given ID, with an access token that the caller accepts.
	// The parameter stale is the access token that the caller does not accept. If stale is empty,
	// the caller accepts any access token that has not expired.
	//
	// If the record has an access token that differs from stale and has not expired, Refresh
	// returns the record and does not call mint. Otherwise one caller at a time calls mint
	// with the record; the other callers wait for the result of that call. Refresh merges the
	// token that mint returns into the record as SaveToken does: empty fields keep their
	// stored values. If mint returns a *RefreshError, waiters also get that error. Later
	// callers also get the error until another attempt may succeed, unless the error refuses
	// the client.
	//
	// If the new token could not be stored, Refresh returns the token together with an error
	// matching ErrNotPersisted. The error matches ErrNotFound if no record has the ID, and
	// ErrInvalidToken if id is empty, mint is nil, or mint returns no access token.
	Refresh(ctx context.Context, id string, stale Secret, mint func(context.Context, Token) (Token, error)) (Token, error)
}
