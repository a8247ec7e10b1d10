package rules

import (
	"cmp"

	"github.com/tokenkeep/tokenkeep/codec"
)

// Merge returns record with the fields of t laid over it. Empty fields of t keep
// the values of record. A new access token does not inherit the expiry of the old
// one. The ID stays, and so do the user and client of a record that has a user.
func Merge(record, t codec.Fields) codec.Fields {
	m := t.Or(record)
	m.ID = record.ID
	if record.UserName != "" {
		m.UserName, m.ClientID = record.UserName, record.ClientID
	}
	if t.AccessToken != "" && t.AccessToken != record.AccessToken {
		m.ExpiryTime = t.ExpiryTime
	}
	return m
}

// Absorb returns into with the fields that it lacks taken from the record from,
// which is about to disappear into it. The tokens of the record that expires later
// stay together. ID, user and client are those of into where it has them.
func Absorb(into, from codec.Fields) codec.Fields {
	older, newer := from, into
	if !HasCredential(into) || from.ExpiryTime > into.ExpiryTime {
		older, newer = into, from
	}
	m := Merge(older, newer)
	if newer.AccessToken == "" && older.AccessToken != "" {
		m.ExpiryTime = older.ExpiryTime
	}
	m.ID = into.ID
	m.UserName = cmp.Or(into.UserName, from.UserName)
	m.ClientID = cmp.Or(into.ClientID, from.ClientID)
	return m
}
