package sqlstore

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

var sdkColumns = []string{"id", "user_name", "client_id", "client_secret", "refresh_token", "access_token", "grant_token", "expiry_time", "redirect_url", "api_domain"}

// TestSDKDatabaseRead checks that this package reads the same records from a database as the SDK
// that wrote the database.
func TestSDKDatabaseRead(t *testing.T) {
	t.Parallel()
	b := sdkDatabase(t)
	got, err := b.open(t, nil).GetTokens(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := sdkRecords(t)
	if len(got) != len(want) {
		t.Fatalf("there are %d records, want %d", len(got), len(want))
	}
	for i, w := range want {
		if f := fieldsOf(got[i]); !slices.Equal(f, w) {
			t.Errorf("record %d is %q, want %q", i, f, w)
		}
	}
}

// TestSDKDatabaseSave checks that a save in a database of an SDK changes no other row or column.
func TestSDKDatabaseSave(t *testing.T) {
	t.Parallel()
	b := sdkDatabase(t)
	before := b.rows(t, "SELECT * FROM %s ORDER BY id")
	s := b.open(t, nil)
	saved := mustSave(t, s, tokenstore.Token{ID: "3", AccessToken: "new", ExpiresAt: time.UnixMilli(1_900_000_000_123)})
	if saved.UserName != "user2@example.com:60141003" {
		t.Errorf("the record is of %q", saved.UserName)
	}
	before[2][5], before[2][7] = "new", "1900000000123"
	added := mustSave(t, s, tokenstore.Token{UserName: "ann@example.com:6001", ClientID: "c1", RefreshToken: "r"})
	if added.ID != "10" {
		t.Errorf("the tenth record has the ID %q", added.ID)
	}
	if after := b.rows(t, "SELECT * FROM %s WHERE id <> '10' ORDER BY id"); !slices.EqualFunc(after, before, slices.Equal[[]string]) {
		t.Errorf("the rows are\n%q, want\n%q", after, before)
	}
}

func sdkDatabase(t testing.TB) *backend {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "zohooauth.db"))
	if err != nil {
		t.Fatal(err)
	}
	b := sqliteFile(t)
	if err := os.WriteFile(b.path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return b
}

// sdkRecords returns the records, ordered by ID, that the SDK read from the database of
// sdkDatabase.
func sdkRecords(t testing.TB) [][]string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "zohooauth.json"))
	if err != nil {
		t.Fatal(err)
	}
	var records []map[string]string
	if err := json.Unmarshal(data, &records); err != nil {
		t.Fatal(err)
	}
	var all [][]string
	for _, r := range records {
		var fields []string
		for _, name := range sdkColumns {
			fields = append(fields, r[name])
		}
		all = append(all, fields)
	}
	slices.SortFunc(all, func(a, b []string) int { return strings.Compare(a[0], b[0]) })
	return all
}

func fieldsOf(t tokenstore.Token) []string {
	expiry := ""
	if !t.ExpiresAt.IsZero() {
		expiry = strconv.FormatInt(t.ExpiresAt.UnixMilli(), 10)
	}
	return []string{t.ID, t.UserName, t.ClientID, string(t.ClientSecret), string(t.RefreshToken), string(t.AccessToken), string(t.GrantToken), expiry, t.RedirectURL, t.APIDomain}
}

func full(user string) tokenstore.Token {
	return tokenstore.Token{
		UserName: user, ClientID: "1000.CLIENT", ClientSecret: "secret", RefreshToken: tokenstore.Secret("refresh of " + user),
		AccessToken: tokenstore.Secret("access of " + user), GrantToken: tokenstore.Secret("grant of " + user),
		ExpiresAt: time.UnixMilli(1_767_225_600_123).UTC(), RedirectURL: "https://example.com/cb?a=b&c=d", APIDomain: "https://www.zohoapis.com",
	}
}

// The following tests, except TestDeletedID, check the points of the package documentation under
// "What the SDKs rely on", in order.

func TestColumns(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b *backend) {
		saved := mustSave(t, b.open(t, nil), full("ann"))
		found, err := b.connect(t).QueryContext(t.Context(), "select * from "+b.name())
		if err != nil {
			t.Fatal(err)
		}
		defer found.Close()
		if names, err := found.Columns(); err != nil || !slices.Equal(names, sdkColumns) {
			t.Errorf("the columns are %q, want %q", names, sdkColumns)
		}
		if err := found.Close(); err != nil {
			t.Fatal(err)
		}
		if rows := b.rows(t, "select * from %s"); len(rows) != 1 || !slices.Equal(rows[0], fieldsOf(saved)) {
			t.Errorf("the rows are %q, want %q", rows, fieldsOf(saved))
		}
	})
}

func TestNumericIDs(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b *backend) {
		s := b.open(t, nil)
		for i := range 25 { // more than nine, because the SDKs fail after the ID 9
			if saved := mustSave(t, s, tokenstore.Token{UserName: fmt.Sprint("user ", i), RefreshToken: "r"}); saved.ID != strconv.Itoa(i+1) {
				t.Fatalf("record %d has the ID %q", i+1, saved.ID)
			}
		}
		for _, id := range []string{"0", "007", "-1", "+1", "1.0", "1e3", " 1", "x", "12345678901", "１"} {
			_, err := s.SaveToken(t.Context(), tokenstore.Token{ID: id, UserName: "other", RefreshToken: "r"})
			if !errors.Is(err, tokenstore.ErrInvalidToken) {
				t.Errorf("SaveToken with the ID %q returned error %v, want %q", id, err, tokenstore.ErrInvalidToken)
			}
		}
		mustSave(t, s, tokenstore.Token{ID: "9999999998", UserName: "last but one", RefreshToken: "r"})
		if saved := mustSave(t, s, tokenstore.Token{UserName: "last", RefreshToken: "r"}); saved.ID != "9999999999" {
			t.Errorf("the last record has the ID %q", saved.ID)
		}
		if _, err := s.SaveToken(t.Context(), tokenstore.Token{UserName: "one too many", RefreshToken: "r"}); err == nil {
			t.Error("there is an ID of eleven digits")
		}
		for _, row := range b.rows(t, "select id from %s") {
			if n, err := strconv.Atoi(row[0]); err != nil || strconv.Itoa(n) != row[0] || len(row[0]) > 10 {
				t.Errorf("a row has the ID %q", row[0])
			}
		}
	})
}

func TestDeletedID(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b *backend) {
		s := b.open(t, nil)
		mustSave(t, s, full("ann"))
		for i := range 3 {
			bob := mustSave(t, b.open(t, nil), full("bob"))
			if bob.ID != strconv.Itoa(i+2) {
				t.Errorf("after %d deletions the next ID is %q", i, bob.ID)
			}
			if err := s.DeleteToken(t.Context(), bob.ID); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.DeleteTokens(t.Context()); err != nil {
			t.Fatal(err)
		}
		if ann := mustSave(t, s, full("ann")); ann.ID != "5" {
			t.Errorf("after all were deleted the next ID is %q", ann.ID)
		}
	})
}

func TestWhatARecordHasNotIsNULL(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b *backend) {
		s := b.open(t, nil)
		mustSave(t, s, tokenstore.Token{AccessToken: "a"})
		want := []string{"1", "<nil>", "<nil>", "<nil>", "<nil>", "a", "<nil>", "<nil>", "<nil>", "<nil>"}
		if rows := b.rows(t, "select * from %s"); len(rows) != 1 || !slices.Equal(rows[0], want) {
			t.Errorf("the rows are %q, want %q", rows, want)
		}
		// A new access token without an expiry clears the previous expiry.
		mustSave(t, s, tokenstore.Token{ID: "1", AccessToken: "b", ExpiresAt: time.UnixMilli(5)})
		mustSave(t, s, tokenstore.Token{ID: "1", AccessToken: "c"})
		if rows := b.rows(t, "select expiry_time from %s"); rows[0][0] != "<nil>" {
			t.Errorf("the expiry time is %q, want NULL", rows[0][0])
		}
	})
}

func TestMissingFieldNotNullColumn(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b *backend) {
		if b.memory != nil {
			b.exec(t, "DROP TABLE IF EXISTS %s")
		}
		// The documentation of the SDK for PHP defines the column user_name as NOT NULL.
		b.exec(t, strings.Replace(wide("id varchar(10) NOT NULL PRIMARY KEY", ""), "user_name varchar(255)", "user_name varchar(255) NOT NULL", 1))
		s := b.open(t, nil)
		saved := mustSave(t, s, tokenstore.Token{AccessToken: "a"})
		if rows := b.rows(t, "select user_name, client_id from %s"); !slices.Equal(rows[0], []string{"", "<nil>"}) {
			t.Errorf("the row is %q", rows[0])
		}
		if got, err := s.FindTokenByID(t.Context(), "1"); err != nil || got != saved {
			t.Errorf("the record is %v, error %v", got.UserName, err)
		}
	})
}

func TestExpiryTimesAreMillisecondsInDecimal(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b *backend) {
		mustSave(t, b.open(t, nil), tokenstore.Token{AccessToken: "a", ExpiresAt: time.Unix(1_767_225_600, 123_999_999)})
		if rows := b.rows(t, "select expiry_time from %s"); rows[0][0] != "1767225600123" {
			t.Errorf("the expiry time is %q", rows[0][0])
		}
	})
}

func TestSDKStatements(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b *backend) {
		s := b.open(t, nil)
		var all []tokenstore.Token
		for _, user := range []string{"ann@example.com:6001", "o'neil, \"müller\" 張偉", "\U0001f511"} {
			all = append(all, mustSave(t, s, full(user)))
		}
		for _, want := range all {
			for column, value := range map[string]string{
				"id": want.ID, "user_name": want.UserName, "access_token": string(want.AccessToken),
				"grant_token": string(want.GrantToken), "refresh_token": string(want.RefreshToken),
			} {
				rows := b.rows(t, "select * from %s where "+column+"=? limit 1", value)
				if len(rows) != 1 || !slices.Equal(rows[0], fieldsOf(want)) {
					t.Errorf("by %s the rows are %q, want %q", column, rows, fieldsOf(want))
				}
			}
		}
	})
}

func TestThereIsOneRowForEachUser(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b *backend) {
		s := b.open(t, nil)
		for i := range 3 {
			token := full("ann")
			token.AccessToken = tokenstore.Secret(fmt.Sprint("access ", i))
			mustSave(t, s, token)
			// Save the grant token first, and its user later.
			code := mustSave(t, s, tokenstore.Token{ClientID: token.ClientID, GrantToken: tokenstore.Secret(fmt.Sprint("grant ", i))})
			mustSave(t, s, tokenstore.Token{ID: code.ID, UserName: "ann", RefreshToken: tokenstore.Secret(fmt.Sprint("refresh ", i))})
		}
		if rows := b.rows(t, "select user_name, refresh_token from %s"); len(rows) != 1 || rows[0][1] != "refresh 2" {
			t.Errorf("the rows are %q, want one, with the last refresh token", rows)
		}
	})
}

func TestValuesInSQLiteAreText(t *testing.T) {
	t.Parallel()
	for _, kind := range kinds[:3] {
		b := kind.new(t)
		mustSave(t, b.open(t, nil), full("ann"))
		for _, column := range sdkColumns {
			if rows := b.rows(t, "select typeof("+column+") from %s"); rows[0][0] != "text" {
				t.Errorf("%s: %s is of the type %q", kind.name, column, rows[0][0])
			}
		}
	}
}

func TestWhatAnSDKWritesIsFound(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b *backend) {
		s := b.open(t, nil)
		ann := mustSave(t, s, full("ann"))
		b.exec(t, "insert into %s (id,user_name,client_id,client_secret,refresh_token,access_token,grant_token,expiry_time,redirect_url,api_domain) "+
			"values ('2','bob','1000.CID','SEC','1000.ref1','1000.acc1',NULL,'1700000000000','','https://www.zohoapis.com')")
		bob, err := s.FindToken(t.Context(), tokenstore.Token{UserName: "bob"})
		if want := []string{"2", "bob", "1000.CID", "SEC", "1000.ref1", "1000.acc1", "", "1700000000000", "", "https://www.zohoapis.com"}; err != nil || !slices.Equal(fieldsOf(bob), want) {
			t.Errorf("the record is %q, error %v, want %q", fieldsOf(bob), err, want)
		}
		b.exec(t, "update %s set access_token='theirs', expiry_time='1800000000000' where user_name='ann'")
		if got, err := s.FindToken(t.Context(), tokenstore.Token{AccessToken: "theirs"}); err != nil || got.ID != ann.ID || got.ExpiresAt.UnixMilli() != 1_800_000_000_000 {
			t.Errorf("after an update the record is %q, error %v", got.ID, err)
		}
		b.exec(t, "delete from %s where id='2'")
		if _, err := s.FindTokenByID(t.Context(), "2"); err == nil {
			t.Error("a record that was deleted is found")
		}
		b.exec(t, "delete from %s")
		if all, err := s.GetTokens(t.Context()); err != nil || len(all) != 0 {
			t.Errorf("after all were deleted there are %d, error %v", len(all), err)
		}
	})
}
