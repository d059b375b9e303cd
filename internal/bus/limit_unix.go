//go:build unix

package bus

import "golang.org/x/sys/unix"

// defaultConnections returns the default of ServerOptions.MaxConnections.
func defaultConnections() int {
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) != nil {
		return maxConnections
	}
	return connectionsWithin(uint64(l.Cur))
}
