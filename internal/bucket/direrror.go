package bucket

import (
	"errors"
	"io/fs"
	"net/url"
	"runtime"
	"strings"
	"syscall"

	"nightferry/internal/durable"
)

// Folder returns the folder of this system that a file:// URL names; "" for any other store.
func Folder(rawURL string) string {
	if scheme, _, ok := strings.Cut(rawURL, "://"); !ok || scheme != "file" {
		return ""
	}
	dir, err := dirOf(rawURL)
	if err != nil {
		return "" // Open reports the error
	}
	return dir
}

// dirOf turns file:///srv/store, file:///D:/store or file://server/share/store into a path of this system.
func dirOf(raw string) (string, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return "", errUnknownStore
	}
	if u.RawQuery != "" || u.Fragment != "" || u.User != nil || len(u.Path) < 2 {
		return "", errUnknownStore
	}
	if runtime.GOOS == "windows" {
		return windowsDir(u.Host, u.Path)
	}
	if u.Host != "" && u.Host != "localhost" {
		return "", errors.New("a directory store has no host name here")
	}
	return u.Path, nil
}

func windowsDir(host, path string) (string, error) {
	switch {
	case host != "" && host != "localhost":
		return `\\` + host + strings.ReplaceAll(path, "/", `\`), nil
	case len(path) > 2 && path[2] == ':':
		return strings.ReplaceAll(path[1:], "/", `\`), nil
	}
	return "", errors.New("the path names no drive")
}

// dirError gives an error of the file system its kind. An *Error keeps its own, and gets the act and the key if it lacks
// them.
func dirError(op, key string, err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		c := *e
		c.Op, c.Key = op, key
		return &c
	}
	e = &Error{Op: op, Key: key, Kind: KindOther, Err: err}
	switch {
	case op != "put" && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, durable.ErrNotRegular)): // a Put that fails so misses a folder, not an object
		e.Kind, e.Err = KindNotExist, errAbsent
	case durable.IsLocked(err):
		e.Hint = "end the program that has it open, then run again"
	case errors.Is(err, fs.ErrPermission):
		e.Kind, e.Hint = KindDenied, "this account needs to read and write the store's folder"
	case durable.IsDiskFull(err):
		e.Kind, e.Hint = KindFull, "free some space on the store's volume and run again: nothing was damaged"
	case errors.Is(err, syscall.EIO):
		e.Kind, e.Hint = KindIntegrity, "the disk reports errors"
	}
	return e
}
