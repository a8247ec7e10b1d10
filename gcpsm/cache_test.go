package gcpsm

import (
	"fmt"
	"testing"
)

// TestCacheFull checks that a full cache keeps the secrets that were used last.
func TestCacheFull(t *testing.T) {
	t.Parallel()
	var c cache
	const secrets = 10 * maxCached
	for i := range secrets {
		c.add(fmt.Sprint(i), metadata{})
		if _, ok := c.get("0"); !ok {
			t.Fatalf("a secret that is always used is not in the cache after %d secrets", i)
		}
		if n := len(c.recent) + len(c.older); n > maxCached {
			t.Fatalf("the cache has %d secrets", n)
		}
	}
	for i := secrets - maxCached/2 + 1; i < secrets; i++ {
		if _, ok := c.get(fmt.Sprint(i)); !ok {
			t.Errorf("secret %d of %d is not in the cache", i, secrets)
		}
	}
	c.drop("0")
	if _, ok := c.get("0"); ok {
		t.Error("a secret that was dropped is in the cache")
	}
}
