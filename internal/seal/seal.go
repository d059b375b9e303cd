// Package seal encrypts the objects of an encrypted repository. It also
// derives the ids of chunks and the names of channels, so that the bucket
// reveals neither names nor content.
//
// A nil *Keys stands for a plain repository: its methods hash without a key
// and seal nothing, so that callers need only one code path.
//
// All keys are derived from one 32-byte repository key by HKDF-SHA-256 (RFC
// 5869): a chunk-id key, a name key, and one key per stored object from a
// random 32-byte salt. Parts of an object are sealed with AES-256-GCM (NIST
// SP 800-38D). The nonce is the part's offset in its object, unique under
// that object's key. The additional data binds the repository, the format,
// the object's kind and the offset.
package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"

	"nightferry/internal/digest"
)

// KeySize is the length of a repository key in bytes.
const KeySize = 32

// SaltSize is the length of an object's salt in bytes.
const SaltSize = 32

// Overhead is the number of bytes that sealing adds to a part.
const Overhead = 16

// Cipher numbers, as the format object and each prelude state them.
const (
	Plain     = 0
	AES256GCM = 1
)

// ErrOpen reports that a sealed part failed to open: the key is wrong or the
// bytes were altered.
var ErrOpen = errors.New("sealed data does not open: wrong key, or altered")

// Keys derives all keys of one encrypted repository. It is safe for
// concurrent use.
type Keys struct {
	master  [KeySize]byte
	chunkID []byte
	name    []byte
	repo    [16]byte
}

// NewKeys takes the repository key, KeySize bytes, and the repository's id.
func NewKeys(key []byte, repo [16]byte) (*Keys, error) {
	if len(key) != KeySize {
		return nil, fmt.Errorf("repository key has %d bytes, want %d", len(key), KeySize)
	}
	k := &Keys{repo: repo}
	copy(k.master[:], key)
	var err error
	if k.chunkID, err = k.derive(nil, "chunk id"); err != nil {
		return nil, err
	}
	if k.name, err = k.derive(nil, "name"); err != nil {
		return nil, err
	}
	return k, nil
}

func (k *Keys) derive(salt []byte, what string) ([]byte, error) {
	b, err := hkdf.Key(sha256.New, k.master[:], salt, "nightferry 1 "+what+string(k.repo[:]), 32)
	if err != nil {
		return nil, fmt.Errorf("derive the %s key: %w", what, err)
	}
	return b, nil
}

// Cipher returns the number of the cipher in use.
func (k *Keys) Cipher() uint8 {
	if k == nil {
		return Plain
	}
	return AES256GCM
}

// ChunkID returns a chunk's id: its SHA-256 in a plain repository, its
// HMAC-SHA-256 in an encrypted one, so that an outsider cannot test whether
// the bucket holds a known chunk.
func (k *Keys) ChunkID(b []byte) digest.Digest {
	if k == nil {
		return digest.Of(b)
	}
	m := hmac.New(sha256.New, k.chunkID)
	m.Write(b)
	var d digest.Digest
	m.Sum(d[:0])
	return d
}

// Name returns a channel's name in object keys: its own name or, in an
// encrypted repository, 32 hexadecimal digits that do not reveal it.
func (k *Keys) Name(channel string) string {
	if k == nil {
		return channel
	}
	m := hmac.New(sha256.New, k.name)
	m.Write([]byte(channel))
	return hex.EncodeToString(m.Sum(nil)[:16])
}

// Check returns 16 bytes that depend on the key. The format object holds
// them, so that a wrong key is detected before anything is read with it.
func (k *Keys) Check() []byte {
	if k == nil {
		return nil
	}
	m := hmac.New(sha256.New, k.name)
	m.Write([]byte("\x00check"))
	return m.Sum(nil)[:16]
}

// Object seals and opens the parts of one stored object. A nil *Object passes
// parts through unchanged. It is safe for concurrent use.
type Object struct {
	aead cipher.AEAD
	aad  []byte
}

// NewSalt returns a random salt for a new object, or nil in a plain repository.
func (k *Keys) NewSalt() []byte {
	if k == nil {
		return nil
	}
	b := make([]byte, SaltSize)
	rand.Read(b) // never fails (crypto/rand)
	return b
}

// Object returns the sealer of one object of the given kind.
func (k *Keys) Object(kind string, salt []byte) (*Object, error) {
	if k == nil {
		if len(salt) != 0 {
			return nil, fmt.Errorf("%s is sealed, but the repository is plain", kind)
		}
		return nil, nil
	}
	if len(salt) != SaltSize {
		return nil, fmt.Errorf("%s: salt has %d bytes, want %d", kind, len(salt), SaltSize)
	}
	key, err := k.derive(salt, "object "+kind)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	aad := append([]byte("nightferry 1 "+kind), k.repo[:]...)
	return &Object{aead: aead, aad: aad}, nil
}

// Overhead returns the number of bytes that Seal adds to a part.
func (o *Object) Overhead() int {
	if o == nil {
		return 0
	}
	return Overhead
}

func (o *Object) bind(offset uint64) (nonce [12]byte, aad []byte) {
	binary.BigEndian.PutUint64(nonce[4:], offset)
	aad = binary.BigEndian.AppendUint64(append(make([]byte, 0, len(o.aad)+8), o.aad...), offset)
	return nonce, aad
}

// Seal appends the sealed part to dst. offset is the part's offset in its
// object; no two parts of one object may share it.
func (o *Object) Seal(dst, part []byte, offset uint64) []byte {
	if o == nil {
		return append(dst, part...)
	}
	nonce, aad := o.bind(offset)
	return o.aead.Seal(dst, nonce[:], part, aad)
}

// Open appends the opened part to dst, or fails with ErrOpen.
func (o *Object) Open(dst, sealed []byte, offset uint64) ([]byte, error) {
	if o == nil {
		return append(dst, sealed...), nil
	}
	nonce, aad := o.bind(offset)
	out, err := o.aead.Open(dst, nonce[:], sealed, aad)
	if err != nil {
		return nil, ErrOpen
	}
	return out, nil
}
