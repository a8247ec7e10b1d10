package tokenstore_test

import (
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

func TestSaveTokenStaleAbsence(t *testing.T) {
	t.Parallel()
	f := newFaulty()
	f.lag = time.Minute
	s := storeOn(t, f, nil)
	first := saved(t, s, annsToken)
	f.stale = map[string]driver.Secret{first.ID: {}} // Get does not find the record, but Fresh does
	got, err := s.SaveToken(t.Context(), token{UserName: "ann", ClientID: "c1", APIDomain: "https://api.example.com"})
	if err != nil || got.ID != first.ID {
		t.Errorf("%+v, error %v; FindToken asks Fresh in this case", got, err)
	}
}
