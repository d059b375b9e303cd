package ledger

import (
	"context"
	"time"
)

// Options of a Ledger.
type Options struct {
	Now func() time.Time // required
}

// Ledger is an open ledger, safe for use by several goroutines.
type Ledger struct {
	now func() time.Time
}

// Open opens the ledger at path, makes it when it is missing, and brings its
// schema up to date. The folder must exist. A ledger of a newer program is a
// *NewerError.
func Open(ctx context.Context, path string, o Options) (*Ledger, error) { panic("later") }

// Close waits for the changes under way and closes the file.
func (l *Ledger) Close() error { panic("later") }
