package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"nightferry/internal/durable"
)

// ErrTarget says that the Core has named a target that this site does not
// allow.
var ErrTarget = errors.New("the target is not in a folder that this site allows")

// cleanRoots checks an allow-list.
func cleanRoots(roots []string) (clean []string, err error) {
	for _, r := range roots {
		if !filepath.IsAbs(r) {
			return nil, fmt.Errorf("allowed folder %q: it must be an absolute path", r)
		}
		c := filepath.Clean(r)
		if c == filepath.VolumeName(c)+string(filepath.Separator) {
			return nil, fmt.Errorf("allowed folder %q: a whole volume is too much: name folders", r)
		}
		clean = append(clean, c)
	}
	return clean, nil
}

// allowed returns the cleaned target if it is one of roots or lies below one,
// with no link on the way from there.
func allowed(roots []string, target string) (string, error) {
	refuse := func(why string) (string, error) {
		return "", fmt.Errorf("%q: %w: %s (allowed: %s; change the list in %s)", target, ErrTarget, why, strings.Join(roots, ", "), siteFile)
	}
	if !filepath.IsAbs(target) || strings.ContainsRune(target, 0) {
		return refuse("it is no absolute path")
	}
	clean := filepath.Clean(target)
	for _, part := range strings.FieldsFunc(target, func(r rune) bool { return r == '/' || r == filepath.Separator }) {
		if part == ".." {
			return refuse("it holds ..")
		}
	}
	for _, root := range roots {
		rest, ok := below(root, clean)
		if !ok {
			continue
		}
		at := root
		for _, part := range append([]string{""}, strings.Split(rest, string(filepath.Separator))...) {
			at = filepath.Join(at, part)
			info, err := os.Lstat(at)
			if errors.Is(err, fs.ErrNotExist) {
				break
			}
			if err != nil {
				return "", fmt.Errorf("target %q: %w", target, err)
			}
			if !info.IsDir() || info.Mode()&(fs.ModeSymlink|fs.ModeIrregular) != 0 {
				return "", fmt.Errorf("target %q: %q: %w", target, at, durable.ErrLink)
			}
		}
		return clean, nil
	}
	return refuse("it lies elsewhere")
}

// below returns what of path lies below root, "" for root itself.
func below(root, path string) (string, bool) {
	if len(path) < len(root) || !samePath(path[:len(root)], root) {
		return "", false
	}
	rest := path[len(root):]
	if rest == "" {
		return "", true
	}
	return rest[1:], os.IsPathSeparator(rest[0])
}

func samePath(a, b string) bool {
	if runtime.GOOS == "windows" {
		return strings.EqualFold(a, b)
	}
	return a == b
}
