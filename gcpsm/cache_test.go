package gcpsm

import (
	"fmt"
	"testing"
)

// TestCacheFull checks that newer metadata of a cached secret takes no room from another secret.
func TestCacheFull(t *testing.T) {
	t.Parallel()
	c := &cache{of: map[string]metadata{}}
	for i := range maxCached {
		c.add(fmt.Sprint(i), metadata{})
	}
	c.add("0", metadata{})
	if len(c.of) != maxCached {
		t.Errorf("the cache has %d secrets", len(c.of))
	}
	c.add("another", metadata{})
	if _, known := c.of["another"]; len(c.of) != maxCached || !known {
		t.Errorf("the cache has %d secrets, another is there: %v", len(c.of), known)
	}
}
