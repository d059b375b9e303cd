package crash

import (
	"os"
	"testing"
)

// childEnv names the environment variable that holds a child's order as JSON.
const childEnv = "NIGHTFERRY_CRASH_ORDER"

// TestMain runs the tests, or one order if this process is a child.
func TestMain(m *testing.M) {
	if text := os.Getenv(childEnv); text != "" {
		os.Exit(child(text))
	}
	os.Exit(m.Run())
}
