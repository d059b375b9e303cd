package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"nightferry/internal/bucket"
	"nightferry/internal/config"
	"nightferry/internal/core"
	"nightferry/internal/durable"
	"nightferry/internal/repo"
	"nightferry/internal/trust"
	"nightferry/internal/vault"
)

// coreInitFlags are what core init can be told.
type coreInitFlags struct {
	store, host, releaseKey, keyFile, trust string
	create, encrypt                         bool
}

// coreSetup makes a Core, and checks one.
type coreSetup struct{ e *env }

func newCoreInit(e *env) *cobra.Command {
	var f coreInitFlags
	cmd := e.command(verb{
		use:   "init [flags] DIR",
		short: "Make a Core: configuration, keys, vault and folders",
		long: "Makes in DIR a commented configuration that works, a master key, a vault with a certificate authority and the fleet's keys, and the folders for data and content. With --create-repository it makes the repository too and writes its root key beside: take that away, to a place that is offline. " +
			"Without, it adopts the repository that is in the store, with its release key. Without --store it writes the configuration alone: name the store in it and run the same command again. One that was interrupted is completed by running it again.",
		example: "nightferry core init /srv/nightferry --store 's3://bucket/fleet?region=eu-west-1' --create-repository\nnightferry core init /srv/nightferry --store 's3://bucket/fleet?region=eu-west-1' --release-key nightferry-release.key",
		min:     1, max: 1,
		interrupt: resumes,
		run:       func(ctx context.Context, args []string) error { return coreSetup{e}.coreInit(ctx, args[0], &f) },
	})
	fl := cmd.Flags()
	fl.StringVar(&f.store, "store", "", "`URL` of the store: s3://BUCKET/PREFIX?region=REGION")
	fl.StringVar(&f.host, "host", "", "the `NAME` under which sites reach this Core (default this host's)")
	fl.BoolVar(&f.create, "create-repository", false, "make the repository, in an empty store")
	fl.BoolVar(&f.encrypt, "encrypt", false, "with --create-repository: seal names and content under a repository key")
	fl.StringVar(&f.releaseKey, "release-key", "", "`FILE` with the release key of the repository to adopt")
	fl.StringVar(&f.keyFile, "key-file", "", "`FILE` with the key of an encrypted repository to adopt (or the key in NIGHTFERRY_KEY)")
	fl.StringVar(&f.trust, "trust", "", "the public root `KEY` of the repository to adopt, or a file with it; default: pin the key found in the store")
	return cmd
}

// coreMade is what core init tells programs.
type coreMade struct {
	Config      string `json:"config"`
	MasterKey   string `json:"master_key,omitempty"` // the file
	Store       string `json:"store,omitempty"`
	Repo        string `json:"repo,omitempty"`
	Root        string `json:"root,omitempty"`     // public half
	RootKey     string `json:"root_key,omitempty"` // the file to take away
	Fingerprint string `json:"ca_fingerprint,omitempty"`
}

func (g coreSetup) coreInit(ctx context.Context, dir string, f *coreInitFlags) error {
	if (f.releaseKey != "" || f.keyFile != "" || f.trust != "") && f.create {
		return usage("core init", "--release-key, --key-file and --trust adopt a repository, --create-repository makes one: choose")
	}
	if f.encrypt && !f.create {
		return usage("core init", "--encrypt needs --create-repository")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if f.store != "" {
		if strings.HasPrefix(f.store, "file://") {
			return usage("core init", "--store: a Core needs an S3 store, from which its sites fetch: a directory will not do")
		}
		if err := bucket.CheckS3(f.store); err != nil {
			return usage("core init", "--store: %w", err)
		}
	}
	if net.ParseIP(f.host) == nil && strings.ContainsAny(f.host, "/:[]@ ") {
		return usage("core init", "--host %q: want a host name or an address, without a scheme and without a port", f.host)
	}
	out := coreMade{Config: filepath.Join(dir, configName)}
	c, err := g.coreConfig(dir, f, out.Config)
	if err != nil {
		return err
	}
	master, err := coreMaster(c, &out)
	if err != nil {
		return err
	}
	if f.store == "" && !f.create && f.releaseKey == "" {
		g.e.event("core", out)
		g.e.summary("%s\n  the configuration: name the store in it, and the sites\nThen run: nightferry core init %s --create-repository\n(or with --release-key FILE, for a repository that exists)", shown(out.Config), shown(dir))
		return nil
	}
	return g.coreKeys(ctx, dir, c, master, f, &out)
}

// vaultName is the vault's name in the data folder.
const vaultName = "vault"

// refuseCore fails if a whole Core is there already, and sets the vault of an unfinished one aside.
func refuseCore(data, path string) error {
	if absent, err := confirmAbsent(filepath.Join(data, vaultName)); err != nil || absent {
		return err
	}
	if absent, err := confirmAbsent(filepath.Join(data, core.InitMark)); err != nil {
		return err
	} else if absent {
		return &refusedError{"there is a Core in " + data + " already", "use it: nightferry core check --config " + path + "; another Core needs another folder, and another prefix in the store"}
	}
	root, err := durable.Open(data, durable.Options{Trusted: true})
	if err != nil {
		return err
	}
	aside := vaultName + ".unfinished"
	for n := 2; ; n++ {
		if _, err := root.Lstat(aside); err != nil {
			break
		}
		aside = fmt.Sprintf("%s.unfinished-%d", vaultName, n)
	}
	if err := errors.Join(root.Rename(vaultName, aside), root.Close()); err != nil {
		return fmt.Errorf("set the vault of an init that was interrupted aside: %w", err)
	}
	return nil
}

// coreConfig writes the configuration, unless one is there, and makes the
// folders that it names.
func (g coreSetup) coreConfig(dir string, f *coreInitFlags, path string) (*config.Config, error) {
	absent, err := confirmAbsent(path)
	if err != nil {
		return nil, err
	}
	host := f.host
	if host == "" {
		host = hostname()
	}
	if absent {
		root, err := durable.Open(dir, durable.Options{Create: true, Trusted: true})
		if err != nil {
			return nil, err
		}
		err = root.WriteFile(configName, config.Default(config.Starter{Dir: dir, Store: f.store, Host: host}), 0o644)
		if err := errors.Join(err, root.Close()); err != nil {
			return nil, err
		}
	}
	c, err := config.Load(path)
	if err != nil {
		return nil, err
	}
	if err := refuseCore(c.Data, path); err != nil {
		return nil, err
	}
	if c, err = correctConfig(c, dir, f, path); err != nil {
		return nil, err
	}
	if f.store != "" && c.Store != f.store {
		return nil, &refusedError{fmt.Sprintf("%s names another store than --store", path), "the file was edited since an earlier init wrote it: name the right store in it, or leave --store out"}
	}
	// Keys, ledger and the local socket. The folder of the logs is made by who writes them, for their readers to pass
	// through and no more.
	if err := durable.MkdirPrivate(c.Data); err != nil {
		return nil, err
	}
	if absent {
		if f.store != "" { // else people complete the configuration
			if err := (&initMark{data: c.Data}).write(); err != nil {
				return nil, err
			}
		}
		for _, ch := range c.Fleet.Channels {
			if err := os.MkdirAll(ch.Source, 0o755); err != nil {
				return nil, fmt.Errorf("make a folder: %w", err)
			}
		}
	}
	return c, nil
}

// correctConfig writes the configuration again if this command names another store or host, and the file is as an init
// wrote it that did not end well, perhaps because of that name.
func correctConfig(c *config.Config, dir string, f *coreInitFlags, path string) (*config.Config, error) {
	was := config.Starter{Dir: dir, Store: c.Store, Host: hostOf(c)}
	now := config.Starter{Dir: dir, Store: cmp.Or(f.store, was.Store), Host: cmp.Or(f.host, was.Host)}
	if absent, err := confirmAbsent(filepath.Join(c.Data, core.InitMark)); err != nil || absent {
		return c, err
	}
	b, err := durable.ReadTrusted(path, 1<<20)
	if err != nil || now == was || !bytes.Equal(b, config.Default(was)) {
		return c, err
	}
	root, err := durable.Open(dir, durable.Options{Trusted: true})
	if err != nil {
		return nil, err
	}
	if err := errors.Join(root.WriteFile(configName, config.Default(now), 0o644), root.Close()); err != nil {
		return nil, err
	}
	return config.Load(path)
}

// hostOf returns the name under which sites reach the Core.
func hostOf(c *config.Config) string {
	for _, raw := range c.Public {
		if u, err := url.Parse(raw); err == nil {
			return u.Hostname()
		}
	}
	return ""
}

// coreMaster returns the master key, made where there is none.
func coreMaster(c *config.Config, out *coreMade) (vault.Master, error) {
	if os.Getenv(vault.MasterEnv) != "" {
		return vault.LoadMaster("", os.Getenv)
	}
	out.MasterKey = c.MasterKeyFile
	absent, err := confirmAbsent(c.MasterKeyFile)
	if err != nil {
		return vault.Master{}, err
	}
	if absent {
		return vault.NewMasterFile(c.MasterKeyFile)
	}
	return vault.LoadMaster(c.MasterKeyFile, os.Getenv)
}

// coreKeys brings repository and vault together.
func (g coreSetup) coreKeys(ctx context.Context, dir string, c *config.Config, master vault.Master, f *coreInitFlags, out *coreMade) (err error) {
	o := core.InitOptions{Data: c.Data, Master: master, StoreURL: c.Store, Store: g.e.coreStore(), Now: g.e.now, Name: "nightferry Core " + hostname()}
	mark, err := readMark(c.Data)
	if err != nil {
		return err
	}
	if f.create {
		if err = g.createRepository(ctx, dir, c, f.encrypt, mark, &o, out); err != nil {
			return err
		}
	} else if err = adoptRepository(f, &o); err != nil {
		return err
	}
	if err := mark.write(); err != nil {
		return err
	}
	made, err := core.Init(core.WithActor(ctx, username()), o)
	if err != nil {
		return err
	}
	if err := mark.remove(); err != nil {
		return err
	}
	if err := removeFiles(mark.temporary()); err != nil {
		g.e.warn("%v: remove it by hand, since the vault holds it", err)
	}
	out.Store, out.Repo, out.Root, out.Fingerprint = shownStore(c.Store), made.Repo.String(), made.Root.String(), made.Fingerprint
	if pub := filepath.Join(dir, rootKeyName+publicExt); !f.create {
		if k, err := publicKey(rootUse, pub); err == nil && k != made.Root {
			g.e.warn("%s is not the root key of this repository: an earlier init made it for another one", pub)
		}
	}
	g.e.event("core", out)
	g.coreSummary(dir, c.Store, out)
	return nil
}

func (g coreSetup) coreSummary(dir, store string, out *coreMade) {
	g.e.summary("Core made in %s for repository %s", shown(dir), out.Repo)
	g.e.summary("  %-12s %s", "config", shown(out.Config))
	if out.MasterKey != "" {
		g.e.summary("  %-12s %s\n  %12s keep a copy elsewhere: without it the vault is lost", "master key", shown(out.MasterKey), "")
	}
	if out.RootKey != "" {
		g.e.summary("  %-12s %s\n  %12s take it away, to a place that is offline: it vouches for all others", "root key", shown(out.RootKey), "")
	}
	root := cmp.Or(out.RootKey, "ROOT-KEY-FILE")
	g.e.summary("Next: edit the configuration (the channel's source, the sites), then\n  nightferry core check, then nightferry core run.\nMake the on-call key now, while the root key is at hand. With it, nightferry halt\nSTORE works without this Core (docs/operations.md, \"The Core is gone\"):\n%s",
		examples("nightferry trust rotate --keep-old --root-key "+quoteArg(root)+" --keys DIR "+quoteArg(store)))
}

// coreStore is how the Core opens its store.
func (e *env) coreStore() bucket.Options {
	return bucket.Options{UserAgent: "nightferry-core/" + version()}
}

// createRepository makes the repository with keys that are durable before it exists.
func (g coreSetup) createRepository(ctx context.Context, dir string, c *config.Config, encrypt bool, mark *initMark, o *core.InitOptions, out *coreMade) (err error) {
	u, err := url.Parse(c.Store)
	if err != nil || u.Scheme != "s3" {
		return usage("core init", "store: want an s3:// URL")
	}
	rootBase := filepath.Join(dir, rootKeyName)
	rootKey, err := mark.keptPair(rootUse, rootBase)
	if err != nil {
		return err
	}
	if o.Release, err = mark.keptPair(releaseUse, filepath.Join(c.Data, releaseKeyName)); err != nil {
		return err
	}
	out.RootKey = rootBase + secretExt
	if encrypt {
		file := filepath.Join(c.Data, repositoryKeyName+secretExt)
		if err := mark.claim(file); err != nil {
			return err
		}
		if o.RepoKey, _, err = initKey(file, c.Data, true); err != nil {
			return err
		}
	}
	public := repo.PublicOf(rootKey)
	o.Root = &public
	store, err := bucket.Open(ctx, c.Store, o.Store)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bucket.Close(store)) }()
	_, err = repo.Init(ctx, store, repo.InitOptions{Key: o.RepoKey, Root: rootKey, Release: o.Release, Grace: 7 * 24 * time.Hour, Now: g.e.now()})
	switch {
	case errors.Is(err, repo.ErrExists):
		// An init before this one may have come so far, or the answer to a write of this one was lost. Keys are removed only
		// once it is sure that the repository is none of theirs.
		_, ours := repo.Open(ctx, store, repo.Options{Key: o.RepoKey, Root: &public, Now: g.e.now})
		if foreign := errors.Is(ours, trust.ErrUntrusted) || errors.Is(ours, repo.ErrKey); !foreign {
			return ours
		}
		return errors.Join(&existsError{fmt.Errorf("%s: %w, of another root key than %s", shownStore(c.Store), err, shown(rootBase+secretExt)),
			"name another prefix with --store, or take this repository over: --release-key FILE in place of --create-repository"}, mark.unmake())
	}
	return err
}

// adoptRepository reads the keys of a repository that exists.
func adoptRepository(f *coreInitFlags, o *core.InitOptions) (err error) {
	if o.Release, err = signingKey(releaseUse, f.releaseKey); err != nil {
		if isAbsentKey(err) && f.releaseKey == "" {
			return &keyError{fmt.Errorf("which release key: %w", fs.ErrNotExist), "make a repository with --create-repository, or adopt the one in the store with --release-key FILE"}
		}
		return err
	}
	if o.RepoKey, err = repositoryKey(f.keyFile); err != nil {
		return err
	}
	if f.trust != "" {
		var p trust.Public
		p, err = publicKey(rootUse, f.trust)
		o.Root = &p
	}
	return err
}

// quoteArg quotes an argument for a shell, if it needs that.
func quoteArg(arg string) string {
	if strings.ContainsAny(arg, " ?&*'\"$;()\\") {
		return "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
	}
	return arg
}
