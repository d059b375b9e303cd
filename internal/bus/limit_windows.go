package bus

// defaultConnections returns the default of ServerOptions.MaxConnections. Windows limits no sockets of a process.
func defaultConnections() int { return maxConnections }
