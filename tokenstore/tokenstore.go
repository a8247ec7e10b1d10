package tokenstore

import "context"

// A TokenStore keeps OAuth token records. It is the Go form of the TokenStore of
// the Zoho CRM SDKs (find_token, find_token_by_id, save_token, delete_token,
// get_tokens, delete_tokens). The package documentation has the rules that its
// methods follow; package conformance checks them.
//
// Tokens are passed and returned by value. All methods are safe for concurrent
// use, by goroutines and by processes.
type TokenStore interface {
	// FindToken returns the record that like describes, with the fields that
	// like has laid over it. See "Matching" in the package documentation. The
	// error matches ErrNotFound if there is none, ErrAmbiguous if there are
	// several, and ErrInvalidToken if like describes nothing.
	FindToken(ctx context.Context, like Token) (Token, error)

	// FindTokenByID returns the record with the given ID. The error matches
	// ErrNotFound if there is none.
	FindTokenByID(ctx context.Context, id string) (Token, error)

	// SaveToken stores t and returns it as stored, with its ID. If there is a
	// record that t describes, the fields that t has replace the record's and
	// the others stay. See "Saving" in the package documentation.
	SaveToken(ctx context.Context, t Token) (Token, error)

	// DeleteToken removes the record with the given ID. It returns nil if there
	// is none.
	DeleteToken(ctx context.Context, id string) error

	// GetTokens returns all records, ordered by ID. If some of them cannot be
	// read it returns the others, together with an error that joins an
	// *UnreadableError for each of the former. If the store as a whole cannot be
	// read, the list is nil.
	GetTokens(ctx context.Context) ([]Token, error)

	// DeleteTokens removes all records that can be read. It leaves the others
	// alone, and returns an error that joins an *UnreadableError for each of them.
	DeleteTokens(ctx context.Context) error
}

// A Refresher is a TokenStore that can replace an expired access token so that
// of all the goroutines and processes that find it expired, one asks the
// authorization server.
type Refresher interface {
	// Refresh returns the record with the given ID with an access token other
	// than stale.
	//
	// If the record has one that has not expired, it is returned and nothing is
	// called. Otherwise mint is called with the record, by one caller at a time;
	// the others wait and get its result. Refresh merges the token that mint
	// returns into the record like SaveToken: empty fields keep their stored
	// values. Waiters and later callers get a *RefreshError of mint too.
	//
	// If the new token could not be stored it is returned together with an error
	// matching ErrNotPersisted.
	Refresh(ctx context.Context, id string, stale Secret, mint func(context.Context, Token) (Token, error)) (Token, error)
}
