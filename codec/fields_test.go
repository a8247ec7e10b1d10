package codec

import (
	"reflect"
	"slices"
	"testing"
)

// full returns Fields in which every field has a different value.
func full() (f Fields) {
	v := reflect.ValueOf(&f).Elem()
	for i := range v.NumField() {
		if field := v.Field(i); field.Kind() == reflect.String {
			field.SetString(v.Type().Field(i).Name)
		} else {
			field.SetInt(int64(4_000_000_000_000 + i))
		}
	}
	return f
}

func TestFieldsTableHasEveryField(t *testing.T) {
	t.Parallel()
	var names, columns []string
	for field := range (Fields{}).All() {
		names, columns = append(names, field.Name), append(columns, field.Column)
	}
	var want []string
	for i := range reflect.TypeFor[Fields]().NumField() {
		want = append(want, reflect.TypeFor[Fields]().Field(i).Name)
	}
	if !slices.Equal(names, want) {
		t.Errorf("the table has the fields %v, the struct %v", names, want)
	}
	slices.Sort(columns)
	if len(slices.Compact(columns)) != len(want) {
		t.Errorf("two fields have one column: %v", columns)
	}
}

// ofSDK returns f without the fields for which the SDKs have no column.
func ofSDK(f Fields) Fields {
	for _, d := range ownFields {
		_ = d.Set(&f, "")
	}
	return f
}

func TestFieldsByTheTable(t *testing.T) {
	t.Parallel()
	all := full()
	var set Fields
	for field, text := range all.All() {
		if text == "" || reflect.ValueOf(all).FieldByName(field.Name).Interface() != field.Value(all) {
			t.Errorf("%s has the text %q and the value %v", field.Name, text, field.Value(all))
		}
		if err := field.Set(&set, text); err != nil || field.Text(set) != text {
			t.Errorf("%s is set to %q, error %v", field.Name, field.Text(set), err)
		}
		without := all
		if err := field.Set(&without, ""); err != nil || field.Text(without) != "" || without.Or(all) != all || all.Or(without) != all {
			t.Errorf("%s: Or does not keep or take it", field.Name)
		}
	}
	if set != all {
		t.Error("what is set field by field is not all")
	}
	if back, err := ParseColumns(all.Columns()); err != nil || back != ofSDK(all) {
		t.Errorf("columns do not read back: %v", err)
	}
	if names := all.Extended(); !slices.Equal(names, []string{"Issuer", "Resource", "Scope", "TokenType", "IDToken", "Extra"}) || ofSDK(all).Extended() != nil {
		t.Errorf("extended: %v, and %v", names, ofSDK(all).Extended())
	}
	if none, err := ParseColumns(Fields{}.Columns()); err != nil || none != (Fields{}) {
		t.Errorf("empty columns do not read back: %v", err)
	}
}

func TestParseColumnsOfADamagedRow(t *testing.T) {
	t.Parallel()
	text := full().Columns()
	text[slices.Index(ColumnNames(), "expiry_time")] = "soon"
	want := ofSDK(full())
	want.ExpiryTime = 0
	if got, err := ParseColumns(text); err == nil || got != want {
		t.Errorf("a damaged row: error %v, or other fields", err)
	}
}
