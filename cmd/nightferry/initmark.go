package main

import (
	"crypto/ed25519"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"nightferry/internal/core"
	"nightferry/internal/durable"
)

// initMark is the file core.InitMark of a data folder. While it is there, an init is under way, was interrupted or
// failed, and no Core starts: a vault beside it cannot have been used yet. The file lists the key files that init
// has made, or was about to make, one path a line. Init removes no others.
type initMark struct {
	data  string
	made  []string // by this init, or by one that it continues
	fresh []string // by this process
}

// readMark reads the mark of an init that this one continues. It is empty if there is none.
func readMark(data string) (*initMark, error) {
	b, err := durable.ReadTrusted(filepath.Join(data, core.InitMark), 1<<16)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return &initMark{data: data, made: strings.FieldsFunc(string(b), func(r rune) bool { return r == '\n' })}, nil
}

// write makes the mark durable.
func (m *initMark) write() error {
	return m.withRoot(func(root *durable.Root) error {
		return root.WriteFile(core.InitMark, []byte(strings.Join(m.made, "\n")), 0o600)
	})
}

// remove removes the mark durably. If it came back after a power cut, the next init would take the Core for an
// unfinished one.
func (m *initMark) remove() error {
	return m.withRoot(func(root *durable.Root) error {
		return errors.Join(root.Remove(core.InitMark), root.SyncDir("."))
	})
}

func (m *initMark) withRoot(do func(*durable.Root) error) error {
	root, err := durable.Open(m.data, durable.Options{Trusted: true})
	if err != nil {
		return err
	}
	return errors.Join(do(root), root.Close())
}

// claim notes that a file is about to be made, unless it is there.
func (m *initMark) claim(path string) error {
	if absent, err := confirmAbsent(path); err != nil || !absent {
		return err
	}
	m.fresh = append(m.fresh, path)
	if slices.Contains(m.made, path) {
		return nil
	}
	m.made = append(m.made, path)
	return m.write()
}

// keptPair makes a key pair in files, or reads the one that is there.
func (m *initMark) keptPair(use, base string) (ed25519.PrivateKey, error) {
	if absent, err := confirmAbsent(base + secretExt); err != nil {
		return nil, err
	} else if !absent {
		return signingKey(use, base+secretExt)
	}
	if err := errors.Join(refuseExisting(base+publicExt), m.claim(base+secretExt), m.claim(base+publicExt)); err != nil {
		return nil, err
	}
	pair, err := newKeyPair(use, base)
	if err != nil {
		return nil, err
	}
	return pair.key, pair.write()
}

// temporary returns the key files that the vault replaces. The root key is not in the vault.
func (m *initMark) temporary() []string {
	return slices.DeleteFunc(slices.Clone(m.made), func(p string) bool { return strings.HasPrefix(filepath.Base(p), rootKeyName) })
}

// unmake removes the key files that this process has made.
func (m *initMark) unmake() error {
	err := removeFiles(m.fresh)
	m.made = slices.DeleteFunc(m.made, func(p string) bool { return slices.Contains(m.fresh, p) })
	return errors.Join(err, m.write())
}

func removeFiles(list []string) (err error) {
	for _, path := range list {
		if rerr := os.Remove(path); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}
	return err
}
