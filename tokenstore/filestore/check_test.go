package filestore_test

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/doctor"
	"github.com/tokenkeep/tokenkeep/tokenstore/filestore"
)

const checkHeader = "id,user_name,client_id,client_secret,refresh_token,access_token,grant_token,expiry_time,redirect_uri,api_domain\r\n"

// checked returns the findings of Check as sorted texts, such as "duplicate line 2 repaired".
func checked(t *testing.T, s *filestore.Store, opts *doctor.CheckOptions) []string {
	t.Helper()
	var found []string
	for f, err := range s.Check(t.Context(), opts) {
		if err != nil {
			t.Fatalf("Check: %v", err)
		}
		text := string(f.Kind)
		if strings.HasPrefix(f.Name, "line") {
			text += " " + f.Name
		}
		if f.Repaired {
			text += " repaired"
		}
		found = append(found, text)
	}
	slices.Sort(found)
	return found
}

// TestCheckRepair checks that Check finds faults of rows, of the file and of the files beside it,
// and that Repair repairs the files. It also checks that MergeDuplicates merges duplicate records
// without losing fields.
func TestCheckRepair(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "tokens.txt")
	rows := []string{
		"1,ann,client,secret,refresh1,access1,,4000000000000,,",
		"2,ben,client,secret,refresh2,access2,,soon,,",    // line 3: an expiry that is not a time
		"3,ann,client,,refresh3,access3,,4000000001000,,", // line 4: the user of line 2, a later expiry
		"4,,client,,refresh3,,,,,https://api",             // line 5: no user, the refresh token of line 4
		"5,cat,client,,refresh5,access5,,,,",              // line 6
		"5,dan,client,,refresh6,access6,,,,",              // line 7: the ID of line 6
		"6,eve,client,,refresh5,access7,,,,",              // line 8: the refresh token of line 6
		"x7,fay,client,,refresh8,access8,,,,",             // line 9: an ID that SDKs fail on
	}
	if err := os.WriteFile(path, []byte(checkHeader+strings.Join(rows, "\r\n")+"\r\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".writing", []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := filestore.New(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	faults := []string{
		"duplicate line 2", "duplicate line 5", "duplicate-id line 6", "file-left-over", "file-mode",
		"id-not-numeric line 9", "record-unreadable line 3", "token-shared line 6",
	}
	mode := func(faults []string) []string {
		if runtime.GOOS == "windows" {
			return slices.DeleteFunc(faults, func(f string) bool { return strings.HasPrefix(f, "file-mode") })
		}
		return faults
	}
	faults = mode(faults)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := checked(t, s, nil); !slices.Equal(got, faults) {
		t.Errorf("Check finds\n%q, want\n%q", got, faults)
	}
	if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
		t.Errorf("a check has changed the file: %v", err)
	}
	repaired := mode([]string{
		"duplicate line 2 repaired", "duplicate line 5 repaired", "duplicate-id line 6", "file-left-over repaired", "file-mode repaired",
		"id-not-numeric line 9", "record-unreadable line 3", "token-shared line 6",
	})
	if got := checked(t, s, &doctor.CheckOptions{Repair: true, MergeDuplicates: true}); !slices.Equal(got, repaired) {
		t.Errorf("Check repairs\n%q, want\n%q", got, repaired)
	}
	for _, left := range checked(t, s, nil) {
		if kind, _, _ := strings.Cut(left, " "); slices.Contains([]string{"duplicate", "file-mode", "file-left-over"}, kind) {
			t.Errorf("afterwards there is still %s", left)
		}
	}
	ann, err := s.FindToken(t.Context(), tokenstore.Token{UserName: "ann", ClientID: "client"})
	if err != nil || ann.ID != "3" || ann.RefreshToken != "refresh3" || ann.AccessToken != "access3" || ann.ClientSecret != "secret" || ann.APIDomain != "https://api" {
		t.Errorf("ann is %s with domain %q, %v", ann.ID, ann.APIDomain, err)
	}
	if all, err := s.GetTokens(t.Context()); len(all) != 5 || !errors.Is(err, tokenstore.ErrCorrupt) {
		t.Errorf("there are %d records, %v", len(all), err)
	}
}

// TestCheckUnreadableFile checks that Check reports a file that is not a token file, and does
// not change the file.
func TestCheckUnreadableFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "tokens.txt")
	if err := os.WriteFile(path, []byte("something else\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := filestore.New(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if got := checked(t, s, &doctor.CheckOptions{Repair: true}); !slices.Equal(got, []string{"file-unreadable"}) {
			t.Errorf("Check finds %q", got)
		}
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "something else\n" {
		t.Errorf("the file is %q, %v", data, err)
	}
}

// TestCheckingMakesNoFile checks that Check reports nothing for a store without a file, and
// creates no file.
func TestCheckingMakesNoFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := filestore.New(filepath.Join(dir, "tokens.txt"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := checked(t, s, &doctor.CheckOptions{Repair: true}); len(got) > 0 {
		t.Errorf("Check finds %q", got)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) > 0 {
		t.Errorf("there are %d files, %v", len(files), err)
	}
}

// TestMergeOfMerged checks that no field is lost if Check merges a record into a second record,
// and the second record into a third.
func TestMergeOfMerged(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "tokens.txt")
	rows := []string{
		"1,,client,,,,grant,,,https://api",          // is merged into 2 because of the grant token
		"2,,client,,refresh,,grant,,,",              // is merged into 3 because of the refresh token
		"3,ann,client,,refresh,access,,,,",          // has a user
		"4,ben,client,,other,access4,,,,https://ap", // not a duplicate
	}
	if err := os.WriteFile(path, []byte(checkHeader+strings.Join(rows, "\r\n")+"\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := filestore.New(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"duplicate line 2 repaired", "duplicate line 3 repaired"}
	if got := checked(t, s, &doctor.CheckOptions{Repair: true, MergeDuplicates: true}); !slices.Equal(got, want) {
		t.Errorf("Check finds %q, want %q", got, want)
	}
	all, err := s.GetTokens(t.Context())
	if err != nil || len(all) != 2 {
		t.Fatalf("%d records are left: %v", len(all), err)
	}
	if got := all[0]; got.ID != "3" || got.AccessToken != "access" || got.GrantToken != "grant" || got.APIDomain != "https://api" {
		t.Errorf("merged: %+v, %q", got, got.APIDomain)
	}
}
