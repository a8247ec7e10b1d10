// Package k8s provides the scheme k8s, for Kubernetes Secrets, to the command tokenkeep.
package k8s

import (
	"context"
	"errors"
	"flag"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/gentype"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/tokenkeep/tokenkeep/cli/internal/policies"
	"github.com/tokenkeep/tokenkeep/cli/scheme"
	"github.com/tokenkeep/tokenkeep/k8sstore"
)

// Scheme returns the scheme of URLs of the form k8s:NAMESPACE/PREFIX.
func Scheme() scheme.Scheme {
	return scheme.Scheme{
		Name: "k8s",
		Form: "k8s:NAMESPACE/PREFIX",
		Text: `Kubernetes Secrets, with KUBECONFIG or ~/.kube/config, or in a Pod with
its service account; ?context=NAME selects another context of that file. A plain
http address must be on this machine, unless insecure=true allows tokens to cross
the network unencrypted`,
		Slashes: true,
		Service: "k8sstore",
		SignIn:  "renew them (log in to the cluster again), and see that KUBECONFIG names the right context",
		Open:    open,
		Policy: &scheme.Policy{
			Name:     "k8s",
			Argument: "NAMESPACE",
			Short:    "Print the Role for a store in Kubernetes",
			Long: `Prints the Role that a store needs in a namespace. Bind it to the program's service
account. A Role cannot select Secrets by the beginning of their names: the account can
read every Secret of the namespace, so use a separate namespace for the store.`,
			New: newPolicy,
		},
	}
}

// newPolicy implements scheme.Policy.New.
func newPolicy(*flag.FlagSet) func(string, bool) (string, error) {
	return func(namespace string, terraform bool) (string, error) {
		if faults := validation.IsDNS1123Label(namespace); len(faults) > 0 {
			return "", scheme.Usagef("a namespace has lower-case letters, digits and hyphens only")
		}
		text := k8sstore.Policy(namespace, "tokenkeep")
		if terraform {
			text = "resource \"kubernetes_manifest\" \"tokenkeep\" {\n  manifest = yamldecode(<<-YAML\n" + policies.Indent(text) + "  YAML\n  )\n}\n"
		}
		return text, nil
	}
}

func open(_ context.Context, o *scheme.Opening) (*scheme.Opened, error) {
	rest, params, err := scheme.Query(o.Rest, "context", "insecure")
	if err != nil {
		return nil, err
	}
	namespace, prefix, _ := strings.Cut(rest, "/")
	if namespace == "" || prefix == "" {
		return nil, scheme.Usagef("a namespace and a prefix are needed: k8s:NAMESPACE/PREFIX")
	}
	insecure := false
	if text := params["insecure"]; text != "" {
		if insecure, err = strconv.ParseBool(text); err != nil {
			return nil, scheme.Usagef("k8s: insecure must be true or false")
		}
	}
	config, err := newConfig(o.Getenv, params["context"])
	if err != nil {
		return nil, err
	}
	if u, err := url.Parse(config.Host); !insecure && (err != nil || u.Scheme == "http" && !scheme.Loopback(u.Hostname())) {
		return nil, scheme.Usagef("the address of Kubernetes is plain http, and not on this machine: tokens would be sent unencrypted; " +
			"use https, or add ?insecure=true to the store to allow that")
	}
	client, err := newClient(config)
	if err != nil {
		return nil, scheme.Usagef("the configuration of Kubernetes cannot be used") // the cause might quote the file
	}
	d, err := k8sstore.NewDriver(client, namespace, prefix, nil)
	if err != nil {
		return nil, scheme.Usage(err)
	}
	at := strings.Join([]string{"k8s", config.Host, namespace, prefix}, " ")
	return &scheme.Opened{Driver: d, Place: at, Counted: true}, nil
}

// A secretsClient is a client for Secrets only. The client of client-go/kubernetes would link every
// API of Kubernetes into the command.
type secretsClient struct {
	rest  *rest.RESTClient
	codec runtime.ParameterCodec
}

func newClient(config *rest.Config) (*secretsClient, error) {
	types := runtime.NewScheme()
	if err := v1.AddToScheme(types); err != nil {
		return nil, err
	}
	c := rest.CopyConfig(config)
	c.APIPath, c.GroupVersion = "/api", &v1.SchemeGroupVersion
	c.NegotiatedSerializer = serializer.NewCodecFactory(types).WithoutConversion()
	client, err := rest.RESTClientFor(c)
	return &secretsClient{client, runtime.NewParameterCodec(types)}, err
}

// Secrets implements k8sstore.SecretsGetter.
func (c *secretsClient) Secrets(namespace string) *gentype.ClientWithList[*v1.Secret, *v1.SecretList] {
	return gentype.NewClientWithList("secrets", c.rest, c.codec, namespace,
		func() *v1.Secret { return &v1.Secret{} }, func() *v1.SecretList { return &v1.SecretList{} })
}

// newConfig returns the client configuration from the files that KUBECONFIG names, or from
// ~/.kube/config. The parameter context selects a context in the files; "" means the current
// context. In a Pod, if the files name no cluster and context is "", newConfig returns the
// configuration of the Pod.
func newConfig(env func(string) string, context string) (*rest.Config, error) {
	var files []string
	if list := env(clientcmd.RecommendedConfigPathEnvVar); list != "" {
		files = filepath.SplitList(list)
	} else if home := env("HOME"); home != "" {
		files = []string{filepath.Join(home, clientcmd.RecommendedHomeDir, clientcmd.RecommendedFileName)}
	}
	loaded, err := (&clientcmd.ClientConfigLoadingRules{Precedence: files}).Load()
	if err != nil {
		return nil, scheme.Usagef("the configuration of Kubernetes (KUBECONFIG) cannot be read") // the cause might quote the file
	}
	var config *rest.Config
	if len(loaded.Clusters) == 0 && context == "" && env("KUBERNETES_SERVICE_HOST") != "" {
		config, err = rest.InClusterConfig()
	} else {
		config, err = clientcmd.NewNonInteractiveClientConfig(*loaded, context, &clientcmd.ConfigOverrides{}, nil).ClientConfig()
	}
	switch {
	case clientcmd.IsContextNotFound(err), context != "" && loaded.Contexts[context] == nil:
		return nil, scheme.Usagef("the configuration of Kubernetes has no such context")
	case errors.Is(err, clientcmd.ErrEmptyCluster), clientcmd.IsEmptyConfig(err):
		return nil, scheme.Usagef("no cluster: KUBECONFIG and ~/.kube/config name none, and this is not a Pod")
	case err != nil:
		return nil, scheme.Usagef("the configuration of Kubernetes cannot be used") // the cause might quote the file
	}
	config.QPS = -1 // no limit in the client: the server limits the rate of requests
	config.WarningHandler = rest.NoWarnings{}
	config.UserAgent = "tokenkeep"
	return config, nil
}
