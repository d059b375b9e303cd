package testbed

import "os"

// Soak reports whether the tests are to run at full length, which takes hours: scripts/soak sets NIGHTFERRY_SOAK=1. A
// test never skips because of it: it runs with smaller numbers.
func Soak() bool { return os.Getenv("NIGHTFERRY_SOAK") != "" }
