package driverkit_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/driverkit"
)

// The List method of a driver can use FetchListed to read the secrets whose names the
// service has listed.
func ExampleFetchListed() {
	stored := map[string]string{"u1": "first", "u3": "third"} // u2 was deleted after the listing
	read := func(_ context.Context, name string) (driver.Named, error) {
		data, ok := stored[name]
		if !ok {
			return driver.Named{Name: name}, driver.ErrNotFound
		}
		return driver.Named{Name: name, Secret: driver.Secret{Payload: driver.Payload{Data: []byte(data)}}}, nil
	}
	for secret, err := range driverkit.FetchListed(context.Background(), []string{"u1", "u2", "u3"}, nil, read) {
		fmt.Println(secret.Name, len(secret.Data), err)
	}
	// Output:
	// u1 5 <nil>
	// u3 5 <nil>
}

// A driver can use Until to wait until a lagging node returns a version.
func ExampleBackoff_Until() {
	version := 1 // version that the node returns
	lag := driverkit.Backoff{Pause: time.Millisecond, Longest: time.Second, Patience: 10 * time.Second}
	done, err := lag.Until(context.Background(), func() (bool, error) {
		version++
		return version >= 3, nil
	})
	fmt.Println(done, err, version)
	// Output: true <nil> 3
}

// The error of a call matches a class, and its text does not contain the data that was
// sent.
func ExampleCallError() {
	sent := []byte("1000.c0ffee.c0ffee")
	answer := errors.New(`400: value "1000.c0ffee.c0ffee" is too long`)
	if driverkit.Repeats(answer.Error(), sent) {
		answer = errors.New("400: (text not shown)")
	}
	err := driverkit.CallError(context.Background(), answer, driver.ErrRefused)
	fmt.Println(err, errors.Is(err, driver.ErrRefused))
	// Output: the set-up does not allow it: 400: (text not shown) true
}
