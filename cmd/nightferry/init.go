package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"nightferry/internal/bucket"
	"nightferry/internal/durable"
	"nightferry/internal/repo"
	"nightferry/internal/seal"
)

// initFlags are what init can be told.
type initFlags struct {
	storeFlags
	keys             string
	encrypt          bool
	grace            string
	rootKey, release string
}

func newInit(e *env) *cobra.Command {
	var f initFlags
	cmd := e.command(verb{
		use:   "init [flags] STORE",
		short: "Make a repository in an empty store, and the keys that sign it",
		long: "Makes a repository under STORE and writes two key pairs into the folder of --keys: the root key, which vouches for all others and belongs offline, and the release key, which push needs. " +
			"With --encrypt everything in the store is sealed under a third key, from NIGHTFERRY_KEY or from the file of --key-file, which is made if it does not exist; every pull needs it too. " +
			"No key file is ever overwritten, and none can be made again: keep copies.",
		example: "nightferry init --keys /etc/nightferry file:///srv/store\nnightferry init --encrypt 's3://bucket/prefix?region=eu-west-1'",
		min:     1, max: 1,
		interrupt: resumes,
		run:       func(ctx context.Context, args []string) error { return e.init(ctx, args[0], &f) },
	})
	f.add(cmd)
	cmd.Flags().StringVar(&f.keys, "keys", ".", "`DIR` to write the key files to")
	cmd.Flags().BoolVar(&f.encrypt, "encrypt", false, "seal names and content under a repository key")
	cmd.Flags().StringVar(&f.grace, "grace", "7d", "`DURATION` that gc keeps unreferenced packs, such as 7d or 36h")
	cmd.Flags().StringVar(&f.rootKey, "root-key", "", "use the root key in `FILE` instead of making one")
	cmd.Flags().StringVar(&f.release, "release-key", "", "use the release key in `FILE` instead of making one")
	return cmd
}

// initiated is what init tells programs.
type initiated struct {
	Store      string   `json:"store"`
	Repo       string   `json:"repo"`
	Root       string   `json:"root"`        // public half, hexadecimal
	Release    string   `json:"release_key"` // public half, hexadecimal
	Encrypted  bool     `json:"encrypted"`
	GraceHours float64  `json:"grace_hours"`
	Files      []string `json:"files"`
}

func (e *env) init(ctx context.Context, rawURL string, f *initFlags) error {
	grace, err := parseDays(f.grace)
	if err != nil {
		return usage("init", "--grace: %w", err)
	}
	if grace < time.Second {
		return usage("init", "--grace %s: without a grace period gc would delete packs that a pull is reading", f.grace)
	}
	root, err := initPair(rootUse, f.rootKey, filepath.Join(f.keys, rootKeyName))
	if err != nil {
		return err
	}
	release, err := initPair(releaseUse, f.release, filepath.Join(f.keys, releaseKeyName))
	if err != nil {
		return err
	}
	store, err := e.openStore(ctx, rawURL, &f.storeFlags, true)
	if err != nil {
		return err
	}
	if err := refuseRepository(ctx, store, f.rootKey != "" && f.release != ""); err != nil {
		return err
	}
	if err := os.MkdirAll(f.keys, 0o700); err != nil {
		return fmt.Errorf("make the folder for keys: %w", err)
	}
	key, made, err := initKey(f.keyFile, f.keys, f.encrypt)
	if err != nil {
		return err
	}
	out := initiated{Store: shownStore(rawURL), Root: root.public().String(), Release: release.public().String(), Encrypted: f.encrypt, GraceHours: grace.Hours(), Files: made}
	// The keys come first: a repository whose keys were lost in a crash could
	// never be published to, and its place would be taken.
	for _, k := range []keyPair{root, release} {
		if k.base == "" {
			continue
		}
		if err := k.write(); err != nil {
			return err
		}
		out.Files = append(out.Files, k.base+secretExt, k.base+publicExt)
	}
	id, err := repo.Init(ctx, store, repo.InitOptions{Key: key, Root: root.key, Release: release.key, Grace: grace, Now: e.now()})
	if err == nil {
		err = repo.Probe(ctx, store)
	}
	if err != nil {
		if len(out.Files) > 0 {
			e.warn("the key files in %s are kept, since the repository may exist", f.keys)
		}
		return err
	}
	out.Repo = id.String()
	e.event("init", out)
	e.summary("repository %s made in %s", out.Repo, shown(out.Store))
	for _, p := range out.Files {
		e.summary("  %s", shown(p))
	}
	e.summary("root key %s\nKeep its secret half offline: it vouches for all other keys.", out.Root)
	if f.encrypt {
		e.summary("Every push and pull needs the repository key: without it the data can never be read.")
	}
	return nil
}

// initPair reads the key that the user names, or makes one to be written to
// base, where nothing may be yet.
func initPair(use, file, base string) (keyPair, error) {
	if file != "" {
		key, err := signingKey(use, file)
		return keyPair{use: use, key: key}, err
	}
	if err := refuseExisting(base+secretExt, base+publicExt); err != nil {
		return keyPair{}, err
	}
	return newKeyPair(use, base)
}

// refuseRepository fails where a repository is there already, and where the
// store cannot be read, before any key is written. Who brings both keys may be
// completing an init that was interrupted: Init decides.
func refuseRepository(ctx context.Context, s bucket.Store, completing bool) error {
	body, _, err := s.Get(ctx, "format", 0, -1)
	if err == nil {
		body.Close()
		if completing {
			return nil
		}
		return &existsError{repo.ErrExists, "choose another prefix in the store, or use the repository as it is; an init that was interrupted is completed with --root-key and --release-key, the files that it wrote"}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// initKey returns the key of an encrypted repository, made where its file does
// not exist yet.
func initKey(file, dir string, encrypt bool) (key []byte, made []string, err error) {
	if !encrypt {
		if file != "" {
			return nil, nil, usage("init", "--key-file without --encrypt: the repository would not be encrypted")
		}
		return nil, nil, nil
	}
	if file == "" && os.Getenv(envRepositoryKey) == "" {
		file = filepath.Join(dir, repositoryKeyName+secretExt)
		if err := refuseExisting(file); err != nil {
			return nil, nil, err
		}
	}
	if _, err := os.Lstat(file); file == "" || !errors.Is(err, fs.ErrNotExist) {
		key, err := repositoryKey(file)
		return key, nil, err
	}
	key = make([]byte, seal.KeySize)
	rand.Read(key) // never fails (crypto/rand)
	return key, []string{file}, durable.WritePrivate(file, []byte(hex.EncodeToString(key)+"\n"))
}
