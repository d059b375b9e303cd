package core

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"nightferry/internal/durable"
)

// jsonFile is a JSON file in a folder of the Core.
type jsonFile struct {
	dir  *durable.Root
	name string
	most int64 // maximum size in bytes
}

// loadFile decodes the file into a value. If the file is missing, the value stays as it is.
func (j jsonFile) loadFile(into any) error {
	f, err := j.dir.Open(j.name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	raw, err := io.ReadAll(io.LimitReader(f, j.most))
	if err = errors.Join(err, f.Close()); err == nil {
		err = json.Unmarshal(raw, into)
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", j.name, err)
	}
	return nil
}

// saveFile replaces the file durably.
func (j jsonFile) saveFile(v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return j.dir.WriteFile(j.name, append(raw, '\n'), 0o600)
}
