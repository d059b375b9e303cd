// Package vault stores secrets: passwords, seeds and private keys, each by
// name and version. They are encrypted with AES-256-GCM under a data key,
// which is itself encrypted under the master key.
//
// Each access is first written to the audit log, and a vault without an audit
// log does not open. Between two calls only the master key stays in memory.
// Each call reads the file again, so that a value rotated by another process
// is visible at once.
//
// docs/format/vault.md describes the file's format, and the attacks that it
// does not protect from.
package vault

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"nightferry/internal/durable"
)

// The errors that callers branch on. A missing name or version is
// fs.ErrNotExist, damaged bytes are frame.ErrDamaged.
var (
	// ErrMaster: this vault was made with another master key.
	ErrMaster = errors.New("this master key does not open the vault")
	// ErrAudit: the audit record could not be written, so the access was
	// denied.
	ErrAudit = errors.New("the audit record could not be written")
)

// Limits of a vault.
const (
	MaxName    = 200      // bytes of a name
	MaxValue   = 64 << 10 // bytes of a value
	MaxEntries = 10_000   // versions of all names together
)

const (
	fileName = "vault"
	lockName = "vault.lock"
)

// Op names an operation on a vault.
type Op string

// The operations that are audited.
const (
	OpOpen   Op = "open"
	OpGet    Op = "get"
	OpSet    Op = "set"
	OpRotate Op = "rotate"
	OpList   Op = "list"
	OpPrune  Op = "prune"
	OpDelete Op = "delete"
	OpRekey  Op = "rekey"
)

// Access is the content of an audit record. It never holds a value.
type Access struct {
	Op      Op        `json:"op"`
	Name    string    `json:"name,omitempty"`
	Version int       `json:"version,omitempty"` // requested, or about to be made; 0: none of that name
	Purpose string    `json:"purpose,omitempty"`
	At      time.Time `json:"at"`
}

// Options of [Open].
type Options struct {
	// Audit writes a record durably before the access happens; its error
	// prevents the access. It must not call the vault.
	Audit func(context.Context, Access) error
	Now   func() time.Time
}

// Vault is an open vault. It is safe for concurrent use by goroutines and by
// processes.
type Vault struct {
	dir    *durable.Root
	opts   Options
	master *masterBox
}

// Create makes an empty vault in dir. If dir holds one already, the error is
// fs.ErrExist.
func Create(ctx context.Context, dir *durable.Root, master Master) error {
	unlock, err := lockFile(ctx, dir)
	if err != nil {
		return fmt.Errorf("create vault: %w", err)
	}
	err = func() error {
		if _, err := dir.Lstat(fileName); err == nil {
			return fmt.Errorf("%s holds one already: %w", dir.Dir(), fs.ErrExist)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if len(master.keys) == 0 {
			return errors.New("no master key")
		}
		c, err := newContent(master.keys[0])
		if err != nil {
			return err
		}
		return c.saveFile(dir)
	}()
	if err := errors.Join(err, unlock()); err != nil {
		return fmt.Errorf("create vault: %w", err)
	}
	return nil
}

// Open opens the vault in dir and writes an audit record. The vault must be
// intact and the master key the right one.
func Open(ctx context.Context, dir *durable.Root, master Master, o Options) (*Vault, error) {
	if o.Audit == nil || o.Now == nil {
		return nil, errors.New("open vault: Options.Audit and Options.Now must be set: it does not open unrecorded")
	}
	v := &Vault{dir: dir, opts: o, master: &masterBox{keys: master.keys}}
	if _, err := v.loadFile(); err != nil {
		return nil, fmt.Errorf("open vault in %s: %w", dir.Dir(), err)
	}
	if err := v.writeAudit(ctx, Access{Op: OpOpen}); err != nil {
		return nil, fmt.Errorf("open vault: %w", err)
	}
	return v, nil
}

func (v *Vault) writeAudit(ctx context.Context, a Access) error {
	a.At = v.opts.Now().UTC()
	if err := v.opts.Audit(ctx, a); err != nil {
		return fmt.Errorf("%w: %w", ErrAudit, err)
	}
	return nil
}

// Get returns the newest version of a value and its number. purpose goes into
// the audit record.
func (v *Vault) Get(ctx context.Context, name, purpose string) (Secret, int, error) {
	return v.getSecret(ctx, name, 0, purpose)
}

// GetVersion returns one version of a value.
func (v *Vault) GetVersion(ctx context.Context, name string, version int, purpose string) (Secret, error) {
	if version < 1 {
		return Secret{}, fmt.Errorf("get secret %q: version %d: versions count from 1", name, version)
	}
	s, _, err := v.getSecret(ctx, name, version, purpose)
	return s, err
}

func (v *Vault) getSecret(ctx context.Context, name string, version int, purpose string) (Secret, int, error) {
	fail := func(err error) (Secret, int, error) {
		return Secret{}, 0, fmt.Errorf("get secret %q: %w", name, err)
	}
	if err := CheckName(name); err != nil {
		return fail(err)
	}
	c, err := v.loadFile()
	if err != nil {
		return fail(err)
	}
	e := c.findEntry(name, version)
	asked := version
	if e != nil {
		asked = int(e.Version)
	}
	if err := v.writeAudit(ctx, Access{Op: OpGet, Name: name, Version: asked, Purpose: purpose}); err != nil {
		return fail(err)
	}
	if e == nil {
		if version > 0 {
			return fail(fmt.Errorf("version %d: %w: look with secret list", version, fs.ErrNotExist))
		}
		return fail(fmt.Errorf("%w: set it with secret set", fs.ErrNotExist))
	}
	value, err := c.openValue(e)
	if err != nil {
		return fail(err)
	}
	return NewSecret(value), asked, nil
}

// Info describes a name. It holds no value.
type Info struct {
	Name     string    `json:"name"`
	Versions []Version `json:"versions"` // oldest first
}

// Version is one version of a value.
type Version struct {
	Version int       `json:"version"`
	Created time.Time `json:"created"`
}

// List returns the names and versions in the vault, ordered by name.
func (v *Vault) List(ctx context.Context) ([]Info, error) {
	c, err := v.loadFile()
	if err != nil {
		return nil, fmt.Errorf("list secrets: %w", err)
	}
	if err := v.writeAudit(ctx, Access{Op: OpList}); err != nil {
		return nil, fmt.Errorf("list secrets: %w", err)
	}
	var out []Info
	for _, e := range c.Entries {
		if len(out) == 0 || out[len(out)-1].Name != e.Name {
			out = append(out, Info{Name: e.Name})
		}
		last := &out[len(out)-1]
		last.Versions = append(last.Versions, Version{Version: int(e.Version), Created: time.Unix(e.Created, 0).UTC()})
	}
	return out, nil
}

// CheckName returns nil if name is valid: words of a-z, 0-9, '-', '_' and
// '.', joined by slashes, such as domain/apac/signing.
func CheckName(name string) error {
	bad := fmt.Errorf("name %q: want words of a-z, 0-9, -, _ and . joined by /, at most %d bytes, such as domain/apac/signing", name, MaxName)
	if name == "" || len(name) > MaxName {
		return bad
	}
	word := false
	for _, c := range []byte(name) {
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '_', c == '.':
			word = true
		case c == '/' && word:
			word = false
		default:
			return bad
		}
	}
	if !word {
		return bad
	}
	return nil
}
