package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync/atomic"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// maxGroup bounds the number of changes in a transaction, so that no caller waits long for others.
const maxGroup = 256

var errClosed = errors.New("the ledger is closed")

// change is one caller's change. do runs on the writer's goroutine, in a savepoint.
type change struct {
	do   func(*tx) error
	err  error
	done chan struct{}
	// taken is set once: by the writer when it starts the change, or by a caller that gives up. do writes to the
	// caller's variables, so a caller must not return while do runs.
	taken atomic.Bool
}

// makeChange makes a change, grouped with other waiting changes, and returns once it is durable. act names the change in
// errors.
func (d *database) makeChange(ctx context.Context, act string, do func(*tx) error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w", act, err) // select would at times make the change all the same
	}
	c := &change{do: do, done: make(chan struct{})}
	select {
	case d.changes <- c:
	case <-d.closing:
		return fmt.Errorf("%s: %w", act, errClosed)
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", act, ctx.Err())
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		if c.taken.CompareAndSwap(false, true) {
			return fmt.Errorf("%s: %w", act, ctx.Err())
		}
		<-c.done // it takes at most one transaction
	}
	if c.err != nil {
		return fmt.Errorf("%s: %w", act, classifyError(c.err))
	}
	return nil
}

// runWriter is the writer. While it syncs one transaction, the next callers queue up and form the next group. It never
// delays a change to fill a group.
func (d *database) runWriter(ctx context.Context) {
	for {
		var group []*change
		select {
		case c := <-d.changes:
			group = append(group, c)
		case <-d.closing:
			return
		}
	more:
		for len(group) < maxGroup {
			select {
			case c := <-d.changes:
				group = append(group, c)
			default:
				break more
			}
		}
		d.commitGroup(ctx, group)
	}
}

// commitGroup makes a group of changes in one transaction and answers each caller.
func (d *database) commitGroup(ctx context.Context, group []*change) {
	err := d.commitOnce(ctx, group)
	for _, c := range group {
		if c.err == nil {
			c.err = err
		}
		close(c.done)
	}
}

func (d *database) commitOnce(ctx context.Context, group []*change) (err error) {
	conn, err := d.write.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	x := &tx{ctx: ctx, conn: conn}
	if err := x.execSQL("BEGIN IMMEDIATE"); err != nil {
		return err
	}
	// A connection must not be returned with an open transaction. If SQLite has
	// already rolled back, this fails harmlessly.
	undo := func() { _ = x.execSQL("ROLLBACK") }
	for _, c := range group {
		if !c.taken.CompareAndSwap(false, true) {
			continue // the caller has given up
		}
		fatal, err := x.runChange(c.do)
		if fatal {
			// No caller has been answered yet, so all fail the same way.
			undo()
			return err
		}
		c.err = err
	}
	if err := x.execSQL("COMMIT"); err != nil {
		undo()
		return err
	}
	return nil
}

// tx is a transaction as a change sees it. It uses the writer's context: if a caller's context ended midway, it would
// break the transaction of all.
type tx struct {
	ctx  context.Context
	conn *sql.Conn
}

// runChange makes one change, all or nothing. fatal means that the transaction itself is lost.
func (x *tx) runChange(do func(*tx) error) (fatal bool, err error) {
	if err := x.execSQL("SAVEPOINT change"); err != nil {
		return true, err
	}
	if err := do(x); err != nil {
		if breaksTx(err) {
			return true, err
		}
		if err := x.execSQL("ROLLBACK TO change"); err != nil {
			return true, err
		}
		if rel := x.execSQL("RELEASE change"); rel != nil {
			return true, rel
		}
		return false, err
	}
	if err := x.execSQL("RELEASE change"); err != nil {
		return true, err
	}
	return false, nil
}

func (x *tx) execSQL(query string, args ...any) error {
	_, err := x.conn.ExecContext(x.ctx, query, args...)
	return err
}

// execCount executes a statement and returns the number of changed rows.
func (x *tx) execCount(query string, args ...any) (int64, error) {
	r, err := x.conn.ExecContext(x.ctx, query, args...)
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

func (x *tx) queryRow(query string, args ...any) *sql.Row {
	return x.conn.QueryRowContext(x.ctx, query, args...)
}

// breaksTx reports whether SQLite may have ended the transaction after err.
func breaksTx(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && e.Code()&0xff != sqlite3.SQLITE_CONSTRAINT
}

// lacksRoom reports whether an error of opening the ledger may mean that its volume is full.
func lacksRoom(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && (e.Code()&0xff == sqlite3.SQLITE_FULL || e.Code()&0xff == sqlite3.SQLITE_IOERR || e.Code()&0xff == sqlite3.SQLITE_CANTOPEN)
}

// classifyError maps SQLite's errors to the errors that callers distinguish.
func classifyError(err error) error {
	var e *sqlite.Error
	if errors.As(err, &e) && e.Code()&0xff == sqlite3.SQLITE_FULL {
		return fmt.Errorf("%w (%w)", ErrFull, err)
	}
	if errors.Is(err, sql.ErrNoRows) {
		return ErrNotFound
	}
	return err
}
