//go:build !windows

package verify

// keepsModes: permission bits are part of a release here.
const keepsModes = true
