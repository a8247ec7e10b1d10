// Package cloudrunsidecar tests the Cloud Run service that service.yaml describes.
package cloudrunsidecar

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/api/run/v1"
	"sigs.k8s.io/yaml"

	"github.com/tokenkeep/tokenkeep/examples/internal/sidecarapp"
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

// read returns the service that service.yaml describes. It fails the test if the file has a
// field that Google's type run.Service lacks.
func read(t *testing.T) *run.Service {
	t.Helper()
	text, err := os.ReadFile("service.yaml")
	if err != nil {
		t.Fatal(err)
	}
	s := &run.Service{}
	if err := yaml.UnmarshalStrict(text, s); err != nil {
		t.Fatal(err)
	}
	if s.ApiVersion != "serving.knative.dev/v1" || s.Kind != "Service" || s.Spec == nil || s.Spec.Template == nil {
		t.Fatal("it is no Service of Cloud Run")
	}
	return s
}

// container returns the arguments and the environment of the container with the given name. Each
// environment variable that refers to a secret is set to value.
func container(t *testing.T, s *run.Service, name, value string) sidecarapp.Container {
	t.Helper()
	for _, c := range s.Spec.Template.Spec.Containers {
		if c.Name != name {
			continue
		}
		p := sidecarapp.Container{Args: c.Args, Env: map[string]string{}}
		for _, e := range c.Env {
			if p.Env[e.Name] = e.Value; e.ValueFrom != nil {
				p.Env[e.Name] = value
			}
		}
		return p
	}
	t.Fatalf("there is no container %q", name)
	return sidecarapp.Container{}
}

func TestManifest(t *testing.T) {
	t.Parallel()
	ingress := 0
	secrets := map[string]bool{}
	for _, c := range read(t).Spec.Template.Spec.Containers {
		ingress += len(c.Ports)
		for _, e := range c.Env {
			if e.ValueFrom != nil {
				secrets[e.ValueFrom.SecretKeyRef.Name+"/"+e.ValueFrom.SecretKeyRef.Key] = true
			}
		}
		if c.Name == "tokenkeep" && (!strings.Contains(c.Image, "/tokenkeep/tokenkeep:") || len(c.Ports) > 0) {
			t.Errorf("the agent is of the image %s, or requests come in by it", c.Image)
		}
	}
	if ingress != 1 || len(secrets) != 1 {
		t.Errorf("requests come in by %d ports, and the containers share %v", ingress, secrets)
	}
}

// TestProgramWithSidecar runs both containers as processes. It checks that the program can
// call the API through its sidecar. It also checks that the program answers with status 503 if
// the program's token for the agent is wrong.
func TestProgramWithSidecar(t *testing.T) {
	t.Parallel()
	s := read(t)
	cloud := fakegcp.New(nil)
	t.Cleanup(cloud.Close)
	sidecar, app := container(t, s, "tokenkeep", "a-token-of-the-agent-for-tests"), container(t, s, "app", "a-token-of-the-agent-for-tests")
	address := "127.0.0.1:0"
	for i, arg := range sidecar.Args {
		if strings.HasPrefix(arg, "--store=") {
			sidecar.Args[i] = arg + "?endpoint=http://" + cloud.Addr
			address = sidecarapp.Free(t)
			sidecar.Args = append(sidecar.Args, "--listen="+address) // another process may use the default port of the agent
		}
	}
	app.Env["TOKENKEEP_AGENT"] = "http://" + address
	b := languages.NewBed(t, "gcpsm:my-project/crm?endpoint=http://"+cloud.Addr)
	_, access := b.Zoho.Tokens(languages.Consent())
	b.Run(fmt.Sprintf(`{"user_name":"ann@example.com:6001","client_id":"1000.CLIENT","client_secret":"s","refresh_token":"1000.r","access_token":%q,"expiry_time":%d}`,
		access, time.Now().Add(time.Hour).UnixMilli()), "save")
	url := sidecarapp.Run(t, "../..", b.Base, sidecar, app)
	if status := sidecarapp.Get(t, url); status != 200 {
		t.Errorf("status %d", status)
	}
	app.Env["TOKENKEEP_AGENT_TOKEN"] = "another-token-than-the-agents"
	if status := sidecarapp.Get(t, sidecarapp.App(t, "../..", b.Base, app)); status != 503 {
		t.Errorf("with another token, status %d", status)
	}
}
