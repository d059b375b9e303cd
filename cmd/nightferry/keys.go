package main

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"nightferry/internal/durable"
	"nightferry/internal/seal"
	"nightferry/internal/text"
	"nightferry/internal/trust"
)

// Names of the key files that init writes.
const (
	rootUse    = "root"
	releaseUse = "release"

	rootKeyName       = "nightferry-root"
	releaseKeyName    = "nightferry-release"
	repositoryKeyName = "nightferry-repository"
	secretExt         = ".key"
	publicExt         = ".pub"

	maxKeyFile = 4 << 10
)

// Environment variables that name keys.
const (
	envRepositoryKey = "NIGHTFERRY_KEY"         // the key itself
	envReleaseKey    = "NIGHTFERRY_RELEASE_KEY" // a file
	envRootKey       = "NIGHTFERRY_ROOT_KEY"    // a file
)

// keyError says that a key is lacking or cannot be used.
type keyError struct {
	err    error
	remedy string
}

func (e *keyError) Error() string { return e.err.Error() }
func (e *keyError) Unwrap() error { return e.err }

// Remedy tells where the key may come from.
func (e *keyError) Remedy() string { return e.remedy }

// readSecret reads a file that only its owner may read.
func readSecret(path string) ([]byte, error) {
	return text.ReadFile(durable.ReadPrivate, path, maxKeyFile)
}

// repositoryKey returns the key of an encrypted repository: from the file, or
// else from the environment, or nil.
func repositoryKey(file string) ([]byte, error) {
	if file != "" {
		b, err := readSecret(file)
		if err != nil {
			return nil, &keyError{fmt.Errorf("repository key: %w", err), ""}
		}
		key, err := parseRepositoryKey(string(b))
		if err != nil {
			return nil, &keyError{fmt.Errorf("repository key in %q: %w", file, err), ""}
		}
		return key, nil
	}
	value := os.Getenv(envRepositoryKey)
	if value == "" {
		return nil, nil
	}
	key, err := parseRepositoryKey(value)
	if err != nil {
		return nil, &keyError{fmt.Errorf("repository key in %s: %w", envRepositoryKey, err), ""}
	}
	return key, nil
}

// parseRepositoryKey reads 32 bytes in hexadecimal or base64. Its errors hold
// nothing of the key.
func parseRepositoryKey(value string) ([]byte, error) {
	value = strings.TrimSpace(value)
	if b, err := hex.DecodeString(value); err == nil && len(b) == seal.KeySize {
		return b, nil
	}
	for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
		if b, err := enc.DecodeString(value); err == nil && len(b) == seal.KeySize {
			return b, nil
		}
	}
	return nil, fmt.Errorf("want %d bytes, as %d hexadecimal digits or in base64 (openssl rand -hex %d makes one)", seal.KeySize, 2*seal.KeySize, seal.KeySize)
}

// signingKey reads the secret key for a use ("root", "release"): from the
// file, or the file that the environment names, or the name that init gives it
// in the current folder.
func signingKey(use, file string) (ed25519.PrivateKey, error) {
	env, name, flag := envReleaseKey, releaseKeyName, "--release-key"
	if use == rootUse {
		env, name, flag = envRootKey, rootKeyName, "--root-key"
	}
	if file == "" {
		file = os.Getenv(env)
	}
	if file == "" {
		file = name + secretExt
	}
	remedy := fmt.Sprintf("name the file that init wrote with %s FILE or %s", flag, env)
	b, err := readSecret(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &keyError{fmt.Errorf("%s key at %q: %w", use, file, fs.ErrNotExist), remedy}
	}
	if err != nil {
		return nil, &keyError{fmt.Errorf("%s key: %w", use, err), ""}
	}
	key, err := trust.ParseSecret(use, b)
	if err != nil {
		return nil, &keyError{fmt.Errorf("%s key in %q: %w", use, file, err), remedy}
	}
	return key, nil
}

// publicKey reads a public key given as 64 hexadecimal digits, or as a file.
func publicKey(use, given string) (trust.Public, error) {
	if p, err := trust.ParsePublic(use, []byte(given)); err == nil {
		return p, nil
	}
	b, err := text.ReadFile(durable.ReadTrusted, given, maxKeyFile)
	if errors.Is(err, fs.ErrNotExist) {
		return trust.Public{}, &absentError{fmt.Sprintf("%s key %q: it is neither 64 hexadecimal digits nor a file", use, given), fmt.Sprintf("name the public half that init wrote, nightferry-%s.pub, or give its digits", use)}
	}
	if err != nil {
		return trust.Public{}, &keyError{fmt.Errorf("%s key %q: it is neither 64 hexadecimal digits nor a file that can be read: %w", use, given, err), ""}
	}
	p, err := trust.ParsePublic(use, b)
	if err != nil {
		return p, &keyError{fmt.Errorf("%s key in %q: %w", use, given, err), ""}
	}
	return p, nil
}

// keyPair is a key about to be written to two files.
type keyPair struct {
	use  string
	key  ed25519.PrivateKey
	base string // path without extension
}

func newKeyPair(use, base string) (keyPair, error) {
	_, key, err := ed25519.GenerateKey(nil)
	return keyPair{use, key, base}, err
}

func (k keyPair) public() (p trust.Public) {
	copy(p[:], k.key.Public().(ed25519.PublicKey))
	return p
}

// write stores both halves. It never overwrites either: a key that is gone cannot be
// made again.
func (k keyPair) write() error {
	if err := refuseExisting(k.base + publicExt); err != nil {
		return err
	}
	if err := durable.WritePrivate(k.base+secretExt, trust.EncodeSecret(k.use, k.key)); err != nil {
		return keyExists(err)
	}
	dir, err := durable.Open(filepath.Dir(k.base), durable.Options{})
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.WriteFile(filepath.Base(k.base)+publicExt, trust.EncodePublic(k.use, k.public()), 0o644)
}

// refuseExisting fails when a file is there already, before anything is made.
func refuseExisting(paths ...string) error {
	for _, p := range paths {
		if _, err := os.Lstat(p); !errors.Is(err, fs.ErrNotExist) {
			return keyExists(errors.Join(err, fmt.Errorf("%q: %w", p, fs.ErrExist)))
		}
	}
	return nil
}

func keyExists(err error) error {
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	return &refusedError{fmt.Sprintf("a key file is never overwritten: %v", err), "choose another folder with --keys DIR, or move the old key away"}
}

// isAbsentKey reports whether a key file is not there, as opposed to unusable.
func isAbsentKey(err error) bool {
	var k *keyError
	return errors.As(err, &k) && errors.Is(k.err, fs.ErrNotExist)
}
