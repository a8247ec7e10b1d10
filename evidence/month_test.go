package main

import (
	"flag"
	"maps"
	"testing"
)

var monthRecords = flag.Int("evidence.records", 20, "records that the simulated month refreshes")

func TestAMonthOfHourlyRefreshesHitsNoQuota(t *testing.T) {
	// The first read, the lease and the commit, and the removal of what the commit
	// before has left; with Google Cloud that is a version, of which the first two
	// hours have none.
	for service, want := range map[string]map[string]int{
		"aws":   {"GetSecretValue": 1, "PutSecretValue": 2, "TagResource": 1, "UntagResource": 1},
		"gcp":   {"AccessSecretVersion": 1, "GetSecret": 1, "UpdateSecret": 2, "AddSecretVersion": 1, "DestroySecretVersion": 1},
		"vault": {"read data": 1, "write data": 2, "write metadata": 1, "delete metadata": 1},
	} {
		t.Run(service, func(t *testing.T) {
			t.Parallel()
			u, err := month(t.Context(), service, *monthRecords)
			if err != nil {
				t.Fatal(err)
			}
			if u.Refused != 0 {
				t.Errorf("%d calls were over a quota", u.Refused)
			}
			calls := maps.Clone(u.Calls)
			if service == "gcp" {
				calls["DestroySecretVersion"] += 2 * u.Records
			}
			for method := range want {
				want[method] *= u.Refreshes
			}
			if !maps.Equal(calls, want) || u.Refreshes != monthHours*u.Records {
				t.Errorf("%d refreshes made the calls %v, want %v", u.Refreshes, calls, want)
			}
			if keeps := map[string]int{"aws": 100, "gcp": 3, "vault": 10}[service]; u.Most != keeps {
				t.Errorf("the service keeps up to %d versions of a record, want %d", u.Most, keeps)
			}
		})
	}
}

// A clock that stands makes all calls those of one second and one minute.
func TestAServiceRefusesWhatIsOverItsQuota(t *testing.T) {
	t.Parallel()
	for service, limit := range map[string]int{"aws": 50, "gcp": 600} {
		var c still
		b, err := newBed(service, c.Now, true)
		if err != nil {
			t.Fatal(err)
		}
		defer b.close()
		writes := 0
		for range limit + 1 {
			if err = b.bare.put(t.Context(), barePrefix+"/one", []byte("x")); err != nil {
				break
			}
			writes++
		}
		if err == nil || writes >= limit+1 || writes < limit-2 || b.meter.refused.Load() != 1 {
			t.Errorf("%s: %d writes, %d refused, %v", service, writes, b.meter.refused.Load(), err)
		}
	}
}
