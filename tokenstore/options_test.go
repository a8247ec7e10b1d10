package tokenstore_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

func TestOptionsThatCannotBeUsedAreRefused(t *testing.T) {
	t.Parallel()
	long := []byte("0123456789abcdef")
	for what, o := range map[string]tokenstore.Options{
		"a short name key":          {NameKey: []byte("canary-15-bytes")},
		"an empty name key":         {NameKey: []byte{}},
		"a short index key":         {IndexKeys: [][]byte{long, []byte("canary-15-bytes")}},
		"an empty index key":        {IndexKeys: [][]byte{{}}},
		"a nil index key":           {IndexKeys: [][]byte{long, nil}},
		"a short lease":             {LeaseTTL: time.Second - 1},
		"a negative lease":          {LeaseTTL: -time.Hour},
		"less than no attempts":     {Attempts: -1},
		"a lease in the wrong unit": {LeaseTTL: 30},
		"a short key among others":  {NameKey: long, IndexKeys: [][]byte{long, long, long[:15]}},
	} {
		s, err := tokenstore.New(memstore.NewDriver(), &o)
		if err == nil || s != nil {
			t.Errorf("%s: a store is made of it", what)
		} else if !strings.HasPrefix(err.Error(), "tokenstore: ") || leaks(err.Error()) || strings.Contains(err.Error(), string(long[:15])) {
			t.Errorf("%s: error %v", what, err)
		}
	}
	if s, err := tokenstore.New(nil, nil); err == nil || s != nil {
		t.Error("a store is made without a driver")
	}
}

func TestOptionsAtTheirLimitsAreTaken(t *testing.T) {
	t.Parallel()
	key := []byte("0123456789abcdef")
	for what, o := range map[string]*tokenstore.Options{
		"none":       nil,
		"the zero":   {},
		"the least":  {NameKey: key, IndexKeys: [][]byte{key}, LeaseTTL: time.Second, Attempts: 1},
		"everything": {NameKey: key, IndexKeys: [][]byte{key, key}, LeaseTTL: time.Hour, Attempts: 1000, Now: time.Now, Logger: slog.New(slog.DiscardHandler)},
	} {
		s, err := tokenstore.New(memstore.NewDriver(), o)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		if _, err := s.SaveToken(t.Context(), tokenstore.Token{UserName: "ann", RefreshToken: "r"}); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestStoreClosed(t *testing.T) {
	t.Parallel()
	s := memstore.New(nil)
	for range 2 {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	for op, err := range everyError(t.Context(), s) {
		if !errors.Is(err, tokenstore.ErrUnavailable) {
			t.Errorf("%s of a closed store returned %v, want ErrUnavailable", op, err)
		}
	}
}

func everyError(ctx context.Context, s *tokenstore.Store) map[string]error {
	errs := map[string]error{}
	token := tokenstore.Token{UserName: "ann", ClientID: "c1", RefreshToken: canary}
	_, errs["find"] = s.FindToken(ctx, token)
	_, errs["find by ID"] = s.FindTokenByID(ctx, "7")
	_, errs["save"] = s.SaveToken(ctx, token)
	errs["delete"] = s.DeleteToken(ctx, "7")
	_, errs["list"] = s.GetTokens(ctx)
	errs["delete all"] = s.DeleteTokens(ctx)
	_, errs["refresh"] = s.Refresh(ctx, "7", "", func(context.Context, tokenstore.Token) (tokenstore.Token, error) {
		return tokenstore.Token{}, errors.New("must not be called")
	})
	for _, err := range s.All(ctx) {
		errs["all"] = err
	}
	return errs
}

func TestOptionsEmptyIndexKeys(t *testing.T) {
	t.Parallel()
	s, err := tokenstore.New(memstore.NewDriver(), &tokenstore.Options{IndexKeys: [][]byte{}})
	if err != nil {
		return
	}
	if _, err := s.SaveToken(t.Context(), tokenstore.Token{UserName: "ann", RefreshToken: "r"}); err != nil {
		t.Error(err)
	}
}

func TestKeysAreNotSharedWithTheCaller(t *testing.T) {
	t.Parallel()
	key, index := []byte("0123456789abcdef"), []byte("fedcba9876543210")
	s, err := tokenstore.New(memstore.NewDriver(), &tokenstore.Options{NameKey: key, IndexKeys: [][]byte{index}})
	if err != nil {
		t.Fatal(err)
	}
	before := saved(t, s, token{UserName: "ann", ClientID: "c1", RefreshToken: "r"})
	clear(key) // a careful program clears keys after use
	clear(index)
	if got, err := s.FindToken(t.Context(), token{UserName: "ann", ClientID: "c1"}); err != nil || got != before {
		t.Errorf("after the caller cleared its keys: error %v", err)
	}
}
