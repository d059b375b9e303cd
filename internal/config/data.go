package config

import (
	"errors"
	"path/filepath"
)

// DataFolder returns the data folder that the file at path names, whatever
// else is wrong in it: a mistake in the file must not keep a running Core from
// being asked. The error is an Errors where the file could be read.
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
	if d.decode(data, &f); f.Data == nil {
		return "", err
	}
	return *f.Data, nil
}
