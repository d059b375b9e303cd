package core

import (
	"bytes"
	"context"
	"errors"
	"io/fs"

	"nightferry/internal/kinds"
	"nightferry/internal/signin"
	"nightferry/internal/wire"
)

// Door gives a TCP door for the Core's clients the certificate and the reports of the Core.
type Door struct {
	storage *storage
	notices *notices
	clock   *clocks
}

// errNoHosts would be a fault of the caller.
var errNoHosts = errors.New("make a certificate: no host is named")

// Certificate issues a certificate by the Core's authority, for 90 days.
func (d *Door) Certificate(hosts []string) (chain, key []byte, err error) {
	if len(hosts) == 0 {
		return nil, nil, errNoHosts
	}
	return d.storage.keys.Load().ca.Server(hosts, d.clock.now(), certLife)
}

// Authority returns the certificate of the Core's authority, as PEM.
func (d *Door) Authority() ([]byte, error) {
	cert, _, err := d.storage.keys.Load().ca.PEM()
	return cert, err
}

// Report opens an incident about the door's certificate, or resolves it with nil.
func (d *Door) Report(err error) {
	if err == nil {
		d.notices.ReportSuccess("certificate")
		return
	}
	d.notices.ReportFailure("certificate", err)
}

// SecretSignIn is the name of the client's secret at the identity provider.
const SecretSignIn = "signin"

func openSignIn(ctx context.Context, c *Core) (*signin.Service, error) {
	return signin.Open(ctx, signin.Options{
		Store: &c.ledger.Sessions, Now: c.o.Now, URL: c.o.ConsoleURL,
		Audit: func(ctx context.Context, who, what, object, detail string) error {
			return c.notices.Audit(WithActor(ctx, who), what, object, detail)
		},
		Linked:   func(id, text string) { c.incidents.Raise(kinds.ConsoleLink, id, wire.Address{}, text) },
		Settings: func() *signin.Settings { return c.settings.Load().SignIn },
		Secret: func(ctx context.Context) (string, error) {
			s, _, err := c.vault.Get(ctx, SecretSignIn, "sign people in")
			if errors.Is(err, fs.ErrNotExist) {
				return "", nil
			}
			return string(bytes.TrimSpace(s.Reveal())), err
		},
	})
}
