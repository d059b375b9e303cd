package repo

import (
	"fmt"

	"nightferry/internal/frame"
	"nightferry/internal/seal"
	"nightferry/internal/trust"
)

// identity separates the objects of a repository from those of any other: its id is in every signature, and its keys
// seal the payloads.
type identity struct {
	repo trust.RepoID
	keys *seal.Keys // nil in a plain repository
}

// subject returns the facts that the signature of an object covers. scope is a channel's name in object keys, or empty.
func (i identity) subject(kind string, version uint16, scope string, number uint64) trust.Subject {
	return trust.Subject{Kind: kind, Version: version, Repo: i.repo, Scope: scope, Number: number}
}

// sealPayload encrypts a payload in an encrypted repository: salt, then sealed
// bytes.
func (i identity) sealPayload(kind string, b []byte) ([]byte, error) {
	salt := i.keys.NewSalt()
	obj, err := i.keys.Object(kind, salt)
	if err != nil {
		return nil, err
	}
	return obj.Seal(salt, b, 0), nil
}

// openPayload decrypts a payload of sealPayload.
func (i identity) openPayload(kind string, b []byte) ([]byte, error) {
	if i.keys == nil {
		return b, nil
	}
	if len(b) < seal.SaltSize {
		return nil, fmt.Errorf("%s: sealed payload of %d bytes: %w", kind, len(b), frame.ErrDamaged)
	}
	obj, err := i.keys.Object(kind, b[:seal.SaltSize])
	if err != nil {
		return nil, err
	}
	return obj.Open(nil, b[seal.SaltSize:], 0)
}
