package trust

import (
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"strings"
)

const (
	secretPrefix = "nightferry-secret-1 "
	publicPrefix = "nightferry-public-1 "
)

// EncodeSecret returns the one line of a secret key file. use ("root",
// "release") describes the purpose of the key.
func EncodeSecret(use string, key ed25519.PrivateKey) []byte {
	return fmt.Appendf(nil, "%s%s %s\n", secretPrefix, use, base64.StdEncoding.EncodeToString(key.Seed()))
}

// EncodePublic returns the one line of a public key file.
func EncodePublic(use string, key Public) []byte {
	return fmt.Appendf(nil, "%s%s %s\n", publicPrefix, use, base64.StdEncoding.EncodeToString(key[:]))
}

// ParseSecret reads a secret key file for the given use. Its errors reveal
// nothing of the file's content.
func ParseSecret(use string, b []byte) (ed25519.PrivateKey, error) {
	seed, err := parseKey(secretPrefix, use, b)
	if err != nil {
		return nil, err
	}
	return ed25519.NewKeyFromSeed(seed), nil
}

// ParsePublic reads a public key file, or the bare hexadecimal key.
func ParsePublic(use string, b []byte) (p Public, err error) {
	if text := strings.TrimSpace(string(b)); len(text) == 2*len(p) {
		// Not in the return statement: Go may copy p before the call fills it.
		err = p.UnmarshalText([]byte(text))
		return p, err
	}
	raw, err := parseKey(publicPrefix, use, b)
	copy(p[:], raw)
	return p, err
}

func parseKey(prefix, use string, b []byte) ([]byte, error) {
	rest, ok := strings.CutPrefix(strings.TrimSpace(string(b)), prefix)
	if !ok {
		return nil, fmt.Errorf("not a %skey file: it must begin with %q", strings.TrimSuffix(prefix, "1 "), strings.TrimSpace(prefix))
	}
	have, text, ok := strings.Cut(rest, " ")
	if !ok || have != use {
		return nil, fmt.Errorf("this is a key file for another use than %q", use)
	}
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(raw) != ed25519.SeedSize {
		return nil, fmt.Errorf("key file for %q is damaged", use)
	}
	return raw, nil
}
