package integration_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/tokenkeep/tokenkeep/awssm"
	"github.com/tokenkeep/tokenkeep/conformance"
	"github.com/tokenkeep/tokenkeep/integration"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

type awsBackend struct {
	*integration.AWS
	opts *awssm.Options

	mu       sync.Mutex
	prefixes map[driver.Secrets]string
}

func newAWSBackend(t testing.TB, opts *awssm.Options) *awsBackend {
	return &awsBackend{AWS: integration.SharedAWS(t), opts: opts, prefixes: map[driver.Secrets]string{}}
}

func (b *awsBackend) open(t testing.TB, prefix string) driver.Secrets {
	t.Helper()
	d, err := awssm.NewDriver(b.Client(t), prefix, b.opts)
	if err != nil {
		t.Fatal(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.prefixes[d] = prefix
	return d
}

func (b *awsBackend) prefix(d driver.Secrets) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.prefixes[d]
}

func (b *awsBackend) driver() conformance.Driver {
	d := conformance.Driver{
		Open: func(t testing.TB) driver.Secrets {
			integration.LocalstackBackend.Count(t)
			b.Watch(t)
			return b.open(t, b.Prefix(t)+"/a")
		},
		Reopen: func(t testing.TB, d driver.Secrets) driver.Secrets { return b.open(t, b.prefix(d)) },
		Sibling: func(t testing.TB, d driver.Secrets) driver.Secrets {
			return b.open(t, b.prefix(d)+"-2")
		},
		Tamper: b.tamper,
	}
	if !b.Lags() {
		d.Settle = func(testing.TB, driver.Secrets) {}
	}
	return d
}

// tamper stores data as a version with the ID that the driver computes for the version after the
// current one.
func (b *awsBackend) tamper(t testing.TB, d driver.Secrets, name string, data []byte) {
	t.Helper()
	s, err := d.Fresh(t.Context(), name, driver.Secret{})
	if err != nil {
		t.Fatal(err)
	}
	arn, id, _ := strings.Cut(string(s.Version), " ")
	hash := sha256.New()
	for _, part := range []string{"succ", arn, id} {
		fmt.Fprintf(hash, "%d:%s", len(part), part)
	}
	_, err = b.Client(t).PutSecretValue(t.Context(), &secretsmanager.PutSecretValueInput{
		SecretId: &arn, ClientRequestToken: aws.String(hex.EncodeToString(hash.Sum(nil))), SecretString: aws.String(string(data)),
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestAwssmDriverConforms(t *testing.T) {
	t.Parallel()
	conformance.RunDriver(t, newAWSBackend(t, nil).driver())
}

func TestAwssmConforms(t *testing.T) {
	t.Parallel()
	conformance.RunStore(t, newAWSBackend(t, nil).driver().Store(t, nil))
}

func TestAwssmDriverConformsKeepDeleted(t *testing.T) {
	t.Parallel()
	conformance.RunDriver(t, newAWSBackend(t, &awssm.Options{KeepDeleted: true}).driver())
}
