// Command k8s gets a token with k8sstore and initializer.
package main

import (
	"context"

	"github.com/tokenkeep/tokenkeep/evidence/cold"
	"github.com/tokenkeep/tokenkeep/evidence/cold/keep"
	"github.com/tokenkeep/tokenkeep/evidence/cold/kube"
	"github.com/tokenkeep/tokenkeep/k8sstore"
)

func main() {
	cold.Main(func(ctx context.Context, url string) (string, error) {
		c, err := kube.Client(url)
		if err != nil {
			return "", err
		}
		store, err := k8sstore.New(c, kube.Namespace, cold.Prefix, nil)
		if err != nil {
			return "", err
		}
		return keep.Token(ctx, store)
	})
}
