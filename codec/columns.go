package codec

import (
	"cmp"
	"errors"
	"math/big"
	"regexp"
	"strconv"
	"strings"
)

// sdkFields are the fields for which the token files and tables of the Zoho SDKs
// have a column, in the order of the columns.
var sdkFields = fields

// ColumnNames returns the names of the columns of the Zoho SDKs' token files and
// tables, in their order.
func ColumnNames() []string {
	names := make([]string, 0, len(sdkFields))
	for _, d := range sdkFields {
		names = append(names, d.Column)
	}
	return names
}

// Columns returns f as the text of those columns. The text of an unknown field is
// empty.
func (f Fields) Columns() []string {
	text := make([]string, 0, len(sdkFields))
	for _, d := range sdkFields {
		text = append(text, d.Text(f))
	}
	return text
}

// ParseColumns returns the fields for the text of those columns. If the expiry time
// cannot be read, it returns the other fields with the error, which does not repeat the
// text.
func ParseColumns(text []string) (f Fields, err error) {
	for i, d := range sdkFields {
		err = cmp.Or(err, d.Set(&f, text[i]))
	}
	return f, err
}

// Forms of numbers that are not those of the SDKs.
var (
	decimalNumber  = regexp.MustCompile(`^[0-9]+\.0*$`)
	floatingNumber = regexp.MustCompile(`^([0-9])\.([0-9]+)[eE]\+?([0-9]{1,2})$`)
)

// exactDigits is how many digits a number in the form 1.7E+12 needs to count as exact:
// spreadsheets round to six.
const exactDigits = 7

// parseExpiry reads an expiry time of a token file or table: milliseconds since the
// epoch, in decimal, or 0 if the text is empty. It also reads whole numbers in
// floating-point notation, such as 1728765600000.0 or 1.7287656E+12, because some
// programs write them.
func parseExpiry(text string) (ms int64, err error) {
	if text == "" {
		return 0, nil
	}
	if ms, err := strconv.ParseInt(text, 10, 64); err == nil {
		return ms, nil
	}
	if decimalNumber.MatchString(text) {
		whole, _, _ := strings.Cut(text, ".")
		if ms, err := strconv.ParseInt(whole, 10, 64); err == nil {
			return ms, nil
		}
	}
	if m := floatingNumber.FindStringSubmatch(text); m != nil {
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

// IDNumber returns the number that an ID is, if the SDKs can count with it. It may have
// at most ten digits, because the tables of the SDKs have room for no more.
func IDNumber(id string) (n int64, ok bool) {
	if len(id) == 0 || len(id) > 10 || strings.Trim(id, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(id, 10, 64)
	return n, err == nil
}
