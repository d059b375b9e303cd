package agent

import (
	"sync"
	"time"

	"nightferry/internal/durable"
	"nightferry/internal/spool"
)

// session is the agent's link to the Core: the identity, the connection and its
// credential, the clocks, and the events spooled until acknowledged. It makes no
// decisions about content.
type session struct {
	o        Options
	id       *Identity
	root     *durable.Root // the state directory
	spool    *spool.Spool
	bus      Bus
	reaches  *reaches
	instance []byte       // of this process
	starts   spool.Starts // with this process; of the goroutine that sends hellos

	coreClock, storeClock offset

	compared time.Time // when wrong clocks were last measured for nothing else

	hello  signal // the held releases have changed, or the Core is reachable again
	report signal // there are events to send
	acks   chan ack
	beat   signal // its period or its content has changed

	link coreLink

	mu  sync.Mutex
	jwt string // the credential; guarded by mu
}

func newSession(o Options, id *Identity, root *durable.Root, sp *spool.Spool) session {
	return session{o: o, id: id, root: root, spool: sp, reaches: newReaches(), instance: random16(),
		hello: make(signal, 1), report: make(signal, 1), beat: make(signal, 1), acks: make(chan ack, 16), link: coreLink{news: make(signal, 1)}}
}
