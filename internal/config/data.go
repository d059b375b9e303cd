package config

import (
	"errors"
	"path/filepath"
)

// DataFolder returns the data folder that the file at path names, even if the
// rest of the file is invalid. So a mistake in the file does not prevent
// commands from reaching a running Core. If the file could be read, the error
// is an Errors.
func DataFolder(path string) (string, error) {
	data, err := readFile(path)
	if err != nil {
		return "", err
	}
	c, err := Parse(filepath.ToSlash(path), data)
	if err == nil {
		return c.Data, nil
	}
	var all Errors
	if !errors.As(err, &all) {
		return "", err
	}
	for _, e := range all {
		if e.Key == "data" || e.Key == "" || e.Key == "version" {
			return "", err
		}
	}
	d := newDecoder("")
	var f file
	if d.decodeFile(data, &f); f.Data == nil {
		return "", err
	}
	return *f.Data, nil
}
