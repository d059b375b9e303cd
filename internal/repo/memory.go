package repo

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"time"

	"nightferry/internal/durable"
	"nightferry/internal/trust"
)

// MemoryFile is the file name of a Memory.
const MemoryFile = "memory.json"

// LoadMemory reads the memory in dir; nil if there is none. A file that does
// not parse is an error, never a fresh start: forgetting would let an old
// release in.
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

// SaveMemory makes m durable in dir, merged with the memory that another run
// has saved meanwhile: no number in it ever decreases. Runs take turns on a
// lock file.
func SaveMemory(dir *durable.Root, m Memory) (err error) {
	unlock, err := lockMemory(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	old, err := LoadMemory(dir)
	if err != nil {
		return err
	}
	if old != nil {
		if err := m.mergeFrom(old); err != nil {
			return err
		}
	}
	b, err := json.MarshalIndent(&m, "", "  ")
	if err != nil {
		return err
	}
	if old != nil {
		if same, err := json.MarshalIndent(old, "", "  "); err == nil && string(same) == string(b) {
			return nil
		}
	}
	if err := dir.WriteFile(MemoryFile, b, 0o600); err != nil {
		return fmt.Errorf("remember what was seen: %w", err)
	}
	return nil
}

// mergeFrom adds to m the facts that only old has.
func (m *Memory) mergeFrom(old *Memory) error {
	if old.RepoHex != m.RepoHex || old.Root != m.Root {
		return fmt.Errorf("%w: this place belongs to repository %s with root key %s, not to %s with %s", trust.ErrUntrusted, old.RepoHex, old.Root, m.RepoHex, m.Root)
	}
	if old.Trust > m.Trust {
		m.Trust, m.TrustDoc = old.Trust, old.TrustDoc
	}
	m.Halt = max(m.Halt, old.Halt)
	heads := maps.Clone(m.Heads)
	if heads == nil {
		heads = map[string]uint64{}
	}
	for channel, n := range old.Heads {
		heads[channel] = max(heads[channel], n)
	}
	m.Heads = heads
	return nil
}

// lockMemory waits up to five seconds for another run that holds the lock
// during one write.
func lockMemory(dir *durable.Root) (unlock func() error, err error) {
	const pause = 10 * time.Millisecond
	for range 5 * time.Second / pause {
		if unlock, err = durable.Lock(dir, MemoryFile+".lock"); !errors.Is(err, durable.ErrBusy) {
			break
		}
		time.Sleep(pause)
	}
	if err != nil {
		return nil, fmt.Errorf("remember what was seen: %w", err)
	}
	return unlock, nil
}
