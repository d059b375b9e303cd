package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"nightferry/internal/bucket"
)

// refuseTarget fails for a folder that no pull may make a release: the root of
// a volume, and one that lies in the store or holds it.
func refuseTarget(dir, rawURL string) error {
	if root, err := volumeRoot(dir); err != nil || root != "" {
		return errOr(err, &refusedError{fmt.Sprintf("%s is the root of a volume, with everything that lies there: nothing was changed", root), "name a folder of its own for the channel, such as " + filepath.Join(root, "srv", "depot")})
	}
	how, err := overlap(dir, rawURL)
	if err != nil || how == "" {
		return err
	}
	return &refusedError{fmt.Sprintf("it %s, %s: a pull would change the store: nothing was changed", how, shownStore(rawURL)), "name a folder outside of the store"}
}

// refuseSource fails for a source that lies in the store or holds it: a push
// would publish the store's own objects, and more of them each time.
func refuseSource(dir, rawURL string) error {
	how, err := overlap(dir, rawURL)
	if err != nil || how == "" {
		return err
	}
	return &refusedError{fmt.Sprintf("the source %s, %s: nothing was published", how, shownStore(rawURL)), "keep the store outside of the content folder, or name a folder that holds only content"}
}

func errOr(err, other error) error {
	if err != nil {
		return err
	}
	return other
}

// volumeRoot returns the root that dir is, "" if it is none: /, C:\ or
// \\SERVER\SHARE.
func volumeRoot(dir string) (string, error) {
	real, err := realPath(dir)
	if err != nil {
		return "", err
	}
	if rest := real[len(filepath.VolumeName(real)):]; strings.Trim(rest, string(filepath.Separator)) != "" {
		return "", nil
	}
	return real, nil
}

// overlap tells how dir and the folder of a file:// store overlap, "" if they
// do not.
func overlap(dir, rawURL string) (string, error) {
	store := bucket.Folder(rawURL)
	if store == "" {
		return "", nil
	}
	dir, err := realPath(dir)
	if err != nil {
		return "", err
	}
	if store, err = realPath(store); err != nil {
		return "", err
	}
	switch holds, held := within(store, dir), within(dir, store); {
	case holds && held:
		return "is the folder of the store", nil
	case holds:
		return "holds the store", nil
	case held:
		return "lies in the store", nil
	}
	return "", nil
}

// realPath is path without links, as far as it exists.
func realPath(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	rest := ""
	for at := path; ; {
		if real, err := filepath.EvalSymlinks(at); err == nil {
			return filepath.Join(real, rest), nil
		}
		up := filepath.Dir(at)
		if up == at {
			return path, nil
		}
		at, rest = up, filepath.Join(filepath.Base(at), rest)
	}
}

// within reports whether path is dir or below it, by name or as the file system
// knows the folders: a name has more than one spelling where case or 8.3 names
// count for nothing.
func within(path, dir string) bool {
	want, err := os.Stat(dir)
	for at := path; ; {
		if at == dir {
			return true
		}
		if is, serr := os.Stat(at); err == nil && serr == nil && os.SameFile(is, want) {
			return true
		}
		up := filepath.Dir(at)
		if up == at {
			return false
		}
		at = up
	}
}
