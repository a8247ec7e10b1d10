package k8sstore_test

import (
	"context"
	"fmt"
	"log"
	"os"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"

	"github.com/tokenkeep/tokenkeep/internal/fakek8s"
	"github.com/tokenkeep/tokenkeep/k8sstore"
	"github.com/tokenkeep/tokenkeep/keys"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// server starts a fake API server for the examples.
func server() (config *rest.Config, stop func()) {
	_ = os.Setenv("TOKENKEEP_KEYS", string(keys.New().Encode())) // the platform sets it from a secret
	s := fakek8s.New(nil)
	return &rest.Config{Host: s.URL, BearerToken: fakek8s.AdminToken}, s.Close
}

func ExampleNew() {
	config, stop := server() // in a cluster: rest.InClusterConfig()
	defer stop()

	config.QPS = -1 // the server itself limits its clients
	client, err := corev1.NewForConfig(config)
	if err != nil {
		log.Fatal(err)
	}
	store, err := k8sstore.New(client, "default", "oauth-crm", nil)
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	saved, err := store.SaveToken(ctx, tokenstore.Token{
		UserName:     "ann@example.com:6001",
		ClientID:     "1000.CLIENT",
		RefreshToken: "1000.refresh",
	})
	if err != nil {
		log.Fatal(err)
	}
	found, err := store.FindToken(ctx, tokenstore.Token{UserName: "ann@example.com:6001", ClientID: "1000.CLIENT"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(found.ID == saved.ID, found.ClientID, found.RefreshToken)
	fmt.Println(string(found.RefreshToken))
	// Output:
	// true 1000.CLIENT [redacted]
	// 1000.refresh
}

// The Secrets of a store can have an owner, such as a Deployment, and additional labels.
func ExampleOptions() {
	config, stop := server()
	defer stop()

	client, err := corev1.NewForConfig(config)
	if err != nil {
		log.Fatal(err)
	}
	k, err := keys.Parse([]byte(os.Getenv("TOKENKEEP_KEYS")))
	if err != nil {
		log.Fatal(err)
	}
	store, err := k8sstore.New(client, "default", "oauth-crm", &k8sstore.Options{
		Labels: map[string]string{"app.kubernetes.io/managed-by": "crm-sync"},
		Owner:  &metav1.OwnerReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "crm-sync", UID: "5d1d8b3c-9f3e-4a53-9d0c-1f2f4c5b7a10"},
		Store:  k.Options(),
	})
	if err != nil {
		log.Fatal(err)
	}
	tokens, err := store.GetTokens(context.Background())
	fmt.Println(len(tokens), err)
	// Output: 0 <nil>
}

func ExamplePolicy() {
	fmt.Print(k8sstore.Policy("crm", "tokens"))
	// Output:
	// apiVersion: rbac.authorization.k8s.io/v1
	// kind: Role
	// metadata:
	//   namespace: crm
	//   name: tokens
	// rules:
	// - apiGroups: [""]
	//   resources: ["secrets"]
	//   verbs: ["get", "list", "create", "patch", "delete"]
}
