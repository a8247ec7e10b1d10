// Command k8sbare gets a token with client-go and golang.org/x/oauth2.
package main

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tokenkeep/tokenkeep/evidence/cold"
	"github.com/tokenkeep/tokenkeep/evidence/cold/kube"
)

func main() {
	cold.Main(func(ctx context.Context, url string) (string, error) {
		c, err := kube.Client(url)
		if err != nil {
			return "", err
		}
		o, err := c.Secrets(kube.Namespace).Get(ctx, cold.BareName, metav1.GetOptions{})
		if err != nil {
			return "", err
		}
		return cold.Token(ctx, o.Data[cold.BareName])
	})
}
