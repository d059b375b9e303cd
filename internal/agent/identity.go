package agent

import (
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"

	"nightferry/internal/bus"
	"nightferry/internal/digest"
	"nightferry/internal/durable"
	"nightferry/internal/trust"
	"nightferry/internal/wire"
)

// Files of a state directory.
const (
	siteFile  = "site.json"      // the site's identity; no secret
	seedFile  = "identity.seed"  // the identity's secret
	jwtFile   = "user.jwt"       // the site's permissions on the bus; renewed
	keyFile   = "repository.key" // of an encrypted repository, as hexadecimal digits
	spoolFile = "agent.db"
	lockFile  = "lock"

	maxSite = 1 << 20 // bytes of siteFile
	maxKey  = 4 << 10 // bytes of a secret file
)

// Identity is a site's identity, as stored in its state directory.
type Identity struct {
	Domain string        `json:"domain"`
	Site   string        `json:"site"`
	Region string        `json:"region"`
	Core   []string      `json:"core"` // URLs
	CA     digest.Digest `json:"ca"`   // fingerprint of the authority in which the Core's certificate chain must end
	Repo   trust.RepoID  `json:"-"`
	RepoID string        `json:"repo"`  // Repo as hexadecimal digits
	Root   trust.Public  `json:"root"`  // its root key, pinned
	Trust  []byte        `json:"trust"` // the trust document at enrollment; older ones are refused
	Store  string        `json:"store"` // scheme://host[:port], the only source of content
	Allow  []string      `json:"allow"` // target roots; edit this list to change it, the Core cannot

	dir  string // the state directory
	seed []byte
	key  ed25519.PrivateKey
	repo []byte // repository key; nil: a plain repository
}

// Address returns the site's address in subjects.
func (id *Identity) Address() wire.Address { return wire.Address{Domain: id.Domain, Site: id.Site} }

// IdentityError means that a file of the site's identity is damaged or cannot be used. Only a new enrollment replaces it.
type IdentityError struct {
	Path string
	Err  error
}

func (e *IdentityError) Error() string {
	return fmt.Sprintf("the site's identity cannot be used: %s: %v", e.Path, e.Err)
}

func (e *IdentityError) Unwrap() error { return e.Err }

// Remedy names the ways back.
func (e *IdentityError) Remedy() string {
	return fmt.Sprintf("restore %s from a backup; or make a token at the Core (nightferry site token NAME), stop the agent, and run here, with the agent's --state if it has one: nightferry-agent enroll --replace --token-file FILE --allow DIR, which keeps the old identity under other names", e.Path)
}

// ErrNotEnrolled reports a state directory without an identity.
var ErrNotEnrolled = errors.New("this site is not enrolled: run nightferry-agent enroll TOKEN --allow DIR")

// loadSite reads a site's identity without its secrets. It refuses a directory
// or a file that another account can change.
func loadSite(dir string) (*Identity, error) {
	root, err := durable.Open(dir, durable.Options{Trusted: true})
	if err == nil {
		err = root.Close()
	}
	var b []byte
	if err == nil {
		b, err = durable.ReadTrusted(filepath.Join(dir, siteFile), maxSite)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", dir, ErrNotEnrolled)
	}
	if durable.IsBlocked(err) || errors.Is(err, durable.ErrTooLarge) {
		err = &IdentityError{filepath.Join(dir, siteFile), err}
	}
	if err != nil {
		return nil, fmt.Errorf("read the site's identity: %w", err)
	}
	return parseSite(dir, b)
}

// parseSite reads the content of siteFile.
func parseSite(dir string, b []byte) (*Identity, error) {
	id := &Identity{dir: dir}
	if err := json.Unmarshal(b, id); err != nil {
		return nil, &IdentityError{filepath.Join(dir, siteFile), err}
	}
	raw, err := hex.DecodeString(id.RepoID)
	if err != nil || copy(id.Repo[:], raw) != len(raw) || len(raw) != len(id.Repo) {
		return nil, &IdentityError{filepath.Join(dir, siteFile), errors.New("the repository's id is damaged")}
	}
	for _, root := range id.Allow {
		if err := coversState(root, dir); err != nil {
			return nil, fmt.Errorf("read %s: %w", filepath.Join(dir, siteFile), err)
		}
	}
	return id, nil
}

// Load reads the identity of a state directory. It refuses what loadSite
// refuses, and secret files that others can read.
func Load(dir string) (*Identity, error) {
	id, err := loadSite(dir)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, seedFile)
	if id.seed, err = readPrivate(path); err == nil {
		if id.key, err = bus.Ed25519Of(id.seed); err != nil {
			err = &IdentityError{path, err}
		}
	}
	if err != nil {
		return nil, fmt.Errorf("read the site's key: %w", err)
	}
	path = filepath.Join(dir, keyFile)
	text, err := readPrivate(path)
	if errors.Is(err, fs.ErrNotExist) {
		return id, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the repository's key: %w", err)
	}
	if id.repo, err = hex.DecodeString(string(text)); err != nil || len(id.repo) == 0 {
		return nil, &IdentityError{path, errors.New("it holds no key")}
	}
	return id, nil
}

func readPrivate(path string) ([]byte, error) {
	b, err := durable.ReadPrivate(path, maxKey)
	if durable.IsBlocked(err) || errors.Is(err, durable.ErrTooLarge) {
		err = &IdentityError{path, err}
	}
	return []byte(strings.TrimSpace(string(b))), err
}

// readJWT reads the credential, which Renewed replaces.
func readJWT(root *durable.Root) (string, error) {
	f, err := root.Open(jwtFile)
	if durable.IsBlocked(err) || errors.Is(err, fs.ErrNotExist) {
		err = &IdentityError{filepath.Join(root.Dir(), jwtFile), err}
	}
	if err != nil {
		return "", fmt.Errorf("read the site's credential: %w", err)
	}
	b, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err = errors.Join(err, f.Close()); err != nil {
		return "", fmt.Errorf("read the site's credential: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// saveIdentity makes the identity durable. It writes site.json last, because that file
// makes a site enrolled.
func (id *Identity) saveIdentity(root *durable.Root, jwt string) error {
	if err := writeOwn(root, jwtFile, []byte(jwt+"\n")); err != nil {
		return err
	}
	if id.repo != nil {
		err := durable.WritePrivate(filepath.Join(root.Dir(), keyFile), []byte(hex.EncodeToString(id.repo)+"\n"))
		if errors.Is(err, fs.ErrExist) {
			if err = removeOrKeep(root, keyFile); err == nil {
				err = durable.WritePrivate(filepath.Join(root.Dir(), keyFile), []byte(hex.EncodeToString(id.repo)+"\n"))
			}
		}
		if err != nil {
			return err
		}
	}
	return id.writeSite(root)
}

// keepCore makes other addresses of the Core durable. Other edits in the file are
// kept.
func (id *Identity) keepCore(root *durable.Root, urls []string) error {
	now, err := Load(root.Dir())
	if err != nil {
		return err
	}
	now.Core = urls
	if err := now.writeSite(root); err != nil {
		return err
	}
	id.Core = urls
	return nil
}

// writeSite makes site.json durable.
func (id *Identity) writeSite(root *durable.Root) error {
	id.RepoID = id.Repo.String()
	b, err := json.MarshalIndent(id, "", "  ")
	if err != nil {
		return err
	}
	return writeOwn(root, siteFile, append(b, '\n'))
}
