package sqlstore

import (
	"fmt"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// TestSameAs checks that SameAs recognizes a table through another connection, distinguishes
// another database, and removes old notes.
func TestSameAs(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b *backend) {
		s := b.open(t, nil)
		mustSave(t, s, tokenstore.Token{UserName: "ann", RefreshToken: "r"})
		notes := b.name() + notesSuffix
		for age, left := range map[time.Duration]string{2 * time.Hour: "0", time.Second: "1"} {
			b.exec(t, fmt.Sprintf("DELETE FROM %s WHERE name LIKE 'probe %%'", notes),
				fmt.Sprintf("INSERT INTO %s (name, note) VALUES ('%s%d LEFT', 'x')", notes, probeNote, time.Now().Add(-age).Unix()))
			if is, err := s.SameAs(t.Context(), b.open(t, nil)); err != nil || !is {
				t.Errorf("another connection: %v, %v", is, err)
			}
			if got := b.rows(t, "SELECT COUNT(*) FROM "+notes+" WHERE name LIKE 'probe %'"); got[0][0] != left {
				t.Errorf("%s probes are left of one that is %v old, want %s", got[0][0], age, left)
			}
		}
		other := sqliteFile(t).open(t, nil)
		if is, err := s.SameAs(t.Context(), other); err != nil || is {
			t.Errorf("another database: %v, %v", is, err)
		}
		if got := b.rows(t, "SELECT id FROM "+b.name()); len(got) != 1 {
			t.Errorf("the table has %v", got)
		}
	})
}
