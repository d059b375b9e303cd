package api

import (
	"context"

	"nightferry/internal/ledger"
	"nightferry/internal/rights"
)

type guardedConsole struct {
	next Console
	*guard
}

// Address implements Console. The address is public: a client sees it when it connects.
func (g guardedConsole) Address(ctx context.Context) (ConsoleAddress, error) {
	if err := g.may(ctx, rights.Viewer, "console address", true); err != nil {
		return ConsoleAddress{}, err
	}
	return g.next.Address(ctx)
}

// Link implements Console. A link has the rights of an account of the Core's machine, so that only such an account gets one:
// a token or a session would outlive its end by it.
func (g guardedConsole) Link(ctx context.Context) (ConsoleLink, error) {
	if p := rights.Of(ctx); !p.Local {
		return ConsoleLink{}, g.refuse(ctx, &rights.DeniedError{Who: p, What: "console link", Local: true})
	}
	return g.next.Link(ctx)
}

// Sessions implements Console.
func (g guardedConsole) Sessions(ctx context.Context) ([]ledger.Session, error) {
	if err := g.mayAll(ctx, rights.Admin, "console sessions"); err != nil {
		return nil, err
	}
	return g.next.Sessions(ctx)
}

// EndSessions implements Console.
func (g guardedConsole) EndSessions(ctx context.Context, id, person string) ([]ledger.Session, error) {
	if err := g.mayAll(ctx, rights.Admin, "console end "+id+person); err != nil {
		return nil, err
	}
	return g.next.EndSessions(ctx, id, person)
}
