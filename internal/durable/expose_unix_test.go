//go:build unix

package durable

import (
	"os"
	"testing"
)

func expose(t *testing.T, path string) { ok(t, os.Chmod(path, 0o640)) }
