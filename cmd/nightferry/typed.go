package main

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/term"

	"nightferry/internal/vault"
)

// typed reads a secret from standard input. A person at a terminal is asked,
// and what is typed is not shown.
func (e *env) typed(what string) ([]byte, error) {
	if f, ok := e.stdin.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		_, _ = fmt.Fprintf(e.stderr, "%s: ", what)
		b, err := term.ReadPassword(int(f.Fd()))
		_, _ = fmt.Fprintln(e.stderr)
		if err != nil {
			return nil, fmt.Errorf("read the %s: %w", what, err)
		}
		return b, nil
	}
	b, err := io.ReadAll(io.LimitReader(e.stdin, vault.MaxValue+1))
	if err != nil {
		return nil, fmt.Errorf("read the %s from standard input: %w", what, err)
	}
	return b, nil
}
