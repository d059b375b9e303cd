// Package chaos holds no code, only a test: a whole fleet of real processes while everything around it breaks at once.
//
// A Core and its agents run as they ship, before a real S3 server. For a while the test kills and restarts them, cuts
// and stalls the lines between them, flips bits on control and content, and meanwhile publishes and orders syncs. Then
// it lets go, and demands that all is as if nothing had happened: every site holds the newest release, and every file
// has exactly one outcome in each run. What is done, and when, follows from a seed: NIGHTFERRY_SEED repeats it.
package chaos
