package bucket

import "syscall"

// The errors of Winsock, which package syscall's Unix names do not match.
const (
	errRefused = syscall.Errno(10061) // WSAECONNREFUSED
	errReset   = syscall.WSAECONNRESET
)
