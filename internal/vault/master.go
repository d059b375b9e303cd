package vault

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"nightferry/internal/durable"
	"nightferry/internal/text"
)

const (
	// MasterSize is the length of a master key in bytes.
	MasterSize = 32
	// MasterEnv is the environment variable that may hold it instead of a file.
	MasterEnv = "NIGHTFERRY_MASTER_KEY"

	masterPrefix = "nightferry-master-1 "
	maxMaster    = 4 << 10 // bytes of a key file
	nextSuffix   = ".new"  // the key file that an interrupted RekeyFile left
)

// Master is the key that opens a vault. After an interrupted change of the
// master key it holds both keys, one of which opens the vault. It does not
// print.
type Master struct {
	Secret
	keys []Secret
}

// NewMaster returns a new random master key.
func NewMaster() Master {
	b := make([]byte, MasterSize)
	_, _ = rand.Read(b) // never fails
	return masterOf(NewSecret(b))
}

func masterOf(keys ...Secret) Master {
	return Master{Secret: keys[0], keys: keys}
}

// NewMasterFile writes a new random master key to path, readable only by its
// owner. It never overwrites: if the file exists, the error is fs.ErrExist.
func NewMasterFile(path string) (Master, error) {
	m := NewMaster()
	if err := durable.WritePrivate(path, m.encodeKey()); err != nil {
		return Master{}, fmt.Errorf("make master key: %w", err)
	}
	return m, nil
}

func (m Master) encodeKey() []byte {
	return []byte(masterPrefix + base64.StdEncoding.EncodeToString(m.keys[0].Reveal()) + "\n")
}

// LoadMaster returns the key in the environment variable MasterEnv, in
// hexadecimal or base64, or else the key in the file at path. The file must
// be readable only by its owner (else durable.ErrExposed), and the owner must
// be trusted (else durable.ErrUntrusted). getenv may be nil.
func LoadMaster(path string, getenv func(string) string) (Master, error) {
	if getenv != nil {
		if text := getenv(MasterEnv); text != "" {
			m, err := ParseMaster([]byte(text))
			if err != nil {
				return Master{}, fmt.Errorf("master key in %s: %w", MasterEnv, err)
			}
			return m, nil
		}
	}
	m, err := readMaster(path)
	if err != nil {
		return Master{}, fmt.Errorf("master key: %w", err)
	}
	keys := m.keys
	switch next, err := readMaster(path + nextSuffix); {
	case err == nil:
		keys = append(keys, next.keys...)
	case !errors.Is(err, fs.ErrNotExist):
		return Master{}, fmt.Errorf("master key of an interrupted rekey: %w", err)
	}
	return masterOf(keys...), nil
}

func readMaster(path string) (Master, error) {
	if path == "" {
		return Master{}, fmt.Errorf("no key file is named: name one, or set %s", MasterEnv)
	}
	b, err := text.ReadFile(durable.ReadPrivate, path, maxMaster)
	if err != nil {
		return Master{}, err
	}
	m, err := ParseMaster(b)
	if err != nil {
		return Master{}, fmt.Errorf("%s: %w", path, err)
	}
	return m, nil
}

// ParseMaster reads a key file's content, or the bare key in hexadecimal or
// base64. Its errors reveal nothing of it.
func ParseMaster(b []byte) (Master, error) {
	text := strings.TrimPrefix(strings.TrimSpace(string(b)), masterPrefix)
	for _, decode := range []func(string) ([]byte, error){
		hex.DecodeString, base64.StdEncoding.Strict().DecodeString, base64.RawStdEncoding.Strict().DecodeString,
		base64.URLEncoding.Strict().DecodeString, base64.RawURLEncoding.Strict().DecodeString,
	} {
		if key, err := decode(text); err == nil && len(key) == MasterSize {
			return masterOf(NewSecret(key)), nil
		}
	}
	return Master{}, fmt.Errorf("want %d random bytes in hexadecimal or base64, or a file that nightferry made", MasterSize)
}
