package tokenfile

import (
	"errors"
	"fmt"
	"slices"

	"github.com/tokenkeep/tokenkeep/codec"
)

// columns lists the names of each column, in the order of the columns. The first name of a column
// is the name in codec.ColumnNames.
var columns = func() (names [][]string) {
	others := map[string]string{"user_name": "user_mail", "redirect_url": "redirect_uri"}
	for _, name := range codec.ColumnNames() {
		names = append(names, []string{name})
		if other := others[name]; other != "" {
			names[len(names)-1] = append(names[len(names)-1], other)
		}
	}
	return names
}()

var (
	userColumn     = column("user_name")
	expiryColumn   = column("expiry_time")
	redirectColumn = column("redirect_url")

	// oldColumns is the number of columns in the files of older SDKs, which lack the last column,
	// api_domain.
	oldColumns = column("api_domain")
)

// column returns the index of the named column, or -1.
func column(name string) int {
	return slices.IndexFunc(columns, func(names []string) bool { return slices.Contains(names, name) })
}

// A dialect describes the format that a codec.Dialect names.
type dialect struct {
	name codec.Dialect

	user, redirect string   // header names of the two columns whose names differ between SDKs
	eols           []string // line breaks: this package writes the first; the SDK writes the others on other platforms
	final          bool     // the last line also ends with a line break

	quotes bool   // the SDK quotes fields where necessary, and reads quoted fields
	splits bool   // the SDK splits lines at every comma, and a quote is an ordinary character
	null   string // the text that the SDK writes for an absent value

	absent    []string // other texts that the SDK reads as absent
	loses     string   // characters that the SDK drops when it reads a file
	header    bool     // the SDK searches the header as if it were a record
	early     int64    // milliseconds by which the SDK writes expiry_time too early
	biggestID int64    // the largest ID that the SDK can increment
}

// These are values of dialect.biggestID. Ten digits fill the column in the SDKs' database table.
// Some SDKs parse IDs as 32-bit integers to find the next ID.
const (
	tenDigits = 9_999_999_999
	int32ID   = 1<<31 - 2
)

// dialects describes the dialects in the order of codec.Dialects.
var dialects = []dialect{
	{name: codec.Python, user: "user_name", redirect: "redirect_uri", eols: []string{"\r\n", "\r\r\n"}, final: true, quotes: true, header: true, biggestID: tenDigits},
	{name: codec.Java, user: "user_name", redirect: "redirect_url", eols: []string{"\n"}, final: true, quotes: true, loses: `\`, biggestID: int32ID},
	{name: codec.Node, user: "user_name", redirect: "redirect_url", eols: []string{"\n"}, splits: true, biggestID: tenDigits},
	{name: codec.TypeScript, user: "user_mail", redirect: "redirect_url", eols: []string{"\n"}, splits: true, biggestID: tenDigits},
	{name: codec.Deno, user: "user_mail", redirect: "redirect_url", eols: []string{"\n"}, splits: true, biggestID: tenDigits},
	{name: codec.PHP, user: "user_name", redirect: "redirect_url", eols: []string{"\n", "\r\n"}, absent: []string{"0"}, biggestID: tenDigits},
	{name: codec.Ruby, user: "user_name", redirect: "redirect_url", eols: []string{"\n", "\r\n"}, final: true, quotes: true, header: true, biggestID: tenDigits},
	{name: codec.Scala, user: "user_name", redirect: "redirect_url", eols: []string{"\n"}, splits: true, null: "null", biggestID: int32ID},
	{name: codec.CSharp, user: "user_name", redirect: "redirect_url", eols: []string{"\n", "\r\n"}, final: true, splits: true, header: true, early: 600_000, biggestID: int32ID},
}

// lookup returns the description of d, or an error if d is unknown.
func lookup(d codec.Dialect) (dialect, error) {
	i := slices.IndexFunc(dialects, func(known dialect) bool { return known.name == d })
	if i < 0 {
		return dialect{}, fmt.Errorf("tokenfile: unknown dialect %q", string(d))
	}
	return dialects[i], nil
}

func (d dialect) headerNames() []string {
	names := codec.ColumnNames()
	names[userColumn], names[redirectColumn] = d.user, d.redirect
	return names
}

// ErrDialect means that the file cannot represent a row, because an SDK that might read the file
// would lose or misread a value. An error of File.NextID that matches ErrDialect means that no ID
// is left. Errors that match ErrDialect quote no value except IDs.
var ErrDialect = errors.New("the dialect of the token file cannot represent it")
