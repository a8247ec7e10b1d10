package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	secretmanager "cloud.google.com/go/secretmanager/apiv1"
	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/hashicorp/vault/api"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"

	"github.com/tokenkeep/tokenkeep/awssm"
	"github.com/tokenkeep/tokenkeep/evidence/cold"
	"github.com/tokenkeep/tokenkeep/evidence/cold/kube"
	"github.com/tokenkeep/tokenkeep/gcpsm"
	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/internal/fakeaws"
	"github.com/tokenkeep/tokenkeep/internal/fakegcp"
	"github.com/tokenkeep/tokenkeep/internal/fakek8s"
	"github.com/tokenkeep/tokenkeep/internal/fakevault"
	"github.com/tokenkeep/tokenkeep/k8sstore"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/vaultstore"
)

var coldServices = services

// A startCost compares a process that gets one token with this module to a process that
// gets the token with the SDK alone.
type startCost struct {
	CPU        interval      // ratio of the CPU time with this module to the CPU time with the SDK alone
	Wall       interval      // ratio of the elapsed times
	Keep, Bare time.Duration // median CPU times
	KeepBytes  int64         // sizes of the programs
	BareBytes  int64
}

// mostCold is the largest allowed ratio of CPU times.
const mostCold = 1.15

// A coldService is a running service that holds a token for each of the two programs.
type coldService struct {
	url  string
	env  []string
	stop func()
}

// coldStarts compares the starts of the two programs for each service, and returns the results
// by service. coldStarts measures each program rounds times, and alternates between the programs.
func coldStarts(ctx context.Context, rounds int) (map[string]startCost, error) {
	dir, err := os.MkdirTemp("", "cold")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	all := map[string]startCost{}
	for _, name := range coldServices {
		s, err := startColdService(ctx, name)
		if err == nil {
			all[name], err = measureCold(ctx, dir, name, s, rounds)
			s.stop()
		}
		if err != nil {
			return nil, fmt.Errorf("cold start, %s: %w", name, err)
		}
	}
	return all, nil
}

func measureCold(ctx context.Context, dir, name string, s coldService, rounds int) (startCost, error) {
	programs := []string{name, name + "bare"}
	var c startCost
	for i, program := range programs {
		size, err := buildCold(ctx, dir, program)
		if err != nil {
			return c, err
		}
		*[]*int64{&c.KeepBytes, &c.BareBytes}[i] = size
	}
	var cpu, wall [2][]time.Duration
	for round := range rounds + 1 {
		for i, program := range programs {
			used, took, err := runCold(ctx, filepath.Join(dir, program), s)
			if err != nil {
				return c, fmt.Errorf("%s: %w", program, err)
			}
			if round > 0 { // omit the first start, which also reads the program from disk
				cpu[i], wall[i] = append(cpu[i], used), append(wall[i], took)
			}
		}
	}
	c.CPU, c.Wall = ratioOf(cpu[0], cpu[1]), ratioOf(wall[0], wall[1])
	c.Keep, c.Bare = median(cpu[0]), median(cpu[1])
	return c, nil
}

// buildCold builds a program into dir with the flags of a release. buildCold returns the size of
// the executable in bytes.
func buildCold(ctx context.Context, dir, program string) (int64, error) {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(dir, program), "./cold/"+program)
	cmd.Dir = sourceFolder()
	if out, err := cmd.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("go build %s: %w\n%s", program, err, out)
	}
	info, err := os.Stat(filepath.Join(dir, program))
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// runCold runs a program once, and returns the user and system CPU time of the process and the
// elapsed time.
func runCold(ctx context.Context, program string, s coldService) (used, took time.Duration, err error) {
	cmd := exec.CommandContext(ctx, program)
	cmd.Env = append([]string{cold.EnvURL + "=" + s.url, "HOME=" + filepath.Dir(program)}, s.env...)
	began := time.Now()
	out, err := cmd.CombinedOutput()
	if err != nil {
		return 0, 0, fmt.Errorf("%w: %s", err, out)
	}
	return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), time.Since(began), nil
}

// startColdService starts a service, and stores a token for each of the two programs.
func startColdService(ctx context.Context, name string) (coldService, error) {
	secret, err := json.Marshal(cold.Bare{AccessToken: "access", RefreshToken: "refresh", Expiry: far})
	if err != nil {
		return coldService{}, err
	}
	start := map[string]func(context.Context, []byte) (coldService, *tokenstore.Store, error){"aws": coldAWS, "gcp": coldGCP, "vault": coldVault, "k8s": coldK8s}[name]
	s, store, err := start(ctx, secret)
	if err != nil {
		return s, err
	}
	client, err := initializer.New(ctx, initializer.Config{OAuth2: cold.Config(), Store: store, Token: tokenstore.Token{
		UserName: cold.User, ClientID: cold.Client, AccessToken: "access", RefreshToken: "refresh", ExpiresAt: far,
	}})
	if err == nil && !client.Persisted() {
		err = errors.New("the token is not stored")
	}
	if err != nil {
		s.stop()
	}
	return s, err
}

func coldAWS(ctx context.Context, secret []byte) (coldService, *tokenstore.Store, error) {
	server := fakeaws.New(nil)
	s := coldService{url: server.URL, stop: server.Close, env: []string{
		"AWS_REGION=eu-central-1", "AWS_ACCESS_KEY_ID=key", "AWS_SECRET_ACCESS_KEY=secret", "AWS_EC2_METADATA_DISABLED=true",
	}}
	c := secretsmanager.New(secretsmanager.Options{
		Region: "eu-central-1", BaseEndpoint: aws.String(server.URL), Credentials: credentials.NewStaticCredentialsProvider("key", "secret", ""),
	})
	_, err := c.CreateSecret(ctx, &secretsmanager.CreateSecretInput{Name: aws.String(cold.BareName), SecretString: aws.String(string(secret))})
	if err != nil {
		return s, nil, err
	}
	store, err := awssm.New(c, cold.Prefix, nil)
	return s, store, err
}

func coldGCP(ctx context.Context, secret []byte) (coldService, *tokenstore.Store, error) {
	server := fakegcp.New(nil)
	s := coldService{url: server.Addr, stop: server.Close}
	c, err := secretmanager.NewClient(ctx, option.WithEndpoint(server.Addr), option.WithoutAuthentication(),
		option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())))
	if err != nil {
		return s, nil, err
	}
	made, err := c.CreateSecret(ctx, &secretmanagerpb.CreateSecretRequest{Parent: "projects/p", SecretId: cold.BareName, Secret: &secretmanagerpb.Secret{
		Replication: &secretmanagerpb.Replication{Replication: &secretmanagerpb.Replication_Automatic_{Automatic: &secretmanagerpb.Replication_Automatic{}}},
	}})
	if err == nil {
		_, err = c.AddSecretVersion(ctx, &secretmanagerpb.AddSecretVersionRequest{Parent: made.GetName(), Payload: &secretmanagerpb.SecretPayload{Data: secret}})
	}
	if err != nil {
		return s, nil, err
	}
	store, err := gcpsm.New(c, "projects/p", cold.Prefix, nil)
	return s, store, err
}

func coldVault(ctx context.Context, secret []byte) (coldService, *tokenstore.Store, error) {
	server := fakevault.New(nil)
	s := coldService{url: server.URL, stop: server.Close, env: []string{"VAULT_TOKEN=" + fakevault.RootToken}}
	conf := api.DefaultConfig()
	conf.Address = server.URL
	c, err := api.NewClient(conf)
	if err != nil {
		return s, nil, err
	}
	c.SetToken(fakevault.RootToken)
	var data map[string]any
	if err := json.Unmarshal(secret, &data); err != nil {
		return s, nil, err
	}
	if _, err := c.KVv2("secret").Put(ctx, cold.BareName, data); err != nil {
		return s, nil, err
	}
	store, err := vaultstore.New(c, "secret", cold.Prefix, nil)
	return s, store, err
}

func coldK8s(ctx context.Context, secret []byte) (coldService, *tokenstore.Store, error) {
	server := fakek8s.New(nil)
	s := coldService{url: server.URL, stop: server.Close, env: []string{kube.EnvToken + "=" + fakek8s.AdminToken}}
	c, err := corev1.NewForConfig(&rest.Config{Host: server.URL, BearerToken: fakek8s.AdminToken})
	if err != nil {
		return s, nil, err
	}
	o := &v1.Secret{ObjectMeta: metav1.ObjectMeta{Name: cold.BareName}, Data: map[string][]byte{cold.BareName: secret}}
	if _, err := c.Secrets(kube.Namespace).Create(ctx, o, metav1.CreateOptions{}); err != nil {
		return s, nil, err
	}
	store, err := k8sstore.New(c, kube.Namespace, cold.Prefix, nil)
	return s, store, err
}
