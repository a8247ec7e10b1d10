package cli

import (
	"strings"
	"testing"

	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tokenkeep/tokenkeep/internal/fakegcp"
)

// TestGCPOptions checks that new secrets have the replicas, keys and labels in the URL of the
// store, and that invalid parameters are usage errors.
func TestGCPOptions(t *testing.T) {
	t.Parallel()
	e, server := gcpEnv(t)
	const key = "projects/k/locations/l/keyRings/r/cryptoKeys/"
	e[envStore] += "&replicas=europe-west3,europe-west1&kms-key=" + key + "a," + key + "b&labels=team=crm,env=prod"
	e.ok(t, `{"user_name":"ann","access_token":"a"}`, "save")
	m := server.Secret(server.Names()[0])
	var got []string
	for _, r := range m.GetReplication().GetUserManaged().GetReplicas() {
		got = append(got, r.GetLocation()+" "+r.GetCustomerManagedEncryption().GetKmsKeyName())
	}
	if want := "europe-west3 " + key + "a, europe-west1 " + key + "b"; strings.Join(got, ", ") != want {
		t.Errorf("replicas are %q, want %q", got, want)
	}
	if m.GetLabels()["team"] != "crm" || m.GetLabels()["env"] != "prod" {
		t.Errorf("labels are %v", m.GetLabels())
	}
	for _, wrong := range []string{
		"replicas=", "kms-key=", "labels=", "replicas=a,,b", "replicas=a,b&kms-key=k", "labels=team", "labels=team=a,team=b",
		"labels=Team=a", "location=l&replicas=a", "replica=a",
	} {
		env{}.fails(t, 2, "", "ls", "--store", "gcpsm:p/x?endpoint=http://"+server.Addr+"&"+wrong)
	}
}

// TestGCPRefusals checks that a refusal by an organization policy has the class "refused" and
// contains the reason from the service. A store with allowed locations must work.
func TestGCPRefusals(t *testing.T) {
	t.Parallel()
	e, server := gcpEnv(t)
	server.Inject(func(c *fakegcp.Call) *fakegcp.Fault {
		q, ok := c.Request.(*secretmanagerpb.CreateSecretRequest)
		if ok && q.GetSecret().GetReplication().GetAutomatic() != nil {
			return &fakegcp.Fault{Err: status.Error(codes.FailedPrecondition, "Constraint constraints/gcp.resourceLocations violated")}
		}
		return nil
	})
	const record = `{"user_name":"ann","access_token":"a"}`
	if text := e.fails(t, 14, record, "save"); !strings.Contains(text, "gcp.resourceLocations") {
		t.Errorf("message: %s", text)
	}
	e[envStore] += "&replicas=europe-west3"
	e.ok(t, record, "save")
}
