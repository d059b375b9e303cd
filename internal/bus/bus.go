// Package bus transports bytes by subject between the Core and its sites and controls access to subjects. It contains
// the control plane's identities (certificate authority, NATS operator, one signing key per domain), the embedded
// server, and the client with its proxies. It does not interpret messages and guarantees no delivery: a message is lost
// if its recipient is disconnected. Callers therefore send current state repeatedly (level-triggered) and acknowledge
// messages that must not be lost. No other package imports NATS.
package bus

// MaxPayload bounds one message on our own server, in bytes; a foreign cluster may allow less.
const MaxPayload = 1 << 20
