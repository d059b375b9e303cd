package core

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"slices"
	"sync/atomic"
	"time"

	"nightferry/internal/bus"
	"nightferry/internal/enrolment"
	"nightferry/internal/wire"
)

// namesFile keeps, below the Core's state, the host names of all addresses that
// sites were ever given. A site that was away when the address changed comes
// back by a former name: the bus's certificate has to have it.
const namesFile = "names.json"

// maxNames bounds the former names in the certificate.
const maxNames = 64

// publicURLs are the addresses that the configuration gives sites to dial; none:
// the listeners' own.
func (l *busLink) publicURLs() []string {
	if l.o.Cluster != nil {
		return l.o.Cluster.URLs
	}
	return l.settings.Load().URLs
}

// publicNames returns the host names of the public addresses, now and before.
func (l *busLink) publicNames() []string {
	var before, names []string
	if err := (jsonFile{l.storage.state, namesFile, 1 << 20}).loadFile(&before); err != nil {
		l.notices.ReportFailure("names", err)
	}
	for _, u := range l.publicURLs() {
		if p, err := url.Parse(u); err == nil && p.Hostname() != "" && !slices.Contains(names, p.Hostname()) {
			names = append(names, p.Hostname())
		}
	}
	for _, n := range before {
		if !slices.Contains(names, n) && len(names) < maxNames {
			names = append(names, n)
		}
	}
	if slices.Equal(names, before) {
		return names
	}
	if err := (jsonFile{l.storage.state, namesFile, 1 << 20}).saveFile(names); err != nil {
		l.notices.ReportFailure("names", err)
	}
	return names
}

// certLife is how long the bus's certificate is good; renewed when a third is
// left.
const certLife = 90 * 24 * time.Hour

func (l *busLink) newCert() error {
	if l.foreign != nil {
		return nil
	}
	hosts := append([]string{"localhost", "127.0.0.1", "::1"}, l.publicNames()...)
	chain, key, err := l.storage.keys.Load().ca.Server(hosts, l.clock.now(), certLife)
	if err != nil {
		return err
	}
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return fmt.Errorf("make the bus's certificate: %w", err)
	}
	l.cert.Store(&pair)
	return nil
}

func (l *busLink) listenBus(ctx context.Context) error {
	if l.foreign != nil {
		return l.joinCluster(ctx)
	}
	if err := l.newCert(); err != nil {
		return err
	}
	var err error
	l.server, err = bus.Start(bus.ServerOptions{
		Name: "nightferry", Addr: l.o.Addr, WebSocketAddr: l.o.WebSocketAddr,
		Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return l.cert.Load(), nil },
		Authority:   l.access.authority.Load(),
		Log:         l.o.BusLog,
		Refused:     func(text string, shown *bus.Grant) { l.busRefuses(ctx, text, shown) },
	})
	if err != nil {
		return err
	}
	seed, public, err := bus.NewIdentity() // its own at every start: nobody keeps it
	if err == nil {
		l.down.client, err = bus.Dial(ctx, bus.ClientOptions{
			Server: l.server, Seed: seed, Name: "core", Now: l.o.Now, Pending: 64 << 20,
			JWT: func() (string, error) {
				return l.access.authority.Load().Core(public, enrolment.CredentialLife, l.o.Now())
			},
			OnEvent: func(e bus.Event) {
				if e.Err != nil && ctx.Err() == nil { // the Core's own end is none
					l.notices.ReportFailure("bus", fmt.Errorf("%s: %w", e.Kind, e.Err))
				}
			},
		})
	}
	if err == nil {
		if err = l.down.client.Subscribe(wire.AllUp, func(subject string, data []byte) { l.receive(subject, data) }); err == nil {
			err = l.down.client.Flush(ctx) // who connects from now on is heard
		}
		if err != nil {
			l.down.client.Close()
		}
	}
	if err != nil {
		l.server.Close()
		return fmt.Errorf("start the bus: %w", err)
	}
	return nil
}

// URLs are the addresses that sites dial.
func (l *busLink) URLs() []string {
	if urls := l.publicURLs(); len(urls) > 0 {
		return urls
	}
	var urls []string
	if addr := l.server.Addr(); addr != "" {
		_, port, _ := net.SplitHostPort(addr)
		urls = append(urls, "tls://localhost:"+port)
	}
	if ws := l.server.WebSocketAddr(); ws != "" {
		_, port, _ := net.SplitHostPort(ws)
		urls = append(urls, "wss://localhost:"+port)
	}
	return urls
}

// busLink is the Core's connection to the bus: its own server, or a cluster of the
// operator.
type busLink struct {
	o        *Options
	settings *atomic.Pointer[Settings]
	storage  *storage
	access   *access
	fleet    *sites
	states   *stateSender
	down     *downlink
	refusals *refusals
	notices  *notices
	clock    *clocks
	receive  func(subject string, data []byte)

	server    *bus.Server // nil with foreign
	foreign   *foreign    // nil: the bus is our own
	strangers strangers
	recheck   chan struct{}
	cert      atomic.Pointer[tls.Certificate]
}

// Pin returns the authority that sites must expect.
func (l *busLink) Pin() bus.Pin {
	if l.foreign != nil {
		return l.foreign.pin
	}
	return l.storage.keys.Load().ca.Fingerprint()
}

// KeepNewest closes all connections of a user but the newest one. On a cluster of the operator's the Core cannot.
func (l *busLink) KeepNewest(public string) error {
	if l.server == nil {
		return nil
	}
	return l.server.KeepNewest(public)
}
