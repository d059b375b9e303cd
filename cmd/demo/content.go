package main

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
)

// copySource copies a channel's content to the Core's folder, because the demo changes it.
func (d *demo) copySource(ctx context.Context, c *channel) error {
	c.source = filepath.Join(d.dir, "core", c.name)
	from, err := filepath.EvalSymlinks(c.from) // some distributions make it a symbolic link
	if err != nil {
		return err
	}
	return fs.WalkDir(os.DirFS(from), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		to := filepath.Join(c.source, filepath.FromSlash(name))
		switch {
		case c.skip != "" && name == c.skip:
			return fs.SkipDir
		case e.IsDir():
			return os.MkdirAll(to, 0o755)
		case !e.Type().IsRegular():
			return nil
		}
		b, err := os.ReadFile(filepath.Join(from, filepath.FromSlash(name)))
		if err != nil {
			return err
		}
		return os.WriteFile(to, b, 0o644)
	})
}

// change prepares the second release of a channel. It edits every 50th file, removes every 400th, adds one file and
// renames the first folder.
func change(c channel) error {
	n := 0
	err := filepath.WalkDir(c.source, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		n++
		switch {
		case n%400 == 0:
			return os.Remove(name)
		case n%50 == 0:
			return edit(name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(c.source, "RELEASE-NOTES.txt"), []byte("The second release.\n"), 0o644); err != nil {
		return err
	}
	entries, err := os.ReadDir(c.source)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			old := filepath.Join(c.source, e.Name())
			// A user renames a folder; nightferry is not involved.
			return moveTree(old, filepath.Join(c.source, "renamed-"+e.Name()))
		}
	}
	return nil
}

func edit(name string) error {
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	return os.WriteFile(name, append(b, "\n// edited for the second release\n"...), 0o644)
}

// moveTree copies a folder and deletes the original, so that no inode is kept.
func moveTree(from, to string) error {
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		return err
	}
	return os.RemoveAll(from)
}

// drift damages a site's folder: it overwrites, deletes and truncates files and adds one.
func drift(dir string) error {
	var files []string
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() && path.Base(filepath.ToSlash(name)) == ".nightferry" {
			return fs.SkipDir
		}
		if info, err := e.Info(); err != nil {
			return err
		} else if info.Mode().IsRegular() && info.Size() > 1000 {
			files = append(files, name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if len(files) < 30 {
		return fmt.Errorf("the site has only %d files to play with", len(files))
	}
	b, err := os.ReadFile(files[3])
	if err != nil {
		return err
	}
	// Different bytes of the same size: a comparison of sizes would miss it.
	if err := os.WriteFile(files[3], bytes.ToUpper(b), 0o644); err != nil {
		return err
	}
	if err := os.Remove(files[11]); err != nil {
		return err
	}
	if err := os.Truncate(files[22], 500); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "note-of-this-site.txt"), []byte("ours\n"), 0o644)
}
