package rules_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rules"
)

const canary = "s3cret"

type (
	token     = codec.Fields
	candidate = rules.Candidate
	former    = rules.Former
)

// kept returns a candidate for each token. Each candidate is newer than the previous one.
func kept(tokens ...token) []candidate {
	var records []candidate
	for i, t := range tokens {
		records = append(records, candidate{Fields: t, Updated: at(i)})
	}
	return records
}

func at(second int) time.Time { return time.UnixMilli(ms(second)) }

func ms(second int) int64 { return int64(4_000_000_000+second) * 1000 }

// shown converts t to a type whose fields package fmt prints.
func shown(t token) any {
	type plain token
	return plain(t)
}

func allShown(records []candidate) (all []any) {
	for _, c := range records {
		all = append(all, shown(c.Fields), c.Updated, c.Former)
	}
	return all
}

func TestKeyOf(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		like token
		want rules.Key
	}{
		{token{ID: "1"}, rules.KeyID},
		{token{ID: "1", UserName: "ann", ClientID: "c1", AccessToken: "a", GrantToken: "g", RefreshToken: "r"}, rules.KeyID},
		{token{UserName: "ann"}, rules.KeyUser},
		{token{UserName: "ann", ClientID: "c1", AccessToken: "a", GrantToken: "g", RefreshToken: "r"}, rules.KeyUser},
		{token{AccessToken: "a"}, rules.KeyAccess},
		{token{AccessToken: "a", GrantToken: "g", RefreshToken: "r"}, rules.KeyAccess},
		{token{AccessToken: "a", ClientID: "c1"}, rules.KeyNone},
		{token{AccessToken: "a", ClientSecret: "s"}, rules.KeyNone},
		{token{AccessToken: "a", ClientSecret: "s", GrantToken: "g"}, rules.KeyNone},
		{token{AccessToken: "a", ClientID: "c1", GrantToken: "g"}, rules.KeyGrant},
		{token{AccessToken: "a", ClientID: "c1", ClientSecret: "s", RefreshToken: "r"}, rules.KeyGrant},
		{token{ClientID: "c1", GrantToken: "g"}, rules.KeyGrant},
		{token{ClientID: "c1", RefreshToken: "r"}, rules.KeyGrant},
		{token{GrantToken: "g", RefreshToken: "r"}, rules.KeyNone},
		{token{ClientID: "c1", ClientSecret: "s"}, rules.KeyNone},
		{token{ClientSecret: "s", RedirectURL: "u", APIDomain: "d", ExpiryTime: ms(1)}, rules.KeyNone},
		{token{}, rules.KeyNone},
	} {
		if got := rules.KeyOf(c.like); got != c.want {
			t.Errorf("the row of %+v is %d, want %d", shown(c.like), got, c.want)
		}
	}
}

func TestSelectRowByRow(t *testing.T) {
	t.Parallel()
	ann1 := token{ID: "1", UserName: "ann", ClientID: "c1", AccessToken: "a1", GrantToken: "g1", RefreshToken: "r1"}
	ann2 := token{ID: "2", UserName: "ann", ClientID: "c2", AccessToken: "a2", GrantToken: "g2", RefreshToken: "r2"}
	bob := token{ID: "3", UserName: "bob", ClientID: "c1", AccessToken: "a3", RefreshToken: "r3"}
	bare := token{ID: "4", UserName: "cid", AccessToken: "a4", RefreshToken: "r4"}
	cid := token{ID: "5", UserName: "cid", ClientID: "c1", AccessToken: "a5", RefreshToken: "r5"}
	code := token{ID: "6", ClientID: "c1", GrantToken: "g6"}
	all := kept(ann1, ann2, bob, bare, cid, code)
	const none, many, bad = "none", "many", "bad" // no record has such an ID
	for _, c := range []struct {
		what    string
		like    token
		records []candidate
		want    string // the ID, or none, many or bad
	}{
		// Row 0.
		{"the ID", token{ID: "3"}, all, "3"},
		{"an unknown ID does not fall through", token{ID: "9", UserName: "ann", ClientID: "c1"}, all, none},
		{"the ID and its user", token{ID: "1", UserName: "ann"}, all, "1"},
		{"the ID and another user", token{ID: "1", UserName: "bob"}, all, none},
		{"the ID and its client", token{ID: "1", ClientID: "c1"}, all, "1"},
		{"the ID and another client", token{ID: "1", ClientID: "c2"}, all, none},
		{"the ID of a record without a client, and a client", token{ID: "4", ClientID: "c1"}, all, none},
		{"the ID of a record without a user, and a user", token{ID: "6", UserName: "ann"}, all, none},
		{"the ID and another token", token{ID: "1", RefreshToken: "r9"}, all, "1"},
		{"an earlier ID", token{ID: "9"}, []candidate{{Fields: ann1, Former: former{ID: true}}}, "1"},
		{"an earlier ID and another user", token{ID: "9", UserName: "bob"}, []candidate{{Fields: ann1, Former: former{ID: true}}}, none},
		{"an ID before an earlier one", token{ID: "1"}, []candidate{{Fields: bob, Former: former{ID: true}}, {Fields: ann1}}, "1"},
		{"another user's ID before an earlier one", token{ID: "1", UserName: "bob"}, []candidate{{Fields: bob, Former: former{ID: true}}, {Fields: ann1}}, none},
		{"an ID twice", token{ID: "1"}, kept(ann1, ann1), many},
		// Row 1.
		{"a user and client", token{UserName: "ann", ClientID: "c2"}, all, "2"},
		{"a user and an unknown client", token{UserName: "ann", ClientID: "c9"}, all, none},
		{"a user with several clients", token{UserName: "ann"}, all, many},
		{"a user with several clients, one of them empty", token{UserName: "cid"}, all, "4"},
		{"a user with one client", token{UserName: "bob"}, all, "3"},
		{"a user whose record has no client, and a client", token{UserName: "cid", ClientID: "c2"}, all, none},
		{"an unknown user does not fall through", token{UserName: "dan", AccessToken: "a1", ClientID: "c1", RefreshToken: "r1", GrantToken: "g1"}, all, none},
		{"a user's name is compared as it is", token{UserName: "Ann", ClientID: "c1"}, all, none},
		{"a user and another's token", token{UserName: "bob", AccessToken: "a1", RefreshToken: "r1"}, all, "3"},
		{"a user and client twice", token{UserName: "ann", ClientID: "c1"}, kept(ann1, ann1), many},
		// Row 2.
		{"an access token", token{AccessToken: "a3"}, all, "3"},
		{"an access token before any other", token{AccessToken: "a3", RefreshToken: "r1", GrantToken: "g1"}, all, "3"},
		{"an unknown access token does not fall through", token{AccessToken: "a9", RefreshToken: "r1"}, all, none},
		{"an access token with a client is none of this row", token{AccessToken: "a1", ClientID: "c1"}, all, bad},
		{"an access token with a secret is none of this row", token{AccessToken: "a1", ClientSecret: "s"}, all, bad},
		{"an access token of two", token{AccessToken: "a"}, kept(token{ID: "1", UserName: "ann", AccessToken: "a"}, token{ID: "2", AccessToken: "a"}), many},
		{"an access token of two without a user", token{AccessToken: "a"}, kept(token{ID: "1", AccessToken: "a"}, token{ID: "2", AccessToken: "a"}), many},
		// Row 3.
		{"a grant token", token{ClientID: "c1", GrantToken: "g1"}, all, "1"},
		{"a refresh token", token{ClientID: "c1", RefreshToken: "r3"}, all, "3"},
		{"a grant token of another client", token{ClientID: "c2", GrantToken: "g1"}, all, none},
		{"a refresh token of another client", token{ClientID: "c2", RefreshToken: "r1"}, all, none},
		{"a refresh token of a record without a client", token{ClientID: "c1", RefreshToken: "r4"}, all, none},
		{"a grant token before a refresh token", token{ClientID: "c1", GrantToken: "g6", RefreshToken: "r1"}, all, "6"},
		{"an unknown grant token, else the refresh token", token{ClientID: "c1", GrantToken: "g9", RefreshToken: "r1"}, all, "1"},
		{"a grant token of another client, else the refresh token", token{ClientID: "c1", GrantToken: "g2", RefreshToken: "r1"}, all, "1"},
		{"an access token beside them does not count", token{ClientID: "c1", RefreshToken: "r1", AccessToken: "a3"}, all, "1"},
		{"no token is not the absent one", token{ClientID: "c1", RefreshToken: "r9"}, all, none},
		{"an earlier grant token", token{ClientID: "c1", GrantToken: "g0"}, []candidate{{Fields: ann1, Former: former{GrantToken: true}}}, "1"},
		{"an earlier refresh token", token{ClientID: "c1", RefreshToken: "r0"}, []candidate{{Fields: ann1, Former: former{RefreshToken: true}}}, "1"},
		{"an earlier refresh token of another client", token{ClientID: "c2", RefreshToken: "r0"}, []candidate{{Fields: ann1, Former: former{RefreshToken: true}}}, none},
		{"a record with a user before one without", token{ClientID: "c1", RefreshToken: "r"},
			kept(token{ID: "1", ClientID: "c1", UserName: "ann", RefreshToken: "r"}, token{ID: "2", ClientID: "c1", RefreshToken: "r"}), "1"},
		{"of records without a user the newest", token{ClientID: "c1", RefreshToken: "r"},
			kept(token{ID: "1", ClientID: "c1", RefreshToken: "r"}, token{ID: "2", ClientID: "c1", RefreshToken: "r"}), "2"},
		{"of records without a user, equally new, none", token{ClientID: "c1", RefreshToken: "r"},
			[]candidate{{Fields: token{ID: "1", ClientID: "c1", RefreshToken: "r"}}, {Fields: token{ID: "2", ClientID: "c1", RefreshToken: "r"}}}, many},
		{"of two users none", token{ClientID: "c1", RefreshToken: "r"},
			kept(token{ID: "1", ClientID: "c1", UserName: "ann", RefreshToken: "r"}, token{ID: "2", ClientID: "c1", UserName: "bob", RefreshToken: "r"}), many},
		// Row 4.
		{"nothing", token{}, all, bad},
		{"a client", token{ClientID: "c1", ClientSecret: "s"}, all, bad},
		{"a refresh token without a client", token{RefreshToken: "r1"}, all, bad},
		{"a grant token without a client", token{GrantToken: "g1", ClientSecret: "s"}, all, bad},
		{"nothing, of one record", token{}, kept(ann1), bad},
		{"an ID of no records", token{ID: "1"}, nil, none},
		{"a user of no records", token{UserName: "ann"}, nil, none},
	} {
		for range 2 { // in this order of the records, and in the reverse
			i, err := rules.Select(c.like, c.records)
			got := map[error]string{driver.ErrNotFound: none, rules.ErrAmbiguous: many, rules.ErrInvalidToken: bad}[class(err)]
			if err == nil {
				got = c.records[i].ID
			} else if i >= 0 {
				t.Errorf("%s: record %d is returned with error %v", c.what, i, err)
			}
			if got != c.want {
				t.Errorf("%s: found %s, error %v, want %s", c.what, got, err, c.want)
			}
			c.records = slices.Clone(c.records)
			slices.Reverse(c.records)
		}
	}
}

func class(err error) error {
	for _, class := range []error{rules.ErrAmbiguous, rules.ErrIDMismatch, rules.ErrInvalidToken, rules.ErrTooLarge, driver.ErrNotFound} {
		if errors.Is(err, class) {
			return class
		}
	}
	return nil
}

func TestSelectAmbiguous(t *testing.T) {
	t.Parallel()
	_, err := rules.Select(token{AccessToken: canary}, kept(
		token{ID: "two\n", UserName: "ann", AccessToken: canary, RefreshToken: canary},
		token{ID: "1", AccessToken: canary}, token{ID: "3", AccessToken: "another"}))
	if !errors.Is(err, rules.ErrAmbiguous) || strings.Contains(err.Error(), canary) || !strings.HasSuffix(err.Error(), `: "1", "two\n"`) || strings.Contains(err.Error(), "ann") {
		t.Errorf("error %v, want ErrAmbiguous with the two IDs in order", err)
	}
}

func TestMergeFieldByField(t *testing.T) {
	t.Parallel()
	record := token{ID: "1", ClientID: "c1", ClientSecret: "s1", RefreshToken: "r1", AccessToken: "a1", GrantToken: "g1", ExpiryTime: ms(1), RedirectURL: "u1", APIDomain: "d1"}
	users := record
	users.UserName = "ann"
	with := func(record token, alter func(*token)) token { alter(&record); return record }
	for _, c := range []struct {
		what            string
		record, t, want token
	}{
		{"nothing", record, token{}, record},
		{"all of it", record, token{ID: "9", UserName: "bob", ClientID: "c2", ClientSecret: "s2", RefreshToken: "r2", AccessToken: "a2", GrantToken: "g2", ExpiryTime: ms(2), RedirectURL: "u2", APIDomain: "d2"},
			token{ID: "1", UserName: "bob", ClientID: "c2", ClientSecret: "s2", RefreshToken: "r2", AccessToken: "a2", GrantToken: "g2", ExpiryTime: ms(2), RedirectURL: "u2", APIDomain: "d2"}},
		{"one field", record, token{APIDomain: "d2"}, with(record, func(r *token) { r.APIDomain = "d2" })},
		{"another access token does not inherit the expiry", record, token{AccessToken: "a2"}, with(record, func(r *token) { r.AccessToken, r.ExpiryTime = "a2", 0 })},
		{"the same access token keeps its expiry", record, token{AccessToken: "a1"}, record},
		{"an expiry alone is that of the present token", record, token{ExpiryTime: ms(2)}, with(record, func(r *token) { r.ExpiryTime = ms(2) })},
		{"an earlier expiry counts", record, token{AccessToken: "a1", ExpiryTime: ms(0)}, with(record, func(r *token) { r.ExpiryTime = ms(0) })},
		{"the first access token of a record", with(record, func(r *token) { r.AccessToken = "" }), token{AccessToken: "a2"},
			with(record, func(r *token) { r.AccessToken, r.ExpiryTime = "a2", 0 })},
		{"a user's name and client stay", users, token{UserName: "bob", ClientID: "c2"}, users},
		{"the issuer and resource of a record stay", with(record, func(r *token) { r.Issuer, r.Resource = "i", "s" }), token{Issuer: "j", Resource: "t"}, with(record, func(r *token) { r.Issuer, r.Resource = "i", "s" })},
		{"a record gets an issuer and a resource", record, token{Issuer: "j", Resource: "t"}, with(record, func(r *token) { r.Issuer, r.Resource = "j", "t" })},
		{"an empty client of a user stays", with(users, func(r *token) { r.ClientID = "" }), token{ClientID: "c2"}, with(users, func(r *token) { r.ClientID = "" })},
	} {
		if got := rules.Merge(c.record, c.t); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.what, shown(got), shown(c.want))
		}
	}
}

func TestAbsorbKeepsTheTokensThatExpireLater(t *testing.T) {
	t.Parallel()
	into := token{ID: "1", UserName: "ann", ClientID: "c1", RefreshToken: "r1", AccessToken: "a1", ExpiryTime: ms(1), APIDomain: "d1"}
	from := token{ID: "2", ClientID: "c1", RefreshToken: "r2", AccessToken: "a2", ExpiryTime: ms(2), RedirectURL: "u2"}
	for _, c := range []struct {
		what             string
		into, from, want token
	}{
		{"from", into, from, token{ID: "1", UserName: "ann", ClientID: "c1", RefreshToken: "r2", AccessToken: "a2", ExpiryTime: ms(2), APIDomain: "d1", RedirectURL: "u2"}},
		{"into", from, into, token{ID: "2", UserName: "ann", ClientID: "c1", RefreshToken: "r2", AccessToken: "a2", ExpiryTime: ms(2), APIDomain: "d1", RedirectURL: "u2"}},
		{"into, of equals", into, token{ID: "2", RefreshToken: "r2", AccessToken: "a2", ExpiryTime: ms(1)}, into},
		{"from, if into has none", token{ID: "1", UserName: "ann"}, token{ID: "2", ClientID: "c1", GrantToken: "g2"}, token{ID: "1", UserName: "ann", ClientID: "c1", GrantToken: "g2"}},
		{"into, if from has none", into, token{ID: "2", ClientID: "c9", UserName: "bob"}, into},
		{"into, if the expiry of from is not known", into, token{ID: "2", RefreshToken: "r2", AccessToken: "a2"}, into},
		{"what the other has not", token{ID: "1", UserName: "ann", RefreshToken: "r1"}, token{ID: "2", AccessToken: "a2", ExpiryTime: ms(2)},
			token{ID: "1", UserName: "ann", RefreshToken: "r1", AccessToken: "a2", ExpiryTime: ms(2)}},
	} {
		if got := rules.Absorb(c.into, c.from); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.what, shown(got), shown(c.want))
		}
	}
}

// A dealer derives tokens from bytes. The fields of the tokens have few different values, so
// that the tokens often match.
type dealer struct{ bytes []byte }

func (d *dealer) next(n int) int {
	if len(d.bytes) == 0 {
		return 0
	}
	v := int(d.bytes[0]) % n
	d.bytes = d.bytes[1:]
	return v
}

func (d *dealer) text(prefix string) string {
	return []string{"", prefix + "1", prefix + "2"}[d.next(3)]
}

func (d *dealer) token() token {
	return token{
		ID: d.text(""), UserName: d.text("u"), ClientID: d.text("c"), ClientSecret: d.text("s"),
		RefreshToken: d.text("r"), AccessToken: d.text("a"), GrantToken: d.text("g"),
		ExpiryTime: []int64{0, ms(1), ms(2)}[d.next(3)], RedirectURL: d.text("x"), APIDomain: d.text("d"),
	}
}

func (d *dealer) candidates() []candidate {
	var records []candidate
	for range d.next(5) {
		bits := d.next(32)
		if bits >= 16 {
			bits = 0 // half of the records have no earlier values
		}
		records = append(records, candidate{Fields: d.token(), Updated: at(d.next(3)),
			Former: former{ID: bits&1 != 0, GrantToken: bits&2 != 0, RefreshToken: bits&4 != 0, AccessToken: bits&8 != 0}})
	}
	return records
}

// allowed implements the table under "Matching" in package tokenstore a second time, for one
// record, c. The first result reports whether c may match like. The second result is false if c
// meets only the second condition of a row. That condition applies only if no record meets the
// first one.
func allowed(like token, c candidate) (may, sure bool) {
	r := c.Fields
	if like.ID != "" {
		own := r.ID == like.ID || c.Former.ID
		ok := own && (like.UserName == "" || like.UserName == r.UserName) && (like.ClientID == "" || like.ClientID == r.ClientID)
		return ok, ok
	}
	if like.UserName != "" {
		if like.UserName != r.UserName {
			return false, false
		}
		return like.ClientID == r.ClientID || like.ClientID == "", like.ClientID == r.ClientID
	}
	if like.AccessToken != "" && like.ClientID == "" && like.ClientSecret == "" {
		ok := r.AccessToken == like.AccessToken || c.Former.AccessToken
		return ok, ok
	}
	if like.ClientID != "" && like.ClientID == r.ClientID {
		if like.GrantToken != "" && (like.GrantToken == r.GrantToken || c.Former.GrantToken) {
			return true, true
		}
		return like.RefreshToken != "" && (like.RefreshToken == r.RefreshToken || c.Former.RefreshToken), false
	}
	return false, false
}

// naiveSelect implements the table by calling allowed, including the choice among several
// records.
func naiveSelect(like token, records []candidate) (want []int, searchable bool) {
	row3 := like.ID == "" && like.UserName == "" && !(like.AccessToken != "" && like.ClientID == "" && like.ClientSecret == "")
	if row3 && (like.ClientID == "" || like.GrantToken == "" && like.RefreshToken == "") {
		return nil, false
	}
	taken := slices.ContainsFunc(records, func(c candidate) bool { return c.ID == like.ID })
	for _, wantSure := range []bool{true, false} {
		for i, c := range records {
			c.Former.ID = c.Former.ID && !taken
			if may, sure := allowed(like, c); may && (sure || !wantSure) {
				want = append(want, i)
			}
		}
		if len(want) > 0 {
			break
		}
	}
	if !row3 || len(want) < 2 {
		return want, true
	}
	better := func(i, j int) bool { // whether row 3 prefers record i to record j
		a, b := records[i], records[j]
		if (a.UserName != "") != (b.UserName != "") {
			return a.UserName != ""
		}
		return a.UserName == "" && a.Updated.After(b.Updated)
	}
	var best []int
	for _, i := range want {
		if !slices.ContainsFunc(want, func(j int) bool { return better(j, i) }) {
			best = append(best, i)
		}
	}
	return best, true
}

// FuzzMatch checks that Select and naiveSelect choose the same record or fail with the same
// class.
func FuzzMatch(f *testing.F) {
	f.Add([]byte{})
	for row := range byte(5) {
		for records := range byte(5) {
			f.Add([]byte{0, row & 1, row & 2, 0, 1, row, 2, 0, 0, 0, records, 16, 1, 1, 1, 0, 1, 1, 1, 0, 0, 0, 1, 16, 2, 1, 2, 0, 1, 1, 1, 0, 0, 0, 2, 2, 0, 0, 1, 0, 1, 0, 1})
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		d := dealer{data}
		like, records := d.token(), d.candidates()
		want, searchable := naiveSelect(like, records)
		i, err := rules.Select(like, records)
		ok := false
		switch {
		case !searchable:
			ok = errors.Is(err, rules.ErrInvalidToken)
		case len(want) == 0:
			ok = errors.Is(err, driver.ErrNotFound)
		case len(want) == 1:
			ok = err == nil && i == want[0]
		default:
			ok = errors.Is(err, rules.ErrAmbiguous)
		}
		if !ok {
			t.Fatalf("%+v\nof %+v\nis %d, error %v; the table says %v", shown(like), allShown(records), i, err, want)
		}
	})
}

// FuzzMerge checks that Merge is idempotent, keeps the identity of a record, clears no field,
// and never gives an access token the expiry of another access token.
func FuzzMerge(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2})
	f.Add([]byte{1, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 0, 0, 0, 2, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		d := dealer{data}
		record, news := d.token(), d.token()
		merged := rules.Merge(record, news)
		fail := func(law string) {
			t.Helper()
			t.Fatalf("%s:\n%+v\nand\n%+v\nis\n%+v", law, shown(record), shown(news), shown(merged))
		}
		if rules.Merge(merged, news) != merged {
			fail("merging twice changes it")
		}
		if rules.Merge(record, token{}) != record || rules.Merge(record, record) != record {
			fail("merging nothing, or itself, changes it")
		}
		if merged.ID != record.ID {
			fail("the ID changes")
		}
		if record.UserName != "" && (merged.UserName != record.UserName || merged.ClientID != record.ClientID) {
			fail("the user or the client of a user's record changes")
		}
		for _, get := range []func(token) string{
			func(t token) string { return t.UserName }, func(t token) string { return t.ClientID },
			func(t token) string { return t.ClientSecret }, func(t token) string { return t.RefreshToken },
			func(t token) string { return t.AccessToken }, func(t token) string { return t.GrantToken },
			func(t token) string { return t.RedirectURL }, func(t token) string { return t.APIDomain },
		} {
			if m := get(merged); m != get(record) && m != get(news) {
				fail("a field has a value that neither had")
			} else if m == "" && get(record) != "" {
				fail("a field is cleared")
			}
		}
		for _, c := range []struct{ record, news, merged string }{
			{record.ClientSecret, news.ClientSecret, merged.ClientSecret}, {record.RefreshToken, news.RefreshToken, merged.RefreshToken},
			{record.AccessToken, news.AccessToken, merged.AccessToken}, {record.GrantToken, news.GrantToken, merged.GrantToken},
		} {
			if c.news != "" && c.merged != c.news {
				fail("news are not taken")
			}
		}
		switch expiry := merged.ExpiryTime; {
		case merged.AccessToken != record.AccessToken && expiry != news.ExpiryTime:
			fail("an access token inherits the expiry of another")
		case merged.AccessToken == record.AccessToken && news.ExpiryTime == 0 && expiry != record.ExpiryTime:
			fail("the expiry of an access token is lost")
		case news.ExpiryTime != 0 && expiry != news.ExpiryTime:
			fail("a new expiry is not taken")
		}
	})
}

// FuzzAbsorb checks that Absorb keeps the identity of a record, keeps one value of each
// secret, and never gives an access token the expiry of another access token.
func FuzzAbsorb(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 0, 1, 2, 2, 2, 2, 2, 2, 2})
	f.Fuzz(func(t *testing.T, data []byte) {
		d := dealer{data}
		into, from := d.token(), d.token()
		got := rules.Absorb(into, from)
		fail := func(law string) {
			t.Helper()
			t.Fatalf("%s:\n%+v\nand\n%+v\nare\n%+v", law, shown(into), shown(from), shown(got))
		}
		if got.ExpiryTime == 0 && got.AccessToken == "" && (into.ExpiryTime != 0 || from.ExpiryTime != 0) {
			fail("an expiry is lost")
		}
		if got.ID != into.ID || into.UserName != "" && got.UserName != into.UserName || into.ClientID != "" && got.ClientID != into.ClientID {
			fail("the identity changes")
		}
		for _, c := range []struct{ into, from, got string }{
			{into.ClientSecret, from.ClientSecret, got.ClientSecret}, {into.RefreshToken, from.RefreshToken, got.RefreshToken},
			{into.AccessToken, from.AccessToken, got.AccessToken}, {into.GrantToken, from.GrantToken, got.GrantToken},
		} {
			if c.got != c.into && c.got != c.from || c.got == "" && (c.into != "" || c.from != "") {
				fail("a secret is lost or invented")
			}
		}
		if got.AccessToken != "" && !(got.AccessToken == into.AccessToken && got.ExpiryTime == into.ExpiryTime) &&
			!(got.AccessToken == from.AccessToken && got.ExpiryTime == from.ExpiryTime) {
			fail("an access token has the expiry of another")
		}
	})
}
