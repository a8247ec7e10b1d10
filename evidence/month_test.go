package main

import (
	"flag"
	"fmt"
	"maps"
	"testing"
	"testing/synctest"
)

var monthRecords = flag.Int("evidence.records", 20, "records that the simulated month refreshes")

func TestMonth(t *testing.T) {
	// A refresh reads the record, takes the lease, commits, and removes outdated versions and
	// labels. On Google Cloud, a refresh removes a version, except in the first two hours. On
	// Vault, a refresh removes a label, except in the first hour. On AWS, a refresh in every
	// tenth hour removes ten labels.
	for service, want := range map[string]map[string]int{
		"aws":   {"GetSecretValue": 1, "PutSecretValue": 2, "TagResource": 1},
		"gcp":   {"AccessSecretVersion": 1, "GetSecret": 1, "UpdateSecret": 2, "AddSecretVersion": 1, "DestroySecretVersion": 1},
		"vault": {"read data": 1, "write data": 2, "write metadata": 1, "delete metadata": 1},
		"k8s":   {"get": 1, "patch": 2},
	} {
		t.Run(service, func(t *testing.T) {
			t.Parallel()
			var u usage
			var err error
			synctest.Test(t, func(t *testing.T) { u, err = month(t.Context(), service, *monthRecords) })
			if err != nil {
				t.Fatal(err)
			}
			report(t, attrMonth, u)
			if u.Refused != 0 {
				t.Errorf("%d calls were over a quota", u.Refused)
			}
			for method := range want {
				want[method] *= u.Refreshes
			}
			switch service {
			case "aws":
				want["UntagResource"] = (monthHours - 1) / 10 * u.Records
			case "gcp":
				want["DestroySecretVersion"] -= 2 * u.Records
			case "vault":
				want["delete metadata"] -= u.Records
			}
			if !maps.Equal(u.Calls, want) || u.Refreshes != monthHours*u.Records {
				t.Errorf("%d refreshes made the calls %v, want %v", u.Refreshes, u.Calls, want)
			}
			if keeps := map[string]int{"aws": 100, "gcp": 3, "vault": 10, "k8s": 1}[service]; u.Most != keeps {
				t.Errorf("the service keeps up to %d versions of a record, want %d", u.Most, keeps)
			}
		})
	}
}

// TestServiceQuota checks that a service refuses the first write over its quota. The clock is
// stopped, so that all calls fall into the same second and the same minute.
func TestServiceQuota(t *testing.T) {
	t.Parallel()
	for service, limit := range map[string]int{"aws": 50, "gcp": 200} { // gcp: 600 writes, three for a secret
		var c still
		b, err := newBed(service, c.Now, true)
		if err != nil {
			t.Fatal(err)
		}
		defer b.close()
		writes := 0
		for range limit + 1 {
			if err = b.bare.put(t.Context(), fmt.Sprintf("%s/%d", barePrefix, writes), []byte("x")); err != nil {
				break
			}
			writes++
		}
		if err == nil || writes != limit || b.meter.refused.Load() != 1 {
			t.Errorf("%s: %d writes, %d refused, %v", service, writes, b.meter.refused.Load(), err)
		}
	}
}
