package fleet

import (
	"fmt"
	"strings"
)

// A Core on one system names folders of sites on another, so these rules use
// only the text of a path, and no property of the local system.

// place is a parsed absolute path.
type place struct {
	volume  string // "" for POSIX, "c:", or "//server/share", folded where windows
	parts   []string
	windows bool
}

// parsePath parses an absolute POSIX or Windows path. It refuses texts that
// are ambiguous, or that mean another folder than they seem to.
func parsePath(text string) (place, error) {
	bad := func(why string) (place, error) { return place{}, fmt.Errorf("folder %q: %s", text, why) }
	if text != strings.TrimSpace(text) || text == "" {
		return bad("want a path without spaces around it")
	}
	for _, r := range text {
		if r < ' ' || r == 0x7f || r == 0xfffd {
			return bad("it holds a control character or is not UTF-8")
		}
	}
	var p place
	var rest string
	slashed := strings.ReplaceAll(text, `\`, "/")
	switch {
	case strings.HasPrefix(slashed, "//?/"), strings.HasPrefix(slashed, "//./"):
		return bad(`write it without \\?\ or \\.\`)
	case strings.HasPrefix(slashed, "//"):
		server, r, _ := strings.Cut(slashed[2:], "/")
		share, r, _ := strings.Cut(r, "/")
		if server == "" || share == "" {
			return bad(`want \\server\share\folder`)
		}
		p = place{volume: strings.ToLower("//" + server + "/" + share), windows: true}
		rest = r
	case len(slashed) >= 2 && slashed[1] == ':' && isLetter(slashed[0]):
		if len(slashed) < 3 || slashed[2] != '/' {
			return bad(`want an absolute path: write a \ after the drive`)
		}
		p = place{volume: strings.ToLower(slashed[:2]), windows: true}
		rest = slashed[3:]
	case text[0] == '/':
		// A backslash is legal in a POSIX name, but is almost certainly a
		// mistake.
		if strings.Contains(text, `\`) {
			return bad(`it mixes / and \`)
		}
		rest = text[1:]
	default:
		return bad(`want an absolute path: /srv/x, D:\x or \\server\share\x`)
	}
	for part := range strings.SplitSeq(strings.TrimSuffix(rest, "/"), "/") {
		switch {
		case part == "" && rest == "":
			continue
		case part == "":
			return bad("it has two slashes in a row")
		case part == "." || part == "..":
			return bad("it has . or .. in it")
		case p.windows && strings.ContainsAny(part, `<>:"|?*`):
			return bad(`Windows allows none of < > : " | ? * in a name`)
		case p.windows && strings.TrimRight(part, ". ") != part:
			return bad("Windows drops a dot or space at the end of a name")
		}
		if p.windows {
			part = strings.ToLower(part)
		}
		p.parts = append(p.parts, part)
	}
	return p, nil
}

func isLetter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }

// CheckFolder returns nil for an absolute POSIX, drive or UNC path in its
// plain form, on any system. It checks only the text.
func CheckFolder(path string) error {
	_, err := parsePath(path)
	return err
}

// CheckTarget is CheckFolder for a target. A target must not be the root of a
// volume or share, because a release owns all of its target.
func CheckTarget(path string) error {
	p, err := parsePath(path)
	if err == nil && len(p.parts) == 0 {
		return fmt.Errorf("folder %q: it is the root of a volume: name a folder below it", path)
	}
	return err
}

// Within reports whether the folder inner is outer or below it, judged by
// their text. Case matters only in POSIX paths. If CheckFolder refuses either
// path, it returns false.
func Within(inner, outer string) bool {
	i, err1 := parsePath(inner)
	o, err2 := parsePath(outer)
	if err1 != nil || err2 != nil || i.windows != o.windows || i.volume != o.volume || len(i.parts) < len(o.parts) {
		return false
	}
	for n, part := range o.parts {
		if i.parts[n] != part {
			return false
		}
	}
	return true
}

// SameFolder reports whether two paths name one folder, judged like [Within].
func SameFolder(a, b string) bool { return a == b || Within(a, b) && Within(b, a) }

// Overlap reports whether one of two folders is within the other.
func Overlap(a, b string) bool { return Within(a, b) || Within(b, a) }
