package crash

import (
	"os"
	"testing"
)

// childEnv holds the order of a child, as JSON: see order.
const childEnv = "NIGHTFERRY_CRASH_ORDER"

// TestMain is the program of the tests and of the children that they kill.
func TestMain(m *testing.M) {
	if text := os.Getenv(childEnv); text != "" {
		os.Exit(child(text))
	}
	os.Exit(m.Run())
}
