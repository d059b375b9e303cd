package main

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"sync"

	"nightferry/internal/api"
	"nightferry/internal/config"
	"nightferry/internal/console"
	"nightferry/internal/core"
	"nightferry/internal/door"
	"nightferry/internal/ledger"
	"nightferry/internal/rights"
)

// remoteDoor is the door for clients on other machines.
type remoteDoor struct {
	listener net.Listener // nil: it is off
	options  door.Options
}

// openConsole opens the console's address, unless it is off.
func (d *daemon) openConsole(c *config.Config) (x remoteDoor, err error) {
	l := &c.Listen.Console
	if l.Address == "" {
		return x, nil
	}
	x.options = door.Options{Addr: l.Address, Hosts: c.Hosts(), Certificate: certificateOf(c, &d.core.Door, d.e),
		Server: &http.Server{ErrorLog: slog.NewLogLogger(d.log.Handler(), slog.LevelWarn)}}
	x.listener, err = door.Listen(x.options)
	return x, err
}

// certificateOf returns the source of the console's certificate: the configured files, else the Core's authority.
func certificateOf(c *config.Config, authority *core.Door, e *env) func() (*tls.Certificate, error) {
	l := &c.Listen.Console
	if l.CertificateFile != "" {
		return door.NewFiles(door.FilesOptions{Certificate: l.CertificateFile, Key: l.KeyFile, Now: e.now, Report: authority.Report}).Certificate
	}
	return door.NewMade(door.MadeOptions{Now: e.now, Make: func() ([]byte, []byte, error) { return authority.Certificate(c.Hosts()) }}).Certificate
}

// serveConsole answers until ctx ends.
func (d *daemon) serveConsole(ctx context.Context, x remoteDoor, o api.ServerOptions) error {
	o.Sessions = d.core.SignIn
	var begun sync.WaitGroup
	background := func(work func(context.Context)) { begun.Go(func() { work(ctx) }) }
	o.Pages = console.New(console.Options{Backend: d.backend(), Explain: told, SignOut: "/signin/out", Background: background})
	err := door.Serve(ctx, x.listener, api.Remote(o), x.options)
	begun.Wait()
	return err
}

// consoleDoor is the door as its clients see it.
type consoleDoor struct{ daemon *daemon }

// Address implements api.Console.
func (c consoleDoor) Address(context.Context) (a api.ConsoleAddress, err error) {
	a.URL = c.daemon.console.URL
	if a.URL == "" || c.daemon.console.CertificateFile != "" {
		return a, nil
	}
	pem, err := c.daemon.core.Door.Authority()
	a.Authority = string(pem)
	return a, err
}

// Link implements api.Console.
func (c consoleDoor) Link(ctx context.Context) (l api.ConsoleLink, err error) {
	l.URL, l.Until, err = c.daemon.core.SignIn.Link(ctx, rights.Of(ctx).Name)
	return l, err
}

// Sessions implements api.Console.
func (c consoleDoor) Sessions(context.Context) ([]ledger.Session, error) {
	return c.daemon.core.SignIn.List(), nil
}

// EndSessions implements api.Console.
func (c consoleDoor) EndSessions(ctx context.Context, id, person string) ([]ledger.Session, error) {
	return c.daemon.core.SignIn.End(ctx, id, person, rights.Of(ctx).Name)
}
