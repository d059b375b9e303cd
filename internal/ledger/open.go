package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"modernc.org/sqlite"
)

// Options of a Ledger.
type Options struct {
	Now func() time.Time // required
}

// Ledger is an open ledger, safe for concurrent use. Only one process at a time may open it: the caller must hold a
// lock on its folder.
type Ledger struct {
	path  string
	now   func() time.Time
	core  [16]byte
	write *sql.DB // one connection, used only by the writer
	read  *sql.DB

	changes chan *change
	closing chan struct{}
	closed  sync.Once
	writer  sync.WaitGroup
}

// readers is the number of concurrent read connections. Each has a page cache of up to 2 MiB.
const readers = 4

// Open opens the ledger at path and migrates its schema. It creates the file if it is missing, readable by its owner
// only; the folder must exist. A ledger written by a newer program is a *NewerError. The context applies only to Open.
func Open(ctx context.Context, path string, o Options) (*Ledger, error) {
	steps, err := migrations()
	if err != nil {
		return nil, err
	}
	return open(ctx, path, o, steps)
}

func open(ctx context.Context, path string, o Options, steps []string) (_ *Ledger, err error) {
	if path, err = filepath.Abs(path); err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	// SQLite would apply the umask of the process. The -wal and -shm files get the mode of the file itself.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		err = f.Close()
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("create ledger: %w", err)
	}
	l := &Ledger{path: path, now: o.Now, changes: make(chan *change), closing: make(chan struct{})}
	defer func() {
		if err != nil {
			_ = l.closeFiles() // the first error is more useful
		}
	}()
	if l.write, err = connect(path, "_txlock=immediate", 1); err != nil {
		return nil, err
	}
	if err := migrate(ctx, l.write, path, steps); err != nil {
		return nil, err
	}
	var core []byte
	if err := l.write.QueryRowContext(ctx, "SELECT core FROM meta").Scan(&core); err != nil {
		return nil, fmt.Errorf("open ledger %q: %w", path, classify(err))
	}
	copy(l.core[:], core)
	if l.read, err = connect(path, "_pragma=query_only(1)", readers); err != nil {
		return nil, err
	}
	// The writer is not bound to the context of Open; Close ends it.
	background := context.WithoutCancel(ctx)
	l.writer.Go(func() { l.serve(background) })
	return l, nil
}

// connect opens a pool of identical connections. Pragmas apply to a connection, not to the file.
func connect(path, extra string, conns int) (*sql.DB, error) {
	p := filepath.ToSlash(path)
	if !strings.HasPrefix(p, "/") {
		p = "/" + p // C:/… becomes file:///C:/…
	}
	dsn := "file://" + (&url.URL{Path: p}).EscapedPath() + "?mode=rw&_pragma=busy_timeout(10000)&_pragma=auto_vacuum(2)&_pragma=journal_mode(WAL)" +
		"&_pragma=synchronous(FULL)&_pragma=foreign_keys(1)&_pragma=trusted_schema(0)&" + extra
	c, err := sqlite.NewConnector(dsn)
	if err != nil {
		return nil, fmt.Errorf("open ledger %q: %w", path, err)
	}
	db := sql.OpenDB(c)
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	return db, nil
}

// Close waits for pending changes and closes the file. Later changes fail.
func (l *Ledger) Close() error {
	l.closed.Do(func() { close(l.closing) })
	l.writer.Wait()
	return l.closeFiles()
}

func (l *Ledger) closeFiles() error {
	var errs []error
	for _, db := range []*sql.DB{l.read, l.write} { // the writer last: closing it removes the -wal file
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close ledger %q: %w", l.path, err)
	}
	return nil
}

// CoreID returns the 16 random bytes generated when the ledger was created.
func (l *Ledger) CoreID() [16]byte { return l.core }
