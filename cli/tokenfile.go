package cli

import (
	"fmt"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/codec/tokenfile"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// fromRow returns the token in a row of a token file. The parameter damage is the error about
// unreadable parts of the row, or nil. If damage is not nil, fromRow returns an error that matches
// errInput. If the token is invalid, the error matches a class of package tokenstore.
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
