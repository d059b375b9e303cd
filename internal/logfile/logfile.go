// Package logfile is a log file that cannot fill a disk. It is rotated by
// size and age, old files are removed, and repeated messages are limited.
package logfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"nightferry/internal/durable"
)

// Options bound a log file. Zero fields have defaults.
type Options struct {
	Size int64         // at which a file is rotated; 0: 16 MiB
	Age  time.Duration // after which a file is rotated; 0: 7 days
	Keep int           // number of rotated files to keep; 0: 8
	Now  func() time.Time
}

// File appends to a log file. It is safe for concurrent use.
type File struct {
	o    Options
	root *durable.Root
	name string

	mu    sync.Mutex
	f     *os.File // nil: it could not be opened, which Write tries again
	size  int64
	began time.Time
}

// Open opens or creates the file at path. Rotated files are named path.1,
// path.2 and so on, the newest first.
func Open(path string, o Options) (*File, error) {
	if o.Size == 0 {
		o.Size = 16 << 20
	}
	if o.Age == 0 {
		o.Age = 7 * 24 * time.Hour
	}
	if o.Keep == 0 {
		o.Keep = 8
	}
	root, err := openFolder(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("open the log: %w", err)
	}
	l := &File{o: o, root: root, name: filepath.Base(path)}
	if err := l.open(); err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return l, nil
}

// openFolder opens a log folder. It may be a link if only trusted accounts can
// change where the link leads.
func openFolder(dir string) (*durable.Root, error) {
	root, err := durable.Open(dir, durable.Options{})
	if !errors.Is(err, durable.ErrLink) {
		return root, err
	}
	if err := durable.CheckTrusted(dir); err != nil {
		return nil, err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return nil, err
	}
	return durable.Open(dir, durable.Options{})
}

func (l *File) open() error {
	f, err := durable.Append(l.root, l.name, 0o640)
	if err != nil {
		return fmt.Errorf("open the log: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(fmt.Errorf("open the log: %w", err), f.Close())
	}
	l.f, l.size, l.began = f, info.Size(), l.o.Now()
	if l.size > 0 { // an earlier process started it; the time of its last line is the best estimate
		l.began = info.ModTime()
	}
	return nil
}

// Write appends p, to a new file if the old one is full or too old. A failed
// rotation loses no line: the file grows until the next attempt succeeds.
func (l *File) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		if err := l.open(); err != nil {
			return 0, err
		}
	}
	if l.size > 0 && (l.size+int64(len(p)) > l.o.Size || l.o.Now().Sub(l.began) >= l.o.Age) {
		if err := l.rotate(); err != nil {
			if l.f == nil {
				return 0, err
			}
			l.size, l.began = l.size/2, l.o.Now() // delay the next attempt by some lines
			_, _ = fmt.Fprintf(l.f, "cannot rotate the log: %v\n", err)
		}
	}
	n, err := l.f.Write(p)
	l.size += int64(n)
	return n, err
}

// rotate renames the file and starts a new one. On an error it reopens the
// old file, which it must close first: Windows cannot rename an open file.
func (l *File) rotate() error {
	err := l.f.Close()
	l.f = nil
	if err != nil {
		return errors.Join(err, l.open())
	}
	aside := func(n int) string { return fmt.Sprintf("%s.%d", l.name, n) }
	if err := l.root.Remove(aside(l.o.Keep)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return errors.Join(err, l.open())
	}
	for n := l.o.Keep - 1; n >= 1; n-- {
		if err := l.root.Rename(aside(n), aside(n+1)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return errors.Join(err, l.open())
		}
	}
	return errors.Join(l.root.Rename(l.name, aside(1)), l.open())
}

// Close closes the file.
func (l *File) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		return l.root.Close()
	}
	return errors.Join(l.f.Close(), l.root.Close())
}
