//go:build unix && !linux

package durable

import "golang.org/x/sys/unix"

// No call flushes a whole volume and waits for it.
const needsFileSync = true

func (r *Root) syncAll() error { return nil }

func (r *Root) checkChain(name string) error { return r.checkEach(name) }

func (r *Root) sameVolume(name string) (bool, error) {
	if err := r.check(name, true); err != nil {
		return false, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(r.self.Fd()), &st); err != nil {
		return false, err
	}
	info, err := r.lstat(name)
	if err != nil {
		return false, err
	}
	return deviceOf(info) == uint64(st.Dev), nil
}

func (r *Root) probe(name string) error {
	_, err := r.lstat(name)
	return err
}
