package driverkit_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore/driverkit"
)

func TestMisses(t *testing.T) {
	t.Parallel()
	var m driverkit.Misses
	now := time.Unix(1_000_000, 0)
	if m.Take("a", now) {
		t.Error("a name that was not added is there")
	}
	m.Add("a", now)
	if !m.Take("a", now.Add(900*time.Millisecond)) {
		t.Error("a miss of this second is not there")
	}
	if m.Take("a", now) {
		t.Error("a miss is there twice")
	}
	m.Add("a", now)
	if m.Take("a", now.Add(time.Second)) {
		t.Error("a miss of a second ago is there")
	}
	m.Add("a", now)
	if m.Take("a", now.Add(-time.Hour)) {
		t.Error("a miss is there although the clock was set back")
	}
	for i := range 10_000 {
		m.Add(fmt.Sprint(i), now)
	}
	if !m.Take("9999", now) || m.Take("0", now) {
		t.Error("not the last misses are there")
	}
}
