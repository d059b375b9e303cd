package record

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"

	"nightferry/internal/durable"
)

// Unix modes. A new file takes its group from its folder.
const (
	folderMode = 0o750
	fileMode   = 0o640
)

// Writer writes one log. It is for one goroutine.
type Writer struct {
	logs *Logs
	path string
	file *durable.File
	out  *bufio.Writer
	line bytes.Buffer // the encoded line
	safe []byte       // the same, escaped
	n    int64
	err  error // the first error; all later calls return it
}

// fileLine is a File whose texts preserve bytes that are not UTF-8.
type fileLine struct {
	Path text `json:"path"`
	File
	From  text `json:"from,omitempty"`
	Cause text `json:"cause,omitempty"`
}

// endLine is the same for an End.
type endLine struct {
	End
	Cause text `json:"cause,omitempty"`
}

// Create starts a run's log. The log is visible only after Close, which
// replaces an older log of the same run. The domain's folder must be prepared
// before: otherwise the wrong accounts could read the log.
func (l *Logs) Create(p Place, h Header) (*Writer, error) {
	if err := p.validate(); err != nil {
		return nil, fmt.Errorf("create log: %w", err)
	}
	w := &Writer{logs: l, path: p.Path()}
	if err := w.createTemp(p.folderPath()); err != nil {
		return nil, fmt.Errorf("create log %s: %w", w.path, err)
	}
	h.Version, h.Run, h.Domain, h.Site, h.Channel = Version, p.Run, p.Domain, p.Site, p.Channel
	if err := w.writeLine(h); err != nil {
		w.Abort()
		return nil, fmt.Errorf("create log %s: %w", w.path, err)
	}
	return w, nil
}

func (w *Writer) createTemp(folder string) (err error) {
	w.logs.folders.Lock()
	defer w.logs.folders.Unlock()
	if err := w.logs.makeFolders(folder); err != nil {
		return err
	}
	if w.file, err = w.logs.root.Create(w.path+part, 0); err != nil {
		return err
	}
	w.out = bufio.NewWriterSize(&appender{f: w.file}, 64<<10)
	return nil
}

// makeFolders creates the folders below a domain's folder, which must exist.
func (l *Logs) makeFolders(name string) error {
	if _, err := l.root.Lstat(name); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := path.Dir(name)
	if parent == "." {
		return fmt.Errorf("the folder of domain %s is not prepared: %w", name, fs.ErrNotExist)
	}
	if err := l.makeFolders(parent); err != nil {
		return err
	}
	if err := l.root.Mkdir(name, folderMode); err != nil {
		return err
	}
	if err := inheritDir(l.root, name); err != nil {
		return err
	}
	return l.root.SyncDir(parent)
}

// appender writes sequentially.
type appender struct {
	f   *durable.File
	off int64
}

func (a *appender) Write(p []byte) (int, error) {
	n, err := a.f.WriteAt(p, a.off)
	a.off += int64(n)
	return n, err
}

// Line adds a file's line.
func (w *Writer) Line(f File) error {
	if err := w.writeLine(fileLine{Path: text(f.Path), File: f, From: text(f.From), Cause: text(f.Cause)}); err != nil {
		return fmt.Errorf("write log %s: %w", w.path, err)
	}
	w.n++
	return nil
}

func (w *Writer) writeLine(v any) error {
	if w.err != nil {
		return w.err
	}
	w.line.Reset()
	enc := json.NewEncoder(&w.line)
	enc.SetEscapeHTML(false) // keep & readable for grep
	if w.err = enc.Encode(v); w.err != nil {
		return w.err
	}
	w.safe = appendSafe(w.safe[:0], bytes.TrimSuffix(w.line.Bytes(), []byte("\n")))
	_, w.err = w.out.Write(append(w.safe, '\n'))
	return w.err
}

// Close adds the closing line, makes the file durable and renames it to its
// name. After an error there is no new file.
func (w *Writer) Close(e End) error {
	if w.err == nil && e.State == "" {
		w.err = errors.New("the closing line tells no state")
	}
	e.Lines = w.n
	if err := w.writeLine(endLine{End: e, Cause: text(e.Cause)}); err != nil {
		w.Abort()
		return fmt.Errorf("close log %s: %w", w.path, err)
	}
	if w.err = w.publish(); w.err != nil {
		err := fmt.Errorf("close log %s: %w", w.path, w.err)
		w.Abort()
		return err
	}
	w.err = fs.ErrClosed
	return nil
}

// publish writes the bytes, then the mode, then the name, in this order.
func (w *Writer) publish() error {
	root := w.logs.root
	err := w.out.Flush()
	if err == nil {
		err = inheritFile(root, w.path+part)
	}
	if err == nil {
		err = w.file.Sync()
	}
	if err = errors.Join(err, w.file.Close()); err != nil {
		return err
	}
	w.file = nil
	if err := root.Rename(w.path+part, w.path); err != nil {
		return err
	}
	return root.SyncDir(path.Dir(w.path))
}

// Abort discards the log; after Close it does nothing. If the unfinished file
// cannot be removed, Purge removes it later.
func (w *Writer) Abort() {
	if errors.Is(w.err, fs.ErrClosed) {
		return
	}
	if w.file != nil {
		_ = w.file.Close()
		w.file = nil
	}
	_ = w.logs.root.Remove(w.path + part)
	w.err = fs.ErrClosed
}
