package filestore_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/filestore"
)

// savers is the number of goroutines that save concurrently in each of two processes. crowd
// is the number of users whose records the goroutines save.
const (
	savers = 16
	crowd  = 4
)

// part returns the token that the given saver saves. The token has a user, a client and a refresh
// token and, for some savers, a value of another field.
func part(saver int) token {
	user := fmt.Sprint("user", saver%crowd)
	t := token{UserName: user, ClientID: "c1", RefreshToken: tokenstore.Secret("refresh of " + user)}
	switch saver / crowd {
	case 0:
		t.AccessToken, t.ExpiresAt = tokenstore.Secret("access of "+user), time.UnixMilli(4_000_000_000_123).UTC()
	case 1:
		t.GrantToken = tokenstore.Secret("grant of " + user)
	case 2:
		t.ClientSecret = tokenstore.Secret("client secret of " + user)
	case 3:
		t.RedirectURL = "https://example.com/" + user
	case 4:
		t.APIDomain = "https://api.example.com/" + user
	}
	return t
}

// saveParts saves part(first), part(first+1) and so on, one in each of savers concurrent
// goroutines.
func saveParts(ctx context.Context, path string, first int) error {
	errs := make([]error, savers)
	var wait sync.WaitGroup
	for i := range savers {
		wait.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			s, err := filestore.New(path, nil)
			if err == nil {
				_, err = s.SaveToken(ctx, part(first+i))
			}
			errs[i] = err
		})
	}
	wait.Wait()
	return errors.Join(errs...)
}

// TestTwoProcessesSaveTheSameUsersAtOnce checks that no field is lost if two processes save the
// same users concurrently. The test runs itself as the second process.
func TestTwoProcessesSaveTheSameUsersAtOnce(t *testing.T) {
	if _, ok := os.LookupEnv(helperArgs); ok {
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
			err := saveParts(t.Context(), in.Text(), savers)
			fmt.Printf("saved %q\n", fmt.Sprint(err))
		}
		return
	}
	t.Parallel()
	other := helper(t, "TestTwoProcessesSaveTheSameUsersAtOnce")
	in, err := other.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := other.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	answers := bufio.NewScanner(out)
	dir := t.TempDir()
	for round := range 50 {
		path := filepath.Join(dir, fmt.Sprint(round))
		if _, err := fmt.Fprintln(in, path); err != nil {
			t.Fatal(err)
		}
		if err := saveParts(t.Context(), path, 0); err != nil {
			t.Errorf("round %d: %v", round, err)
		}
		if !answers.Scan() || answers.Text() != `saved "<nil>"` {
			t.Fatalf("round %d: the other process answers %q", round, answers.Text())
		}
		got, err := open(t, path, nil).GetTokens(t.Context())
		if err != nil || len(got) != crowd {
			t.Fatalf("round %d: %d records, error %v, want %d", round, len(got), err, crowd)
		}
		for _, g := range got {
			want := token{}
			for i := range 2 * savers {
				if p := part(i); p.UserName == g.UserName {
					want = tokenstore.Merge(want, p)
				}
			}
			want.ID = g.ID
			if g != want {
				t.Errorf("round %d: a field is lost: %+v, want %+v", round, g, want)
			}
		}
	}
	if err := in.Close(); err != nil {
		t.Error(err)
	}
	if err := other.Wait(); err != nil {
		t.Error(err)
	}
}

// TestSaveTokenKilled checks that the file is complete after a process that writes continuously
// is killed at a random time.
func TestSaveTokenKilled(t *testing.T) {
	if path, ok := os.LookupEnv(helperArgs); ok {
		s := open(t, path, nil)
		for n := 0; ; n++ {
			long := tokenstore.Secret(fmt.Sprintf("%d-%s", n, strings.Repeat("x", rand.N(20_000))))
			saved, err := s.SaveToken(t.Context(), token{UserName: "bob", ClientID: "c1", AccessToken: long + "-end"})
			if err != nil {
				t.Fatal(err)
			}
			if n == 0 {
				fmt.Println("writing", saved.ID)
			}
		}
	}
	t.Parallel()
	path := place(t, []byte(header+annRow+bobRow))
	ann, err := open(t, path, nil).FindTokenByID(t.Context(), "1")
	if err != nil {
		t.Fatal(err)
	}
	for round := range 25 {
		writer := helper(t, "TestSaveTokenKilled", path)
		out, err := writer.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := writer.Start(); err != nil {
			t.Fatal(err)
		}
		if line := bufio.NewScanner(out); !line.Scan() || line.Text() != "writing 2" {
			t.Fatalf("the writer says %q", line.Text())
		}
		<-time.After(rand.N(15 * time.Millisecond))
		if err := writer.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = writer.Wait() // it was killed
		s := open(t, path, nil)
		got, err := s.GetTokens(t.Context())
		if err != nil || len(got) != 2 || got[0] != ann || !strings.HasSuffix(string(got[1].AccessToken), "-end") {
			t.Fatalf("round %d: %d records, error %v, want both of them whole", round, len(got), err)
		}
		if _, err := s.SaveToken(t.Context(), token{ID: "2", APIDomain: fmt.Sprint("https://", round)}); err != nil {
			t.Fatalf("round %d: after the writer was killed: %v", round, err)
		}
		if left, err := filepath.Glob(path + ".writing"); err != nil || len(left) > 0 {
			t.Errorf("round %d: %v is left after another save", round, left)
		}
	}
}
