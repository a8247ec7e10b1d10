package sqlstore

import (
	"slices"
	"testing"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/doctor"
)

// TestCheckMergeDuplicates checks that Check finds the faults of rows that an SDK or an operator
// might have written. It also checks that MergeDuplicates merges duplicates without losing fields.
func TestCheckMergeDuplicates(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b *backend) {
		s := b.open(t, nil)
		if got := checked(t, s, nil); len(got) > 0 {
			t.Errorf("in an empty table Check finds %q", got)
		}
		const insert = "INSERT INTO %s (id, user_name, client_id, client_secret, refresh_token, access_token, expiry_time, api_domain) VALUES "
		b.exec(t,
			insert+"('1', 'ann', 'client', 'secret', 'refresh1', 'access1', '4000000000000', NULL)",
			insert+"('2', 'ben', 'client', NULL, 'refresh2', 'access2', 'soon', NULL)",
			insert+"('3', 'ann', 'client', NULL, 'refresh3', 'access3', '4000000001000', NULL)",
			insert+"('4', NULL, 'client', NULL, 'refresh3', NULL, NULL, 'https://api')",
			insert+"('6', 'cat', 'client', NULL, 'refresh5', 'access5', NULL, NULL)",
			insert+"('7', 'eve', 'client', NULL, 'refresh5', 'access7', NULL, NULL)",
			insert+"('x8', 'fay', 'client', NULL, 'refresh8', 'access8', NULL, NULL)",
		)
		faults := []string{`duplicate row "1"`, `duplicate row "4"`, `id-not-numeric row "x8"`, `record-unreadable row "2"`, `token-shared row "6"`}
		if got := checked(t, s, &doctor.CheckOptions{Repair: true}); !slices.Equal(got, faults) {
			t.Errorf("Check finds %q, want %q", got, faults)
		}
		repaired := slices.Clone(faults)
		repaired[0] += " repaired"
		repaired[1] += " repaired"
		if got := checked(t, s, &doctor.CheckOptions{Repair: true, MergeDuplicates: true}); !slices.Equal(got, repaired) {
			t.Errorf("Check repairs %q, want %q", got, repaired)
		}
		if got := checked(t, s, nil); !slices.Equal(got, faults[2:]) {
			t.Errorf("afterwards Check finds %q, want %q", got, faults[2:])
		}
		ann, err := s.FindToken(t.Context(), tokenstore.Token{UserName: "ann", ClientID: "client"})
		if err != nil || ann.ID != "3" || ann.RefreshToken != "refresh3" || ann.AccessToken != "access3" || ann.ClientSecret != "secret" || ann.APIDomain != "https://api" {
			t.Errorf("ann has the record %q with the domain %q, %v", ann.ID, ann.APIDomain, err)
		}
	})
}

// checked returns the findings of Check as sorted texts, such as `duplicate row "1" repaired`.
func checked(t *testing.T, s *Store, opts *doctor.CheckOptions) []string {
	t.Helper()
	var found []string
	for f, err := range s.Check(t.Context(), opts) {
		if err != nil {
			t.Fatalf("Check: %v", err)
		}
		text := string(f.Kind) + " " + f.Name
		if f.Repaired {
			text += " repaired"
		}
		if f.Err != nil && f.Kind != doctor.KindUnreadable {
			t.Errorf("%s: %v", text, f.Err)
		}
		found = append(found, text)
	}
	slices.Sort(found)
	return found
}
