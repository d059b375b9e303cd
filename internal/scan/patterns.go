package scan

import (
	"fmt"
	"strings"

	"github.com/bmatcuk/doublestar/v4"

	"nightferry/internal/manifest"
)

// Patterns select paths with the usual globs. In a pattern, * and ? match
// within one name, ** any number of folders, [a-z] one of several bytes and
// {x,y} alternatives.
//
//   - A pattern without a slash matches a name at any level: *.tmp.
//   - One with a slash at the start or in the middle matches from the top: /tmp, a/*.log.
//   - A slash at its end matches folders only: cache/.
//   - A pattern that matches a folder also matches everything below it.
//
// A path is selected if it matches an include, or there are none, and if it
// matches no exclude: excludes win. A nil *Patterns selects everything.
type Patterns struct {
	include, exclude []pattern
	fold             bool
}

type pattern struct {
	glob    string
	folders bool // folders only
	name    bool // matches the last name of a path, at any level
}

// ParsePatterns checks and compiles patterns. An error names the pattern and
// suggests a correction.
func ParsePatterns(include, exclude []string) (*Patterns, error) {
	p := &Patterns{}
	for _, list := range []struct {
		what string
		text []string
		to   *[]pattern
	}{{"include", include, &p.include}, {"exclude", exclude, &p.exclude}} {
		for _, text := range list.text {
			c, err := compilePattern(text)
			if err != nil {
				return nil, fmt.Errorf("%s pattern %q: %w", list.what, text, err)
			}
			*list.to = append(*list.to, c)
		}
	}
	return p, nil
}

func compilePattern(text string) (pattern, error) {
	bad := func(why string) (pattern, error) { return pattern{}, fmt.Errorf("%s", why) }
	switch {
	case strings.TrimSpace(text) == "":
		return bad("it is empty: leave it out")
	case text[0] == '!':
		return bad("there is no negation: use an include for wanted paths and an exclude for the others")
	case strings.Contains(text, `\`):
		return bad(`write / between folders; to match a * itself, write [*]`)
	}
	glob, folders := strings.CutSuffix(text, "/")
	c := pattern{folders: folders, name: !strings.Contains(glob, "/")}
	c.glob = strings.TrimPrefix(glob, "/")
	if c.glob == "" {
		return bad("it would match the root: leave it out")
	}
	for part := range strings.SplitSeq(c.glob, "/") {
		switch part {
		case "":
			return bad("it has two slashes in a row: write one")
		case ".", "..":
			return bad("it has . or .. in it: write the path as seen from the channel's folder")
		}
	}
	if !doublestar.ValidatePattern(c.glob) {
		return bad("it is not a glob: check that each [ and { is closed")
	}
	return c, nil
}

// FoldCase returns the same patterns, matching names as Windows does, without
// regard to case.
func (p *Patterns) FoldCase() *Patterns {
	if p == nil || p.fold {
		return p
	}
	q := &Patterns{fold: true}
	for _, c := range p.include {
		c.glob = manifest.Fold(c.glob)
		q.include = append(q.include, c)
	}
	for _, c := range p.exclude {
		c.glob = manifest.Fold(c.glob)
		q.exclude = append(q.exclude, c)
	}
	return q
}

func (c *pattern) matchPath(path string, dir bool) bool {
	if c.folders && !dir {
		return false
	}
	if c.name {
		path = path[strings.LastIndexByte(path, '/')+1:]
	} else if rest, ok := strings.CutSuffix(c.glob, "/**"); ok && doublestar.MatchUnvalidated(rest, path) {
		return false
	}
	return doublestar.MatchUnvalidated(c.glob, path)
}

func anyMatch(list []pattern, path string, dir bool) bool {
	for i := range list {
		if list[i].matchPath(path, dir) {
			return true
		}
	}
	return false
}

// isCovered reports whether a pattern matches the path or a folder above it.
func isCovered(list []pattern, path string, dir bool) bool {
	if len(list) == 0 {
		return false
	}
	for i := range len(path) {
		if path[i] == '/' && anyMatch(list, path[:i], true) {
			return true
		}
	}
	return anyMatch(list, path, dir)
}

// Skip reports whether a walk omits the path and, for a folder, everything
// below it; it fits [WalkOptions]. It assumes that the walk has already asked
// about the parent folders. It does not skip a folder that matches no include
// as long as something below it could match; [Patterns.Selects] distinguishes
// the two.
func (p *Patterns) Skip(path string, dir bool) bool {
	if p == nil {
		return false
	}
	if p.fold {
		path = manifest.Fold(path)
	}
	if anyMatch(p.exclude, path, dir) {
		return true
	}
	if len(p.include) == 0 || isCovered(p.include, path, dir) {
		return false
	}
	return !dir || !p.leadsTo(path)
}

// Selects reports whether the path itself is selected, not only a parent
// folder of paths that may be. It checks the parent folders itself, so it can
// be called for any path.
func (p *Patterns) Selects(path string, dir bool) bool {
	if p == nil {
		return true
	}
	if p.fold {
		path = manifest.Fold(path)
	}
	return !isCovered(p.exclude, path, dir) && (len(p.include) == 0 || isCovered(p.include, path, dir))
}

// leadsTo reports whether an include could match something below the folder.
func (p *Patterns) leadsTo(dir string) bool {
	for i := range p.include {
		c := &p.include[i]
		if c.name || prefixMatch(c.glob, dir) {
			return true
		}
	}
	return false
}

// prefixMatch reports whether a path below dir could match glob, name by name.
func prefixMatch(glob, dir string) bool {
	for dir != "" {
		if strings.HasPrefix(glob, "**") || strings.Contains(glob, "{") {
			return true // braces may hold slashes
		}
		g, gRest, more := strings.Cut(glob, "/")
		d, dRest, _ := strings.Cut(dir, "/")
		if !more || !doublestar.MatchUnvalidated(g, d) {
			return false
		}
		glob, dir = gRest, dRest
	}
	return true
}
