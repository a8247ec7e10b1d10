package tokenfile

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/tokenkeep/tokenkeep/codec"
)

const (
	foreignHeader = "id,user_name,client_id,client_secret,refresh_token,access_token,grant_token,expiry_time,redirect_url,api_domain"
	foreignRow    = "1,ann,c,s,s3cret,a,,1728765600000,,https://www.zohoapis.in"
)

// inUTF16 returns text in UTF-16 with a byte order mark.
func inUTF16(text string, order binary.AppendByteOrder) string {
	data := order.AppendUint16(nil, 0xfeff)
	for _, unit := range utf16.Encode([]rune(text)) {
		data = order.AppendUint16(data, unit)
	}
	return string(data)
}

// TestForeignFiles checks that Parse reads token files that spreadsheets or shells have changed
// in an unambiguous way.
func TestForeignFiles(t *testing.T) {
	t.Parallel()
	plain := foreignHeader + "\n" + foreignRow
	for what, data := range map[string]string{
		"as it was":                plain,
		"UTF-16, little endian":    inUTF16(plain, binary.LittleEndian),
		"UTF-16, big endian":       inUTF16(plain, binary.BigEndian),
		"columns without content":  foreignHeader + ",,\r\n" + foreignRow + ",,\r\n",
		"fewer in a row":           foreignHeader + ",,\r\n" + foreignRow + ",\r\n",
		"a double":                 strings.Replace(plain, "1728765600000", "1728765600000.0", 1),
		"a double in JavaScript":   strings.Replace(plain, "1728765600000", "1728765600000.", 1),
		"a double in PHP":          strings.Replace(plain, "1728765600000", "1.7287656E+12", 1),
		"a double in Java":         strings.Replace(plain, "1728765600000", "1.7287656E12", 1),
		"a double with all digits": strings.Replace(plain, "1728765600000", "1.728765600000e+12", 1),
	} {
		f, err := Parse([]byte(data), "")
		if err != nil || f.Len() != 1 {
			t.Errorf("%s: error %v", what, err)
			continue
		}
		want := codec.Fields{ID: "1", UserName: "ann", ClientID: "c", ClientSecret: "s", RefreshToken: "s3cret", AccessToken: "a", ExpiryTime: 1728765600000, APIDomain: "https://www.zohoapis.in"}
		if got, err := f.Row(0); err != nil || got != want {
			t.Errorf("%s: the row has the expiry time %d and domain %q, error %v", what, got.ExpiryTime, got.APIDomain, err)
		}
		row := want
		row.AccessToken = "b"
		if err := f.Set(0, row); err != nil {
			t.Errorf("%s: Set: %v", what, err)
		}
		back, err := Parse(f.Bytes(), "")
		if err != nil || differ(rows(back), []codec.Fields{row}) != "" {
			t.Errorf("%s: written and read again: error %v", what, err)
		}
	}
}

// TestForeignFormsAreNamed checks that the errors of Parse name the form of files that users
// might confuse with token files.
func TestForeignFormsAreNamed(t *testing.T) {
	t.Parallel()
	plain := foreignHeader + "\n" + foreignRow
	for data, want := range map[string]string{
		`{"tokens":[{"access_token":"s3cret","user_identifier":"ann"}]}`:                          "zcrm_oauthtokens.txt of the first SDK for Node",
		`a:1:{i:0;O:15:"ZohoOAuthTokens":4:{s:29:"` + "\x00" + `ZohoOAuthTokens";s:6:"s3cret";}}`: "zcrm_oauthtokens.txt of the first SDK for PHP",
		` [{"refresh_token":"s3cret"}]`:                                                           "it is JSON",
		"SQLite format 3\x00s3cret":                                                               "SQLite database",
		"PK\x03\x04s3cret":                                                                        "spreadsheet or an archive",
		"<html>s3cret</html>":                                                                     "XML or HTML",
		strings.ReplaceAll(plain, ",", ";"):                                                       "semicolons",
		"\ufeff" + strings.ReplaceAll(plain, ",", ";"):                                            "semicolons",
		strings.ReplaceAll(plain, ",", "\t"):                                                      "tabs",
		strings.ReplaceAll(plain, ",", ", "):                                                      "blanks around its commas",
		inUTF16(plain, binary.LittleEndian)[2:]:                                                   "UTF-16 without a byte order mark",
		inUTF16(plain, binary.BigEndian)[2:]:                                                      "UTF-16 without a byte order mark",
		inUTF16(plain, binary.LittleEndian) + "x":                                                 "truncated",
		"\xff\xfe\x00\xd8i\x00":                                                                   "damaged",
		"\xff\xfe\x00\x00i\x00\x00\x00":                                                           "UTF-32",
		foreignHeader + "\n" + foreignRow + ",\n":                                                 "more than 10 columns",
		foreignHeader + ",\n1,o'neil, sean,c,s,s3cret,a,,1,,https://x\n":                          "more than 10 columns",
	} {
		for _, d := range append(codec.Dialects(), "") {
			_, err := Parse([]byte(data), d)
			if !errors.Is(err, codec.ErrFormat) || !strings.Contains(err.Error(), want) {
				t.Errorf("%.20q in the dialect %q: error %v, want %q", data, d, err, want)
			} else if strings.Contains(err.Error(), "s3cret") {
				t.Errorf("%.20q: the error quotes the file: %v", data, err)
			}
		}
	}
}
