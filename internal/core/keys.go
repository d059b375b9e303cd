package core

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"

	"nightferry/internal/bucket"
	"nightferry/internal/bus"
	"nightferry/internal/repo"
	"nightferry/internal/trust"
	"nightferry/internal/vault"
	"nightferry/internal/wire"
)

// Names of the Core's secrets in the vault.
const (
	SecretStore      = "s3" // access key, secret key and, if any, session token, separated by white space
	secretCA         = "ca"
	secretAccount    = "bus/account"
	secretOperator   = "bus/operator"
	secretEnrol      = "bus/enroll"
	secretBus        = "bus/core"
	secretRelease    = "repository/release"
	secretRepository = "repository/key"
	secretRoot       = "repository/root" // the public half, pinned
	secretNonce      = "core/nonce"
)

func domainSecret(domain string) string { return "domain/" + domain + "/signing" }

// releaseUse is the use that a release key's file names.
const releaseUse = "release"

// keys are the Core's secrets. They are only replaced as a whole.
type keys struct {
	release ed25519.PrivateKey // also signs control messages
	repo    []byte             // nil: plain
	root    trust.Public
	nonce   []byte
	ca      *bus.CA
	seeds   bus.Seeds
	store   bucket.Options
}

// nonceOf returns the value that a site has to repeat in its attestation of a
// release: the number of the sync request, and eight bytes of a MAC over it. It
// is derived, so that the Core can check an attestation of any earlier request,
// also one that a restored ledger has lost.
func (k *keys) nonceOf(a wire.Address, channel string, number trust.ReleaseNumber, start uint64) (n [16]byte) {
	h := hmac.New(sha256.New, k.nonce)
	for _, s := range []string{a.Domain, a.Site, channel} {
		h.Write(append([]byte(s), 0)) // names hold no zero byte
	}
	h.Write(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, uint64(number)), start))
	binary.BigEndian.PutUint64(n[:8], start)
	copy(n[8:], h.Sum(nil))
	return n
}

// writeSecrets creates the secrets of a new Core and stores them in its vault.
func writeSecrets(ctx context.Context, v *vault.Vault, o *InitOptions, root trust.Public) (*bus.CA, error) {
	ca, err := bus.NewCA(o.Name, o.Now())
	if err != nil {
		return nil, err
	}
	cert, key, err := ca.PEM()
	if err != nil {
		return nil, err
	}
	seeds, err := bus.NewSeeds()
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, 32)
	rand.Read(nonce) // never fails (crypto/rand)
	all := []struct {
		name  string
		value []byte
	}{
		{secretCA, append(cert, key...)},
		{secretAccount, []byte(seeds.Account)}, {secretOperator, seeds.Operator}, {secretEnrol, seeds.Enrol}, {secretBus, seeds.Core},
		{secretNonce, nonce}, {secretRoot, []byte(root.String())},
		{secretRelease, trust.EncodeSecret(releaseUse, o.Release)},
	}
	if o.RepoKey != nil {
		all = append(all, struct {
			name  string
			value []byte
		}{secretRepository, []byte(hex.EncodeToString(o.RepoKey))})
	}
	for _, s := range all {
		if _, err := v.Set(ctx, s.name, s.value); err != nil {
			return nil, err
		}
	}
	return ca, nil
}

// readKeys reads the keys from the vault.
func readKeys(ctx context.Context, v *vault.Vault, o *Options) (*keys, error) {
	k := &keys{store: o.Store}
	var err error
	get := func(name, purpose string) []byte {
		if err != nil {
			return nil
		}
		var s vault.Secret
		if s, _, err = v.Get(ctx, name, purpose); err != nil {
			return nil
		}
		return bytes.TrimSpace(s.Reveal())
	}
	optional := func(name, purpose string) []byte {
		b := get(name, purpose)
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return b
	}
	pems := get(secretCA, "sign the bus's certificate")
	k.seeds = bus.Seeds{
		Account:  string(get(secretAccount, "serve the bus")),
		Operator: get(secretOperator, "serve the bus"),
		Enrol:    get(secretEnrol, "serve the bus"),
		Core:     get(secretBus, "serve the bus"),
	}
	release := get(secretRelease, "sign releases, heads and control")
	root := get(secretRoot, "pin the repository")
	if err == nil {
		// Not trimmed: any byte may be a part of it.
		var s vault.Secret
		if s, _, err = v.Get(ctx, secretNonce, "check attestations"); err == nil {
			k.nonce = s.Reveal()
		}
	}
	repoKey := optional(secretRepository, "open the repository")
	if o.Env == nil || (o.Env("AWS_ACCESS_KEY_ID") == "" && o.Env("AWS_PROFILE") == "") {
		words := bytes.Fields(optional(SecretStore, "reach the store"))
		if len(words) >= 2 {
			k.store.AccessKey, k.store.SecretKey = string(words[0]), string(words[1])
		}
		if len(words) > 2 {
			k.store.SessionToken = string(words[2])
		}
	}
	if err != nil {
		return nil, err
	}
	i := bytes.Index(pems, []byte("-----END CERTIFICATE-----"))
	if i < 0 {
		return nil, fmt.Errorf("read secret %q: it holds no certificate", secretCA)
	}
	i += len("-----END CERTIFICATE-----") + 1
	if k.ca, err = bus.LoadCA(pems[:min(i, len(pems))], pems[min(i, len(pems)):]); err != nil {
		return nil, err
	}
	if k.release, err = trust.ParseSecret(releaseUse, release); err != nil {
		return nil, fmt.Errorf("read secret %q: %w", secretRelease, err)
	}
	if k.root, err = trust.ParsePublic("root", root); err != nil {
		return nil, fmt.Errorf("read secret %q: %w", secretRoot, err)
	}
	if len(repoKey) > 0 {
		if k.repo, err = hex.DecodeString(string(repoKey)); err != nil {
			return nil, fmt.Errorf("read secret %q: it is not hexadecimal", secretRepository)
		}
	}
	return k, nil
}

// mayControl returns why the release key lacks a permission that the Core needs.
func mayControl(r *repo.Repo, k ed25519.PrivateKey) error {
	doc, number := r.Trust().Current()
	p := repo.PublicOf(k)
	for _, role := range []trust.Role{trust.Releases, trust.Heads, trust.Halts, trust.Control} {
		if err := doc.Allows(p, role); err != nil {
			return fmt.Errorf("the Core's release key: trust document %d: %w: give it the key that took its place (nightferry secret rotate repository/release --file KEY), or make one with the root key (nightferry trust rotate)", number, err)
		}
	}
	return nil
}
