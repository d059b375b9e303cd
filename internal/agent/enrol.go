package agent

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"runtime"
	"time"

	"nightferry/internal/bus"
	"nightferry/internal/durable"
	"nightferry/internal/trust"
	"nightferry/internal/wire"
)

// EnrolOptions of Enrol.
type EnrolOptions struct {
	StateDir string              // made if missing
	Allow    []string            // target roots that the Core may name targets in or below; absolute
	Replace  bool                // sets an identity that is there already aside
	Version  string              // of the program
	Env      func(string) string // for proxies; nil: none
	Now      func() time.Time    // required
	Dial     DialFunc            // nil: Dial
	Timeout  time.Duration       // of each answer; 0: 30 s
}

// RefusedError is the Core's no to an enrolment.
type RefusedError struct{ Code, Why string }

func (e *RefusedError) Error() string { return "the Core refuses: " + e.Why }

// Remedy tells what to do.
func (e *RefusedError) Remedy() string {
	switch e.Code {
	case "used", "expired", "revoked", "unknown":
		return "make a new token at the Core: nightferry site token NAME"
	case "version":
		return "install the nightferry-agent that belongs to this Core"
	}
	return "look at the Core's incidents: nightferry incidents"
}

// ErrEnrolled says that the state directory holds an identity already.
var ErrEnrolled = errors.New("this state directory holds an identity already")

// ErrNoAnswer says that the bus is there, and the Core silent.
var ErrNoAnswer = errors.New("no answer from the Core")

// Enrol redeems a token: it makes the site's identity in StateDir. What a
// half-done enrolment left there is used again. The token's text is in no
// error.
func Enrol(ctx context.Context, token string, o EnrolOptions) (*Identity, error) {
	if o.Dial == nil {
		o.Dial = Dial
	}
	if o.Timeout <= 0 {
		o.Timeout = 30 * time.Second
	}
	t, err := wire.ParseToken(token)
	if err != nil {
		return nil, err
	}
	if now := o.Now().Unix(); t.Expires > 0 && now > t.Expires {
		return nil, fmt.Errorf("enroll: %w", &RefusedError{Code: "expired", Why: "the token was good until " + time.Unix(t.Expires, 0).UTC().Format("2006-01-02 15:04 MST")})
	}
	allow, err := cleanRoots(o.Allow)
	if err != nil {
		return nil, fmt.Errorf("enroll: %w", err)
	}
	for _, dir := range allow {
		if err := coversState(dir, o.StateDir); err != nil {
			return nil, fmt.Errorf("enroll: %w", err)
		}
	}
	if err := durable.MkdirPrivate(o.StateDir); err != nil {
		return nil, fmt.Errorf("enroll: %w", err)
	}
	root, err := durable.Open(o.StateDir, durable.Options{Trusted: true})
	if err != nil {
		return nil, fmt.Errorf("enroll: %w", err)
	}
	defer func() { _ = root.Close() }() // nothing is written through it after save
	unlock, err := durable.Lock(root, lockFile)
	if err != nil {
		return nil, fmt.Errorf("enroll in %q: %w: stop the agent first", o.StateDir, err)
	}
	defer func() { _ = unlock() }()
	if err := removeIdentity(root, o); err != nil {
		return nil, fmt.Errorf("enroll: %w", err)
	}
	seed, err := newSeed(root)
	if err != nil {
		return nil, fmt.Errorf("enroll: %w", err)
	}
	id := &Identity{dir: o.StateDir, Domain: t.Domain, Site: t.Site, CA: t.CA, Repo: t.Repo, Root: t.Root, Allow: allow, seed: seed}
	if id.key, err = bus.Ed25519Of(seed); err != nil {
		return nil, err
	}
	grant, err := redeemToken(ctx, t, id, o)
	if err != nil {
		return nil, fmt.Errorf("enroll %s: %w", id.Address(), err)
	}
	g, err := bus.ReadGrant(grant.JWT)
	if err == nil {
		var raw []byte
		if raw, err = bus.Ed25519Public(g.Public); err == nil && trust.Public(raw) != publicKeys(id) {
			err = errors.New("it is for another key")
		}
	}
	if err != nil {
		return nil, fmt.Errorf("enroll %s: the credential that the Core has granted: %w", id.Address(), err)
	}
	id.Core, id.Store, id.Region = grant.Core, grant.Store, grant.Region
	if len(id.Core) == 0 {
		id.Core = t.Core
	}
	if err := id.saveIdentity(root, grant.JWT); err != nil {
		return nil, fmt.Errorf("enroll %s: keep the identity: %w", id.Address(), err)
	}
	return id, nil
}

func publicKeys(id *Identity) (p trust.Public) {
	copy(p[:], id.key.Public().(ed25519.PublicKey))
	return p
}

// removeIdentity makes room for a new identity. What says that there is one goes last:
// whoever dies before finds it again, and nothing of the old one is taken for
// the new one's.
func removeIdentity(root *durable.Root, o EnrolOptions) error {
	_, err := root.Lstat(siteFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !o.Replace {
		return fmt.Errorf("%q: %w: give --replace to set it aside", root.Dir(), ErrEnrolled)
	}
	suffix := ".old-" + o.Now().UTC().Format("20060102T150405.000Z")
	for _, name := range []string{seedFile, jwtFile, keyFile, spoolFile, spoolFile + "-wal", spoolFile + "-shm", coreFile, siteFile} {
		if err := root.Rename(name, name+suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return root.SyncDir(".")
}

// newSeed makes the site's key, or takes the one of an enrolment that came no
// further.
func newSeed(root *durable.Root) ([]byte, error) {
	path := filepath.Join(root.Dir(), seedFile)
	seed, err := readPrivate(path)
	if err == nil {
		if _, err = bus.Ed25519Of(seed); err == nil {
			return seed, nil
		}
		err = &IdentityError{path, err}
	}
	if is[*IdentityError](err) { // no site uses it yet
		_, err = durable.SetAside(root, seedFile)
	} else if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return nil, err
	}
	if seed, _, err = bus.NewIdentity(); err != nil {
		return nil, err
	}
	return seed, durable.WritePrivate(path, append(seed, '\n'))
}

// redeemToken speaks with the Core as the token's one-time user.
func redeemToken(ctx context.Context, t *wire.Token, id *Identity, o EnrolOptions) (*wire.Grant, error) {
	seed, _, err := bus.IdentityOf([32]byte(t.Seed))
	if err != nil {
		return nil, err
	}
	b, err := o.Dial(ctx, bus.ClientOptions{URLs: t.Core, Pins: []bus.Pin{bus.Pin(t.CA)}, JWT: func() (string, error) { return t.JWT, nil }, Seed: seed,
		Name: "enroll " + t.ID, Env: o.Env, Now: o.Now})
	if errors.Is(err, bus.ErrUnwelcome) {
		return nil, &RefusedError{Code: "used", Why: "the Core's bus refuses this token: it was used or revoked, or has expired: ask for a new one"}
	}
	if err != nil {
		return nil, err
	}
	defer b.Close()
	type said struct {
		verb string
		data []byte
	}
	heard := make(chan said, 16)
	a := t.Address()
	err = b.Subscribe(a.AllDown(), func(subject string, data []byte) {
		if to, verb, err := wire.ParseDown(subject); err == nil && to == a {
			select {
			case heard <- said{verb, data}:
			default: // more than anybody would answer
			}
		}
	})
	if err == nil {
		err = b.Flush(ctx)
	}
	if err != nil {
		return nil, err
	}
	chain := &wire.Chain{Repo: t.Repo, Root: t.Root}
	// ask says something until it is answered: what is on the way may be lost.
	ask := func(verb string, v any, answer string, into any) error {
		msg, err := wire.Sign(id.key, t.Repo, a, verb, 0, v)
		if err != nil {
			return err
		}
		for try := 0; try < 3; try++ {
			if err := b.Publish(a.Up(verb), msg); err != nil && !errors.Is(err, bus.ErrAway) {
				return err
			}
			wait := time.NewTimer(o.Timeout / 3)
			for waiting := true; waiting; {
				select {
				case <-ctx.Done():
					wait.Stop()
					return context.Cause(ctx)
				case <-wait.C:
					waiting = false
				case s := <-heard:
					var no wire.Refusal
					switch s.verb {
					case wire.VerbRefuse:
						if _, _, err := chain.OpenDown(s.data, a, s.verb, &no); err != nil {
							return err
						}
						if no.Of == verb {
							wait.Stop()
							return &RefusedError{no.Code, no.Why}
						}
					case answer:
						wait.Stop()
						_, _, err := chain.OpenDown(s.data, a, s.verb, into)
						return err
					}
				}
			}
		}
		return fmt.Errorf("%w within %s: is it running?", ErrNoAnswer, o.Timeout)
	}
	var nonce wire.Nonce
	if err := ask(wire.VerbChallenge, &wire.Challenge{Public: publicKeys(id)}, wire.VerbNonce, &nonce); err != nil {
		return nil, err
	}
	box, err := wire.NewBox()
	if err != nil {
		return nil, err
	}
	var grant wire.Grant
	err = ask(wire.VerbEnrol, &wire.Enrol{Nonce: nonce.Nonce, Token: wire.TokenKey(t.Seed), Proof: wire.Prove(t.Seed, nonce.Nonce, publicKeys(id)),
		Box: box.Public(), Version: o.Version, System: runtime.GOOS + "/" + runtime.GOARCH}, wire.VerbGrant, &grant)
	if err != nil {
		return nil, err
	}
	if len(grant.Sealed) > 0 {
		if id.repo, err = box.Open(grant.Sealed); err != nil {
			return nil, fmt.Errorf("the repository's key: %w", err)
		}
	}
	id.Trust = chain.Object
	return &grant, nil
}
