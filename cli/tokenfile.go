package cli

import (
	"fmt"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/codec/tokenfile"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// fromRow returns the token in a row of a token file. The error matches errInput if damage, the
// error about unreadable parts of the row, is not nil. If the token is invalid, the error matches
// a class of package tokenstore.
func fromRow(f codec.Fields, damage error) (tokenstore.Token, error) {
	if damage != nil {
		return tokenstore.Token{}, fmt.Errorf("%w: %w", errInput, damage)
	}
	t := tokenstore.FromFields(f)
	return t, tokenstore.Validate(t)
}

// parseFile parses a token file. Errors match errInput, and do not quote the text of the file.
func parseFile(data []byte, d codec.Dialect) (*tokenfile.File, error) {
	f, err := tokenfile.Parse(data, d)
	if err != nil {
		return nil, fmt.Errorf("%w: this cannot be read as a token file: %w", errInput, err)
	}
	return f, nil
}
