// Package kube contains the code shared by the programs for Kubernetes.
package kube

import (
	"os"

	corev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
)

const (
	EnvToken  = "COLD_TOKEN" // name of the environment variable with the token of a service account
	Namespace = "default"
)

// Client returns a client for the API server at url. The client authenticates with the token in
// EnvToken.
func Client(url string) (*corev1.CoreV1Client, error) {
	return corev1.NewForConfig(&rest.Config{Host: url, BearerToken: os.Getenv(EnvToken)})
}
