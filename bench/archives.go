package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// makeArchives adds typical large content to the tree in dir: a tar, a zip, a WIM, and a raw disk image with a file
// system whose free space reads as zeros. before is the older tree: its image is copied and edited file by file, as a
// running machine would. It is empty for the first version.
func makeArchives(ctx context.Context, dir, before string, imageSize int64) error {
	for _, d := range []string{"archives", "images"} {
		// v2 is linked from v1: new folders, so that writing does not change the older tree's files.
		if err := os.RemoveAll(filepath.Join(dir, d)); err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	unpacked := filepath.Join(dir, "unpacked")
	if err := writeTar(filepath.Join(dir, "archives", "documents.tar"), unpacked, "usr/share/doc"); err != nil {
		return fmt.Errorf("make the tar: %w", err)
	}
	if err := writeZip(filepath.Join(dir, "archives", "libraries.zip"), unpacked, "usr/lib"); err != nil {
		return fmt.Errorf("make the zip: %w", err)
	}
	if err := tool(ctx, "", nil, "wimlib-imagex", "capture", unpacked, filepath.Join(dir, "images", "install.wim"),
		"corpus", "--compress=LZX", "--threads=2", "--no-acls"); err != nil {
		return fmt.Errorf("make the WIM: %w", err)
	}
	image := filepath.Join(dir, "images", "disk.img")
	if before != "" {
		return editImage(ctx, filepath.Join(before, "images", "disk.img"), image, filepath.Join(before, "unpacked"), unpacked)
	}
	content := filepath.Join(dir, "image-content")
	if err := linkWhileFits(unpacked, content, imageSize*6/10); err != nil {
		return fmt.Errorf("choose what the disk image holds: %w", err)
	}
	err := tool(ctx, "", []string{"E2FSPROGS_FAKE_TIME=1700000000"}, "mke2fs", "-q", "-F", "-t", "ext4", "-d", content,
		"-U", "0c9fba6a-3f5c-4a59-9a55-6f6e69676874", "-E", "hash_seed=0c9fba6a-3f5c-4a59-9a55-6f6e69676875",
		image, fmt.Sprintf("%dk", imageSize>>10))
	if err != nil {
		return fmt.Errorf("make the disk image: %w", err)
	}
	return os.RemoveAll(content)
}

// linkWhileFits links folders of from into to until their files hold limit bytes.
func linkWhileFits(from, to string, limit int64) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	var sum int64
	for _, e := range entries {
		s, err := shapeOf(filepath.Join(from, e.Name()))
		if err != nil {
			return err
		}
		if used := s.Bytes + int64(s.Files)*4096; sum+used <= limit {
			sum += used
			if err := linkTree(filepath.Join(from, e.Name()), filepath.Join(to, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// editImage copies an image and replaces, inside it, the files that differ between two trees.
func editImage(ctx context.Context, from, to, before, now string) error {
	if err := copyFile(from, to); err != nil {
		return fmt.Errorf("copy the disk image: %w", err)
	}
	var script bytes.Buffer
	err := filepath.WalkDir(before, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(before, p)
		if err != nil {
			return err
		}
		if strings.ContainsAny(rel, "\" \n") {
			return nil
		}
		was, err := os.Stat(p)
		if err != nil {
			return err
		}
		is, err := os.Stat(filepath.Join(now, rel))
		if err == nil && os.SameFile(was, is) {
			return nil
		}
		// debugfs continues after a file that the image does not hold.
		fmt.Fprintf(&script, "rm /%s\n", rel)
		if err == nil {
			fmt.Fprintf(&script, "write %s /%s\n", filepath.Join(now, rel), rel)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("list the changes of the disk image: %w", err)
	}
	commands := to + ".commands"
	if err := os.WriteFile(commands, script.Bytes(), 0o644); err != nil {
		return err
	}
	err = tool(ctx, "", []string{"E2FSPROGS_FAKE_TIME=1700003600"}, "debugfs", "-w", "-f", commands, to)
	return errors.Join(err, os.Remove(commands), os.Chtimes(to, time.Unix(1700003600, 0), time.Unix(1700003600, 0)))
}

// members calls fn for each regular file whose path contains part, in sorted order.
func members(dir, part string, fn func(rel string, i fs.FileInfo, r io.Reader) error) error {
	return filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.Contains(p, "/"+part+"/") {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		f, err := os.Open(p)
		if err != nil {
			return err
		}
		defer f.Close()
		i, err := f.Stat()
		if err != nil {
			return err
		}
		return fn(filepath.ToSlash(rel), i, f)
	})
}

func writeTar(to, dir, part string) error {
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	w := tar.NewWriter(f)
	err = members(dir, part, func(rel string, i fs.FileInfo, r io.Reader) error {
		h := &tar.Header{Name: rel, Mode: int64(i.Mode().Perm()), Size: i.Size(), ModTime: i.ModTime().Truncate(time.Second)}
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		_, err := io.Copy(w, r)
		return err
	})
	return errors.Join(err, w.Close(), f.Close())
}

func writeZip(to, dir, part string) error {
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	w := zip.NewWriter(f)
	err = members(dir, part, func(rel string, i fs.FileInfo, r io.Reader) error {
		m, err := w.CreateHeader(&zip.FileHeader{Name: rel, Method: zip.Deflate, Modified: i.ModTime().UTC().Truncate(2 * time.Second)})
		if err != nil {
			return err
		}
		_, err = io.Copy(m, r)
		return err
	})
	runtime.GC() // the deflate writer's windows; this process stays small while the tools run
	return errors.Join(err, w.Close(), f.Close())
}
