// Package chaos holds only a test: a whole fleet of real processes while everything around it breaks at once.
//
// A Core and its agents run as released, against a real S3 server. For a while the test kills and restarts them, cuts
// and stalls their connections, and flips bits in control and content traffic. Meanwhile it publishes and sends sync
// requests. Then it stops all faults, and no damage may remain: every site holds the newest release, and every file has
// exactly one outcome in each run. A seed determines all actions and their times; NIGHTFERRY_SEED repeats it.
package chaos
