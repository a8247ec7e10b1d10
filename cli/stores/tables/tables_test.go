package tables

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/tokenkeep/tokenkeep/cli/scheme"
)

// TestNoTableClosesItsDatabase checks that noTable leaves no database open unless it returns a
// store. An open database has a goroutine, and synctest.Test fails if a goroutine remains.
func TestNoTableClosesItsDatabase(t *testing.T) {
	t.Parallel()
	broken := errors.New("the database cannot be closed")
	for what, c := range map[string]struct {
		table     string
		mustExist bool
		closed    error
		opens     bool
	}{
		"an empty store":               {sdkTable, false, nil, true},
		"a failure to close":           {sdkTable, false, broken, false},
		"a table that must exist":      {sdkTable, true, nil, false},
		"a table with an illegal name": {"a`b", false, nil, false},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, err := noTable(t.Context(), &scheme.Opening{MustExist: c.mustExist}, c.table, "sqlite", c.closed)
				if (err == nil) != c.opens || c.closed != nil && !errors.Is(err, c.closed) {
					t.Errorf("noTable returns %v", err)
				}
				if s != nil {
					if err := s.Close(); err != nil {
						t.Error(err)
					}
				}
			})
		})
	}
}
