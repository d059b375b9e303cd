package agent

import (
	"sync"

	"nightferry/internal/durable"
	"nightferry/internal/spool"
)

// session is what the agent keeps up with the Core: the identity, the connection
// and its credential, the clocks, and what is spooled until it is acknowledged.
// It decides nothing about content.
type session struct {
	o        Options
	id       *Identity
	root     *durable.Root // the state directory
	spool    *spool.Spool
	bus      Bus
	instance []byte // of this process

	coreClock, storeClock offset

	hello  signal // what the site holds has changed, or the Core is back
	report signal // there is something to send
	acks   chan ack
	beat   signal // its period, or what it has to say, has changed

	mu  sync.Mutex
	jwt string // the credential; guarded by mu
}

func newSession(o Options, id *Identity, root *durable.Root, sp *spool.Spool) session {
	return session{o: o, id: id, root: root, spool: sp, instance: random16(),
		hello: make(signal, 1), report: make(signal, 1), beat: make(signal, 1), acks: make(chan ack, 16)}
}
