package fleet

import (
	"fmt"
	"slices"
	"strings"
)

// MaxName bounds the names of channels, domains, regions and sites in bytes.
const MaxName = 63

// CheckName returns nil if a channel, region, site or domain may have the
// name: [a-z0-9][a-z0-9-]{0,62}. Names are parts of subjects, paths and keys
// in the store; only these characters are safe in all of them.
func CheckName(name string) error {
	ok := name != "" && len(name) <= MaxName && name[0] != '-'
	for i := 0; ok && i < len(name); i++ {
		c := name[i]
		ok = c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-'
	}
	if !ok {
		return fmt.Errorf("name %q: want 1 to %d of a-z, 0-9 and -, and no - first", name, MaxName)
	}
	if isDevice(name) {
		return fmt.Errorf("name %q: Windows keeps it for a device, and names become folders: choose another", name)
	}
	return nil
}

// isDevice reports whether Windows opens a device instead of a file of that
// name.
func isDevice(name string) bool {
	switch name {
	case "con", "prn", "aux", "nul":
		return true
	}
	return len(name) == 4 && (strings.HasPrefix(name, "com") || strings.HasPrefix(name, "lpt")) && name[3] >= '0' && name[3] <= '9'
}

// CheckDomainName is CheckName for a domain, which also must not be named
// enrol or core: enrollment uses the first in subjects, the Core's own logs
// use the second as a folder.
func CheckDomainName(name string) error {
	if name == "enroll" || name == "core" {
		return fmt.Errorf("name %q: nightferry uses it itself: choose another", name)
	}
	return CheckName(name)
}

// Nearest finds the most similar of many known words, such as the paths of a
// release, for one that is not known.
type Nearest struct {
	word, best string
	dist       int
}

// NewNearest returns a Nearest for an unknown word.
func NewNearest(word string) *Nearest { return &Nearest{word: word, dist: 3} }

// Add takes a known word.
func (n *Nearest) Add(known string) {
	var d int
	switch {
	case strings.EqualFold(known, n.word):
		d = 0
	case strings.HasSuffix(known, "/"+n.word) || strings.HasSuffix(n.word, "/"+known): // a path with folders missing, or too many
		d = 1
	default:
		if d = editDistance(n.word, known, n.dist); d > len(n.word)/3 { // among two-letter words, none is similar
			return
		}
	}
	if d < n.dist {
		n.best, n.dist = known, d
	}
}

// Suggestion returns a question with the most similar word. Empty: none is
// similar.
func (n *Nearest) Suggestion() string {
	if n.best == "" {
		return ""
	}
	return fmt.Sprintf("did you mean %q?", n.best)
}

// Suggest returns the end of an error about an unknown word: the most similar
// known word, or all of them.
func Suggest(word string, known []string) string {
	near := NewNearest(word)
	for _, k := range known {
		near.Add(k)
	}
	if s := near.Suggestion(); s != "" {
		return s
	}
	if len(known) == 0 {
		return "there is none yet"
	}
	list := slices.Sorted(slices.Values(known))
	const shown = 12
	if more := len(list) - shown; more > 1 {
		return fmt.Sprintf("want one of %s and %d more", strings.Join(list[:shown], ", "), more)
	}
	return "want one of " + strings.Join(list, ", ")
}

// editDistance counts the inserted, deleted, replaced and swapped letters between
// two words. It stops counting at limit.
func editDistance(a, b string, limit int) int {
	if d := len(a) - len(b); d >= limit || -d >= limit {
		return limit
	}
	before, prev, cur := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], before[j-2]+1)
			}
		}
		before, prev, cur = prev, cur, before
	}
	return min(prev[len(b)], limit)
}
