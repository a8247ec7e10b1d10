package tokenstore_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

// A burying is a driver that deletes in two steps, like the drivers of AWS and Vault.
type burying struct {
	driver.Secrets
	fail int  // number of further deletions whose second step fails
	left bool // whether the data that the second step removes still exists
}

func (b *burying) Delete(ctx context.Context, name string, base driver.Secret) error {
	if err := b.Secrets.Delete(ctx, name, base); err != nil {
		return err
	}
	b.left = true
	if b.fail > 0 {
		b.fail--
		return fmt.Errorf("deleted, but its earlier versions are still there: %w", driver.ErrUnavailable)
	}
	b.left = false
	return nil
}

func TestDeleteTokenInterrupted(t *testing.T) {
	t.Parallel()
	for fails := range 5 {
		d := &burying{Secrets: memstore.NewDriver()}
		s := storeOn(t, d, nil)
		id := saved(t, s, token{UserName: "ann", ClientID: "c1", RefreshToken: "r"}).ID
		d.fail = fails
		for range 5 {
			err := s.DeleteToken(t.Context(), id)
			if err == nil {
				if d.left {
					t.Errorf("after %d failures DeleteToken returns nil, and something is left", fails)
				}
				break
			}
			if !errors.Is(err, tokenstore.ErrUnavailable) {
				t.Errorf("after %d failures: %v", fails, err)
			}
		}
		if d.fail > 0 || d.left {
			t.Errorf("repeating it does not complete a deletion that failed %d times", fails)
		}
	}
}
