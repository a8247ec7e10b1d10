package tokenstore_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

func TestPromotionTooLarge(t *testing.T) {
	t.Parallel()
	big := func(n int) tokenstore.Secret { return tokenstore.Secret(strings.Repeat("x", n)) }
	f := newFaulty()
	s := storeOn(t, f, nil)
	ann := saved(t, s, token{UserName: "ann", ClientID: "c1", AccessToken: big(24 << 10), ClientSecret: big(24 << 10)})
	code := saved(t, s, token{ClientID: "c1", GrantToken: big(24 << 10)})
	writes := f.count("create") + f.count("update")
	_, err := s.SaveToken(t.Context(), token{ID: code.ID, UserName: "ann"})
	if !errors.Is(err, tokenstore.ErrTooLarge) {
		t.Errorf("error %v, want ErrTooLarge", err)
	}
	if n := f.count("create") + f.count("update"); n != writes {
		t.Errorf("%d writes", n-writes)
	}
	if _, err := s.SaveToken(t.Context(), token{ID: ann.ID, APIDomain: "d"}); err != nil {
		t.Errorf("Ann's record cannot be saved any more: %v", err)
	}
	if got, err := s.FindTokenByID(t.Context(), code.ID); err != nil || got.UserName != "" {
		t.Errorf("the code's record is %+v, error %v", got.UserName, err)
	}
}
