package testbed

import "os"

// Soak reports whether the tests should run at full length, which takes hours: scripts/soak sets NIGHTFERRY_SOAK=1. No
// test is skipped because of it; without it, tests use smaller numbers.
func Soak() bool { return os.Getenv("NIGHTFERRY_SOAK") != "" }
