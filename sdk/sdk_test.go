// Package sdk tests the TokenStores for the official SDKs, each in its own language, against
// processes of "tokenkeep serve" on the fakes of the clouds.
package sdk

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/tokenkeep/tokenkeep/internal/fakeaws"
	"github.com/tokenkeep/tokenkeep/internal/fakegcp"
	"github.com/tokenkeep/tokenkeep/internal/languages"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if err := languages.CleanUp(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func TestLanguages(t *testing.T) {
	t.Parallel()
	for _, l := range languages.All() {
		t.Run(l.Name, func(t *testing.T) {
			t.Parallel()
			p := l.Build(t, "..")
			t.Run("contract", func(t *testing.T) { replay(t, p, "", contract(), "--pass-through") })
			t.Run("life", func(t *testing.T) { replay(t, p, "", recordedLife(), "--find-user") })
			t.Run("life without user", func(t *testing.T) { replay(t, p, "", withoutUser()) })
			t.Run("rejected", func(t *testing.T) { replay(t, p, "", rejections()) })
			if p.Unix {
				t.Run("unix", func(t *testing.T) {
					replay(t, p, "unix:"+filepath.Join(t.TempDir(), "s"), contract(), "--pass-through")
				})
			}
			for cloud := range clouds {
				t.Run("expired/"+cloud, func(t *testing.T) { herd(t, p, cloud, languages.Herd{}) })
				t.Run("code/"+cloud, func(t *testing.T) { herd(t, p, cloud, languages.Herd{Code: true}) })
			}
			t.Run("killed", func(t *testing.T) { herd(t, p, "aws", languages.Herd{Kill: true}) })
		})
	}
}

func herd(t *testing.T, p languages.Program, cloud string, h languages.Herd) {
	t.Parallel()
	p.Herd(t, languages.NewBed(t, clouds[cloud](t)), h)
}

func onAWS(s *fakeaws.Server) string { return "awssm:oauth?region=eu-central-1&endpoint=" + s.URL }

// clouds holds a function for each cloud. The function starts the fake of the cloud's service for
// secrets, and returns the value of --store for the fake.
var clouds = map[string]func(testing.TB) string{
	"aws": func(t testing.TB) string {
		server := fakeaws.New(nil)
		t.Cleanup(server.Close)
		return onAWS(server)
	},
	"gcp": func(t testing.TB) string {
		server := fakegcp.New(nil)
		t.Cleanup(server.Close)
		return "gcpsm:p/oauth?endpoint=http://" + server.Addr
	},
}
