//go:build unix && !linux

package durable

// trustsGroup is false: the members of a group are not in files there.
func trustsGroup(uint32) bool { return false }

// readOnly is false: a writable mode is refused on every mount.
func readOnly(int) bool { return false }
