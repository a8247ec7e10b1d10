package sqlstore

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rules"
)

// textFields maps the name of each text field of the SDKs to a function that returns a pointer
// to the field.
var textFields = map[string]func(*tokenstore.Token) *string{
	"ID":           func(t *tokenstore.Token) *string { return &t.ID },
	"UserName":     func(t *tokenstore.Token) *string { return &t.UserName },
	"ClientID":     func(t *tokenstore.Token) *string { return &t.ClientID },
	"ClientSecret": func(t *tokenstore.Token) *string { return (*string)(&t.ClientSecret) },
	"RefreshToken": func(t *tokenstore.Token) *string { return (*string)(&t.RefreshToken) },
	"AccessToken":  func(t *tokenstore.Token) *string { return (*string)(&t.AccessToken) },
	"GrantToken":   func(t *tokenstore.Token) *string { return (*string)(&t.GrantToken) },
	"RedirectURL":  func(t *tokenstore.Token) *string { return &t.RedirectURL },
	"APIDomain":    func(t *tokenstore.Token) *string { return &t.APIDomain },
}

// hostile lists values that could change the meaning of a statement or format, or that could be
// too long for a column.
var hostile = []string{
	"'", "''", `"`, "`", `\`, `\'`, `\\'`, ";", "--", "/*", "%", "_", "?", "$1", ":a", "@@version", "{{.}}",
	"' OR '1'='1", `" OR ""="`, "1' OR 1=1 -- ", "'; DROP TABLE oauthtoken; -- ", "x'); DELETE FROM oauthtoken; --", "' UNION SELECT * FROM oauthtoken -- ",
	"O'Neil, Ann", `a,"b",c`, "null", "NULL", "nil", "id", "user_name", "0", "1.0", "1e3", "-1", "0x1F", " ", "  lead", "trail  ", "a\u00a0b",
	"müller", "ß", "İ", "é", "e\u0301", "張偉", "\U0001f511", "\U0010ffff", "\ufeffbom", "\u202eright", "\u2028",
	strings.Repeat("x", 255), strings.Repeat("é", 255), strings.Repeat("\U0001f511", 255), strings.Repeat("'", 255),
	strings.Repeat("x", 254) + " ", "a\nb", "a\r\nb", "\x00", "\x1a", "a\tb", "\xff", "\xed\xa0\x80",
	strings.Repeat("x", 256), strings.Repeat("é", 256), strings.Repeat("\U0001f511", 256), strings.Repeat("x", 32<<10), strings.Repeat("x", 1<<16),
}

// TestHostileValues checks that a store either refuses each hostile value in each field, or
// stores it and finds it unchanged.
func TestHostileValues(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b *backend) { storesOrRefuses(t, b) })
	for name, mode := range map[string]string{"strict": "'STRICT_ALL_TABLES'", "not strict": "''"} {
		for _, table := range []string{"latin1", "utf8mb3", "utf8mb4"} {
			t.Run("mysql "+name+" in "+table, func(t *testing.T) {
				t.Parallel()
				b := mysqlTable(t)
				b.exec(t, wide("id varchar(10) NOT NULL PRIMARY KEY", "")+" DEFAULT CHARACTER SET "+table)
				b.dsn = withParams(t, b.dsn, map[string]string{"sql_mode": mode})
				storesOrRefuses(t, b)
			})
		}
	}
}

func storesOrRefuses(t *testing.T, b *backend) {
	t.Helper()
	s, two := b.open(t, nil), b.open(t, nil)
	// An injected statement would find or destroy this row.
	victim := mustSave(t, s, full("victim"))
	stored, refused := 0, 0
	for name, of := range textFields {
		for _, value := range hostile {
			token := tokenstore.Token{UserName: "user of " + name, RefreshToken: "r"}
			*of(&token) = value
			saved, err := s.SaveToken(t.Context(), token)
			if err != nil {
				refused++
				if !errors.Is(err, tokenstore.ErrInvalidToken) && !errors.Is(err, tokenstore.ErrTooLarge) {
					t.Errorf("SaveToken of %.40q as %s: %v", value, name, err)
				}
				if len(value) <= 10 && b.dialect == SQLite && name != "ID" && tokenstore.Validate(token) == nil {
					t.Errorf("SaveToken of %q as %s was refused: %v", value, name, err)
				}
				continue
			}
			stored++
			for _, like := range []tokenstore.Token{{ID: saved.ID}, {UserName: token.UserName}, {ClientID: token.ClientID, RefreshToken: token.RefreshToken}, {AccessToken: token.AccessToken}, {ClientID: token.ClientID, GrantToken: token.GrantToken}} {
				if rules.KeyOf(like.Fields()) == rules.KeyNone {
					continue
				}
				got, err := two.FindToken(t.Context(), like)
				if err != nil || *of(&got) != value {
					t.Errorf("after SaveToken of %.40q as %s, FindToken returned %.40q and error %v", value, name, *of(&got), err)
				}
			}
			if err := s.DeleteToken(t.Context(), saved.ID); err != nil {
				t.Fatal(err)
			}
			for _, like := range []tokenstore.Token{{UserName: value}, {AccessToken: tokenstore.Secret(value)}, {ClientID: value, RefreshToken: tokenstore.Secret(value)}, {ID: value}} {
				if got, err := s.FindToken(t.Context(), like); err == nil {
					t.Errorf("a search for %.40q found the record %q", value, got.ID)
				}
			}
		}
	}
	all, err := s.GetTokens(t.Context())
	if err != nil || !slices.Equal(all, []tokenstore.Token{victim}) {
		t.Errorf("of the other records %d are left, error %v", len(all), err)
	}
	if stored == 0 || refused == 0 {
		t.Errorf("%d values were stored and %d refused", stored, refused)
	}
	t.Logf("%d values were stored exactly, %d refused", stored, refused)
}

// TestSaveTokenLongValue checks that SaveToken in MySQL refuses a value that is too long for
// its column, and does not change the existing record. SQLite must store the value.
func TestSaveTokenLongValue(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b *backend) {
		b.exec(t, wide("id varchar(10) NOT NULL PRIMARY KEY", ""))
		s := b.open(t, nil)
		record := mustSave(t, s, full("ann"))
		for name, of := range textFields {
			if name == "ID" || name == "UserName" || name == "ClientID" {
				continue
			}
			token := tokenstore.Token{ID: record.ID}
			*of(&token) = strings.Repeat("é", 256)
			want := tokenstore.ErrTooLarge
			if b.dialect == SQLite {
				want, record = nil, tokenstore.Merge(record, token) // SQLite enforces no limits
			}
			if _, err := s.SaveToken(t.Context(), token); !errors.Is(err, want) {
				t.Errorf("SaveToken of 256 characters as %s returned error %v, want %v", name, err, want)
			}
		}
		record.ExpiresAt = tokenstore.Token{}.ExpiresAt
		if b.dialect == MySQL {
			record.ExpiresAt = full("ann").ExpiresAt
		}
		if got, err := s.FindTokenByID(t.Context(), record.ID); err != nil || got != record {
			t.Errorf("after that the record is another, error %v", err)
		}
	})
}

// TestValuesAreComparedAsBytes checks that a store compares values byte by byte, even if the
// collation of the table ignores case, accents or trailing blanks.
func TestValuesAreComparedAsBytes(t *testing.T) {
	t.Parallel()
	tables := map[string]func(t *testing.T) *backend{
		"mysql": func(t *testing.T) *backend {
			b := mysqlTable(t)
			b.exec(t, wide("id varchar(10) NOT NULL PRIMARY KEY", "")+" DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci")
			return b
		},
		"sqlite": func(t *testing.T) *backend {
			b := sqliteWAL(t)
			b.exec(t, strings.ReplaceAll(wide("id varchar(10) NOT NULL PRIMARY KEY", ""), "varchar(255)", "varchar(255) COLLATE NOCASE"))
			return b
		},
	}
	for name, table := range tables {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := table(t).open(t, nil)
			var all []tokenstore.Token
			for _, text := range []string{"ann", "Ann", "ANN", "änn", "ann ", "ann  "} {
				for _, client := range []string{"c", "C", "c "} {
					secret := tokenstore.Secret(text + client)
					all = append(all, mustSave(t, s, tokenstore.Token{UserName: text, ClientID: client, RefreshToken: secret, AccessToken: secret, GrantToken: secret}))
				}
			}
			for i, want := range all {
				if i > 0 && want.ID == all[i-1].ID {
					t.Errorf("%q and %q have one record", want.UserName, all[i-1].UserName)
				}
				for _, like := range []tokenstore.Token{
					{ID: want.ID}, {UserName: want.UserName, ClientID: want.ClientID}, {AccessToken: want.AccessToken},
					{ClientID: want.ClientID, GrantToken: want.GrantToken}, {ClientID: want.ClientID, RefreshToken: want.RefreshToken},
				} {
					if got, err := s.FindToken(t.Context(), like); err != nil || got != want {
						t.Errorf("FindToken of %v found the record %q, error %v, want %q", like.UserName, got.ID, err, want.ID)
					}
				}
			}
			for _, user := range []string{"aNN", "a\u0308nn", "ann   "} {
				if _, err := s.FindToken(t.Context(), tokenstore.Token{UserName: user, ClientID: "c"}); !errors.Is(err, tokenstore.ErrNotFound) {
					t.Errorf("FindToken of %q returned error %v, want %q", user, err, tokenstore.ErrNotFound)
				}
			}
		})
	}
}

// TestSaveTokenIDCollation checks that SaveToken refuses a new ID that the primary key treats as
// equal to an existing ID.
func TestSaveTokenIDCollation(t *testing.T) {
	t.Parallel()
	for _, table := range []func(t *testing.T) *backend{
		func(t *testing.T) *backend {
			b := mysqlTable(t)
			b.exec(t, wide("id varchar(190) NOT NULL PRIMARY KEY", "")+" DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci")
			return b
		},
		func(t *testing.T) *backend {
			b := sqliteFile(t)
			b.exec(t, wide("id varchar(190) COLLATE NOCASE NOT NULL PRIMARY KEY", ""))
			return b
		},
	} {
		b := table(t)
		s := b.open(t, &Options{AnyID: true})
		first := mustSave(t, s, tokenstore.Token{ID: "a", UserName: "ann", RefreshToken: "r"})
		if _, err := s.SaveToken(t.Context(), tokenstore.Token{ID: "A", UserName: "bob", RefreshToken: "r"}); !errors.Is(err, tokenstore.ErrInvalidToken) {
			t.Errorf("%s: SaveToken returned error %v, want %q", b.dialect, err, tokenstore.ErrInvalidToken)
		}
		if err := s.DeleteToken(t.Context(), "A"); err != nil {
			t.Errorf("%s: DeleteToken of an ID that there is not: %v", b.dialect, err)
		}
		if all, err := s.GetTokens(t.Context()); err != nil || !slices.Equal(all, []tokenstore.Token{first}) {
			t.Errorf("%s: after that there are %d records, error %v", b.dialect, len(all), err)
		}
	}
}

func TestAnyIDInAColumnOfBytes(t *testing.T) {
	t.Parallel()
	b := mysqlTable(t)
	b.exec(t, wide("id varbinary(255) NOT NULL PRIMARY KEY", ""))
	s := b.open(t, &Options{AnyID: true})
	for i, id := range []string{"a", "A", "a ", "1", "01", "é", "\U0001f511", strings.Repeat("x", 255), "'; -- "} {
		saved := mustSave(t, s, tokenstore.Token{ID: id, UserName: strings.Repeat("u", i+1), RefreshToken: "r"})
		if got, err := s.FindTokenByID(t.Context(), id); err != nil || got != saved || saved.ID != id {
			t.Errorf("the record with the ID %.20q has %.20q, error %v", id, got.ID, err)
		}
	}
	if saved := mustSave(t, s, tokenstore.Token{UserName: "next", RefreshToken: "r", ExpiresAt: time.UnixMilli(7)}); saved.ID != "2" {
		t.Errorf("the next ID is %q", saved.ID)
	}
}
