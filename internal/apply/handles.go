package apply

import (
	"errors"
	"sync"

	"nightferry/internal/durable"
)

// maxHandles limits the staged files that are open at once.
const maxHandles = 128

// handles keeps staged files open between chunks.
type handles struct {
	open func(int32) (*durable.File, error)

	mu    sync.Mutex
	files map[int32]*handle
	tick  int64
}

type handle struct {
	once sync.Once
	f    *durable.File
	err  error
	refs int
	used int64
}

func newHandles(open func(int32) (*durable.File, error)) *handles {
	return &handles{open: open, files: map[int32]*handle{}}
}

// openFile opens the file or reuses the open one. The caller must call put.
func (h *handles) openFile(i int32) (*durable.File, error) {
	h.mu.Lock()
	e := h.files[i]
	var idle *durable.File
	if e == nil {
		if len(h.files) >= maxHandles {
			idle = h.popOldest()
		}
		e = &handle{}
		h.files[i] = e
	}
	e.refs++
	h.tick++
	e.used = h.tick
	h.mu.Unlock()
	if idle != nil {
		if err := idle.Close(); err != nil {
			return nil, err
		}
	}
	e.once.Do(func() { e.f, e.err = h.open(i) })
	return e.f, e.err
}

// popOldest removes and returns the least recently used idle file, if there is one.
func (h *handles) popOldest() *durable.File {
	at, found := int32(0), (*handle)(nil)
	for i, e := range h.files {
		if e.refs == 0 && (found == nil || e.used < found.used) {
			at, found = i, e
		}
	}
	if found == nil {
		return nil
	}
	delete(h.files, at)
	return found.f
}

// releaseFile releases a file that get returned.
func (h *handles) releaseFile(i int32) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.files[i].refs--
}

// closeFile closes the file. It is not needed again.
func (h *handles) closeFile(i int32) error {
	h.mu.Lock()
	e := h.files[i]
	delete(h.files, i)
	h.mu.Unlock()
	if e == nil || e.f == nil {
		return nil
	}
	return e.f.Close()
}

func (h *handles) closeAll() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	var errs []error
	for _, e := range h.files {
		if e.f != nil {
			errs = append(errs, e.f.Close())
		}
	}
	clear(h.files)
	return errors.Join(errs...)
}
