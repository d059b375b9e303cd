//go:build !windows

package apply

// keepsModes: permission bits are part of a release here.
const keepsModes = true

// coarse is how exactly a file system may keep a time, in nanoseconds: FAT
// keeps two seconds.
const coarse = 2e9
