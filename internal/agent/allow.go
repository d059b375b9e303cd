package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"nightferry/internal/apply"
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

// coversState refuses an allowed folder that contains the agent's state, or that is inside it: the Core could replace
// the site's identity and this list.
func coversState(root, stateDir string) error {
	if !foldersOverlap(root, stateDir) {
		return nil
	}
	return fmt.Errorf("allowed folder %q: %w: the agent keeps its state in %q: name another folder, or keep the state elsewhere with --state", root, ErrTarget, stateDir)
}

// foldersOverlap reports whether one of two folders is the other or is inside it, whatever links lead there now.
func foldersOverlap(a, b string) bool {
	a, b = resolveLinks(a), resolveLinks(b)
	return isInside(a, b) || isInside(b, a)
}

// resolveLinks returns an absolute path without links. Links below the first missing name cannot be resolved.
func resolveLinks(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	for dir := path; ; dir = filepath.Dir(dir) {
		real, err := filepath.EvalSymlinks(dir)
		if err == nil {
			return filepath.Join(real, path[len(dir):])
		}
		if dir == filepath.Dir(dir) {
			return path
		}
	}
}

// isInside compares files as well as names: one folder may be mounted twice.
func isInside(path, dir string) bool {
	if _, ok := relativeBelow(dir, path); ok {
		return true
	}
	info, err := os.Stat(dir)
	for at := path; err == nil; at = filepath.Dir(at) {
		if other, err := os.Stat(at); err == nil && os.SameFile(info, other) {
			return true
		}
		if at == filepath.Dir(at) {
			break
		}
	}
	return false
}

// checkAllowed returns the cleaned target if it is an allowed folder or below one, with no link between the two. The
// folder must not contain the agent's state: links above it may have changed since the start.
func (id *Identity) checkAllowed(target string) (string, error) {
	clean, _, _, err := id.splitTarget(target)
	return clean, err
}

// openAllowed opens a target anew, for one try of a run. It checks and opens the target through the allowed folder,
// so that nothing is written outside of that, whatever is swapped for a link meanwhile.
func (id *Identity) openAllowed(target string, o durable.Options) (*durable.Root, error) {
	_, root, rest, err := id.splitTarget(target)
	if err != nil {
		return nil, err
	}
	r, err := durable.OpenBelow(root, filepath.ToSlash(rest), o)
	if err != nil {
		return nil, err
	}
	if err := coversState(root, id.dir); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// targetOpener returns the function with which apply opens a target.
func (id *Identity) targetOpener(target string) func(durable.Options) (*durable.Root, error) {
	return func(o durable.Options) (*durable.Root, error) { return id.openAllowed(target, o) }
}

// splitTarget also returns the allowed folder, and the part of the target below it.
func (id *Identity) splitTarget(target string) (clean, root, rest string, err error) {
	roots := id.Allow
	refuse := func(why string) (string, string, string, error) {
		return "", "", "", fmt.Errorf("%q: %w: %s (allowed: %s; change the list in %s)", target, ErrTarget, why, strings.Join(roots, ", "), siteFile)
	}
	if !filepath.IsAbs(target) || strings.ContainsRune(target, 0) {
		return refuse("it is no absolute path")
	}
	clean = filepath.Clean(target)
	for _, part := range strings.FieldsFunc(target, func(r rune) bool { return r == '/' || r == filepath.Separator }) {
		if part == ".." {
			return refuse("it holds ..")
		}
	}
	for _, root := range roots {
		rest, ok := relativeBelow(root, clean)
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
				return "", "", "", &apply.UnreadableError{Target: target, Err: err}
			}
			if !info.IsDir() || info.Mode()&(fs.ModeSymlink|fs.ModeIrregular) != 0 {
				return "", "", "", fmt.Errorf("target %q: %q: %w", target, at, durable.ErrLink)
			}
		}
		return clean, root, rest, coversState(root, id.dir)
	}
	return refuse("it lies elsewhere")
}

// relativeBelow returns what of path lies below root, "" for root itself.
func relativeBelow(root, path string) (string, bool) {
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
