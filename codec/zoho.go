package codec

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
)

// A Row is one record of the token file of a Zoho SDK: ten columns of text. An
// empty field is one that the SDKs call nil. Its credentials are plain strings;
// a Row prints and logs as its name alone.
type Row struct {
	ID           string
	UserName     string
	ClientID     string
	ClientSecret string
	RefreshToken string
	AccessToken  string
	GrantToken   string
	ExpiryTime   string // when AccessToken expires: milliseconds since the epoch, in decimal
	RedirectURL  string
	APIDomain    string
}

// columns are the columns in their order, each with the names that the SDKs'
// headers have for it.
var columns = [...]struct {
	names []string
	of    func(*Row) *string
}{
	{[]string{"id"}, func(r *Row) *string { return &r.ID }},
	{[]string{"user_name", "user_mail"}, func(r *Row) *string { return &r.UserName }},
	{[]string{"client_id"}, func(r *Row) *string { return &r.ClientID }},
	{[]string{"client_secret"}, func(r *Row) *string { return &r.ClientSecret }},
	{[]string{"refresh_token"}, func(r *Row) *string { return &r.RefreshToken }},
	{[]string{"access_token"}, func(r *Row) *string { return &r.AccessToken }},
	{[]string{"grant_token"}, func(r *Row) *string { return &r.GrantToken }},
	{[]string{"expiry_time"}, func(r *Row) *string { return &r.ExpiryTime }},
	{[]string{"redirect_url", "redirect_uri"}, func(r *Row) *string { return &r.RedirectURL }},
	{[]string{"api_domain"}, func(r *Row) *string { return &r.APIDomain }},
}

const (
	userColumn     = 1
	expiryColumn   = 7
	redirectColumn = 8

	// oldColumns is how many columns the SDKs wrote before there was api_domain.
	oldColumns = len(columns) - 1
)

// Format keeps credentials out of whatever prints a Row.
func (r Row) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "codec.Row{redacted}") }

// LogValue keeps credentials out of logs.
func (r Row) LogValue() slog.Value { return slog.StringValue("codec.Row{redacted}") }

// MarshalJSON fails: rows are written as part of a TokenFile.
func (r Row) MarshalJSON() ([]byte, error) {
	return nil, errors.New("codec: a Row is written as part of a TokenFile")
}

// A Dialect is the way in which one of the Zoho SDKs writes its token file, and
// reads it. The empty Dialect stands for one that is to be found out.
type Dialect string

// The dialects. Those of TypeScript and Deno are the same.
const (
	Python     Dialect = "python"
	Java       Dialect = "java"
	Node       Dialect = "node"
	TypeScript Dialect = "typescript"
	Deno       Dialect = "deno"
	PHP        Dialect = "php"
	CSharp     Dialect = "csharp"
	Ruby       Dialect = "ruby"
	Scala      Dialect = "scala"
)

// A dialect says what a Dialect is.
type dialect struct {
	name Dialect

	user, redirect string   // how the header names the two columns that it names in different ways
	eols           []string // line breaks: the first is written, the others are those of other platforms
	final          bool     // the last line ends with a line break too

	quotes bool   // fields are quoted where they have to be, and understood when they are
	splits bool   // lines are cut at every comma, and a quote is a character like others
	null   string // how an absent value is written

	absent    []string // further values that are read as absent
	loses     string   // characters that are lost in reading
	header    bool     // the header is searched like a record
	early     int64    // by how many milliseconds expiry_time is before the access token's end
	biggestID int64    // the biggest ID after which there can be one more
}

// What IDs are compared and counted in: ten digits fill the column of the SDKs'
// database table, and some SDKs parse IDs as 32-bit integers to find the next
// one.
const (
	tenDigits = 9_999_999_999
	int32ID   = 1<<31 - 2
)

// dialects are in the order of likelihood. CSharp is last, because a file whose
// times it did not write must not be read as if it had: see early.
var dialects = []dialect{
	{name: Python, user: "user_name", redirect: "redirect_uri", eols: []string{"\r\n", "\r\r\n"}, final: true, quotes: true, header: true, biggestID: tenDigits},
	{name: Java, user: "user_name", redirect: "redirect_url", eols: []string{"\n"}, final: true, quotes: true, loses: `\`, biggestID: int32ID},
	{name: Node, user: "user_name", redirect: "redirect_url", eols: []string{"\n"}, splits: true, biggestID: tenDigits},
	{name: TypeScript, user: "user_mail", redirect: "redirect_url", eols: []string{"\n"}, splits: true, biggestID: tenDigits},
	{name: Deno, user: "user_mail", redirect: "redirect_url", eols: []string{"\n"}, splits: true, biggestID: tenDigits},
	{name: PHP, user: "user_name", redirect: "redirect_url", eols: []string{"\n", "\r\n"}, absent: []string{"0"}, biggestID: tenDigits},
	{name: Ruby, user: "user_name", redirect: "redirect_url", eols: []string{"\n", "\r\n"}, final: true, quotes: true, header: true, biggestID: tenDigits},
	{name: Scala, user: "user_name", redirect: "redirect_url", eols: []string{"\n"}, splits: true, null: "null", biggestID: int32ID},
	{name: CSharp, user: "user_name", redirect: "redirect_url", eols: []string{"\n", "\r\n"}, final: true, splits: true, header: true, early: 600_000, biggestID: int32ID},
}

// Dialects returns all dialects.
func Dialects() []Dialect {
	names := make([]Dialect, 0, len(dialects))
	for _, d := range dialects {
		names = append(names, d.name)
	}
	return names
}

// lookup returns what d is.
func (d Dialect) lookup() (dialect, error) {
	i := slices.IndexFunc(dialects, func(known dialect) bool { return known.name == d })
	if i < 0 {
		return dialect{}, fmt.Errorf("codec: unknown dialect %q", string(d))
	}
	return dialects[i], nil
}

// Known reports whether d is one of the dialects.
func (d Dialect) Known() bool {
	_, err := d.lookup()
	return err == nil
}

// headerNames returns the header of d.
func (d dialect) headerNames() []string {
	names := make([]string, 0, len(columns))
	for _, c := range columns {
		names = append(names, c.names[0])
	}
	names[userColumn], names[redirectColumn] = d.user, d.redirect
	return names
}

// ErrDialect means that a row has a value which the SDK that reads the file
// could not read back. Errors that match it name the column and hold nothing of
// the value.
var ErrDialect = errors.New("the dialect of the token file cannot hold it")
