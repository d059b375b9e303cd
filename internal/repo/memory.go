package repo

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"sync"
	"time"

	"nightferry/internal/durable"
	"nightferry/internal/frame"
	"nightferry/internal/trust"
)

// ErrOlder means that the bucket holds an older object than was seen before: a
// restore or an attacker put back an old state.
var ErrOlder = errors.New("older than seen before")

// Memory is a reader's memory between runs, with which it refuses older
// objects. It holds no secret. The caller persists it durably before it caches
// or applies anything that was read.
type Memory struct {
	Repo     trust.RepoID                   `json:"-"`
	RepoHex  string                         `json:"repo"`
	Format   []byte                         `json:"format"` // the format object, so that the repository can be opened while the store is away
	Root     trust.Public                   `json:"root"`
	Trust    uint64                         `json:"trust"`     // highest trust document seen
	TrustDoc []byte                         `json:"trust_doc"` // that object, so that it need not be fetched again
	Halt     uint64                         `json:"halt"`      // highest halt epoch seen
	Heads    map[string]trust.ReleaseNumber `json:"heads"`     // channel → highest release number seen
}

// seen is the memory of one or more openings of a repository. No number in it ever decreases.
type seen struct {
	mu     sync.Mutex
	memory Memory
}

// recall begins with what an earlier program has saved.
func (s *seen) recall(m *Memory) {
	if m != nil {
		s.memory = *m
		s.memory.Heads = maps.Clone(m.Heads)
	}
}

// current returns a copy.
func (s *seen) current() Memory {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.memory
	m.Heads = maps.Clone(m.Heads)
	return m
}

// acceptHead notes a release number of a channel, unless a higher one was seen: then it returns that.
func (s *seen) acceptHead(channel string, number trust.ReleaseNumber) (higher trust.ReleaseNumber, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.memory.Heads[channel]; number < n {
		return n, false
	}
	s.memory.Heads[channel] = number
	return 0, true
}

// acceptHalt does the same for the epoch of the halt object.
func (s *seen) acceptHalt(epoch uint64) (higher uint64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.memory.Halt; epoch < n {
		return n, false
	}
	s.memory.Halt = epoch
	return 0, true
}

// acceptTrust notes a trust document and its root key.
func (s *seen) acceptTrust(root trust.Public, number uint64, object []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.memory.Root = root
	if number > s.memory.Trust {
		s.memory.Trust, s.memory.TrustDoc = number, object
	}
}

// release returns the highest release number of a channel.
func (s *seen) release(channel string) trust.ReleaseNumber {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.memory.Heads[channel]
}

// start fills a memory for a repository. It returns an error if it is the memory of another one, or if its root key is
// not the given one.
func (s *seen) start(f *Format, object []byte, root *trust.Public) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := &s.memory
	if m.RepoHex != "" && m.RepoHex != f.Repo.String() {
		return fmt.Errorf("%w: the store holds repository %s, this place belongs to %s: check the store's address", trust.ErrUntrusted, f.Repo, m.RepoHex)
	}
	m.Repo, m.RepoHex, m.Format = f.Repo, f.Repo.String(), object
	if m.Heads == nil {
		m.Heads = map[string]trust.ReleaseNumber{}
	}
	if root == nil {
		return nil
	}
	if m.Root != (trust.Public{}) && m.Root != *root {
		return fmt.Errorf("%w: this place is pinned to root key %s, --trust says %s", trust.ErrUntrusted, m.Root, *root)
	}
	m.Root = *root
	return nil
}

// MemoryFile is the file name of a Memory.
const MemoryFile = "memory.json"

// MemoryError reports a Memory that is damaged. It is never a fresh start: forgetting would let an old release in. It is
// frame.ErrDamaged.
type MemoryError struct {
	File string // empty: the caller knows it
	Err  error
}

func (e *MemoryError) Error() string {
	file := "the memory of what was seen in the repository"
	if e.File != "" {
		file = fmt.Sprintf("%q, the memory of what was seen in the repository,", e.File)
	}
	return fmt.Sprintf("%s is damaged: %v", file, e.Err)
}

// Unwrap returns the cause.
func (e *MemoryError) Unwrap() []error { return []error{frame.ErrDamaged, e.Err} }

// Remedy returns the advice for the operator.
func (e *MemoryError) Remedy() string {
	return "compare the root key (nightferry trust show STORE) with the one that init printed; then run the command again with --trust KEY, which keeps the damaged file under another name; for a Core, rename that file and start it again"
}

// LoadMemory reads the memory in dir; nil if there is none. It returns a *MemoryError for a file that does not parse.
func LoadMemory(dir *durable.Root) (*Memory, error) {
	f, err := dir.Open(MemoryFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if durable.IsBlocked(err) {
		return nil, &MemoryError{filepath.Join(dir.Dir(), MemoryFile), err}
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var m Memory
	if err := json.NewDecoder(io.LimitReader(f, maxMemory)).Decode(&m); err != nil {
		return nil, &MemoryError{filepath.Join(dir.Dir(), MemoryFile), err}
	}
	return &m, nil
}

// maxMemory bounds the file of a Memory, in bytes.
const maxMemory = 16 << 20

// RecallMemory is LoadMemory for a caller who vouches for a root key, unless root is nil. It sets a damaged memory aside
// and returns nil.
func RecallMemory(dir *durable.Root, root *trust.Public) (*Memory, error) {
	m, err := LoadMemory(dir)
	if root == nil || !errors.As(err, new(*MemoryError)) {
		return m, err
	}
	_, err = durable.SetAside(dir, MemoryFile)
	return nil, err
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
		heads = map[string]trust.ReleaseNumber{}
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
