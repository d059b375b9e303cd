package vault

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path/filepath"
	"slices"

	"nightferry/internal/durable"
)

// changeContent loads the vault, calls plan, writes the audit record, applies the
// edit and saves. plan returns the version for the audit record and the edit;
// with a nil edit, nothing is saved.
func (v *Vault) changeContent(ctx context.Context, a Access, plan func(*content) (int, func(*content) error, error)) error {
	unlock, err := lockFile(ctx, v.dir)
	if err != nil {
		return err
	}
	err = func() error {
		c, err := v.loadFile()
		if err != nil {
			return err
		}
		var edit func(*content) error
		var planned error
		a.Version, edit, planned = plan(c)
		// Refused changes are recorded too.
		if err := v.writeAudit(ctx, a); err != nil {
			return err
		}
		if planned != nil || edit == nil {
			return planned
		}
		if err := edit(c); err != nil {
			return err
		}
		return c.saveFile(v.dir)
	}()
	return errors.Join(err, unlock())
}

// Set stores value as a new version of name and returns its number. Older
// versions stay until [Vault.Prune], so that their users are not interrupted.
func (v *Vault) Set(ctx context.Context, name string, value []byte) (int, error) {
	return v.addVersion(ctx, OpSet, name, value)
}

// Rotate is Set for an existing name. If name is missing, the error is
// fs.ErrNotExist.
func (v *Vault) Rotate(ctx context.Context, name string, value []byte) (int, error) {
	return v.addVersion(ctx, OpRotate, name, value)
}

func (v *Vault) addVersion(ctx context.Context, op Op, name string, value []byte) (version int, err error) {
	err = CheckName(name)
	switch {
	case err != nil:
	case len(value) == 0:
		err = errors.New("the value is empty")
	case len(value) > MaxValue:
		err = fmt.Errorf("the value has %d bytes, at most %d are allowed", len(value), MaxValue)
	default:
		err = v.changeContent(ctx, Access{Op: op, Name: name}, func(c *content) (int, func(*content) error, error) {
			next := uint32(1)
			if e := c.findEntry(name, 0); e == nil && op == OpRotate {
				return 0, nil, fmt.Errorf("%w: set it with secret set", fs.ErrNotExist)
			} else if e != nil && e.Version == math.MaxUint32 {
				return 0, nil, errors.New("it has no version left: delete it first")
			} else if e != nil {
				next = e.Version + 1
			}
			version = int(next)
			return version, func(c *content) error { return c.putValue(name, next, v.opts.Now(), value) }, nil
		})
	}
	if err != nil {
		return 0, fmt.Errorf("%s secret %q: %w", op, name, err)
	}
	return version, nil
}

// Prune removes all but the newest keep versions of name, at least 1, and
// returns how many it removed.
func (v *Vault) Prune(ctx context.Context, name string, keep int) (removed int, err error) {
	if keep < 1 {
		return 0, fmt.Errorf("prune secret %q: keep %d: want at least 1", name, keep)
	}
	return v.removeVersions(ctx, OpPrune, name, keep)
}

// Delete removes every version of name. A later Set counts from 1 again.
func (v *Vault) Delete(ctx context.Context, name string) error {
	_, err := v.removeVersions(ctx, OpDelete, name, 0)
	return err
}

func (v *Vault) removeVersions(ctx context.Context, op Op, name string, keep int) (removed int, err error) {
	err = v.changeContent(ctx, Access{Op: op, Name: name}, func(c *content) (int, func(*content) error, error) {
		have := 0
		for _, e := range c.Entries {
			if e.Name == name {
				have++
			}
		}
		if have == 0 {
			return 0, nil, fs.ErrNotExist
		}
		newest := int(c.findEntry(name, 0).Version)
		if removed = max(0, have-keep); removed == 0 {
			return newest, nil, nil
		}
		return newest, func(c *content) error {
			left := removed
			c.Entries = slices.DeleteFunc(c.Entries, func(e entry) bool {
				drop := e.Name == name && left > 0 // the oldest come first
				if drop {
					left--
				}
				return drop
			})
			return nil
		}, nil
	})
	if err != nil {
		return 0, fmt.Errorf("%s secret %q: %w", op, name, err)
	}
	return removed, nil
}

// Rekey encrypts every value again, under a new data key and the new master
// key. A crash leaves the old vault or the new one. Other processes must open
// the vault again. If the master key is in a file, use [Vault.RekeyFile],
// which changes both.
func (v *Vault) Rekey(ctx context.Context, master Master) error {
	err := v.changeContent(ctx, Access{Op: OpRekey}, func(*content) (int, func(*content) error, error) {
		if len(master.keys) != 1 {
			return 0, nil, errors.New("want one master key")
		}
		return 0, func(c *content) error {
			fresh, err := newContent(master.keys[0])
			if err != nil {
				return err
			}
			for i := range c.Entries {
				e := &c.Entries[i]
				value, err := c.openValue(e)
				if err != nil {
					return fmt.Errorf("secret %q: %w", e.Name, err)
				}
				a, err := fresh.openCipher()
				if err != nil {
					return err
				}
				e.Sealed, err = a.Encrypt(value, e.boundData())
				if err != nil {
					return fmt.Errorf("seal: %w", err)
				}
			}
			c.master, c.handle, c.data = fresh.master, fresh.handle, fresh.data
			// Keep both keys until the new file is in place: a failed save
			// may have succeeded on disk.
			v.master.set(append([]Secret{master.keys[0]}, v.master.get()...)...)
			return nil
		}, nil
	})
	if err != nil {
		return fmt.Errorf("rekey vault: %w", err)
	}
	v.master.set(master.keys[0])
	return nil
}

// RekeyFile makes a new master key, rekeys the vault and replaces the key
// file at path. After a crash at any point, [LoadMaster] and [Open] accept
// the files, and calling RekeyFile again completes the change.
func (v *Vault) RekeyFile(ctx context.Context, path string) error {
	next, err := readMaster(path + nextSuffix)
	if errors.Is(err, fs.ErrNotExist) {
		next, err = NewMasterFile(path + nextSuffix)
	}
	if err != nil {
		return fmt.Errorf("rekey vault: %w", err)
	}
	if err := v.Rekey(ctx, next); err != nil {
		return err
	}
	if err := replaceKey(path); err != nil {
		return fmt.Errorf("rekey vault: it is under the new master key, which is still in %s: %w", path+nextSuffix, err)
	}
	return nil
}

// replaceKey renames the new key file to the name of the old one.
func replaceKey(path string) error {
	dir, err := durable.Open(filepath.Dir(path), durable.Options{})
	if err != nil {
		return err
	}
	name := filepath.Base(path)
	err = dir.Rename(name+nextSuffix, name)
	if err == nil {
		err = dir.SyncDir(".")
	}
	return errors.Join(err, dir.Close())
}
