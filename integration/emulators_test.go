package integration_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/tokenkeep/tokenkeep/integration"
)

// An inability is something that a server does in another way than the service
// that it stands for.
type inability struct {
	cases  *regexp.Regexp // the cases that it makes fail
	reason string
}

// localstackCannot is what LocalStack's Secrets Manager, which is moto's with
// changes, is known to do in another way than the service.
var localstackCannot = []inability{
	{regexp.MustCompile(`/DR-23 `), "its value of a secret has no documented limit, and is cut nowhere"},
}

// cannot skips the cases that the server is known to fail, by name.
func (b *awsBackend) cannot(t testing.TB) {
	t.Helper()
	if !strings.HasPrefix(b.About(), "LocalStack") {
		return
	}
	for _, i := range localstackCannot {
		if i.cases.MatchString(t.Name()) {
			integration.LocalstackBackend.Cannot(t, i.reason)
		}
	}
}
