package vault

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/aead/aesgcm"
	"github.com/tink-crypto/tink-go/v2/insecuresecretdataaccess"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/secretdata"
	"github.com/tink-crypto/tink-go/v2/tink"

	"nightferry/internal/durable"
	"nightferry/internal/frame"
)

const (
	kind    = "vaul"
	version = 1
	maxFile = 32 << 20 // bytes

	keysetAAD = "nightferry vault 1 keyset"
	entryAAD  = "nightferry vault 1 entry"
	sealAAD   = "nightferry vault 1 seal"
)

// content is the file's body, and the key that seals its entries.
type content struct {
	_       struct{} `cbor:",toarray"`
	Keyset  []byte   // Tink's encrypted keyset
	Entries []entry  // sorted by name, then version
	Seal    []byte   // of an empty value, authenticating all other fields: it detects removed and reinserted entries

	master Secret // the master key that opened it, and that seals it again
	handle *keyset.Handle
	data   tink.AEAD // of handle; set at first use
}

type entry struct {
	_       struct{} `cbor:",toarray"`
	Name    string
	Version uint32 // from 1
	Created int64  // Unix seconds
	Sealed  []byte
}

// boundData binds a sealed value to its name and version: it does not open in
// another entry.
func (e *entry) boundData() []byte {
	b := append([]byte(entryAAD), 0)
	b = binary.BigEndian.AppendUint32(b, e.Version)
	return append(b, e.Name...)
}

func byName(a, b entry) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Version, b.Version))
}

func newContent(master Secret) (*content, error) {
	h, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		return nil, fmt.Errorf("make data key: %w", err)
	}
	return &content{master: master, handle: h}, nil
}

// findEntry returns a version, or the newest for 0. It returns nil if there is
// none.
func (c *content) findEntry(name string, version int) *entry {
	var found *entry
	for i := range c.Entries {
		if e := &c.Entries[i]; e.Name == name && (version == 0 || int64(e.Version) == int64(version)) {
			found = e
		}
	}
	return found
}

func (c *content) openCipher() (tink.AEAD, error) {
	if c.data == nil {
		a, err := aead.New(c.handle)
		if err != nil {
			return nil, fmt.Errorf("use data key: %w", err)
		}
		c.data = a
	}
	return c.data, nil
}

func (c *content) openValue(e *entry) ([]byte, error) {
	a, err := c.openCipher()
	if err != nil {
		return nil, err
	}
	value, err := a.Decrypt(e.Sealed, e.boundData())
	if err != nil {
		return nil, fmt.Errorf("version %d was altered or moved: %w: restore the vault from a copy", e.Version, frame.ErrDamaged)
	}
	return value, nil
}

// putValue seals value as a new entry.
func (c *content) putValue(name string, version uint32, created time.Time, value []byte) error {
	a, err := c.openCipher()
	if err != nil {
		return err
	}
	if len(c.Entries) >= MaxEntries {
		return fmt.Errorf("the vault holds %d versions already: prune some", MaxEntries)
	}
	e := entry{Name: name, Version: version, Created: created.Unix()}
	if e.Sealed, err = a.Encrypt(value, e.boundData()); err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	c.Entries = append(c.Entries, e)
	slices.SortFunc(c.Entries, byName)
	return nil
}

func (c *content) sealAAD() ([]byte, error) {
	b, err := frame.Marshal([]any{c.Keyset, c.Entries})
	return append([]byte(sealAAD+"\x00"), b...), err
}

// saveFile replaces the file.
func (c *content) saveFile(dir *durable.Root) error {
	m, err := masterCipher(c.master)
	if err != nil {
		return err
	}
	var buf bytes.Buffer
	if err := c.handle.WriteWithAssociatedData(keyset.NewBinaryWriter(&buf), m, []byte(keysetAAD)); err != nil {
		return fmt.Errorf("seal data key: %w", err)
	}
	c.Keyset = buf.Bytes()
	a, err := c.openCipher()
	if err != nil {
		return err
	}
	aad, err := c.sealAAD()
	if err != nil {
		return err
	}
	if c.Seal, err = a.Encrypt(nil, aad); err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	b, err := frame.Encode(kind, version, c)
	if err != nil {
		return err
	}
	b = frame.AppendSum(b)
	if len(b) > maxFile {
		return fmt.Errorf("the vault would take %d bytes, at most %d are allowed: prune old versions", len(b), maxFile)
	}
	// A file that does not read back must not replace one that does.
	if _, err := parseFile(b, []Secret{c.master}); err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	return durable.Patiently(func() error { return dir.WriteFile(fileName, b, 0o600) })
}

// parseFile checks every byte of a file, but does not open the values.
func parseFile(b []byte, masters []Secret) (*content, error) {
	if len(b) > maxFile {
		return nil, fmt.Errorf("%d bytes, at most %d are allowed: %w", len(b), maxFile, frame.ErrDamaged)
	}
	body, err := frame.CutSum(kind, version, b)
	if err != nil {
		return nil, err
	}
	var c content
	if err := frame.Decode(kind, version, maxFile, body, &c); err != nil {
		return nil, err
	}
	for _, m := range masters {
		mc, err := masterCipher(m)
		if err != nil {
			return nil, err
		}
		if c.handle, err = keyset.ReadWithAssociatedData(keyset.NewBinaryReader(bytes.NewReader(c.Keyset)), mc, []byte(keysetAAD)); err == nil {
			c.master = m
			break
		}
	}
	if c.handle == nil {
		return nil, ErrMaster // the checksum matches, so the file is most likely undamaged and the key is wrong
	}
	a, err := c.openCipher()
	if err != nil {
		return nil, err
	}
	aad, err := c.sealAAD()
	if err != nil {
		return nil, err
	}
	if _, err := a.Decrypt(c.Seal, aad); err != nil {
		return nil, fmt.Errorf("its entries are not those that were written: %w: restore the vault from a copy", frame.ErrDamaged)
	}
	return &c, nil
}

// loadFile reads the current file.
func (v *Vault) loadFile() (*content, error) {
	f, err := v.dir.Open(fileName)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("read vault: %w", err)
	}
	return parseFile(b, v.master.get())
}

func masterCipher(master Secret) (tink.AEAD, error) {
	p, err := aesgcm.NewParameters(aesgcm.ParametersOpts{KeySizeInBytes: MasterSize, IVSizeInBytes: 12, TagSizeInBytes: 16, Variant: aesgcm.VariantNoPrefix})
	if err != nil {
		return nil, fmt.Errorf("use master key: %w", err)
	}
	k, err := aesgcm.NewKey(secretdata.NewBytesFromData(master.Reveal(), insecuresecretdataaccess.Token{}), 0, p)
	if err != nil {
		return nil, errors.New("use master key: it is not 32 bytes")
	}
	return aesgcm.NewAEAD(k)
}

// masterBox holds the master keys of an open vault, which a rekey replaces.
type masterBox struct {
	mu   sync.Mutex
	keys []Secret
}

func (m *masterBox) get() []Secret {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.keys)
}

func (m *masterBox) set(keys ...Secret) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.keys = keys
}

// lockFile waits until no other process or goroutine changes the vault, for ten
// seconds at most. A change takes milliseconds.
func lockFile(ctx context.Context, dir *durable.Root) (func() error, error) {
	const step, tries = 20 * time.Millisecond, 500
	for n := 1; ; n++ {
		unlock, err := durable.Lock(dir, lockName)
		if err == nil || n == tries || !errors.Is(err, durable.ErrBusy) {
			return unlock, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(step):
		}
	}
}
