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
	"runtime"
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
	db *database

	Sites         Sites         // identities, tokens and sightings
	Incidents     Incidents     // with their members
	Halts         Halts         // halt orders and who obeys them
	Measurements  Measurements  // of the Core's own sources
	APITokens     APITokens     // of the HTTP interface
	Sessions      Sessions      // of the console
	KeyedRequests KeyedRequests // requests with an idempotency key
	Jobs          Jobs          // that clients have asked for
}

// Stores of one family of tables each. They share the ledger's writer.
type (
	// Sites keeps identities, enrollment tokens and sightings.
	Sites struct{ db *database }
	// Incidents keeps incidents and their members.
	Incidents struct{ db *database }
	// Halts keeps halt orders and their confirmations.
	Halts struct{ db *database }
	// Measurements keeps the Core's measurements of its own sources.
	Measurements struct{ db *database }
	// APITokens keeps tokens of the HTTP interface.
	APITokens struct{ db *database }
	// Sessions keeps the sessions of people who have signed in.
	Sessions struct{ db *database }
	// KeyedRequests keeps the answers to requests with an idempotency key.
	KeyedRequests struct{ db *database }
	// Jobs keeps the long work that clients have asked for.
	Jobs struct{ db *database }
)

// database is the file and its one writer.
type database struct {
	path  string
	now   func() time.Time
	core  [16]byte
	write *sql.DB // one connection, used only by the writer
	read  *sql.DB
	vfs   string // parameter of each connection; empty: the system's

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
	steps, err := readMigrations()
	if err != nil {
		return nil, err
	}
	return openLedger(ctx, path, o, steps)
}

func openLedger(ctx context.Context, path string, o Options, steps []string) (_ *Ledger, err error) {
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
	db := &database{path: path, now: o.Now, changes: make(chan *change), closing: make(chan struct{})}
	l := &Ledger{db: db, Sites: Sites{db}, Incidents: Incidents{db}, Halts: Halts{db}, Measurements: Measurements{db}, APITokens: APITokens{db}, Sessions: Sessions{db}, KeyedRequests: KeyedRequests{db}, Jobs: Jobs{db}}
	defer func() {
		if err != nil {
			_ = l.db.closeFiles() // the first error is more useful
		}
	}()
	if err := l.db.openWriter(ctx, steps); err != nil {
		return nil, err
	}
	var core []byte
	if err := l.db.write.QueryRowContext(ctx, "SELECT core FROM meta").Scan(&core); err != nil {
		return nil, fmt.Errorf("open ledger %q: %w", path, classifyError(err))
	}
	copy(l.db.core[:], core)
	if l.db.read, err = openPool(path, db.vfs, "_pragma=query_only(1)", readers); err != nil {
		return nil, err
	}
	// The writer is not bound to the context of Open; Close ends it.
	background := context.WithoutCancel(ctx)
	l.db.writer.Go(func() { l.db.runWriter(background) })
	return l, nil
}

// inMemory is SQLite's VFS that keeps the wal-index in memory instead of in the file -shm. It locks the file for this
// process alone, which a caller does anyway; programs for backups cannot read it meanwhile. Windows has none like it.
const inMemory = "vfs=unix-excl&"

// openWriter opens the writer's connection, and sets the VFS for all connections. On a full volume there may
// be no room for the file -shm: the ledger is then opened without it, so that it can be read, and written again once
// there is room.
func (d *database) openWriter(ctx context.Context, steps []string) error {
	first := ""
	if info, err := os.Stat(d.path); err != nil || info.Size() == 0 {
		first = "_pragma=auto_vacuum(2)&" // before anything is written; later, it would be a write of its own
	}
	open := func() (err error) {
		if d.write, err = openPool(d.path, d.vfs+first, "_txlock=immediate", 1); err == nil {
			err = migrateSchema(ctx, d.write, d.path, steps)
		}
		return err
	}
	err := open()
	if err == nil || runtime.GOOS == "windows" || !lacksRoom(err) {
		return err
	}
	d.vfs = inMemory
	return errors.Join(d.write.Close(), open())
}

// openPool opens a pool of identical connections. Pragmas apply to a connection, not to the file. Those in first, which
// ends with &, come before the others.
func openPool(path, first, extra string, conns int) (*sql.DB, error) {
	p := filepath.ToSlash(path)
	if !strings.HasPrefix(p, "/") {
		p = "/" + p // C:/… becomes file:///C:/…
	}
	dsn := "file://" + (&url.URL{Path: p}).EscapedPath() + "?mode=rw&" + first + "_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)" +
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
	l.db.closed.Do(func() { close(l.db.closing) })
	l.db.writer.Wait()
	return l.db.closeFiles()
}

func (d *database) closeFiles() error {
	var errs []error
	for _, db := range []*sql.DB{d.read, d.write} { // the writer last: closing it removes the -wal file
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close ledger %q: %w", d.path, err)
	}
	return nil
}

// CoreID returns the 16 random bytes generated when the ledger was created.
func (l *Ledger) CoreID() [16]byte { return l.db.core }
