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

// connectionsWithin returns how many connections the server may take from a limit of descriptors. The rest is left
// to the local socket, the ledger and the store: a halt order must be possible while peers without credentials use
// up all connections. The server counts a connection from its acceptance, before TLS.
func connectionsWithin(descriptors uint64) int {
	kept := max(128, descriptors/4)
	if descriptors <= kept {
		return 1
	}
	return int(min(maxConnections, descriptors-kept))
}
