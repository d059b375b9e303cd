package bus

// maxConnections is the default limit of connections.
const maxConnections = 16384
