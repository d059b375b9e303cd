// Package spool stores the agent's durable state in one SQLite file: objects received from the Core and events that
// the Core has not yet acknowledged. It makes no decisions.
//
// When a method returns nil, its data survives a kill and a power cut (WAL, synchronous=FULL). Events have a
// sequence without gaps that starts at 1 in each generation. A Core that has each sequence number of a generation
// exactly once has lost and doubled nothing. If a spool is restored to an earlier state, with its machine, it would
// issue numbers a second time: see Renumber.
//
// Outcomes are counted exactly once because they are written before they happen. Each commit of package apply
// follows this order: Intend stores the intended outcomes; apply writes the journal and commits; Settle stores the
// outcomes that differ; apply removes the journal. If the journal is gone, the outcomes are either settled or did
// not happen. If the journal exists, the next process rolls it forward and calls Settle again, which has no effect
// the second time. Finish turns settled outcomes into events, one per path, in the transaction that ends the run.
//
// A corrupt file is renamed with a date. The first event of the new file, which has a new generation, reports that.
package spool

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"nightferry/internal/durable"
	"nightferry/internal/wire"
)

// ErrFull means that the volume, or the spool's size limit, is full. Nothing of the call was stored. The same call
// can be repeated once there is room.
var ErrFull = errors.New("the agent's database cannot grow: the disk, or its bound, is full")

var errCorrupt = errors.New("the agent's database is corrupt")

// CorruptProblem is the kind of the problem reported for a spool that was set aside.
const CorruptProblem = "spool"

// Options of a Spool.
type Options struct {
	Now      func() time.Time // required
	MaxBytes int64            // of the file; 0: 4 GiB
}

// Spool is an open spool. It is safe for concurrent use. Only one process at a time may hold it, so a process must
// lock the folder before it opens the spool.
type Spool struct {
	db         *sql.DB
	now        func() time.Time
	generation atomic.Pointer[[16]byte]
	aside      string
	page       int64
}

const schema = `
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS events (seq INTEGER PRIMARY KEY AUTOINCREMENT, run BLOB NOT NULL, channel TEXT NOT NULL, at INTEGER NOT NULL, kind INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS holds (channel TEXT PRIMARY KEY, number INTEGER NOT NULL, release BLOB NOT NULL, verified INTEGER NOT NULL, target TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS filled (channel TEXT NOT NULL, target TEXT NOT NULL, PRIMARY KEY (channel, target)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS orders (channel TEXT PRIMARY KEY, start INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS runs (channel TEXT PRIMARY KEY, id BLOB NOT NULL, number INTEGER NOT NULL, release BLOB NOT NULL, target TEXT NOT NULL, start INTEGER NOT NULL, dry INTEGER NOT NULL, began INTEGER NOT NULL, checking INTEGER NOT NULL, fetched INTEGER NOT NULL, wire INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS outcomes (n INTEGER PRIMARY KEY AUTOINCREMENT, channel TEXT NOT NULL, state INTEGER NOT NULL, pass INTEGER NOT NULL, keys BLOB NOT NULL, body BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS outcomes_of ON outcomes (channel, state);
CREATE TABLE IF NOT EXISTS problems (kind TEXT NOT NULL, channel TEXT NOT NULL, text TEXT NOT NULL, since INTEGER NOT NULL, PRIMARY KEY (kind, channel)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lent (channel TEXT NOT NULL, key TEXT NOT NULL, url TEXT NOT NULL, until INTEGER NOT NULL, PRIMARY KEY (channel, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS waiting (channel TEXT PRIMARY KEY, since INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS failures (channel TEXT PRIMARY KEY, number INTEGER NOT NULL, state TEXT NOT NULL, cause TEXT NOT NULL, at INTEGER NOT NULL) WITHOUT ROWID;
PRAGMA user_version = 3;
`

const version = 3

// Open opens the spool at path and creates it if it is missing. The folder must exist. Open renames a corrupt file,
// see Aside.
func Open(ctx context.Context, path string, o Options) (*Spool, error) {
	blocked, err := makeRoom(path)
	if err != nil {
		return nil, fmt.Errorf("open the agent's database: %w", err)
	}
	s, err := openSpool(ctx, path, o)
	if err == nil && blocked != "" {
		return s.reportAside(ctx, blocked, errBlocked)
	}
	if !errors.Is(err, errCorrupt) {
		return s, err
	}
	aside, rerr := setAside(path, o.Now())
	if rerr != nil {
		return nil, errors.Join(err, rerr)
	}
	why := err
	if s, err = openSpool(ctx, path, o); err != nil {
		return nil, err
	}
	return s.reportAside(ctx, aside, why)
}

// reportAside makes the first event of a new file report that the old one was set aside.
func (s *Spool) reportAside(ctx context.Context, aside string, why error) (*Spool, error) {
	s.aside = aside
	text := fmt.Sprintf("the agent's database was damaged (%v) and is set aside as %q; it was made anew, and its unreported events are lost: check this machine's disk", why, filepath.Base(aside))
	if err := s.Problem(ctx, wire.Problem{Kind: CorruptProblem, Text: text, Since: s.now().Unix()}, ""); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// errBlocked means that the name of the file belongs to another kind of entry.
var errBlocked = errors.New("it is not a file")

// makeRoom sets aside an entry of another kind that has the name of the file or of one of SQLite's files beside it, and
// gives this account back the right to read and write them. It returns the new path of the file's own name.
func makeRoom(path string) (aside string, err error) {
	root, err := durable.Open(filepath.Dir(path), durable.Options{})
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	for _, suffix := range []string{"-wal", "-shm", ""} {
		name := filepath.Base(path) + suffix
		to, err := durable.MakeRoom(root, name, false)
		if err != nil {
			return "", err
		}
		if to != "" && suffix == "" {
			aside = filepath.Join(root.Dir(), to)
		}
		if info, err := root.Lstat(name); err == nil && info.Mode().Perm()&0o600 != 0o600 {
			if err := root.Chmod(name, 0o600); err != nil {
				return "", err
			}
		}
	}
	return aside, nil
}

// Aside returns the path of the corrupt file that Open has renamed; empty: none.
func (s *Spool) Aside() string { return s.aside }

func openSpool(ctx context.Context, path string, o Options) (_ *Spool, err error) {
	if path, err = filepath.Abs(path); err != nil {
		return nil, fmt.Errorf("open the agent's database: %w", err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600) // SQLite would make it readable by others
	if err == nil {
		err = f.Close()
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("create the agent's database: %w", err)
	}
	p := filepath.ToSlash(path)
	if !strings.HasPrefix(p, "/") {
		p = "/" + p
	}
	dsn := "file://" + (&url.URL{Path: p}).EscapedPath() + "?mode=rw&_txlock=immediate&_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)" +
		"&_pragma=synchronous(FULL)&_pragma=trusted_schema(0)&_pragma=cache_size(-1024)"
	c, err := sqlite.NewConnector(dsn)
	if err != nil {
		return nil, fmt.Errorf("open the agent's database: %w", err)
	}
	db := sql.OpenDB(c)
	db.SetMaxOpenConns(1)
	s := &Spool{db: db, now: o.Now}
	if err := s.prepareSchema(ctx, o); err != nil {
		return nil, errors.Join(fmt.Errorf("open the agent's database: %w", err), db.Close())
	}
	return s, nil
}

func (s *Spool) prepareSchema(ctx context.Context, o Options) error {
	var have int64
	var check string
	if err := s.db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&have); err != nil {
		return classifyError(err)
	}
	if have > version {
		return fmt.Errorf("it is of version %d, this program knows %d: upgrade nightferry-agent here", have, version)
	}
	if err := s.db.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&check); err != nil {
		return classifyError(err)
	}
	if check != "ok" {
		return fmt.Errorf("%w: %s", errCorrupt, check)
	}
	if _, err := s.db.ExecContext(ctx, schema); err != nil {
		return classifyError(err)
	}
	if err := s.db.QueryRowContext(ctx, "PRAGMA page_size").Scan(&s.page); err != nil {
		return classifyError(err)
	}
	if err := s.limitSize(ctx, o.MaxBytes); err != nil {
		return err
	}
	fresh := make([]byte, 16)
	if _, err := rand.Read(fresh); err != nil {
		return err
	}
	if _, err := s.db.ExecContext(ctx, "INSERT INTO meta VALUES ('generation', ?) ON CONFLICT DO NOTHING", fresh); err != nil {
		return classifyError(err)
	}
	g, err := s.readMeta(ctx, "generation")
	if err == nil && len(g) != 16 {
		err = fmt.Errorf("%w: its generation has %d bytes", errCorrupt, len(g))
	}
	if err == nil {
		s.generation.Store((*[16]byte)(g))
	}
	return err
}

// limitSize limits the file's size: an agent whose Core is unreachable for months must not fill its server's disk.
func (s *Spool) limitSize(ctx context.Context, bytes int64) error {
	if bytes <= 0 {
		bytes = 4 << 30
	}
	_, err := s.db.ExecContext(ctx, fmt.Sprintf("PRAGMA max_page_count = %d", max(1, bytes/s.page)))
	return classifyError(err)
}

// setAside renames the damaged file and SQLite's files beside it.
func setAside(path string, now time.Time) (string, error) {
	root, err := durable.Open(filepath.Dir(path), durable.Options{})
	if err != nil {
		return "", err
	}
	name := filepath.Base(path)
	to := name + ".damaged-" + now.UTC().Format("20060102T150405.000Z")
	for _, suffix := range []string{"-wal", "-shm", ""} {
		if rerr := root.Rename(name+suffix, to+suffix); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}
	return filepath.Join(root.Dir(), to), errors.Join(err, root.SyncDir("."), root.Close())
}

// Close closes the file.
func (s *Spool) Close() error { return s.db.Close() }

// Generation returns 16 random bytes, made when the spool was created or by the last Renumber.
func (s *Spool) Generation() []byte { return s.generation.Load()[:] }

func classifyError(err error) error {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return err
	}
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_FULL:
		return fmt.Errorf("%w: %w", ErrFull, err)
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return fmt.Errorf("%w: %w", errCorrupt, err)
	}
	return err
}

// runChange runs fn in one transaction.
func (s *Spool) runChange(ctx context.Context, act string, fn func(*sql.Tx) error) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err == nil {
		if err = fn(tx); err == nil {
			err = tx.Commit()
		} else if rerr := tx.Rollback(); rerr != nil && !errors.Is(rerr, sql.ErrTxDone) {
			err = errors.Join(err, rerr)
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", act, classifyError(err))
	}
	return nil
}

func (s *Spool) readMeta(ctx context.Context, key string) (v []byte, err error) {
	err = s.db.QueryRowContext(ctx, "SELECT value FROM meta WHERE key = ?", key).Scan(&v)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return v, classifyError(err)
}

const setMeta = "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"

// Numbered is a signed object with the number that orders it.
type Numbered struct {
	Number uint64
	Object []byte
}

// The kinds of objects that a site keeps, each in its newest version.
const (
	State = "state" // wire.State, by revision
	Chain = "chain" // trust document, by number
	Halt  = "halt"  // halt object, by epoch
	Stops = "stops" // wire.Stopped, by epoch: how the halt orders are obeyed
)

// Keep stores the newest object of a kind durably. It refuses a number older than the stored one.
func (s *Spool) Keep(ctx context.Context, kind string, n Numbered) error {
	return s.runChange(ctx, "keep the "+kind, func(tx *sql.Tx) error {
		var old []byte
		err := tx.QueryRowContext(ctx, "SELECT value FROM meta WHERE key = ?", kind).Scan(&old)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if len(old) >= 8 && binary.BigEndian.Uint64(old) > n.Number {
			return fmt.Errorf("number %d is older than %d, which was accepted", n.Number, binary.BigEndian.Uint64(old))
		}
		_, err = tx.ExecContext(ctx, setMeta, kind, append(binary.BigEndian.AppendUint64(nil, n.Number), n.Object...))
		return err
	})
}

// Kept returns the object that Keep stored; the zero Numbered if there is none.
func (s *Spool) Kept(ctx context.Context, kind string) (n Numbered, err error) {
	b, err := s.readMeta(ctx, kind)
	if err != nil || len(b) < 8 {
		return n, err
	}
	return Numbered{Number: binary.BigEndian.Uint64(b), Object: b[8:]}, nil
}

// Look opens an existing spool for reading, even if another process holds it. It returns an error for a corrupt one
// and does not rename it.
func Look(ctx context.Context, path string, now func() time.Time) (*Spool, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("open the agent's database: %w", err)
	}
	return openSpool(ctx, path, Options{Now: now})
}
