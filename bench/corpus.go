package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// corpus is content in two versions. The trees share unchanged files as hard links, so that they keep their inode and
// times, as in a folder that is edited in place.
type corpus struct {
	Packages       int // of Debian
	Updated        int // of those in two versions
	V1, V2         shape
	V1Sums, V2Sums sums
	Edits          map[string]int // edits to v2 by kind, with their number of files
	dir            string
}

type shape struct {
	Files int
	Bytes int64
}

func (c *corpus) v1() string { return filepath.Join(c.dir, "v1") }
func (c *corpus) v2() string { return filepath.Join(c.dir, "v2") }

// src is the path of the source for the tools. It is the same for both versions, since some tools recognise known files
// by their path.
func (c *corpus) src() string { return filepath.Join(c.dir, "src") }

// sizes bound the corpus: packages are unpacked as long as they fit.
type sizes struct {
	packages []string
	files    int
	unpacked int64
	image    int64 // bytes of the disk image
	edits    int   // files edited, for each kind of edit
}

func corpusSizes(quick bool) sizes {
	if quick {
		return sizes{few, 3000, 64 << 20, 128 << 20, 10}
	}
	return sizes{mixed, 22500, 1600 << 20, 2 << 30, 100}
}

// openCorpus builds the corpus in dir, or reuses that of an earlier run.
func openCorpus(ctx context.Context, dir string, quick bool, log *slog.Logger) (*corpus, error) {
	c := &corpus{dir: dir, Edits: map[string]int{}}
	done := filepath.Join(dir, "corpus.json")
	if err := loadJSON(done, c); err == nil {
		log.Info("corpus found", "dir", dir, "files", c.V1.Files, "bytes", c.V1.Bytes)
		return c, c.use(0)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	log.Info("corpus: building", "dir", dir)
	for _, d := range []string{"v1", "v2", "src"} {
		if err := os.RemoveAll(filepath.Join(dir, d)); err != nil {
			return nil, fmt.Errorf("clear the corpus: %w", err)
		}
	}
	size := corpusSizes(quick)
	if err := c.build(ctx, size, log); err != nil {
		return nil, fmt.Errorf("build the corpus: %w", err)
	}
	for _, v := range []struct {
		dir   string
		sums  *sums
		shape *shape
	}{{c.v1(), &c.V1Sums, &c.V1}, {c.v2(), &c.V2Sums, &c.V2}} {
		var err error
		if *v.sums, err = sumTree(ctx, v.dir); err != nil {
			return nil, err
		}
		if *v.shape, err = shapeOf(v.dir); err != nil {
			return nil, err
		}
	}
	log.Info("corpus built", "files", c.V1.Files, "bytes", c.V1.Bytes)
	return c, errors.Join(saveJSON(done, c), c.use(0))
}

// use makes version 1 or 2 the source, or removes the source (0).
func (c *corpus) use(version int) error {
	for n, dir := range []string{"", c.v1(), c.v2()} {
		if n == 0 {
			continue
		}
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			if err := os.Rename(c.src(), dir); err != nil {
				return fmt.Errorf("put version %d of the corpus away: %w", n, err)
			}
		}
	}
	if version == 0 {
		return nil
	}
	if err := os.Rename(filepath.Join(c.dir, fmt.Sprintf("v%d", version)), c.src()); err != nil {
		return fmt.Errorf("put version %d of the corpus in place: %w", version, err)
	}
	return nil
}

// build makes v1, then v2 from it: package updates, edits by hand, and archives and images made again from the result.
func (c *corpus) build(ctx context.Context, size sizes, log *slog.Logger) error {
	pool := filepath.Join(c.dir, "debs")
	pairs, err := download(ctx, pool, size.packages, log)
	if err != nil {
		return err
	}
	kept, err := c.unpack(ctx, c.v1(), pool, pairs, 0, size)
	if err != nil {
		return err
	}
	log.Info("corpus: images and archives of v1")
	if err := makeArchives(ctx, c.v1(), "", size.image); err != nil {
		return err
	}
	if err := linkTree(c.v1(), c.v2()); err != nil {
		return err
	}
	for _, p := range pairs {
		c.Packages++
		if p[0] == p[1] {
			continue
		}
		c.Updated++
		if err := c.update(ctx, pool, p, slices.Contains(kept, p[0])); err != nil {
			return err
		}
	}
	if c.Edits, err = edit(filepath.Join(c.v2(), "unpacked"), size.edits); err != nil {
		return err
	}
	log.Info("corpus: images and archives of v2")
	return makeArchives(ctx, c.v2(), c.v1(), size.image)
}

// unpack fills dir with the packages of one version and their unpacked files, as long as they fit. It returns those
// packages.
func (c *corpus) unpack(ctx context.Context, dir, pool string, pairs [][2]string, version int, size sizes) ([]string, error) {
	var kept []string
	var have shape
	for _, p := range pairs {
		deb := p[version]
		if err := copyFile(filepath.Join(pool, deb), filepath.Join(dir, "packages", deb)); err != nil {
			return nil, err
		}
		at := filepath.Join(dir, "unpacked", packageName(deb))
		if err := extract(ctx, filepath.Join(pool, deb), at); err != nil {
			return nil, err
		}
		s, err := shapeOf(at)
		if err != nil {
			return nil, err
		}
		if have.Files+s.Files > size.files || have.Bytes+s.Bytes > size.unpacked {
			if err := os.RemoveAll(at); err != nil {
				return nil, err
			}
			continue
		}
		have.Files, have.Bytes = have.Files+s.Files, have.Bytes+s.Bytes
		kept = append(kept, deb)
	}
	return kept, nil
}

// update replaces a package in v2 by its newer version.
func (c *corpus) update(ctx context.Context, pool string, p [2]string, unpacked bool) error {
	if err := os.Remove(filepath.Join(c.v2(), "packages", p[0])); err != nil {
		return err
	}
	if err := copyFile(filepath.Join(pool, p[1]), filepath.Join(c.v2(), "packages", p[1])); err != nil {
		return err
	}
	if !unpacked {
		return nil
	}
	at := filepath.Join(c.v2(), "unpacked", packageName(p[1]))
	if err := os.RemoveAll(at); err != nil {
		return err
	}
	if err := extract(ctx, filepath.Join(pool, p[1]), at); err != nil {
		return err
	}
	// A file that the update did not change keeps its inode.
	return shareEqual(filepath.Join(c.v1(), "unpacked", packageName(p[0])), at)
}

// packageName is the name in a file name as apt writes it: name_version_architecture.deb.
func packageName(deb string) string {
	name, _, _ := strings.Cut(deb, "_")
	return name
}

// extract unpacks a package; links are dropped, since half of the peers cannot carry them.
func extract(ctx context.Context, deb, at string) error {
	if err := os.MkdirAll(at, 0o755); err != nil {
		return err
	}
	if err := tool(ctx, "", nil, "dpkg-deb", "-x", deb, at); err != nil {
		return err
	}
	return filepath.WalkDir(at, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Type().IsRegular() {
			return err
		}
		return os.Remove(p)
	})
}

// download fetches each package in its two newest versions and returns the pairs of file names, older first; a package
// with one version is paired with itself.
func download(ctx context.Context, pool string, names []string, log *slog.Logger) ([][2]string, error) {
	if err := os.MkdirAll(pool, 0o755); err != nil {
		return nil, err
	}
	var pairs [][2]string
	for _, name := range names {
		versions, err := versionsOf(ctx, name)
		if err != nil {
			return nil, err
		}
		if len(versions) == 0 {
			log.Warn("corpus: no such package, left out", "package", name)
			continue
		}
		files := make([]string, len(versions))
		for i, v := range versions {
			if files[i], err = fetch(ctx, pool, name, v); err != nil {
				return nil, err
			}
		}
		pairs = append(pairs, [2]string{files[len(files)-1], files[0]}) // apt lists the newest first
	}
	if len(pairs) == 0 {
		return nil, errors.New("apt knows none of the packages: run apt-get update")
	}
	return pairs, nil
}

// versionsOf lists at most two versions of a package, the newest first.
func versionsOf(ctx context.Context, name string) ([]string, error) {
	out, err := exec.CommandContext(ctx, "apt-cache", "madison", name).Output()
	if err != nil {
		return nil, fmt.Errorf("ask apt for the versions of %s: %w", name, err)
	}
	var versions []string
	for s := bufio.NewScanner(bytes.NewReader(out)); s.Scan(); {
		f := strings.Split(s.Text(), "|")
		if len(f) < 3 || !strings.Contains(f[2], "Packages") {
			continue
		}
		if v := strings.TrimSpace(f[1]); !slices.Contains(versions, v) && len(versions) < 2 {
			versions = append(versions, v)
		}
	}
	return versions, nil
}

func fetch(ctx context.Context, pool, name, version string) (string, error) {
	// apt writes the epoch's colon as %3a.
	glob := filepath.Join(pool, name+"_"+strings.ReplaceAll(version, ":", "%3a")+"_*.deb")
	for range 2 {
		if m, err := filepath.Glob(glob); err != nil {
			return "", err
		} else if len(m) == 1 {
			return filepath.Base(m[0]), nil
		}
		if err := tool(ctx, pool, nil, "apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", name+"="+version); err != nil {
			return "", err
		}
	}
	return "", fmt.Errorf("download %s %s: apt-get succeeded but left no file", name, version)
}

// tool runs a system program; its output is reported only on failure.
func tool(ctx context.Context, dir string, env []string, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return fmt.Errorf("run %s: %w: apt-get install dpkg e2fsprogs wimtools", name, err)
		}
		return fmt.Errorf("run %s %s: %w\n%s", name, strings.Join(args, " "), err, out[max(0, len(out)-2000):])
	}
	return nil
}
