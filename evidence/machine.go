package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
)

// machine returns a description of the machine for the report, without names of hosts or
// users.
func machine() string {
	model := runtime.GOARCH
	if data, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.SplitSeq(string(data), "\n") {
			if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	return fmt.Sprintf("%s, %d processors, %s, %s", model, runtime.NumCPU(), runtime.GOOS, runtime.Version())
}

// load returns the system's load average over the last minute, or "not known".
func load() string {
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "not known"
	}
	first, _, _ := strings.Cut(string(data), " ")
	return first
}
