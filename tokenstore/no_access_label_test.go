package tokenstore_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/doctor"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

// TestNoAccessLabel checks that a Store without labels of access tokens finds its records by
// all other fields that searches use. In programs without the option, Check must not report
// the missing labels, and Rekey must not add the labels.
func TestNoAccessLabel(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	memory := memstore.NewDriver()
	with := newStore(t, memory, &tokenstore.Options{NoAccessLabel: true})
	without := newStore(t, memory, nil)
	byAccess := func(s *tokenstore.Store, access tokenstore.Secret) error {
		_, err := s.FindToken(ctx, tokenstore.Token{AccessToken: access})
		return err
	}
	saved := must(without.SaveToken(ctx, tokenstore.Token{UserName: user, ClientID: client, RefreshToken: "refresh0", AccessToken: "access0", ExpiresAt: time.Now().Add(-time.Minute)}))
	if err := byAccess(with, "access0"); err != nil {
		t.Errorf("before the first write, FindToken returned error %v", err)
	}
	if _, err := with.Refresh(ctx, saved.ID, "access0", answer("access1")); err != nil {
		t.Fatal(err)
	}
	for _, access := range []tokenstore.Secret{"access0", "access1"} {
		if err := byAccess(with, access); !errors.Is(err, tokenstore.ErrNotFound) {
			t.Errorf("FindToken by %s returned error %v, want one matching ErrNotFound", string(access), err)
		}
	}
	for name, like := range map[string]tokenstore.Token{
		"user": {UserName: user}, "user and client": {UserName: user, ClientID: client}, "refresh token": {ClientID: client, RefreshToken: "refresh0"}, "ID": {ID: saved.ID},
	} {
		if got, err := with.FindToken(ctx, like); err != nil || got.AccessToken != "access1" {
			t.Errorf("FindToken by %s returned error %v", name, err)
		}
	}
	if found := serious(check(t, without, doctor.CheckOptions{Repair: true})); len(found) > 0 {
		t.Errorf("Check without the option found %v", found)
	}
	for range without.Rekey(ctx, nil) { // changes nothing, because there are no other keys
	}
	if err := byAccess(without, "access1"); !errors.Is(err, tokenstore.ErrNotFound) {
		t.Errorf("after Check and Rekey, FindToken returned error %v, want one matching ErrNotFound", err)
	}
	if _, err := without.SaveToken(ctx, tokenstore.Token{ID: saved.ID, AccessToken: "access2"}); err != nil {
		t.Fatal(err)
	}
	if err := byAccess(without, "access2"); err != nil {
		t.Errorf("after a save without the option, FindToken returned error %v", err)
	}
	if found := serious(check(t, with, doctor.CheckOptions{Repair: true})); len(found) > 0 {
		t.Errorf("Check with the option found %v", found)
	}
	// The name of a record with only an access token derives from the token, so FindToken
	// finds the record without a label.
	alone := must(with.SaveToken(ctx, tokenstore.Token{AccessToken: "alone"}))
	if err := byAccess(with, "alone"); err != nil {
		t.Errorf("FindToken of a record of an access token alone returned error %v", err)
	}
	if given := must(with.SaveToken(ctx, tokenstore.Token{ID: alone.ID, UserName: "bob"})); given.UserName != "bob" {
		t.Error("the record did not get its user")
	}
	if _, err := with.FindTokenByID(ctx, alone.ID); err != nil {
		t.Errorf("FindTokenByID of the former ID returned error %v", err)
	}
}

// TestNoAccessLabelIsNamed checks that the error from a search by access token mentions the
// missing labels.
func TestNoAccessLabelIsNamed(t *testing.T) {
	t.Parallel()
	s := newStore(t, memstore.NewDriver(), &tokenstore.Options{NoAccessLabel: true})
	_, err := s.FindToken(t.Context(), tokenstore.Token{AccessToken: "access0"})
	if !errors.Is(err, tokenstore.ErrNotFound) || !strings.Contains(err.Error(), "no labels of access tokens") {
		t.Errorf("FindToken returned error %v", err)
	}
}
