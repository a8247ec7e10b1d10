package sqlstore

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rowset"
)

// columns are those of the SDKs' table, in its order: some of them read rows by
// position.
var columns = [...]struct {
	name string
	of   func(*codec.Row) *string
}{
	{"id", func(r *codec.Row) *string { return &r.ID }},
	{"user_name", func(r *codec.Row) *string { return &r.UserName }},
	{"client_id", func(r *codec.Row) *string { return &r.ClientID }},
	{"client_secret", func(r *codec.Row) *string { return &r.ClientSecret }},
	{"refresh_token", func(r *codec.Row) *string { return &r.RefreshToken }},
	{"access_token", func(r *codec.Row) *string { return &r.AccessToken }},
	{"grant_token", func(r *codec.Row) *string { return &r.GrantToken }},
	{"expiry_time", func(r *codec.Row) *string { return &r.ExpiryTime }},
	{"redirect_url", func(r *codec.Row) *string { return &r.RedirectURL }},
	{"api_domain", func(r *codec.Row) *string { return &r.APIDomain }},
}

// columnList is the list of all columns, for statements.
var columnList = func() string {
	var names []string
	for _, c := range columns {
		names = append(names, c.name)
	}
	return strings.Join(names, ", ")
}()

// A table is what is known of the table.
type table struct {
	name    string
	columns atomic.Pointer[[len(columns)]column] // they may be given more room meanwhile
	notes   bool                                 // there is the second table
}

// A column is what a column of the table can hold.
type column struct {
	limit   int  // characters; 0: no limit is known
	bytes   bool // the limit is one of bytes
	notNull bool
}

// quoted returns the name as it stands in statements.
func (t *table) quoted() string { return "`" + t.name + "`" }

// check returns an error if the table cannot hold a record. A server that is not
// strict would cut its values off and say nothing.
func (t *table) check(r codec.Row) error {
	have := t.columns.Load()
	for i, c := range columns {
		value, limit, unit := *c.of(&r), have[i].limit, "characters"
		n := utf8.RuneCountInString(value)
		if have[i].bytes {
			n, unit = len(value), "bytes"
		}
		if limit == 0 || n <= limit {
			continue
		}
		class := tokenstore.ErrTooLarge
		if i == 0 {
			class = tokenstore.ErrInvalidToken // it is the wrong kind of ID
		}
		return narrowError{fmt.Errorf("%w: %s has %d %s, the column holds %d", class, c.name, n, unit, limit), c.name}
	}
	return nil
}

// value returns what is stored for a field: SDKs store NULL for what a record
// has not, and read the empty text as the same.
func (t *table) value(i int, field string) any {
	if field == "" && !t.columns.Load()[i].notNull {
		return nil
	}
	return field
}

// A condition says which rows are read. The empty one is that of none.
type condition struct {
	text string
	args []any
}

// all is the condition of all rows.
var all = condition{text: "1 = 1"}

// describedBy returns the condition that every row meets which t may describe.
// What the database compares without regard to case, accents or blanks at the end
// is compared as bytes afterwards.
func describedBy(t tokenstore.Token) condition {
	var c condition
	or := func(column, value string) {
		if value == "" {
			return
		}
		if c.text != "" {
			c.text += " OR "
		}
		c.text += column + " = ?"
		c.args = append(c.args, value)
	}
	or("id", t.ID)
	or("user_name", t.UserName)
	if t.UserName == "" {
		or("access_token", string(t.AccessToken))
		or("refresh_token", string(t.RefreshToken))
		or("grant_token", string(t.GrantToken))
	}
	return c
}

// A view is the rows that met a condition at one moment.
type view struct {
	rowset.View
	rows []codec.Row
}

// A querier is a *sql.DB or a *sql.Conn.
type querier interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// read returns the rows that meet the condition, as they are now.
func (s *Store) read(ctx context.Context, q querier, c condition) (v *view, err error) {
	err = s.patiently(ctx, func(ctx context.Context) error {
		v, err = s.query(ctx, q, c, "")
		return err
	})
	return v, err
}

// query returns the rows that meet the condition. Its errors are those of failed.
func (s *Store) query(ctx context.Context, q querier, c condition, suffix string) (*view, error) {
	v := &view{}
	if c.text == "" {
		return v, nil
	}
	found, err := q.QueryContext(ctx, "SELECT "+columnList+" FROM "+s.table.quoted()+" WHERE "+c.text+suffix, c.args...)
	if err != nil {
		return nil, s.failed(ctx, err)
	}
	defer found.Close()
	for found.Next() {
		var fields [len(columns)]sql.NullString
		var into [len(columns)]any
		for i := range fields {
			into[i] = &fields[i]
		}
		if err := found.Scan(into[:]...); err != nil {
			return nil, s.failed(ctx, err)
		}
		var r codec.Row
		for i, c := range columns {
			*c.of(&r) = fields[i].String
		}
		v.add(r)
	}
	if err := found.Err(); err != nil {
		return nil, s.failed(ctx, err)
	}
	return v, nil
}

// add adds a row. Rows have no time: of two records the one with the bigger number
// is taken for the newer one, because IDs are counted up.
func (v *view) add(r codec.Row) {
	n, _ := codec.IDNumber(r.ID)
	v.rows = append(v.rows, r)
	v.Add(r, fmt.Sprintf("row %q", r.ID), time.Unix(n, 0))
}
