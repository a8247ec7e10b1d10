//go:build !unix

package filestore_test

import (
	"os/exec"
	"testing"
)

func asNobody(*testing.T, *exec.Cmd) bool { return false }
