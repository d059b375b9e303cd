package record

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// maxLine bounds a line in bytes: the longest path and cause, fully escaped,
// take far less.
const maxLine = 4 << 20

// Scan reads a log and calls fn for each file's line. If fn returns an error,
// Scan stops and returns it. If the log is incomplete, Scan returns
// ErrDamaged after its good lines.
func (l *Logs) Scan(path string, fn func(File) error) (h Header, e End, err error) {
	f, err := l.root.Open(path)
	if err != nil {
		return h, e, fmt.Errorf("read log: %w", err)
	}
	defer f.Close()
	h, e, err = scanLog(f, fn)
	if err != nil {
		return h, e, fmt.Errorf("read log %s: %w", path, err)
	}
	return h, e, nil
}

// Open opens a log.
func (l *Logs) Open(path string) (io.ReadSeekCloser, error) {
	f, err := l.root.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read log: %w", err)
	}
	return f, nil
}

func scanLog(r io.Reader, fn func(File) error) (h Header, e End, err error) {
	in := bufio.NewScanner(r)
	in.Buffer(make([]byte, 64<<10), maxLine)
	in.Split(wholeLines)
	for n := int64(0); in.Scan(); n++ {
		line := in.Bytes()
		var kind struct {
			Version *int    `json:"nightferry_log"`
			End     *string `json:"end"`
		}
		if err := json.Unmarshal(line, &kind); err != nil {
			return h, e, fmt.Errorf("line %d: %w: %w", n+1, ErrDamaged, err)
		}
		switch {
		case e.State != "" || (n == 0) != (kind.Version != nil):
			return h, e, fmt.Errorf("line %d: %w: not where it belongs", n+1, ErrDamaged)
		case n == 0 && *kind.Version != Version:
			return h, e, fmt.Errorf("it has format %d, this program reads format %d: upgrade nightferry here", *kind.Version, Version)
		case n == 0:
			err = json.Unmarshal(line, &h)
		case kind.End != nil:
			var v endLine
			err = json.Unmarshal(line, &v)
			e = v.End
			e.Cause = string(v.Cause)
			if err == nil && (e.State == "" || e.Lines != n-1) {
				return h, e, fmt.Errorf("line %d: %w: it counts %d lines, there are %d", n+1, ErrDamaged, e.Lines, n-1)
			}
		default:
			var v fileLine
			if err = json.Unmarshal(line, &v); err == nil {
				f := v.File
				f.Path, f.From, f.Cause = string(v.Path), string(v.From), string(v.Cause)
				if err := fn(f); err != nil {
					return h, e, err
				}
			}
		}
		if err != nil {
			return h, e, fmt.Errorf("line %d: %w: %w", n+1, ErrDamaged, err)
		}
	}
	if err := in.Err(); err != nil {
		if errors.Is(err, bufio.ErrTooLong) {
			err = fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		return h, e, err
	}
	if e.State == "" {
		return h, e, fmt.Errorf("%w: it has no closing line", ErrDamaged)
	}
	return h, e, nil
}

// wholeLines skips a last line without a newline: it was truncated.
func wholeLines(data []byte, eof bool) (advance int, token []byte, err error) {
	if i := bytes.IndexByte(data, '\n'); i >= 0 {
		return i + 1, data[:i], nil
	}
	if eof && len(data) > 0 {
		return 0, nil, fmt.Errorf("%w: the last line is cut off", ErrDamaged)
	}
	return 0, nil, nil
}
