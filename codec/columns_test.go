package codec

import (
	"strings"
	"testing"
)

func TestParseExpiry(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{
		"": 0, "0": 0, "1728765600000": 1728765600000, "-1": -1, "1728765600": 1728765600, "1728765600000.000": 1728765600000,
		"1.7287656E+12": 1728765600000, "1.728765600123E12": 1728765600123,
	} {
		if got, err := parseExpiry(text); err != nil || got != want {
			t.Errorf("%q is %d, %v, want %d", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"1.72877E+12": "rounded", "1.7E+12": "rounded", "1728765600000.5": "not a number", "1.7287656001235E+12": "not a number",
		"soon": "not a number", "1.7287656E+99": "not a number", "1e12": "not a number", "0x1p4": "not a number", "NaN": "not a number", "99999999999999999999": "not a number", " 1": "not a number",
	} {
		if got, err := parseExpiry(text); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), text) {
			t.Errorf("%q is %d, %v, want an error that says %q", text, got, err, want)
		}
	}
}
