package gcpsm

import (
	"fmt"
	"testing"
)

// TestCacheFull checks that newer metadata of a cached secret takes no room from another secret.
func TestCacheFull(t *testing.T) {
	t.Parallel()
	var c cache
	for i := range maxCached {
		c.add(fmt.Sprint(i), metadata{})
	}
	last := fmt.Sprint(maxCached - 1)
	c.add(last, metadata{})
	if n := len(c.recent) + len(c.older); n != maxCached {
		t.Errorf("the cache has %d secrets", n)
	}
	c.add("another", metadata{})
	for _, name := range []string{"another", last} {
		if _, ok := c.get(name); !ok {
			t.Errorf("the secret %s is not in the cache", name)
		}
	}
}

// TestCacheKeepsLastUsed checks that a full cache keeps the secrets that were used last.
func TestCacheKeepsLastUsed(t *testing.T) {
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
