package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"nightferry/internal/halt"
	"nightferry/internal/repo"
	"nightferry/internal/trust"
)

func newTrust(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "trust",
		Short:   "Show, rotate and revoke the keys that sign",
		Long:    wrap("The root key, which sites pin, vouches for release keys in numbered documents; release keys sign releases, heads and halts. These commands show the keys, replace a release key (rotate), make one count for nothing (revoke), and sign channels' heads again (resign).", lineWidth),
		Example: examples("nightferry trust show file:///srv/store\nnightferry trust rotate --keys /etc/nightferry file:///srv/store"),
	}
	cmd.AddCommand(newTrustShow(e), newTrustRotate(e), newTrustRevoke(e), newTrustResign(e))
	return cmd
}

func newTrustShow(e *env) *cobra.Command {
	var f storeFlags
	cmd := e.command(verb{
		use:     "show [flags] STORE",
		short:   "List the keys that a repository trusts",
		long:    "Shows the root key that this machine has pinned and every key that it vouches for or has withdrawn, with the time of the last change.",
		example: "nightferry trust show file:///srv/store",
		min:     1, max: 1,
		run: func(ctx context.Context, args []string) (err error) {
			s, err := e.open(ctx, args[0], &f)
			if err != nil {
				return err
			}
			s.showTrust()
			return s.close()
		},
	})
	f.add(cmd)
	return cmd
}

func (s *session) showTrust() {
	doc, n := s.Trust().Current()
	s.e.event("trust", struct {
		Number uint64       `json:"number"`
		Root   trust.Public `json:"root"`
		Keys   []trust.Key  `json:"keys"`
	}{n, s.Trust().Root(), doc.Keys})
	if s.e.json {
		return
	}
	s.e.print("root key %s\ntrust document %d:", s.Trust().Root(), n)
	for _, k := range doc.Keys {
		s.e.print("  %s\n    %s since %s", k.Public, k.Status, stamp(time.Unix(k.Since, 0)))
	}
}

func newTrustRotate(e *env) *cobra.Command {
	var f storeFlags
	var o rotation
	cmd := e.command(verb{
		use:   "rotate [flags] STORE",
		short: "Replace the release key by a new one",
		long: "Makes a new release key, vouches for it with the root key, signs every channel's head and the halt object with it, and only then retires the old key: at no moment is there a head that sites would refuse. " +
			"If several keys are active, --retire names each old one: an on-call key that is retired can stop nobody. " +
			"A head that sites refuse already, by a retired or revoked key, stays as it is and is named: trust resign vouches for it. " +
			"Releases that the old key signed stay good. Run it again with --new-key and --retire after a crash: it completes the missing steps. " +
			"Where a Core signs with the old key: rotate with --keep-old, give the Core the new key (nightferry secret rotate repository/release --file KEY), and run it again with --new-key KEY --retire OLD. No site needs to be touched.",
		example: "nightferry trust rotate --root-key /media/offline/nightferry-root.key --keys /etc/nightferry file:///srv/store",
		min:     1, max: 1,
		run: func(ctx context.Context, args []string) error {
			return e.rotate(ctx, args[0], &o, &f)
		},
	})
	f.add(cmd)
	addRootKey(cmd, &o.rootFile)
	cmd.Flags().StringVar(&o.keys, "keys", ".", "`DIR` to write the new key to")
	cmd.Flags().StringVar(&o.newFile, "new-key", "", "use the release key in `FILE` instead of making one")
	cmd.Flags().StringArrayVar(&o.retire, "retire", nil, "retire this `KEY`, the public half in hexadecimal or as a file; may be repeated")
	cmd.Flags().BoolVar(&o.keepOld, "keep-old", false, "retire no key yet: a Core still signs with one")
	cmd.MarkFlagsMutuallyExclusive("retire", "keep-old")
	return cmd
}

// rotation is the options of trust rotate.
type rotation struct {
	rootFile, keys, newFile string
	retire                  []string
	keepOld                 bool
}

// retired returns the keys to retire. It decides alone only if one key is active and a new one is to be made: of several
// keys, and beside a new key that an earlier run has made, one may be the key of the operators on call.
func (o *rotation) retired(doc *trust.Doc, made *trust.Public) (map[trust.Public]bool, error) {
	chosen := map[trust.Public]bool{}
	for _, name := range o.retire {
		k, err := publicKey(releaseUse, name)
		if err != nil {
			return nil, err
		}
		if doc.Find(k) == nil || made != nil && k == *made {
			return nil, &absentError{fmt.Sprintf("the repository has no other key %s to retire", k), "nightferry trust show lists its keys"}
		}
		chosen[k] = true
	}
	if o.keepOld || len(chosen) > 0 {
		return chosen, nil
	}
	var active []string
	for _, k := range doc.Keys {
		if k.Status == trust.Active && (made == nil || k.Public != *made) {
			active = append(active, fmt.Sprintf("%s (since %s)", k.Public, stamp(time.Unix(k.Since, 0))))
			chosen[k.Public] = true
		}
	}
	if len(active) > 1 || len(active) == 1 && made != nil {
		return nil, &refusedError{"which key to retire is not clear; active: " + strings.Join(active, ", "),
			"name each old key with --retire KEY, or keep all with --keep-old; keep the key of the operators on call"}
	}
	return chosen, nil
}

func addRootKey(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVar(file, "root-key", "", "`FILE` with the offline root key (or NIGHTFERRY_ROOT_KEY; default nightferry-root.key)")
}

func (e *env) rotate(ctx context.Context, rawURL string, o *rotation, f *storeFlags) (err error) {
	root, err := signingKey(rootUse, o.rootFile)
	if err != nil {
		return err
	}
	s, err := e.open(ctx, rawURL, f)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	pair, old, err := o.pair(s)
	if err != nil {
		return err
	}
	public := pair.public()
	if err := s.changeTrust(ctx, root, func(d *trust.Doc) bool {
		if k := d.Find(public); k != nil {
			return false // a run before this one has come so far
		}
		d.Keys = append(d.Keys, trust.Key{Public: public, Roles: trust.AllRoles, Since: e.now().Unix()})
		return true
	}); err != nil {
		return err
	}
	if doc, _ := s.Trust().Current(); doc.Find(public).Status != trust.Active {
		return &refusedError{fmt.Sprintf("key %s is %s: it does not come back", public, doc.Find(public).Status), "rotate without --new-key makes a fresh one"}
	}
	if err := s.putHalt(ctx, pair.key, func(*halt.Orders, bool) (uint64, error) { return 0, nil }); err != nil {
		return err
	}
	channels, err := s.Channels(ctx)
	if err != nil {
		return err
	}
	for _, c := range channels {
		h, err := s.Head(ctx, c)
		if errors.Is(err, trust.ErrUntrusted) {
			e.warn("not signed by the new key: %v", err) // nor has any site accepted it before
			continue
		}
		if err == nil {
			_, err = s.Publisher(pair.key).Renew(ctx, c, h.Number, h.Release)
		}
		if err != nil {
			return err
		}
	}
	if err := s.changeTrust(ctx, root, func(d *trust.Doc) bool {
		changed := false
		for i := range d.Keys {
			if k := &d.Keys[i]; old[k.Public] && k.Status == trust.Active {
				k.Status, k.Since, changed = trust.Retired, e.now().Unix(), true
			}
		}
		return changed
	}); err != nil {
		return err
	}
	if pair.base != "" {
		e.summary("new release key in %s: push with --release-key or NIGHTFERRY_RELEASE_KEY", shown(pair.base+secretExt))
	}
	s.showTrust()
	return nil
}

// pair returns the new key, and the keys that it replaces. It makes no key if these are not clear.
func (o *rotation) pair(s *session) (pair keyPair, old map[trust.Public]bool, err error) {
	doc, _ := s.Trust().Current()
	if o.newFile != "" {
		if pair.key, err = signingKey(releaseUse, o.newFile); err != nil {
			return pair, nil, err
		}
		public := pair.public()
		old, err = o.retired(doc, &public)
		return pair, old, err
	}
	if old, err = o.retired(doc, nil); err != nil {
		return pair, nil, err
	}
	if pair, err = newKeyPair(releaseUse, ""); err != nil {
		return pair, nil, err
	}
	if err := os.MkdirAll(o.keys, 0o700); err != nil {
		return pair, nil, fmt.Errorf("make the folder for keys: %w", err)
	}
	pair.base = filepath.Join(o.keys, releaseKeyName+"-"+pair.public().String()[:8])
	return pair, old, pair.write()
}

// changeTrust publishes what change makes of the keys, if it reports a change.
func (s *session) changeTrust(ctx context.Context, root ed25519.PrivateKey, change func(*trust.Doc) bool) error {
	doc, _ := s.Trust().Current()
	next := trust.Doc{Keys: append([]trust.Key(nil), doc.Keys...)}
	if !change(&next) {
		return nil
	}
	if err := s.Trust().Put(ctx, root, &next); err != nil {
		return err
	}
	return s.remember()
}

func newTrustRevoke(e *env) *cobra.Command {
	var f storeFlags
	var rootFile string
	cmd := e.command(verb{
		use:   "revoke [flags] STORE KEY",
		short: "Make a key count for nothing",
		long: "Revokes a key that was stolen or lost: nothing that it signed counts any more, but for releases that a head signed by a good key leads to. KEY is the public half, in hexadecimal or as a file. " +
			"Rotate first, so that there is another key: the last active one is not revoked. Then check the releases that the channels' heads name before you sign them again.",
		example: "nightferry trust revoke --root-key /media/offline/nightferry-root.key file:///srv/store nightferry-release.pub",
		min:     2, max: 2, subject: 1,
		run: func(ctx context.Context, args []string) error {
			return e.revoke(ctx, args[0], args[1], rootFile, &f)
		},
	})
	f.add(cmd)
	addRootKey(cmd, &rootFile)
	return cmd
}

func (e *env) revoke(ctx context.Context, rawURL, key, rootFile string, f *storeFlags) (err error) {
	bad, err := publicKey(releaseUse, key)
	if err != nil {
		return err
	}
	root, err := signingKey(rootUse, rootFile)
	if err != nil {
		return err
	}
	s, err := e.open(ctx, rawURL, f)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	doc, _ := s.Trust().Current()
	if doc.Find(bad) == nil {
		return &absentError{"the repository has no such key", "nightferry trust show lists its keys"}
	}
	others := 0
	for _, k := range doc.Keys {
		if k.Public != bad && k.Status == trust.Active {
			others++
		}
	}
	signer, err := s.haltSigner(ctx)
	if err != nil {
		return err
	}
	if others == 0 || signer == bad {
		return &refusedError{"the channels or the halt object depend on it: afterwards publish and halt would fail", "run nightferry trust rotate first"}
	}
	if err := s.changeTrust(ctx, root, func(d *trust.Doc) bool {
		k := d.Find(bad)
		if k.Status == trust.Revoked {
			return false
		}
		k.Status, k.Since = trust.Revoked, e.now().Unix()
		return true
	}); err != nil {
		return err
	}
	s.showTrust()
	return s.reportUntrusted(ctx)
}

// haltSigner returns the key that signed the halt object, which nobody could
// replace once that key is revoked.
func (s *session) haltSigner(ctx context.Context) (p trust.Public, err error) {
	b, err := s.object(ctx, "halt", halt.Max)
	if err != nil {
		return p, err
	}
	signed, err := trust.Parse(halt.Kind, halt.Version, halt.Max, b)
	if err != nil {
		return p, fmt.Errorf("halt: %w", err)
	}
	return signed.Signer, nil
}

// reportUntrusted names the channels whose heads count for nothing any more.
func (s *session) reportUntrusted(ctx context.Context) error {
	channels, err := s.Channels(ctx)
	if err != nil {
		return err
	}
	for _, c := range channels {
		if _, err := s.Head(ctx, c); errors.Is(err, trust.ErrUntrusted) {
			s.e.warn("%v", err)
		} else if err != nil {
			return err
		}
	}
	return nil
}

func newTrustResign(e *env) *cobra.Command {
	var f storeFlags
	var keyFile string
	cmd := e.command(verb{
		use:   "resign [flags] STORE [CHANNEL]",
		short: "Sign the heads of channels again",
		long: "Signs a channel's head, or every channel's, again with an active key: the same release, valid for another 14 days. Sites refuse new releases behind an expired head, so run it daily if you push less often. " +
			"Your signature vouches for the release that the head names: after a key was stolen, check that release first.",
		example: "nightferry trust resign file:///srv/store\nnightferry trust resign --release-key /etc/nightferry/nightferry-release.key file:///srv/store package",
		min:     1, max: 2,
		run: func(ctx context.Context, args []string) (err error) {
			key, err := signingKey(releaseUse, keyFile)
			if err != nil {
				return err
			}
			s, err := e.open(ctx, args[0], &f)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, s.close()) }()
			channels := args[1:]
			if len(channels) == 0 {
				if channels, err = s.Channels(ctx); err != nil {
					return err
				}
			}
			for _, c := range channels {
				number, err := s.Publisher(key).Resign(ctx, c)
				if err != nil {
					return err
				}
				expires := e.now().Add(repo.HeadLife).UTC()
				e.event("resigned", struct {
					Channel string              `json:"channel"`
					Number  trust.ReleaseNumber `json:"release"`
					Expires time.Time           `json:"expires"`
				}{c, number, expires})
				e.summary("%s: the head names release %d, good until %s", shown(c), number, stamp(expires))
			}
			return s.remember()
		},
	})
	f.add(cmd)
	addReleaseKey(cmd, &keyFile)
	return cmd
}
