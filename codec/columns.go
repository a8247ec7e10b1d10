package codec

import (
	"cmp"
	"errors"
	"math/big"
	"regexp"
	"strconv"
	"strings"
	"sync"
)

// ColumnNames returns the names of the columns in the token files and tables of the Zoho SDKs, in
// the order of the columns.
func ColumnNames() []string {
	names := make([]string, 0, len(sdkFields))
	for _, d := range sdkFields {
		names = append(names, d.Column)
	}
	return names
}

// Columns returns the text of each field of f that has a column in the Zoho SDKs, in the order of
// ColumnNames. The text of an unknown field is empty.
func (f Fields) Columns() []string {
	text := make([]string, 0, len(sdkFields))
	for _, d := range sdkFields {
		text = append(text, d.Text(f))
	}
	return text
}

// ParseColumns returns Fields with the values in text, which has the text of each column in the
// order of ColumnNames. ParseColumns panics if text is shorter than ColumnNames. If it cannot parse
// the expiry time, it returns the other fields and an error that does not quote text.
func ParseColumns(text []string) (f Fields, err error) {
	err = f.SetColumns(text)
	return f, err
}

// SetColumns sets the fields of f that have a column. The parameter text holds the text of each
// column, in the order of ColumnNames. SetColumns panics if text is shorter than ColumnNames. If it
// cannot parse the expiry time, it makes the expiry time unknown and returns an error that does not
// quote text.
func (f *Fields) SetColumns(text []string) (err error) {
	for i := range sdkFields {
		err = cmp.Or(err, sdkFields[i].Set(f, text[i]))
	}
	return err
}

// These patterns match forms of numbers that the SDKs do not write.
var (
	decimalNumber  = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[0-9]+\.0*$`) })
	floatingNumber = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^([0-9])\.([0-9]+)[eE]\+?([0-9]{1,2})$`) })
)

// exactDigits is the minimum number of digits with which a number such as 1.7287656E+12 counts as
// exact. Spreadsheets round to six digits.
const exactDigits = 7

// parseExpiry parses an expiry time from a token file or table. It returns milliseconds since the
// epoch, or 0 if the text is empty. Besides decimal integers, parseExpiry reads whole numbers in
// floating-point notation, such as 1728765600000.0 or 1.7287656E+12, because some programs write
// such numbers. The error does not quote the text.
func parseExpiry(text string) (ms int64, err error) {
	if text == "" {
		return 0, nil
	}
	if ms, err := strconv.ParseInt(text, 10, 64); err == nil {
		return ms, nil
	}
	if decimalNumber().MatchString(text) {
		whole, _, _ := strings.Cut(text, ".")
		if ms, err := strconv.ParseInt(whole, 10, 64); err == nil {
			return ms, nil
		}
	}
	if m := floatingNumber().FindStringSubmatch(text); m != nil {
		if len(m[1])+len(m[2]) < exactDigits {
			return 0, errors.New("expiry_time is rounded, as a spreadsheet shows it: write the milliseconds, or leave it empty")
		}
		r, ok := new(big.Rat).SetString(text)
		if ok && r.IsInt() && r.Num().IsInt64() {
			return r.Num().Int64(), nil
		}
	}
	return 0, errors.New("expiry_time is not a number of milliseconds")
}

// IDNumber returns id as a number, as the SDKs read it to find the next ID. ok reports whether id
// consists of one to ten decimal digits. The column in the SDKs' tables is ten digits wide.
func IDNumber(id string) (n int64, ok bool) {
	if len(id) == 0 || len(id) > 10 || strings.Trim(id, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(id, 10, 64)
	return n, err == nil
}
