// Package bus carries bytes by subject between the Core and its sites, and says who may use which subject. It holds the
// control plane's identities (certificate authority, NATS operator, one signing key per domain), the embedded server
// and the client with its proxies. It knows nothing of what messages mean, and it promises no delivery: what is
// published while the other side is away is lost. Whoever uses it states what should be so again (level-triggered),
// and acknowledges what must not be lost. No other room imports NATS.
package bus

// MaxPayload bounds one message in bytes, on our own server; a foreign cluster may set less.
const MaxPayload = 1 << 20
