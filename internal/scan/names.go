package scan

import (
	"strings"

	"golang.org/x/text/unicode/norm"

	"nightferry/internal/durable"
	"nightferry/internal/manifest"
)

// Names translates the names that a file system lists into those under which the entries were made. It serves file
// systems that list a name in another case or another Unicode normalization (durable.Traits.Alters). A nil *Names
// translates nothing. It is safe for concurrent use after the last Add.
type Names struct {
	keeps durable.Traits
	made  map[string]string // by NameKey of the path: the last element
}

// NewNames returns an empty Names, or nil if the file system lists every name as it was made.
func NewNames(keeps durable.Traits) *Names {
	if !keeps.Alters {
		return nil
	}
	return &Names{keeps: keeps, made: map[string]string{}}
}

// Add adds a path. Of two paths that the file system cannot distinguish, the first one counts.
func (n *Names) Add(path string) {
	key := NameKey(&n.keeps, path)
	if _, ok := n.made[key]; !ok {
		n.made[key] = strings.Clone(path[strings.LastIndexByte(path, '/')+1:])
	}
}

// AddAll adds the paths of all entries.
func (n *Names) AddAll(entries manifest.Next) error {
	for {
		e, err := entries()
		if e == nil || err != nil {
			return err
		}
		n.Add(e.Path)
	}
}

// translate returns the path of a listed entry, whose folder is translated already.
func (n *Names) translate(path string) string {
	cut := strings.LastIndexByte(path, '/') + 1
	if made, ok := n.made[NameKey(&n.keeps, path)]; ok && made != path[cut:] {
		return path[:cut] + made
	}
	return path
}

// NameKey returns the form of a path by which a file system compares it: two paths with one key are one entry.
func NameKey(keeps *durable.Traits, path string) string {
	if keeps.Compose {
		path = norm.NFC.String(path)
	}
	if keeps.Fold {
		path = manifest.Fold(path)
	}
	return path
}
