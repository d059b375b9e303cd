// Package gates tries every gate of a fleet as everybody: each subject of the
// bus, each object that a site can ask URLs for, each call of the Core's local
// socket, and the job logs, as somebody unknown, as the holder of a token, as a
// site, as another site of the same domain, as one of another domain, and as
// those whose identity was revoked or has expired.
//
// A real Core runs for it, in a process and (where the tests run as root) under
// an account of its own, before a real S3 server. What is found is compared
// with what docs/threats.md promises; go test ./internal/gates -update writes
// it there.
package gates
