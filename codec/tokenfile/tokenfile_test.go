package tokenfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tokenkeep/tokenkeep/codec"
)

var update = flag.Bool("update", false, "write golden files that do not exist")

const (
	pythonHeader = "id,user_name,client_id,client_secret,refresh_token,access_token,grant_token,expiry_time,redirect_uri,api_domain"
	nodeHeader   = "id,user_name,client_id,client_secret,refresh_token,access_token,grant_token,expiry_time,redirect_url,api_domain"
	scriptHeader = "id,user_mail,client_id,client_secret,refresh_token,access_token,grant_token,expiry_time,redirect_url,api_domain"
	oldHeader    = "id,user_mail,client_id,client_secret,refresh_token,access_token,grant_token,expiry_time,redirect_uri"

	annLine = "1,ann@example.com:6001,1000.ABC,s3,1000.r1,1000.a1,1000.g1,1767225600000,https://example.com/cb,https://www.zohoapis.com"
	bobLine = "2,,1000.DEF,s4,1000.r2,1000.a2,,1767225600123,,https://www.zohoapis.eu"
)

// ann and bob are the records of annLine and bobLine.
var (
	ann = codec.Fields{ID: "1", UserName: "ann@example.com:6001", ClientID: "1000.ABC", ClientSecret: "s3", RefreshToken: "1000.r1", AccessToken: "1000.a1", GrantToken: "1000.g1", ExpiryTime: 1767225600000, RedirectURL: "https://example.com/cb", APIDomain: "https://www.zohoapis.com"}
	bob = codec.Fields{ID: "2", ClientID: "1000.DEF", ClientSecret: "s4", RefreshToken: "1000.r2", AccessToken: "1000.a2", ExpiryTime: 1767225600123, APIDomain: "https://www.zohoapis.eu"}
)

func parse(t *testing.T, data string, d codec.Dialect) *File {
	t.Helper()
	f, err := Parse([]byte(data), d)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func rows(f *File) []codec.Fields {
	var all []codec.Fields
	for i := range f.Len() {
		r, _ := f.Row(i)
		all = append(all, r)
	}
	return all
}

// differ describes the first value in which got differs from want. It returns the empty string
// if all values are equal.
func differ(got, want []codec.Fields) string {
	if len(got) != len(want) {
		return fmt.Sprintf("there are %d rows, want %d", len(got), len(want))
	}
	for i := range want {
		for field, w := range want[i].All() {
			if g := field.Text(got[i]); g != w {
				return fmt.Sprintf("row %d: %s is %q, want %q", i, field.Column, g, w)
			}
		}
	}
	return ""
}

// sdkFile returns a file that an official SDK wrote, and the records that the SDK reads from
// the file.
func sdkFile(t testing.TB, name string) (data []byte, want []codec.Fields) {
	t.Helper()
	dir := filepath.Join("..", "..", "testdata", "zoho-sdk")
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, strings.TrimSuffix(name, filepath.Ext(name))+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var records []map[string]*string
	if err := json.Unmarshal(text, &records); err != nil {
		t.Fatal(err)
	}
	for _, record := range records {
		text := make([]string, len(columns))
		for i, name := range codec.ColumnNames() {
			if value := record[name]; value != nil {
				text[i] = *value
			}
			delete(record, name)
		}
		if len(record) > 0 {
			t.Fatalf("%s has members that are no columns: %v", name, record)
		}
		r, err := codec.ParseColumns(text)
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, r)
	}
	return data, want
}

func TestFilesOfSDKs(t *testing.T) {
	t.Parallel()
	for name, is := range map[string]struct {
		rows    int
		dialect codec.Dialect
	}{
		"python_filestore.csv": {12, codec.Python},
		"node_filestore.txt":   {2, codec.Node},
	} {
		data, want := sdkFile(t, name)
		if len(want) != is.rows {
			t.Errorf("%s has %d records, want %d", name, len(want), is.rows)
		}
		for _, d := range []codec.Dialect{"", is.dialect} {
			f := parse(t, string(data), d)
			if diff := differ(rows(f), want); diff != "" {
				t.Errorf("%s: %s", name, diff)
			}
			if f.Dialects()[0] != is.dialect {
				t.Errorf("%s is in the dialects %v", name, f.Dialects())
			}
			if !bytes.Equal(f.Bytes(), data) {
				t.Errorf("%s is written in another way than it was read", name)
			}
		}
		if got, err := readers[is.dialect](string(data)); err != nil || differ(got, want) != "" {
			t.Errorf("%s: the reader of the tests reads something else: %v %s", name, err, differ(got, want))
		}
		// An empty file of each dialect accepts the rows, except rows that need quotes if the
		// dialect has no quotes.
		for _, d := range codec.Dialects() {
			f, err := New(d)
			if err != nil {
				t.Fatal(err)
			}
			quoting := 0
			for _, r := range want {
				if err := f.Append(r); errors.Is(err, ErrDialect) {
					quoting++
				} else if err != nil {
					t.Fatal(err)
				}
			}
			known, _ := lookup(d)
			if (quoting > 0) != (!known.quotes && name == "python_filestore.csv") {
				t.Errorf("%s: %d rows do not fit into the dialect %s", name, quoting, d)
			}
			back := parse(t, string(f.Bytes()), d)
			if diff := differ(rows(back), rows(f)); diff != "" {
				t.Errorf("%s, written as %s: %s", name, d, diff)
			}
		}
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	both := []codec.Fields{ann, bob}
	without := func(r codec.Fields) codec.Fields { r.APIDomain = ""; return r }
	old := func(line string) string { return line[:strings.LastIndexByte(line, ',')] }
	quoted := func(user string) []codec.Fields { r := ann; r.UserName = user; return []codec.Fields{r} }
	for name, c := range map[string]struct {
		data string
		want []codec.Fields
	}{
		"empty":                        {"", nil},
		"blank lines only":             {"\r\n \n\t\n,,,\n", nil},
		"header only":                  {nodeHeader, nil},
		"header only, ended":           {pythonHeader + "\r\n", nil},
		"python":                       {pythonHeader + "\r\n" + annLine + "\r\n" + bobLine + "\r\n", both},
		"python on windows":            {pythonHeader + "\r\r\n" + annLine + "\r\r\n" + bobLine + "\r\r\n", both},
		"python with LF":               {pythonHeader + "\n" + annLine + "\n" + bobLine + "\n", both},
		"java":                         {nodeHeader + "\n" + annLine + "\n" + bobLine + "\n", both},
		"node":                         {nodeHeader + "\n" + annLine + "\n" + bobLine, both},
		"typescript":                   {scriptHeader + "\n" + annLine + "\n" + bobLine, both},
		"csharp on windows":            {nodeHeader + "\r\n" + annLine + "\r\n" + bobLine + "\r\n", both},
		"php on windows":               {nodeHeader + "\r\n" + annLine + "\r\n" + bobLine, both},
		"scala":                        {nodeHeader + "\n" + strings.ReplaceAll(annLine+"\n"+bobLine, ",,", ",null,"), both},
		"CR":                           {nodeHeader + "\r" + annLine + "\r" + bobLine + "\r", both},
		"mixed line breaks":            {nodeHeader + "\r\n" + annLine + "\r" + bobLine + "\n", both},
		"blank lines":                  {"\n\n" + nodeHeader + "\n\n" + annLine + "\n   \n" + bobLine + "\n\n", both},
		"byte order mark":              {"\ufeff" + pythonHeader + "\r\n" + annLine + "\r\n", both[:1]},
		"no header":                    {annLine + "\n" + bobLine, both},
		"no header, byte order mark":   {"\ufeff" + annLine + "\n" + bobLine + "\n", both},
		"nine columns":                 {oldHeader + "\r\n" + old(annLine) + "\r\n" + old(bobLine) + "\r\n", []codec.Fields{without(ann), without(bob)}},
		"nine columns, then ten":       {oldHeader + "\r\n" + old(annLine) + "\r\n" + bobLine + "\r\n", []codec.Fields{without(ann), bob}},
		"nine columns, not ended":      {strings.ReplaceAll(oldHeader, "redirect_uri", "redirect_url") + "\n" + old(annLine), []codec.Fields{without(ann)}},
		"quoted":                       {pythonHeader + "\r\n" + strings.Replace(annLine, "ann@example.com:6001", `"o'neil, ""sean"""`, 1) + "\r\n", quoted(`o'neil, "sean"`)},
		"quoted though not needed":     {pythonHeader + "\r\n" + `"` + strings.ReplaceAll(annLine, ",", `","`) + `"` + "\r\n", both[:1]},
		"quoted line break":            {pythonHeader + "\r\n" + strings.Replace(annLine, "ann@example.com:6001", "\"a\nb\r\nc\"", 1) + "\r\n", quoted("a\nb\r\nc")},
		"quote within a field":         {nodeHeader + "\n" + strings.Replace(annLine, "ann@example.com:6001", `a"b"`, 1) + "\n", quoted(`a"b"`)},
		"null":                         {nodeHeader + "\n" + strings.Replace(annLine, "ann@example.com:6001", "null", 1) + "\n", quoted("")},
		"quoted null":                  {nodeHeader + "\n" + strings.Replace(annLine, "ann@example.com:6001", `"null"`, 1) + "\n", quoted("null")},
		"node with a quote in front":   {nodeHeader + "\n" + strings.Replace(annLine, "ann@example.com:6001", `"ann" smith`, 1), quoted(`"ann" smith`)},
		"header of unknown names":      {strings.Replace(nodeHeader, "redirect_url", "redirectURL", 1) + "\n" + annLine, both[:1]},
		"spaces around a value":        {nodeHeader + "\n" + strings.Replace(annLine, "ann@example.com:6001", " ann ", 1), quoted(" ann ")},
		"no expiry time of its own":    {nodeHeader + "\n" + strings.Replace(annLine, "1767225600000", "soon", 1), []codec.Fields{func() codec.Fields { r := ann; r.ExpiryTime = 0; return r }()}},
		"a user called as its column":  {nodeHeader + "\n" + strings.Replace(annLine, "ann@example.com:6001", "user_name", 1), quoted("user_name")},
		"a user with a name of commas": {pythonHeader + "\r\n" + strings.Replace(annLine, "ann@example.com:6001", `",,,"`, 1) + "\r\n", quoted(",,,")},
	} {
		f, err := Parse([]byte(c.data), "")
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := differ(rows(f), c.want); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		again := parse(t, string(f.Bytes()), "")
		if diff := differ(rows(again), c.want); diff != "" {
			t.Errorf("%s, written and read: %s", name, diff)
		}
		for _, d := range f.Dialects() {
			if d == codec.CSharp && f.Dialects()[0] != codec.CSharp {
				continue // the dialect CSharp shifts expiry times
			}
			if again, err := Parse(f.Bytes(), d); err == nil && differ(rows(again), c.want) != "" && name != "node with a quote in front" {
				t.Errorf("%s, read as %s: %s", name, d, differ(rows(again), c.want))
			}
		}
	}
}

func TestParseErrors(t *testing.T) {
	t.Parallel()
	const canary = "c4n4ry"
	secret := strings.ReplaceAll(annLine, "1000.", canary)
	full := pythonHeader + "\r\n" + secret + "\r\n" + secret + "\r\n"
	for name, c := range map[string]struct {
		data, where string
		dialect     codec.Dialect
	}{
		"too few columns":             {nodeHeader + "\n" + secret + "\n1,ann," + canary + "\n" + secret, "line 3", ""},
		"too many columns":            {nodeHeader + "\n" + secret + "," + canary + "\n", "line 2", ""},
		"quote not closed":            {pythonHeader + "\r\n" + secret + "\r\n3,\"" + canary + "\r\n", "line 3", ""},
		"quote not closed at the end": {pythonHeader + "\r\n" + secret + "\r\n\"", "line 3", ""},
		"text after a quote":          {pythonHeader + "\r\n" + strings.Replace(secret, "ann", `"`+canary+`"`, 1) + "\r\n", "line 2", ""},
		"after a quoted line break":   {pythonHeader + "\r\n" + strings.Replace(secret, "ann@example.com:6001", "\"a\r\nb\"", 1) + "\r\n" + canary + "\r\n", "line 4", ""},
		"columns in another order":    {strings.Replace(nodeHeader, "refresh_token,access_token", "access_token,refresh_token", 1) + "\n" + secret, "line 1", ""},
		"header cut off":              {"id,user_name,client_id", "line 1", ""},
		"a second header":             {nodeHeader + "\n" + secret + "\n" + nodeHeader + "\n" + secret, "line 3", ""},
		"not a token file":            {"{\"" + canary + "\": 1}\n", "line 1", ""},
		"everything in one line":      {nodeHeader + secret + secret, "line 1", ""}, // as written by Scala's deleteToken
		"cut off within a row":        {full[:len(full)-60], "line 3", ""},
		"cut off within the last":     {full[:len(full)-4], "line 3", ""},
		"cut off before the break":    {full[:len(full)-2], "line 3", ""},
		"cut off before a column":     {nodeHeader + "\n" + secret[:strings.LastIndexByte(secret, ',')], "line 2", ""},
		"python cut off, named":       {full[:len(full)-4], "line 3", codec.Python},
		"java cut off, named":         {nodeHeader + "\n" + secret, "line 2", codec.Java},
		"java with quotes, cut off":   {nodeHeader + "\n" + strings.Replace(secret, "ann@example.com:6001", `"a,b"`, 1), "line 2", ""},
		"node with a comma":           {nodeHeader + "\n" + strings.Replace(secret, "ann@example.com:6001", `"a,b"`, 1), "line 2", codec.Node},
	} {
		_, err := Parse([]byte(c.data), c.dialect)
		if !errors.Is(err, codec.ErrFormat) {
			t.Errorf("%s: error %v, want ErrFormat", name, err)
			continue
		}
		if !strings.Contains(err.Error(), c.where+" ") && !strings.Contains(err.Error(), c.where+":") && !strings.Contains(err.Error(), c.where+",") {
			t.Errorf("%s: %q does not say %s", name, err, c.where)
		}
		if text := fmt.Sprintf("%v %+v %#v", err, err, err); strings.Contains(text, canary) || strings.Contains(text, "ann") {
			t.Errorf("%s: the error quotes the file", name)
		}
	}
	if _, err := Parse(nil, "cobol"); err == nil || errors.Is(err, codec.ErrFormat) {
		t.Errorf("an unknown dialect: error %v", err)
	}
	if _, err := New("cobol"); err == nil {
		t.Error("an unknown dialect: no error")
	}
}

func TestDetection(t *testing.T) {
	t.Parallel()
	two := func(header, eol string, final bool) string {
		text := header + eol + annLine + eol + bobLine
		if final {
			text += eol
		}
		return text
	}
	for _, c := range []struct {
		data string
		want []codec.Dialect
	}{
		{"", []codec.Dialect{codec.Python}},
		{two(pythonHeader, "\r\n", true), []codec.Dialect{codec.Python}},
		{two(pythonHeader, "\r\r\n", true), []codec.Dialect{codec.Python}},
		{two(pythonHeader, "\n", true), []codec.Dialect{codec.Python}},
		{two(oldHeader, "\r\n", true), []codec.Dialect{codec.Python}},
		{two(nodeHeader, "\n", true), []codec.Dialect{codec.Java, codec.Ruby, codec.CSharp}},
		{two(nodeHeader, "\r\n", true), []codec.Dialect{codec.Ruby, codec.CSharp}},
		{two(nodeHeader, "\n", false), []codec.Dialect{codec.Node, codec.PHP}},
		{two(nodeHeader, "\r\n", false), []codec.Dialect{codec.PHP}},
		{two(scriptHeader, "\n", false), []codec.Dialect{codec.TypeScript, codec.Deno}},
		{two(scriptHeader, "\r\n", false), []codec.Dialect{codec.TypeScript, codec.Deno}},
		{strings.Replace(two(nodeHeader, "\n", true), "ann@example.com:6001", `"a,b"`, 1), []codec.Dialect{codec.Java, codec.Ruby}},
		{strings.ReplaceAll(two(nodeHeader, "\n", false), ",,", ",null,"), []codec.Dialect{codec.Scala}},
		{nodeHeader, []codec.Dialect{codec.Node, codec.PHP, codec.CSharp}},
		{nodeHeader + "\n", []codec.Dialect{codec.Java, codec.Ruby, codec.CSharp}},
		{pythonHeader, []codec.Dialect{codec.Python}},
	} {
		f := parse(t, c.data, "")
		got, want := slices.Clone(f.Dialects()), slices.Clone(c.want)
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%.60q… is in the dialects %v, want %v", c.data, got, want)
		}
		if f.dialects[0].early != 0 {
			t.Errorf("%.60q…: a guess moves the expiry times", c.data)
		}
	}
}

func TestDialectsAreThoseOfCodec(t *testing.T) {
	t.Parallel()
	var names []codec.Dialect
	for _, d := range dialects {
		names = append(names, d.name)
	}
	if !slices.Equal(names, codec.Dialects()) {
		t.Errorf("the dialects are %v, those of package codec %v", names, codec.Dialects())
	}
}

// TestDialects checks that the file of every dialect equals the golden file, and that the imitated
// SDK reads the file.
func TestDialects(t *testing.T) {
	t.Parallel()
	cid := codec.Fields{ID: "11", UserName: "o'neil, \"sean\"", ClientID: "1000.GHI", ClientSecret: "s5", RefreshToken: "1000.r3", AccessToken: "1000.a3"}
	for _, d := range codec.Dialects() {
		f, err := New(d)
		if err != nil {
			t.Fatal(err)
		}
		empty, err := readers[d](string(f.Bytes()))
		if err != nil || len(empty) > 0 {
			t.Errorf("%s: its SDK reads an empty file as %d rows, error %v", d, len(empty), err)
		}
		want := []codec.Fields{ann, bob, cid}
		if known, _ := lookup(d); !known.quotes {
			if err := f.Append(cid); !errors.Is(err, ErrDialect) {
				t.Errorf("%s: a comma: error %v, want ErrDialect", d, err)
			}
			want[2].UserName = "müller 王伟"
		}
		for _, r := range want {
			if err := f.Append(r); err != nil {
				t.Fatalf("%s: %v", d, err)
			}
		}
		golden := filepath.Join("testdata", "dialects", string(d)+".txt")
		if _, err := os.Stat(golden); err != nil && *update {
			if err := os.WriteFile(golden, f.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		data, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(f.Bytes(), data) {
			t.Errorf("%s is written as\n%q\nwant\n%q", d, f.Bytes(), data)
		}
		if diff := differ(rows(parse(t, string(data), d)), want); diff != "" {
			t.Errorf("%s: %s", d, diff)
		}
		got, err := readers[d](string(data))
		if err != nil {
			t.Errorf("%s: its SDK: %v", d, err)
		}
		if d == codec.CSharp {
			for i := range want {
				if want[i].ExpiryTime != 0 {
					want[i].ExpiryTime -= 600_000
				}
			}
		}
		if diff := differ(got, want); diff != "" {
			t.Errorf("%s, read by its SDK: %s", d, diff)
		}
	}
}

// TestSDKsReadWhatIsWritten checks, for many values and each dialect, that the imitated SDK
// reads back every row that Append accepts.
func TestSDKsReadWhatIsWritten(t *testing.T) {
	t.Parallel()
	parts := []string{"a", "B", "1000.", "0", "null", ",", `"`, `""`, "\n", "\r", "\r\n", `\`, `\"`, " ", "\t", "ü", "王", "'", ";", "user_name", "refresh_token", "\x00", "\ufeff", "\u2028", "\v", "="}
	random := rand.New(rand.NewPCG(4, 2))
	value := func() string {
		var b strings.Builder
		for range random.IntN(4) {
			b.WriteString(parts[random.IntN(len(parts))])
		}
		return b.String()
	}
	for _, d := range codec.Dialects() {
		taken := 0
		for range 4000 {
			f, err := New(d)
			if err != nil {
				t.Fatal(err)
			}
			var want []codec.Fields
			for i := range 3 {
				text := ann.Columns()
				text[0] = fmt.Sprint(i + 1)
				for range 1 + random.IntN(2) {
					text[1+random.IntN(6)] = value()
				}
				if random.IntN(3) == 0 {
					text[oldColumns] = value()
				}
				r, err := codec.ParseColumns(text)
				if err != nil {
					t.Fatal(err)
				}
				if err := f.Append(r); err == nil {
					want = append(want, r)
				} else if !errors.Is(err, ErrDialect) {
					t.Fatal(err)
				}
			}
			taken += len(want)
			data := f.Bytes()
			if diff := differ(rows(parse(t, string(data), d)), want); diff != "" {
				t.Fatalf("%s: %q: %s", d, data, diff)
			}
			got, err := readers[d](string(data))
			if d == codec.CSharp {
				for i := range got {
					got[i].ExpiryTime = ann.ExpiryTime
				}
			}
			if err != nil || differ(got, want) != "" {
				t.Fatalf("%s: its SDK reads %q: %v %s", d, data, err, differ(got, want))
			}
		}
		if taken < 1000 {
			t.Errorf("%s: only %d rows were taken", d, taken)
		}
	}
}

func TestRefusedValues(t *testing.T) {
	t.Parallel()
	with := func(change func(*codec.Fields)) codec.Fields { r := ann; change(&r); return r }
	user := func(s string) codec.Fields { return with(func(r *codec.Fields) { r.UserName = s }) }
	id := func(s string) codec.Fields { return with(func(r *codec.Fields) { r.ID = s }) }
	for name, c := range map[string]struct {
		row     codec.Fields
		refused []codec.Dialect // nil means that no dialect refuses the row
	}{
		"as it is":            {ann, nil},
		"comma":               {user("a,b"), []codec.Dialect{codec.Node, codec.TypeScript, codec.Deno, codec.PHP, codec.Scala, codec.CSharp}},
		"quote":               {user(`a"b`), []codec.Dialect{codec.Node, codec.TypeScript, codec.Deno, codec.PHP, codec.Scala, codec.CSharp}},
		"line feed":           {user("a\nb"), []codec.Dialect{codec.Node, codec.TypeScript, codec.Deno, codec.PHP, codec.Scala, codec.CSharp}},
		"CR in front":         {user("\ra"), codec.Dialects()},
		"CR at the end":       {user("a\r"), codec.Dialects()},
		"CR LF":               {user("a\r\nb"), codec.Dialects()},
		"NUL":                 {user("a\x00b"), codec.Dialects()},
		"not UTF-8":           {user("\xff"), codec.Dialects()},
		"null":                {user("null"), codec.Dialects()},
		"zero":                {with(func(r *codec.Fields) { r.ClientSecret = "0" }), []codec.Dialect{codec.PHP}},
		"backslash":           {with(func(r *codec.Fields) { r.ClientSecret = `a\b` }), []codec.Dialect{codec.Java}},
		"header's user":       {user("user_name"), []codec.Dialect{codec.Python, codec.Ruby, codec.CSharp}},
		"header's user, old":  {user("user_mail"), []codec.Dialect{codec.Python, codec.Ruby, codec.CSharp}},
		"header's token":      {with(func(r *codec.Fields) { r.AccessToken = "access_token" }), []codec.Dialect{codec.Python, codec.Ruby, codec.CSharp}},
		"header's client":     {with(func(r *codec.Fields) { r.ClientID = "refresh_token" }), nil},
		"expiry not a number": {with(func(r *codec.Fields) { r.ExpiryTime = -1 }), codec.Dialects()},
		"issuer":              {with(func(r *codec.Fields) { r.Issuer = "https://example.com" }), codec.Dialects()},
		"no expiry":           {with(func(r *codec.Fields) { r.ExpiryTime = 0 }), nil},
		"no ID":               {id(""), codec.Dialects()},
		"ID id":               {id("id"), codec.Dialects()},
		"ID of letters":       {id("u7"), codec.Dialects()},
		"ID zero":             {id("0"), codec.Dialects()},
		"ID with zeros":       {id("007"), codec.Dialects()},
		"ID negative":         {id("-1"), codec.Dialects()},
		"ID with a space":     {id("1 "), codec.Dialects()},
		"ID of 31 bits":       {id("2147483646"), nil},
		"ID of 32 bits":       {id("2147483647"), []codec.Dialect{codec.Java, codec.Scala, codec.CSharp}},
		"ID of ten digits":    {id("9999999999"), []codec.Dialect{codec.Java, codec.Scala, codec.CSharp}},
		"ID of eleven digits": {id("10000000000"), codec.Dialects()},
		"a header": {codec.Fields{ID: "1", UserName: "user_name", ClientID: "client_id", ClientSecret: "client_secret", RefreshToken: "refresh_token", AccessToken: "access_token", GrantToken: "grant_token", RedirectURL: "redirect_url", APIDomain: "api_domain"},
			codec.Dialects()},
	} {
		for _, d := range codec.Dialects() {
			f, err := New(d)
			if err != nil {
				t.Fatal(err)
			}
			err = f.Append(c.row)
			if want := slices.Contains(c.refused, d); want != errors.Is(err, ErrDialect) || err != nil && !want {
				t.Errorf("%s, %s: error %v, refused: %v", d, name, err, want)
			}
			if err != nil && f.Len() > 0 {
				t.Errorf("%s, %s: it was refused, and is there", d, name)
			}
			if err == nil && f.Set(0, bob) != nil {
				t.Errorf("%s, %s: it cannot be replaced", d, name)
			}
		}
	}
	// If several SDKs might read the file, Set refuses a value that one of the SDKs would
	// misread.
	f := parse(t, nodeHeader+"\n"+annLine+"\n", "")
	for _, r := range []codec.Fields{user("a,b"), user(`a\b`), user("user_name"), id("2147483647")} {
		if err := f.Set(0, r); !errors.Is(err, ErrDialect) {
			t.Errorf("an ambiguous file: error %v, want ErrDialect", err)
		}
	}
	// Set accepts the existing ID of a row, even if the ID is not a number.
	f = parse(t, pythonHeader+"\r\n"+"python_ann_PRODUCTION"+annLine[1:]+"\r\n", "")
	if err := f.Set(0, id("python_ann_PRODUCTION")); err != nil {
		t.Errorf("a present ID: %v", err)
	}
	changed := with(func(r *codec.Fields) { r.ID, r.AccessToken = "python_ann_PRODUCTION", "new" })
	if err := f.Set(0, changed); err != nil {
		t.Errorf("a row with a present ID: %v", err)
	}
}

func TestAnyID(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"id", "null", "a,b", `"`, "x\ny", "0", "007", "10000000000", " ", "王"} {
		f, err := New("")
		if err != nil {
			t.Fatal(err)
		}
		f.AnyID = true
		r := ann
		r.ID = id
		if err := f.Append(r); err != nil {
			t.Errorf("ID %q: %v", id, err)
			continue
		}
		if diff := differ(rows(parse(t, string(f.Bytes()), "")), []codec.Fields{r}); diff != "" {
			t.Errorf("ID %q: %s", id, diff)
		}
	}
}

func TestUnchangedRowsStay(t *testing.T) {
	t.Parallel()
	// The rows have unusual quotes, spelling and line breaks.
	odd := []string{
		`"1",ann@example.com:6001,"1000.ABC",s3,1000.r1,1000.a1,1000.g1,01767225600000,https://example.com/cb,"https://www.zohoapis.com"` + "\r\n",
		"2,null,1000.DEF,s4,1000.r2,1000.a2,,1767225600123,,https://www.zohoapis.eu\n",
		"3,\"c\nd\",,,r,,,,, \r",
		`4,"e""f",,,r4,,,,,` + "\r\n",
	}
	head := pythonHeader + "\r\n"
	text := head + strings.Join(odd, "")
	f := parse(t, text, "")
	if string(f.Bytes()) != text {
		t.Errorf("nothing was changed, and the file is %q", f.Bytes())
	}
	for i := range odd {
		f := parse(t, text, "")
		r, _ := f.Row(i)
		if err := f.Set(i, r); err != nil || string(f.Bytes()) != text {
			t.Errorf("row %d was set to what it was: error %v", i, err)
		}
		r.AccessToken = "new"
		if err := f.Set(i, r); err != nil {
			t.Fatal(err)
		}
		want := slices.Clone(odd)
		want[i] = f.dialects[0].line(r) + odd[i][len(odd[i])-len(eolOf(odd[i])):]
		if got := string(f.Bytes()); got != head+strings.Join(want, "") {
			t.Errorf("row %d was changed:\n%q\nwant\n%q", i, got, head+strings.Join(want, ""))
		}
		f = parse(t, text, "")
		f.Delete(i)
		if got, want := string(f.Bytes()), head+strings.Join(slices.Delete(slices.Clone(odd), i, i+1), ""); got != want {
			t.Errorf("row %d was deleted:\n%q\nwant\n%q", i, got, want)
		}
	}
	if err := f.Append(codec.Fields{ID: "5", RefreshToken: "r5"}); err != nil {
		t.Fatal(err)
	}
	if got, want := string(f.Bytes()), text+"5,,,,r5,,,,,\r\n"; got != want {
		t.Errorf("a row was appended:\n%q\nwant\n%q", got, want)
	}
}

func eolOf(line string) string { return line[len(strings.TrimRight(line, "\r\n")):] }

// TestEnds checks that Delete and Append do not change whether a file ends with a line break.
func TestEnds(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		header, eol string
		final       bool
	}{{pythonHeader, "\r\n", true}, {nodeHeader, "\n", true}, {nodeHeader, "\n", false}, {nodeHeader, "\r\n", false}} {
		end := ""
		if c.final {
			end = c.eol
		}
		file := func(lines ...string) string {
			return strings.Join(append([]string{c.header}, lines...), c.eol) + end
		}
		f := parse(t, file(annLine, bobLine), "")
		steps := []func(){
			func() { f.Delete(1) },
			func() { _ = f.Append(bob) },
			func() { f.Delete(0) },
			func() { f.Delete(0) },
			func() { _ = f.Append(ann) },
		}
		for i, want := range []string{file(annLine), file(annLine, bobLine), file(bobLine), file(), file(annLine)} {
			steps[i]()
			if got := string(f.Bytes()); got != want {
				t.Errorf("step %d is %q, want %q", i, got, want)
			}
			if diff := differ(rows(parse(t, want, "")), rows(f)); diff != "" {
				t.Errorf("step %d: %s", i, diff)
			}
		}
	}
}

func TestTenthColumn(t *testing.T) {
	t.Parallel()
	old := func(line string) string { return line[:strings.LastIndexByte(line, ',')] }
	f := parse(t, oldHeader+"\r\n"+old(annLine)+"\r\n"+old(bobLine)+"\r\n", "")
	r, _ := f.Row(1)
	r.APIDomain = "https://www.zohoapis.eu"
	if err := f.Set(1, r); err != nil {
		t.Fatal(err)
	}
	want := oldHeader + ",api_domain\r\n" + old(annLine) + ",\r\n" + bobLine + "\r\n"
	if got := string(f.Bytes()); got != want {
		t.Errorf("the file is\n%q\nwant\n%q", got, want)
	}
	if _, err := readPython(want); err != nil {
		t.Errorf("Python: %v", err)
	}
}

// TestHeaderIsAdded checks that Bytes adds a header to a file without a header. The SDKs would
// otherwise skip the first record of the file.
func TestHeaderIsAdded(t *testing.T) {
	t.Parallel()
	f := parse(t, annLine+"\n"+bobLine+"\n", "")
	got, err := readJava(string(f.Bytes()))
	if diff := differ(got, []codec.Fields{ann, bob}); err != nil || diff != "" {
		t.Errorf("Java reads %v %s", err, diff)
	}
}

func TestNextID(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		ids     string
		dialect codec.Dialect
		used    int64
		want    string // empty means that no ID is left
	}{
		{"", codec.Python, 0, "1"},
		{"1", codec.Python, 0, "2"},
		{"9 10", codec.Python, 0, "11"}, // if IDs were compared as text, 9 would be the largest
		{"10 9 2", codec.Python, 0, "11"},
		{"3 python_ann 4711x", codec.Python, 0, "4"},
		{"0012", codec.Python, 0, "13"},
		{"3", codec.Python, 7, "8"},
		{"9", codec.Python, 7, "10"},
		{"9999999998", codec.Python, 0, "9999999999"},
		{"9999999999", codec.Python, 0, ""},
		{"99999999999", codec.Python, 0, "1"},
		{"3", codec.Python, 9999999999, "4"},
		{"2147483645", codec.Java, 0, "2147483646"},
		{"2147483646", codec.Java, 0, ""},
		{"2147483646", codec.Python, 0, "2147483647"},
		{"5000000000", codec.CSharp, 0, ""},
	} {
		f, err := New(c.dialect)
		if err != nil {
			t.Fatal(err)
		}
		f.AnyID = true
		for _, id := range strings.Fields(c.ids) {
			if err := f.Append(codec.Fields{ID: id, RefreshToken: "r"}); err != nil {
				t.Fatal(err)
			}
		}
		got, err := f.NextID(c.used)
		if got != c.want || (err != nil) != (c.want == "") || err != nil && !errors.Is(err, ErrDialect) {
			t.Errorf("after %q and %d (%s) comes %q, error %v; want %q", c.ids, c.used, c.dialect, got, err, c.want)
		}
	}
}

func TestRowsDoNotPrint(t *testing.T) {
	t.Parallel()
	f := parse(t, pythonHeader+"\r\n"+annLine+"\r\n", "")
	var b bytes.Buffer
	log := slog.New(slog.NewTextHandler(&b, nil))
	for _, v := range []any{ann, &ann, f, *f, []codec.Fields{ann}} {
		for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x"} {
			fmt.Fprintf(&b, format+"\n", v)
		}
		log.Info("x", "v", v)
	}
	if data, err := json.Marshal(ann); err == nil {
		t.Errorf("Fields are marshaled as %s", data)
	}
	for _, secret := range []string{"1000.r1", "1000.a1", "s3", "ann@", "313030302e7231"} {
		if strings.Contains(b.String(), secret) {
			t.Errorf("%q is printed", secret)
		}
	}
}

// FuzzFile checks that Parse does not panic, that Parse reads the values that Bytes writes, and
// that a change of one row does not change the bytes of other rows.
func FuzzFile(f *testing.F) {
	for _, name := range []string{"python_filestore.csv", "node_filestore.txt"} {
		data, _ := sdkFile(f, name)
		f.Add(data, byte(0))
	}
	for i, text := range []string{
		annLine + "\n" + bobLine, "\ufeff" + nodeHeader + "\r\n" + annLine + "\r" + bobLine,
		oldHeader + "\r\n" + annLine[:len(annLine)-25] + "\r\n", nodeHeader + "\n" + strings.Replace(annLine, "ann", `"a" b`, 1),
		pythonHeader + "\r\n" + strings.Replace(annLine, "ann@example.com:6001", "\"a,\n\"\"b\"", 1) + "\r\n",
		`"1",2,3,4,5,6,7,8,null,` + "\r\r\n", nodeHeader + "\n" + strings.ReplaceAll(bobLine, ",,", ",null,"),
	} {
		f.Add([]byte(text), byte(i))
	}
	f.Fuzz(func(t *testing.T, data []byte, choice byte) {
		d := append(codec.Dialects(), "")[int(choice)%(len(dialects)+1)]
		file, err := Parse(data, d)
		if err != nil {
			if !errors.Is(err, codec.ErrFormat) {
				t.Fatalf("error %v", err)
			}
			return
		}
		written := file.Bytes()
		again, err := Parse(written, d)
		if err != nil {
			t.Fatalf("%q is written as %q: %v", data, written, err)
		}
		if diff := differ(rows(again), rows(file)); diff != "" {
			t.Fatalf("%q is written as %q: %s", data, written, diff)
		}
		if twice := again.Bytes(); !bytes.Equal(twice, written) {
			t.Fatalf("%q is written as %q, and then as %q", data, written, twice)
		}
		if file.Len() == 0 {
			return
		}
		i := int(choice) % file.Len()
		r, _ := file.Row(i)
		r.AccessToken += "x"
		var rest []string
		for _, r := range slices.Delete(slices.Clone(file.rows), i, i+1) {
			rest = append(rest, r.raw)
		}
		if file.Set(i, r) != nil {
			return
		}
		written = file.Bytes()
		at := 0
		for _, raw := range rest {
			n := bytes.Index(written[at:], []byte(raw))
			if n < 0 {
				t.Fatalf("row %d of %q was changed: %q has not %q", i, data, written, raw)
			}
			at += n + len(raw)
		}
		again, err = Parse(written, d)
		if err != nil {
			t.Fatalf("row %d of %q was changed: %q: %v", i, data, written, err)
		}
		if diff := differ(rows(again), rows(file)); diff != "" {
			t.Fatalf("row %d of %q was changed: %q: %s", i, data, written, diff)
		}
	})
}
