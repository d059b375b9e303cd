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

// coversState refuses an allowed folder in which the agent's own state lies, or
// which lies in that: the Core could replace the site's identity and this list.
func coversState(root, stateDir string) error {
	for _, r := range spellings(root) {
		for _, s := range spellings(stateDir) {
			_, in := below(r, s)
			if _, out := below(s, r); in || out {
				return fmt.Errorf("allowed folder %q: %w: the agent keeps its state in %q: name another folder, or keep the state elsewhere with --state", root, ErrTarget, stateDir)
			}
		}
	}
	return nil
}

// spellings are a path as it is written and as its links resolve.
func spellings(path string) []string {
	all := []string{path}
	if abs, err := filepath.Abs(path); err == nil {
		all = append(all, abs)
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		all = append(all, real)
	}
	return all
}

// allowed returns the cleaned target if it is one of roots or lies below one,
// with no link on the way from there.
func allowed(roots []string, target string) (string, error) {
	clean, _, _, err := placed(roots, target)
	return clean, err
}

// openAllowed opens a target anew, for one try of a run: it is judged and opened
// through the allowed folder, so that nothing is written outside of that,
// whatever is swapped for a link meanwhile.
func openAllowed(roots []string, target string, o durable.Options) (*durable.Root, error) {
	_, root, rest, err := placed(roots, target)
	if err != nil {
		return nil, err
	}
	return durable.OpenBelow(root, filepath.ToSlash(rest), o)
}

// opener returns what apply opens a target with.
func (a *agent) opener(target string) func(durable.Options) (*durable.Root, error) {
	return func(o durable.Options) (*durable.Root, error) { return openAllowed(a.id.Allow, target, o) }
}

// placed also returns the allowed folder, and what of the target is below it.
func placed(roots []string, target string) (clean, root, rest string, err error) {
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
				return "", "", "", fmt.Errorf("target %q: %w", target, err)
			}
			if !info.IsDir() || info.Mode()&(fs.ModeSymlink|fs.ModeIrregular) != 0 {
				return "", "", "", fmt.Errorf("target %q: %q: %w", target, at, durable.ErrLink)
			}
		}
		return clean, root, rest, nil
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
