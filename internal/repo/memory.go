package repo

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"nightferry/internal/durable"
)

// MemoryFile is the name under which a Memory is kept.
const MemoryFile = "memory.json"

// LoadMemory reads what was remembered in dir; nil where nothing was. A file
// that does not parse is an error, never a fresh start: forgetting would let
// an old release in.
func LoadMemory(dir *durable.Root) (*Memory, error) {
	f, err := dir.Open(MemoryFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var m Memory
	if err := json.NewDecoder(f).Decode(&m); err != nil {
		return nil, fmt.Errorf("%s in %s is damaged (%w): check what is pinned there, then remove it to start afresh", MemoryFile, dir.Dir(), err)
	}
	return &m, nil
}

// SaveMemory makes m durable in dir, if it says anything new.
func SaveMemory(dir *durable.Root, m Memory) error {
	b, err := json.MarshalIndent(&m, "", "  ")
	if err != nil {
		return err
	}
	if old, err := LoadMemory(dir); err == nil && old != nil {
		if same, err := json.MarshalIndent(old, "", "  "); err == nil && string(same) == string(b) {
			return nil
		}
	}
	if err := dir.WriteFile(MemoryFile, b, 0o600); err != nil {
		return fmt.Errorf("remember what was seen: %w", err)
	}
	return nil
}
