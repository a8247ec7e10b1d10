package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/codec/tokenfile"
	"github.com/tokenkeep/tokenkeep/internal/sdkid"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// fromRow returns the token in a row of a token file, part of which may be damaged.
func fromRow(f codec.Fields, damage error) (tokenstore.Token, error) {
	if damage != nil {
		return tokenstore.Token{}, fmt.Errorf("%w: %w", errInput, damage)
	}
	t := tokenstore.FromFields(f)
	return t, tokenstore.Validate(t)
}

// sameToken reports whether a and b are equal field by field.
func sameToken(a, b tokenstore.Token) bool { return a.Fields() == b.Fields() }

// dialectFlag adds --dialect to a command.
func dialectFlag(c *cobra.Command, dialect *string, value, text string) {
	c.Flags().StringVar(dialect, "dialect", value, text+": "+dialectNames(codec.Dialects(), ", "))
}

func dialectNames(dialects []codec.Dialect, separator string) string {
	var names []string
	for _, d := range dialects {
		names = append(names, string(d))
	}
	return strings.Join(names, separator)
}

// knownDialect returns the dialect that a flag names; "" is none.
func knownDialect(name string) (codec.Dialect, error) {
	d := codec.Dialect(name)
	if name != "" && !d.Known() {
		return "", usagef("there is no such dialect; there are %s", dialectNames(codec.Dialects(), ", "))
	}
	return d, nil
}

// parseFile reads a token file. Errors name the line and hold nothing of it.
func parseFile(data []byte, d codec.Dialect) (*tokenfile.File, error) {
	f, err := tokenfile.Parse(data, d)
	if err != nil {
		return nil, fmt.Errorf("%w: this cannot be read as a token file: %w", errInput, err)
	}
	return f, nil
}

// A numbered is a record with the number that it has in a token file.
type numbered struct {
	id    string // in the store
	token tokenstore.Token
}

// number gives records the numbers that the SDKs have for IDs, and returns them
// in the order in which they are written. If keep is set, those whose IDs are
// such numbers keep them, and come first.
func number(tokens []tokenstore.Token, keep bool) []numbered {
	var kept, others []numbered
	var last int64
	for _, t := range tokens {
		if own, ok := sdkid.Number(t.ID); keep && ok {
			kept = append(kept, numbered{t.ID, t})
			last = max(last, own)
		} else {
			others = append(others, numbered{t.ID, t})
		}
	}
	slices.SortFunc(kept, func(a, b numbered) int { return sdkid.Compare(a.id, b.id) })
	for i := range others {
		last++
		others[i].token.ID = strconv.FormatInt(last, 10)
	}
	return append(kept, others...)
}

// problems makes one error of many.
func problems(errs []error) error {
	const most = 20
	if more := len(errs) - most; more > 0 {
		errs = append(errs[:most:most], fmt.Errorf("and %d more", more))
	}
	return errors.Join(errs...)
}
