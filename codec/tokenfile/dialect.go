package tokenfile

import (
	"errors"
	"fmt"
	"slices"

	"github.com/tokenkeep/tokenkeep/codec"
)

// columns are the names of the columns in their order. Each list begins with the name
// in the headers of most SDKs, followed by other names.
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

	// oldColumns is how many columns the SDKs wrote before there was api_domain.
	oldColumns = column("api_domain")
)

// column returns the column that has the name, or -1.
func column(name string) int {
	return slices.IndexFunc(columns, func(names []string) bool { return slices.Contains(names, name) })
}

// A dialect describes a codec.Dialect.
type dialect struct {
	name codec.Dialect

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

// Limits of IDs. Ten digits fill the column in the SDKs' database table, and some SDKs
// parse IDs as 32-bit integers to find the next one.
const (
	tenDigits = 9_999_999_999
	int32ID   = 1<<31 - 2
)

// dialects has the dialects in the order of codec.Dialects.
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

// lookup returns the description of d.
func lookup(d codec.Dialect) (dialect, error) {
	i := slices.IndexFunc(dialects, func(known dialect) bool { return known.name == d })
	if i < 0 {
		return dialect{}, fmt.Errorf("tokenfile: unknown dialect %q", string(d))
	}
	return dialects[i], nil
}

// headerNames returns the header of d.
func (d dialect) headerNames() []string {
	names := codec.ColumnNames()
	names[userColumn], names[redirectColumn] = d.user, d.redirect
	return names
}

// ErrDialect means that a row has a value that the SDK which reads the file could not
// read back. Errors that match it name the column and do not quote the value.
var ErrDialect = errors.New("the dialect of the token file cannot hold it")
