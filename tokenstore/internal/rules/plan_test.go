package rules_test

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rules"
)

func TestPlanSaveRowByRow(t *testing.T) {
	t.Parallel()
	ann := token{ID: "1", UserName: "ann", ClientID: "c1", AccessToken: "a1", GrantToken: "g1", RefreshToken: "r1", ExpiryTime: ms(1)}
	bob := token{ID: "2", UserName: "bob", ClientID: "c1", AccessToken: "a2", RefreshToken: "r2"}
	bare := token{ID: "3", UserName: "cid", RefreshToken: "r3"}
	code := token{ID: "4", ClientID: "c1", GrantToken: "g4"}
	all := kept(ann, bob, bare, code)
	for _, c := range []struct {
		what    string
		save    token
		records []candidate
		record  int   // index of the record into which the token is merged; -1 for a new record
		absorb  []int // the indices of records that are merged and removed
		gives   bool  // a record gets a user
		want    token
		err     error
	}{
		// A token is merged into the record that it matches.
		{what: "a user's other token", save: token{UserName: "ann", ClientID: "c1", RefreshToken: "r9"}, records: all, record: 0,
			want: with(ann, func(t *token) { t.RefreshToken = "r9" })},
		{what: "a user alone, with one record", save: token{UserName: "bob", RefreshToken: "r9"}, records: all, record: 1,
			want: with(bob, func(t *token) { t.RefreshToken = "r9" })},
		{what: "a user alone, with several records", save: token{UserName: "ann", RefreshToken: "r9"},
			records: kept(ann, with(ann, func(t *token) { t.ID, t.ClientID = "9", "c9" })), err: rules.ErrAmbiguous},
		{what: "nothing new", save: token{UserName: "ann", ClientID: "c1", RefreshToken: "r1", ExpiryTime: ms(1)}, records: all, record: 0, want: ann},
		{what: "an ID alone", save: token{ID: "1"}, records: all, record: 0, want: ann},
		{what: "an ID and another token", save: token{ID: "1", AccessToken: "a9"}, records: all, record: 0,
			want: with(ann, func(t *token) { t.AccessToken, t.ExpiryTime = "a9", 0 })},
		{what: "an ID and its user", save: token{ID: "1", UserName: "ann", ClientID: "c1", APIDomain: "d"}, records: all, record: 0,
			want: with(ann, func(t *token) { t.APIDomain = "d" })},
		{what: "an access token", save: token{AccessToken: "a2", APIDomain: "d"}, records: all, record: 1,
			want: with(bob, func(t *token) { t.APIDomain = "d" })},
		{what: "a refresh token", save: token{ClientID: "c1", RefreshToken: "r1", AccessToken: "a9", ExpiryTime: ms(9)}, records: all, record: 0,
			want: with(ann, func(t *token) { t.AccessToken, t.ExpiryTime = "a9", ms(9) })},
		{what: "a code and its answer", save: token{ClientID: "c1", GrantToken: "g4", RefreshToken: "r9"}, records: all, record: 3,
			want: with(code, func(t *token) { t.RefreshToken = "r9" })},
		{what: "an earlier code", save: token{ClientID: "c1", GrantToken: "g0", RefreshToken: "r1"},
			records: []candidate{{Fields: ann, Former: former{GrantToken: true}}}, record: 0, want: ann},
		{what: "an earlier refresh token", save: token{ClientID: "c1", RefreshToken: "r0", APIDomain: "d"},
			records: []candidate{{Fields: ann, Former: former{RefreshToken: true}}}, record: 0, want: with(ann, func(t *token) { t.APIDomain = "d" })},
		{what: "an earlier refresh token that the user has again", save: token{UserName: "ann", ClientID: "c1", RefreshToken: "r0"},
			records: []candidate{{Fields: ann, Former: former{RefreshToken: true}}}, record: 0, want: with(ann, func(t *token) { t.RefreshToken = "r0" })},
		{what: "an earlier ID", save: token{ID: "0", APIDomain: "d"}, records: []candidate{{Fields: ann, Former: former{ID: true}}}, record: 0,
			want: with(ann, func(t *token) { t.APIDomain = "d" })},
		{what: "an ID twice", save: token{ID: "1", APIDomain: "d"}, records: kept(ann, ann), err: rules.ErrAmbiguous},
		// The ID, user and client do not belong together.
		{what: "another user's ID", save: token{ID: "1", UserName: "bob", RefreshToken: "r9"}, records: all, err: rules.ErrIDMismatch},
		{what: "another client's ID", save: token{ID: "1", ClientID: "c9", RefreshToken: "r9"}, records: all, err: rules.ErrIDMismatch},
		{what: "a client for a user that has none", save: token{ID: "3", ClientID: "c1"}, records: all, err: rules.ErrIDMismatch},
		{what: "another client for a code", save: token{ID: "4", ClientID: "c9"}, records: all, err: rules.ErrIDMismatch},
		{what: "a new ID for a user", save: token{ID: "9", UserName: "ann", ClientID: "c1", RefreshToken: "r9"}, records: all, err: rules.ErrIDMismatch},
		{what: "a new ID for a token", save: token{ID: "9", ClientID: "c1", RefreshToken: "r2"}, records: all, err: rules.ErrIDMismatch},
		{what: "a new ID for an access token", save: token{ID: "9", AccessToken: "a1"}, records: all, err: rules.ErrIDMismatch},
		// A record gets its user.
		{what: "a user for a code", save: token{ID: "4", UserName: "dan"}, records: all, record: 3, gives: true, want: with(code, func(t *token) { t.UserName = "dan" })},
		{what: "a user for a code, who has a record", save: token{ID: "4", UserName: "ann"}, records: all, record: 0, absorb: []int{3}, gives: true,
			want: with(ann, func(t *token) { t.GrantToken = "g1" })},
		{what: "a user for a code, who has a record that is known by it", save: token{ID: "4", UserName: "ann"}, records: []candidate{{Fields: code}, {Fields: ann, Former: former{ID: true}}},
			record: 1, absorb: []int{0}, gives: true, want: ann},
		// A token without a match creates a record.
		{what: "a new user", save: token{UserName: "dan", ClientID: "c1", RefreshToken: "r1"}, records: all, record: -1,
			want: token{UserName: "dan", ClientID: "c1", RefreshToken: "r1"}},
		{what: "a user with another client", save: token{UserName: "ann", ClientID: "c9", RefreshToken: "r1"}, records: all, record: -1,
			want: token{UserName: "ann", ClientID: "c9", RefreshToken: "r1"}},
		{what: "an ID of one's own", save: token{ID: "9", UserName: "dan", RefreshToken: "r9"}, records: all, record: -1,
			want: token{ID: "9", UserName: "dan", RefreshToken: "r9"}},
		{what: "a refresh token of another client", save: token{ClientID: "c9", RefreshToken: "r1"}, records: all, record: -1,
			want: token{ClientID: "c9", RefreshToken: "r1"}},
		{what: "a new access token", save: token{AccessToken: "a9", ExpiryTime: ms(9)}, records: all, record: -1,
			want: token{AccessToken: "a9", ExpiryTime: ms(9)}},
		{what: "a refresh token without a client, the same again", save: token{RefreshToken: "r9"}, records: kept(ann, token{ID: "9", RefreshToken: "r9"}), record: 1,
			want: token{ID: "9", RefreshToken: "r9"}},
		{what: "a refresh token without a client is none of a user's", save: token{RefreshToken: "r3"}, records: all, record: -1,
			want: token{RefreshToken: "r3"}},
		// Tokens from which no record can be created.
		{what: "nothing", save: token{}, records: all, err: rules.ErrInvalidToken},
		{what: "a client", save: token{ClientID: "c1", ClientSecret: "s"}, records: all, err: rules.ErrInvalidToken},
		{what: "an unknown user without a token", save: token{UserName: "dan", ClientSecret: "s"}, records: all, err: driver.ErrNotFound},
		{what: "an unknown ID without a token", save: token{ID: "9"}, records: all, err: driver.ErrNotFound},
		{what: "bad input", save: token{UserName: "ann", ClientID: "c1", RefreshToken: "\xff"}, records: all, err: rules.ErrInvalidToken},
		{what: "a field that is too large", save: token{UserName: "ann", ClientID: "c1", RefreshToken: strings.Repeat("x", 40<<10)}, records: all, err: rules.ErrTooLarge},
		// Records with the same token are merged.
		{what: "a token with a user and without", save: token{ClientID: "c1", RefreshToken: "r1", APIDomain: "d"}, records: kept(token{ID: "9", ClientID: "c1", RefreshToken: "r1", AccessToken: "a9", ExpiryTime: ms(9)}, ann), record: 1, absorb: []int{0},
			want: with(ann, func(t *token) { t.AccessToken, t.ExpiryTime, t.APIDomain = "a9", ms(9), "d" })},
		{what: "a token without a user, twice", save: token{ClientID: "c1", RefreshToken: "r9"}, records: kept(token{ID: "8", ClientID: "c1", RefreshToken: "r9"}, token{ID: "9", ClientID: "c1", RefreshToken: "r9"}), record: 1, absorb: []int{0},
			want: token{ID: "9", ClientID: "c1", RefreshToken: "r9"}},
		{what: "a token of two users", save: token{ClientID: "c1", RefreshToken: "r1"}, records: kept(ann, with(bob, func(t *token) { t.RefreshToken = "r1" })), err: rules.ErrAmbiguous},
	} {
		plan, err := rules.PlanSave(c.save, c.records)
		if c.err != nil {
			if !errors.Is(err, c.err) {
				t.Errorf("%s: %+v, error %v, want %v", c.what, shown(plan.Fields), err, c.err)
			}
			continue
		}
		action := rules.Nothing
		switch {
		case c.record < 0:
			action = rules.Create
		case c.gives:
			action = rules.GiveUser
		case len(c.absorb) > 0 || c.want != c.records[c.record].Fields:
			action = rules.Change
		}
		if err != nil || plan.Record != c.record || !slices.Equal(plan.Absorb, c.absorb) || plan.Fields != c.want || plan.Action != action {
			t.Errorf("%s: %d, %d, %v, %+v, error %v, want %d, %d, %v and\n%+v", c.what, plan.Action, plan.Record, plan.Absorb, shown(plan.Fields), err,
				action, c.record, c.absorb, shown(c.want))
		}
	}
}

// FuzzPlanSave checks that a plan never mixes users or clients, creates no second record,
// clears no field, and is idempotent.
func FuzzPlanSave(f *testing.F) {
	f.Add([]byte{})
	for row := range byte(6) {
		for n := range byte(5) {
			f.Add([]byte{row / 3, row & 1, row & 2, 0, 1, row, 2, 0, 0, 0, n, 16, 1, 1, 1, 0, 1, 1, 1, 0, 0, 0, 1, 16, 2, 0, 1, 0, 1, 1, 1, 0, 0, 0, 2, 2, 0, 0, 1, 0, 1, 0, 1})
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		d := dealer{data}
		save, records := d.token(), d.candidates()
		for i := range records {
			records[i].ID = strconv.Itoa(i + 1)
		}
		plan, err := rules.PlanSave(save, records)
		fail := func(law string) {
			t.Helper()
			t.Fatalf("%s:\n%+v\ninto %+v\nis %+v, error %v", law, shown(save), allShown(records), shown(plan.Fields), err)
		}
		credential := save.AccessToken != "" || save.RefreshToken != "" || save.GrantToken != ""
		if err != nil {
			switch class(err) {
			case rules.ErrInvalidToken, driver.ErrNotFound:
				if credential {
					fail("a token that a record can be created with is refused")
				}
			case rules.ErrAmbiguous, rules.ErrIDMismatch:
				if len(records) == 0 {
					fail("it is at odds with no record")
				}
			default:
				fail("the error is of no class that is documented")
			}
			return
		}
		got := plan.Fields
		if save.UserName != "" && got.UserName != save.UserName {
			fail("it is another user's")
		}
		if save.ClientID != "" && got.ClientID != save.ClientID {
			fail("it is another client's")
		}
		if plan.Record < 0 {
			if !credential || got != save || plan.Action != rules.Create || len(plan.Absorb) > 0 {
				fail("what is created is not what was given")
			}
			for _, c := range records {
				if save.UserName != "" && c.UserName == save.UserName && c.ClientID == save.ClientID {
					fail("a second record of the user and client is created")
				}
				if save.ID != "" && c.ID == save.ID {
					fail("a second record of the ID is created")
				}
			}
			return
		}
		record := records[plan.Record].Fields
		if got.ID != record.ID {
			fail("the ID changes")
		}
		if record.UserName != "" && (got.UserName != record.UserName || got.ClientID != record.ClientID) {
			fail("the user or client of a user's record changes")
		}
		if (plan.Action != rules.Nothing) != (len(plan.Absorb) > 0 || got != record) {
			fail("it does not say whether it changes something")
		}
		for _, i := range plan.Absorb {
			if a := records[i].Fields; i == plan.Record || a.UserName != "" || a.ClientID != "" && got.ClientID != "" && a.ClientID != got.ClientID {
				fail("it absorbs a record with a user, of another client, or itself")
			}
		}
		for _, lost := range []bool{
			record.RefreshToken != "" && got.RefreshToken == "", record.AccessToken != "" && got.AccessToken == "",
			record.GrantToken != "" && got.GrantToken == "", record.ClientSecret != "" && got.ClientSecret == "",
			record.RedirectURL != "" && got.RedirectURL == "", record.APIDomain != "" && got.APIDomain == "",
		} {
			if lost {
				fail("a field is cleared")
			}
		}
		// Saving the same token again changes nothing.
		for i := range records {
			if records[i].Former != (former{}) {
				return
			}
		}
		after := slices.Clone(records)
		after[plan.Record].Fields = got
		for _, i := range slices.Backward(slices.Sorted(slices.Values(plan.Absorb))) {
			after = slices.Delete(after, i, i+1)
		}
		again := save
		again.ID = got.ID
		if same, err := rules.PlanSave(again, after); err == nil && same.Action != rules.Nothing {
			t.Fatalf("saved again it changes something:\n%+v\ninto %+v\nis %+v", shown(again), allShown(after), shown(same.Fields))
		}
	})
}
